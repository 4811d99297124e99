package event

import (
	"bytes"
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/vmihailenco/msgpack/v5"

	"bitnet1/shared/alloctest"
	"bitnet1/shared/digest"
	"bitnet1/shared/run/artifact"
)

// filled returns a copy of body with every field set to a value of its own, so that no field can be lost or swapped
// unnoticed.
func filled(body Body) Body {
	v := reflect.New(reflect.TypeOf(body)).Elem()
	n := 0
	fill(v, &n)
	return v.Interface().(Body)
}

func fill(v reflect.Value, n *int) {
	*n++
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), n)
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), n)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(v.Index(0), n)
		fill(v.Index(1), n)
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range 2 {
			key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			fill(key, n)
			fill(value, n)
			v.SetMapIndex(key, value)
		}
	case reflect.String:
		v.SetString(strings.Repeat("ä", *n%3) + string(rune('a'+*n%26)))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Float64:
		v.SetFloat(float64(*n) + 0.25)
	default:
		v.SetInt(int64(*n) << (7 * (*n % 5))) // all widths of integers
	}
}

// into is Into for a kind that is known only at run time.
func into(e Envelope, kind Body) (Body, error) {
	v := reflect.New(reflect.TypeOf(kind))
	err := Unmarshal(e.Body, v.Interface())
	return v.Elem().Interface().(Body), err
}

func TestEveryKindComesBackAsItWas(t *testing.T) {
	for _, zero := range Kinds() {
		for _, body := range []Body{zero, filled(zero)} {
			e, err := New("run-1", "some_stage", "job", Part{Index: 1, Count: 3}, body)
			if err != nil {
				t.Fatalf("%s: %v", body.Kind(), err)
			}
			b, err := e.Encode()
			if err != nil {
				t.Fatalf("%s: %v", body.Kind(), err)
			}
			got, err := Decode(b)
			if err != nil {
				t.Fatalf("%s: %v", body.Kind(), err)
			}
			if !reflect.DeepEqual(got, e) {
				t.Errorf("%s: envelope %+v came back as %+v", body.Kind(), e, got)
			}
			back, err := into(got, zero)
			if err != nil || !reflect.DeepEqual(back, body) {
				t.Errorf("%s: body %+v came back as %+v (%v)", body.Kind(), body, back, err)
			}
			if run, kind, ok := SplitSubject(e.Subject()); !ok || run != e.Run || kind != e.Kind {
				t.Errorf("subject %s splits into %s, %s", e.Subject(), run, kind)
			}
		}
	}
}

func TestIDDependsOnContentAlone(t *testing.T) {
	base := PackWritten{Step: 3}
	wrap := func(run, stage, job string, part Part, body Body) string {
		e, err := New(run, stage, job, part, body)
		if err != nil {
			t.Fatal(err)
		}
		e.Time += 1000
		if b, err := e.Encode(); err != nil {
			t.Error(err)
		} else if _, err := Decode(b); err != nil {
			t.Errorf("time is part of the id: %v", err)
		}
		return e.ID
	}
	id := wrap("r", "pack", "job", Part{}, base)
	if id != wrap("r", "other", "job2", Part{Index: 1, Count: 2}, base) {
		t.Error("who announced an event, for which job and part, changes its id")
	}
	if id == wrap("r", "pack", "job", Part{}, PackWritten{Step: 4}) {
		t.Error("the body does not change the id")
	}
	if id == wrap("r2", "pack", "job", Part{}, base) {
		t.Error("the run does not change the id")
	}
}

func TestIntoRefusesAnotherKind(t *testing.T) {
	e, err := New("r", "s", "", Part{}, PackWritten{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Into[ProbeWritten](e); err == nil ||
		!strings.Contains(err.Error(), "is a pack.written, not a probe.written") {
		t.Errorf("error %v", err)
	}
	if _, err := Into[PackWritten](e); err != nil {
		t.Error(err)
	}
}

// A field that this version does not know is ignored, so that later versions can add fields. A field of a wrong type is
// an error.
func TestBodiesMayHaveMoreFieldsButNoOtherTypes(t *testing.T) {
	raw, err := Marshal(map[string]any{"step": 7, "colour": []any{"red", map[string]any{"x": 1}}})
	if err != nil {
		t.Fatal(err)
	}
	e, err := Wrap("r", "s", "", Part{}, "pack.written", raw)
	if err != nil {
		t.Fatal(err)
	}
	if p, err := Into[PackWritten](e); err != nil || p.Step != 7 {
		t.Errorf("%+v, %v", p, err)
	}
	raw, err = Marshal(map[string]any{"step": "seven"})
	if err != nil {
		t.Fatal(err)
	}
	if e, err = Wrap("r", "s", "", Part{}, "pack.written", raw); err != nil {
		t.Fatal(err)
	}
	if _, err := Into[PackWritten](e); err == nil {
		t.Error("a step that is text was taken")
	}
}

func TestDecodeRefusesWhatIsNoEvent(t *testing.T) {
	good, err := New("run-1", "stage", "", Part{}, PackWritten{Step: 1})
	if err != nil {
		t.Fatal(err)
	}
	altered := func(change func(*Envelope)) []byte {
		e := good
		change(&e)
		b, err := Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	body := func(v any) []byte {
		raw, err := Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return altered(func(e *Envelope) { e.Body = raw; e.ID = e.digest() })
	}
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"nothing":           {nil, "truncated"},
		"nil":               {[]byte{0xc0}, "version 0"},
		"text":              {[]byte("\xa3abc"), ""},
		"newer version":     {altered(func(e *Envelope) { e.Version = 2 }), "version 2 is not supported"},
		"no version":        {altered(func(e *Envelope) { e.Version = 0 }), "version 0"},
		"kind of one word":  {altered(func(e *Envelope) { e.Kind = "pack" }), "noun.verb"},
		"kind with a star":  {altered(func(e *Envelope) { e.Kind = "pack.*" }), "noun.verb"},
		"run with dots":     {altered(func(e *Envelope) { e.Run = "../up" }), "use letters"},
		"run with newline":  {altered(func(e *Envelope) { e.Run = "a\n" }), "use letters"},
		"empty run":         {altered(func(e *Envelope) { e.Run = "" }), "use letters"},
		"id of other bytes": {altered(func(e *Envelope) { e.ID = strings.Repeat("0", 64) }), "damaged"},
		"short id":          {altered(func(e *Envelope) { e.ID = "0" }), "damaged"},
		"negative part":     {altered(func(e *Envelope) { e.Part = Part{Index: -1, Count: 2} }), "makes no sense"},
		"part past the end": {altered(func(e *Envelope) { e.Part = Part{Index: 2, Count: 2} }), "makes no sense"},
		"part of no set":    {altered(func(e *Envelope) { e.Part = Part{Index: 1} }), "makes no sense"},
		"no body":           {altered(func(e *Envelope) { e.Body = nil }), "not a map"},
		"body nil":          {body(nil), "not a map"},
		"body a list":       {body([]int{1, 2}), "not a map"},
		"bytes after it":    {append(altered(func(*Envelope) {}), 0xc0), "follow the value"},
		"too large":         {append(altered(func(*Envelope) {}), make([]byte, MaxSize)...), "more than"},
	} {
		if _, err := Decode(c.data); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q in it", name, err, c.want)
		}
	}
	if _, err := Decode(altered(func(*Envelope) {})); err != nil {
		t.Errorf("the unaltered event: %v", err)
	}
}

func TestAnyFlippedBitInTheBodyIsNoticed(t *testing.T) {
	e, err := New("run-1", "stage", "", Part{}, filled(CheckpointSaved{}))
	if err != nil {
		t.Fatal(err)
	}
	b, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	start := bytes.Index(b, e.Body)
	for i := start; i < len(b); i++ {
		for bit := range 8 {
			b[i] ^= 1 << bit
			if _, err := Decode(b); err == nil {
				t.Fatalf("byte %d, bit %d of the body is flipped and nothing noticed it", i-start, bit)
			}
			b[i] ^= 1 << bit
		}
	}
	for n := range len(b) {
		if _, err := Decode(b[:n]); err == nil {
			t.Fatalf("cut after %d of %d bytes and nothing noticed it", n, len(b))
		}
	}
}

func TestEncodeRefusesContentThatBelongsIntoAnArtifact(t *testing.T) {
	e, err := New("r", "s", "", Part{}, SourceAdded{Path: strings.Repeat("x", MaxSize)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Encode(); err == nil || !strings.Contains(err.Error(), "put the content into an artifact") {
		t.Errorf("error %v", err)
	}
}

func TestEqualValuesGiveEqualBytes(t *testing.T) {
	value := map[string]any{"b": 1, "a": 2, "c": map[string]any{"z": 1, "y": 2, "x": 3}}
	first, err := Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	for range 50 {
		again, err := Marshal(value)
		if err != nil || !bytes.Equal(first, again) {
			t.Fatalf("% x and % x (%v)", first, again, err)
		}
	}
}

func TestNumbersThatJSONDoesNotHaveAreShown(t *testing.T) {
	raw, err := Marshal(map[string]any{"loss": math.NaN(), "list": []any{math.Inf(1), map[string]any{"x": math.Inf(-1)}},
		"fine": 2.5, "text": "NaN"})
	if err != nil {
		t.Fatal(err)
	}
	v, err := Plain(raw)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(v)
	if want := `{"fine":2.5,"list":["+Inf",{"x":"-Inf"}],"loss":"NaN","text":"NaN"}`; err != nil || string(b) != want {
		t.Errorf("%s, want %s (%v)", b, want, err)
	}
	if _, err := Plain([]byte{0xdf, 0xff, 0xff, 0xff, 0xff}); err == nil {
		t.Error("a length was trusted")
	}
}

func TestSplitSubjectRefusesOthers(t *testing.T) {
	for _, subject := range []string{"", "bitnet1", "bitnet1.r.pack", "other.r.pack.written",
		"bitnet1.r.dead.pack.pack.written"} {
		if _, _, ok := SplitSubject(subject); ok {
			t.Errorf("%q was taken for an event's subject", subject)
		}
	}
}

// killers are short messages that claim great lengths. A decoder that does not check lengths allocates that much
// memory, and the process dies.
func killers() map[string][]byte {
	many := func(code byte) []byte { return []byte{code, 0xff, 0xff, 0xff, 0xff} }
	return map[string][]byte{
		"array of 2^32":     many(0xdd),
		"map of 2^32":       many(0xdf),
		"text of 2^32":      many(0xdb),
		"bytes of 2^32":     many(0xc6),
		"extension of 2^32": append(many(0xc9), 1),
		"array of 2^16":     {0xdc, 0xff, 0xff, 0xc0},
		"map of 2^16":       {0xde, 0xff, 0xff, 0xc0, 0xc0},
		"nested arrays":     bytes.Repeat([]byte{0x91}, 400_000),
		"nested maps":       bytes.Repeat([]byte{0x81, 0xa0}, 200_000),
		"reserved code":     {0xc1},
		"array in an array": {0x91, 0xdd, 0x7f, 0xff, 0xff, 0xff},
		"array in a map":    {0x81, 0xa4, 'b', 'o', 'd', 'y', 0xdd, 0xff, 0xff, 0xff, 0xff},
		"extension cut":     {0xd8, 1, 2},
		"float cut":         {0xcb, 0, 0},
		"length cut":        {0xdb, 0, 0},
	}
}

func TestUnmarshalNeverTrustsALength(t *testing.T) {
	for name, b := range killers() {
		for _, target := range []any{
			new(any), new([]int64), new([]string), new([]struct{ X int }), new(map[string]any), new(map[string]string),
			new(string), new([]byte), new(Envelope), new(RunStarted), new(msgpack.RawMessage),
		} {
			if err := Unmarshal(b, target); err == nil {
				t.Errorf("%s was decoded into a %T", name, target)
			}
		}
		if _, err := Decode(b); err == nil {
			t.Errorf("%s was decoded as an event", name)
		}
	}
}

func TestNestingUpToTheLimitIsFine(t *testing.T) {
	nested := func(depth int) []byte { return append(bytes.Repeat([]byte{0x91}, depth), 0xc0) }
	var v any
	if err := Unmarshal(nested(maxDepth), &v); err != nil {
		t.Error(err)
	}
	if err := Unmarshal(nested(maxDepth+1), &v); err == nil || !strings.Contains(err.Error(), "deeper") {
		t.Errorf("error %v", err)
	}
}

// TestBoundsKnowEveryCode compares the walk with the decoder, code by code.
func TestBoundsKnowEveryCode(t *testing.T) {
	for _, v := range []any{
		nil, true, false, 0, 127, 128, 255, 256, 65535, 65536, 1 << 40, -1, -32, -33, -129, -32769, -1 << 40,
		float32(1.5), 1.5, "", "a", strings.Repeat("a", 32), strings.Repeat("a", 256), strings.Repeat("a", 70000),
		[]byte{}, make([]byte, 256), make([]byte, 70000), []int{}, make([]int, 15), make([]int, 16), make([]int, 70000),
		map[string]int{}, map[string]int{"a": 1},
	} {
		b, err := Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if err := checkBounds(b); err != nil {
			t.Errorf("%T of %d bytes (code %#x): %v", v, len(b), b[0], err)
		}
		if len(b) > 1 {
			if err := checkBounds(b[:len(b)-1]); err == nil {
				t.Errorf("%T (code %#x): the last byte is missing and nothing noticed it", v, b[0])
			}
		}
	}
	for code, size := range map[byte]int{0xd4: 1, 0xd5: 2, 0xd6: 4, 0xd7: 8, 0xd8: 16} {
		if err := checkBounds(append([]byte{code, 1}, make([]byte, size)...)); err != nil {
			t.Errorf("extension %#x: %v", code, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, b := range killers() {
		f.Add(b)
	}
	for _, body := range Kinds() {
		e, err := New("run-1", "stage", "job", Part{}, filled(body))
		if err != nil {
			f.Fatal(err)
		}
		b, err := e.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var e Envelope
		var err error
		alloctest.AtMost(t, 1<<16+64*int64(len(b)), func() { e, err = Decode(b) })
		if err != nil {
			return
		}
		again, err := e.Encode()
		if err != nil {
			t.Fatalf("decoded but not encoded: %v", err)
		}
		back, err := Decode(again)
		if err != nil || !reflect.DeepEqual(e, back) {
			t.Fatalf("%+v came back as %+v (%v)", e, back, err)
		}
	})
}

// Inputs are digests, names and values, and never sentences: if somebody reworded a sentence, every job would be done
// again. The digest for TokensWritten is frozen, because it is part of the keys of recorded jobs.
func TestInputsAreNoSentences(t *testing.T) {
	for _, kind := range Kinds() {
		for _, in := range filled(kind).Inputs() {
			if strings.Contains(in, " ") {
				t.Errorf("%s: a job's key holds the sentence %q", kind.Kind(), in)
			}
		}
	}
	batch := artifact.Ref{Digest: digest.Bytes([]byte("batch")), Name: "a.arrow"}
	e := TokensWritten{Source: "a", Batch: batch, Documents: 3, Nulls: 1, Refused: "cut short"}
	const want = "c683c2b2e85ee537f5bffcc12b54f072ad61a8b63d1ede661fc87a5da2d02c9d"
	if in := e.Inputs(); len(in) != 2 || in[0] != batch.Digest || in[1] != want {
		t.Errorf("inputs %q, want the batch and %s", in, want)
	}
	e.Batch.Name = "b.arrow" // for people
	if in := e.Inputs(); in[1] != want {
		t.Error("the name of the batch's file counts")
	}
	for what, other := range map[string]TokensWritten{
		"rows without text": {Source: "a", Batch: batch, Documents: 3, Nulls: 2, Refused: "cut short"},
		"refused":           {Source: "a", Batch: batch, Documents: 3, Nulls: 1, Refused: "no parquet"},
		"odd rows": {Source: "a", Batch: batch, Documents: 3, Nulls: 1, Refused: "cut short",
			OddRows: []string{"row 3"}},
	} {
		if other.Inputs()[1] == want {
			t.Errorf("%s: the report says otherwise, and the job's key is the same", what)
		}
	}
}

// FuzzBody decodes arbitrary bytes as the body of every kind.
func FuzzBody(f *testing.F) {
	for _, b := range killers() {
		f.Add(b)
	}
	for _, body := range Kinds() {
		b, err := Marshal(filled(body))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, kind := range Kinds() {
			v := reflect.New(reflect.TypeOf(kind))
			alloctest.AtMost(t, 1<<16+64*int64(len(b)), func() {
				if Unmarshal(b, v.Interface()) == nil {
					_ = v.Elem().Interface().(Body).Inputs()
				}
			})
		}
		alloctest.AtMost(t, 1<<16+64*int64(len(b)), func() {
			var v any
			_ = Unmarshal(b, &v)
		})
	})
}
