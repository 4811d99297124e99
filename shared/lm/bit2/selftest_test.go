package bit2

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"bitnet1/kernels/cpu"
	"bitnet1/shared/lm/checkpoint"
	"bitnet1/shared/lm/model"
)

// part is a section to be, with a size that need not be that of its data.
type part struct {
	name string
	size int64
	data []byte
}

// withSections is a packed tinyV77 with other sections behind its tensors, and the right digest.
func withSections(t *testing.T, parts ...part) []byte {
	t.Helper()
	m := tinyV77()
	list, data, err := v2.packAll(m.Config, model.Each(m.Parameters))
	if err != nil {
		t.Fatal(err)
	}
	at := int64(len(data))
	sections := []section{{Name: tensorSection, Size: at}}
	for _, p := range parts {
		sections = append(sections, section{p.name, at, p.size})
		at += v2.padded(p.size)
		data = v2.pad(append(data, p.data...))
	}
	header, err := v2.formatHeader(m.Config, m.Provenance, sections, list)
	if err != nil {
		t.Fatal(err)
	}
	b := binary.LittleEndian.AppendUint32([]byte(magic), uint32(v2))
	b = binary.LittleEndian.AppendUint64(b, uint64(len(header)))
	return seal(append(slices.Concat(b, header, data), make([]byte, digestSize)...))
}

// Sections that a reader does not know are no concern of its; all bytes belong to one.
func TestSections(t *testing.T) {
	some := []byte("a later program knows what this is")
	text, err := json.Marshal(tinyTest(t))
	if err != nil {
		t.Fatal(err)
	}
	known := part{"selftest", int64(len(text)), text}
	later := part{"tokenizer", int64(len(some)), some}
	file := withSections(t, later, known, part{"nothing", 0, nil})
	f, err := New("model", bytes.NewReader(file), int64(len(file)))
	if err != nil {
		t.Fatal(err)
	}
	if test, err := f.SelfTest(); err != nil || !reflect.DeepEqual(test, tinyTest(t)) {
		t.Errorf("self-test %+v, %v", test, err)
	}
	if got, err := readAll(f); err != nil || len(got.Parameters) != len(tinyV77().Parameters) {
		t.Errorf("%d parameters, %v", len(got.Parameters), err)
	}
	for what, parts := range map[string][]part{
		"two of one name":        {later, later},
		"bytes behind a section": {{"later", 5, some}},
		"bytes of no section":    {later, {"nothing", 0, some}},
		"a section too long":     {{"later", 65, some}},
		"a negative size":        {{"later", -64, nil}, {"more", 64, nil}},
		"sizes that wrap":        {{"later", math.MaxInt64 - 63, nil}, {"more", math.MaxInt64 - 63, nil}, {"most", 128, nil}},
	} {
		if _, err := unpack(withSections(t, parts...)); err == nil || !strings.Contains(err.Error(), "section") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestSelfTestRefuses(t *testing.T) {
	for what, text := range map[string]string{
		"no JSON":              `{"tokens":`,
		"no tokens":            `{"tokens":[],"best":[],"logits":[]}`,
		"more than a sequence": `{"tokens":[0,0,0,0,0],"best":[0,0,0,0,0],"logits":[0,0,0,0,0]}`,
		"few best tokens":      `{"tokens":[0,0],"best":[0],"logits":[0,0]}`,
		"few logits":           `{"tokens":[0,0],"best":[0,0],"logits":[0]}`,
		"a negative token":     `{"tokens":[0,-1],"best":[0,0],"logits":[0,0]}`,
		"a token too high":     `{"tokens":[0,3],"best":[0,0],"logits":[0,0]}`,
		"a best one too high":  `{"tokens":[0,0],"best":[0,3],"logits":[0,0]}`,
	} {
		file := withSections(t, part{"selftest", int64(len(text)), []byte(text)})
		f, err := New("model", bytes.NewReader(file), int64(len(file)))
		if err != nil {
			t.Fatal(err)
		}
		if test, err := f.SelfTest(); err == nil || !strings.Contains(err.Error(), "self-test") {
			t.Errorf("%s: %+v, %v", what, test, err)
		}
	}
}

// The packed model passes the test of its checkpoint, and no other.
func TestSelfTest(t *testing.T) {
	m := small(v77, exact)
	net := loaded(t, m, TestedTokens(m.Config))
	settings := model.Settings{Gamma: m.Gamma, Mix: 1}
	test, err := NewSelfTest(net, settings)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := NewSelfTest(net, settings); err != nil || !reflect.DeepEqual(again, test) || len(test.Tokens) != 24 {
		t.Errorf("the tests of one model are %+v and %+v, %v", test, again, err)
	}
	packed := packTested(t, m, test)
	f, err := New("model", bytes.NewReader(packed), int64(len(packed)))
	if err != nil {
		t.Fatal(err)
	}
	stored, err := f.SelfTest()
	if err != nil || !reflect.DeepEqual(stored, test) {
		t.Fatalf("the file has %+v, %v, want %+v", stored, err, test)
	}
	read, settings, err := f.Inference(cpu.New(cpu.Options{}), 1, len(stored.Tokens))
	if err != nil {
		t.Fatal(err)
	}
	if err := stored.Check(read, settings); err != nil {
		t.Error(err)
	}
	for what, spoil := range map[string]func(*SelfTest){
		"best":  func(s *SelfTest) { s.Best[20] = (s.Best[20] + 1) % 61 },
		"logit": func(s *SelfTest) { s.Logits[20] = math.Nextafter32(s.Logits[20], 100) },
		"token": func(s *SelfTest) { s.Tokens[20] = (s.Tokens[20] + 1) % 61 },
	} {
		bad := &SelfTest{slices.Clone(test.Tokens), slices.Clone(test.Best), slices.Clone(test.Logits)}
		spoil(bad)
		if err := bad.Check(read, settings); err == nil || !strings.Contains(err.Error(), "after 21 tokens") {
			t.Errorf("another %s: %v", what, err)
		}
	}
}

// A model that has diverged has no self-test.
func TestNoSelfTestOfWhatDiverged(t *testing.T) {
	m := small(v77, exact)
	for i, p := range m.Parameters {
		if p.Name == "codebook.alpha" {
			m.Parameters[i].Data[7] = math.MaxFloat32
		}
	}
	if _, err := NewSelfTest(loaded(t, m, 8), model.Settings{Gamma: 0.5, Mix: 1}); err == nil ||
		!strings.Contains(err.Error(), "diverged") {
		t.Errorf("an infinite logit: %v", err)
	}
}

// loaded is the model on the CPU, for sequences of seq tokens.
func loaded(t testing.TB, m checkpoint.Model, seq int) *model.Model {
	t.Helper()
	net, _, err := checkpoint.Inference(cpu.New(cpu.Options{}), m.Config, m.Provenance, model.Each(m.Parameters), 1, seq)
	if err != nil {
		t.Fatal(err)
	}
	return net
}

// The logits after a token are compared to the last bit.
func TestCheckLogits(t *testing.T) {
	test := &SelfTest{Tokens: []int32{0, 2}, Best: []int32{1, 0}, Logits: []float32{3, 0.5}}
	for _, c := range []struct {
		i      int
		logits []float32
		equal  bool
	}{
		{0, []float32{2, 3, 3}, true},
		{0, []float32{3, 3, 1}, false}, // the first of equal ones
		{0, []float32{2, math.Nextafter32(3, 4), 1}, false},
		{1, []float32{0.5, -1, 0.25}, true},
		{1, []float32{2, 3, 3}, false},
		{1, []float32{0.5, float32(math.NaN()), 0.25}, false},
	} {
		if err := test.CheckLogits(c.i, c.logits); (err == nil) != c.equal {
			t.Errorf("token %d, logits %v: %v", c.i, c.logits, err)
		}
	}
}

// A model with a tokenizer of its own is written in version 2 and holds the tokenizer.json.
func TestTokenizerOfItsOwn(t *testing.T) {
	m := tiny()
	plain := pack(t, m)
	m.TokenizerFile = []byte(`{"model":{}}`)
	packed := pack(t, m)
	got, err := unpack(packed)
	if err != nil || !slices.Equal(got.TokenizerFile, m.TokenizerFile) {
		t.Errorf("%q, %v", got.TokenizerFile, err)
	}
	if plain[4] != 1 || packed[4] != 2 || Version(m.Config, m.Provenance) != 2 {
		t.Errorf("versions %d and %d", plain[4], packed[4])
	}
	m.TokenizerFile = nil
	if again := pack(t, m); !slices.Equal(again, plain) {
		t.Error("a model without a tokenizer of its own has other bytes")
	}
}
