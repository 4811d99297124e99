package bit2

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"bitnet1/kernels"
	"bitnet1/kernels/cpu"
	"bitnet1/kernels/number/float16"
	"bitnet1/shared/alloctest"
	"bitnet1/shared/lm/checkpoint"
	"bitnet1/shared/lm/model"

	"github.com/zeebo/blake3"
)

// v76 and v77 have widths that are no multiples of 64.
var (
	v76 = model.Config{Vocab: 61, D: 72, Layers: 2, Heads: 4, FF: 130, Seq: 24, Eps: 1e-5, StreamBits: 4,
		Alibi: true}.V76()
	v77 = v76.V77()
)

// small is a random model. scale rounds alpha and theta.
func small(c model.Config, scale func(float32) float32) checkpoint.Model {
	random := rand.New(rand.NewPCG(2, 2))
	m := checkpoint.Model{Config: c, Parameters: c.Parameters(), Provenance: checkpoint.Provenance{
		Step: 250, Tokens: 16_384_000, Tokenizer: "gpt2", Dataset: strings.Repeat("5e", 32),
		Recipe: json.RawMessage(`{"lr":0.003}`), Gamma: 0.7320508075688772, Mix: 1,
	}}
	for i, p := range m.Parameters {
		data := make([]float32, p.Size())
		for j := range data {
			x := float32(random.NormFloat64())
			switch {
			case strings.HasSuffix(p.Name, "alpha"):
				x = scale(0.1 + 0.02*x)
			case strings.HasSuffix(p.Name, "theta"):
				x = scale(0.3 * x)
			case len(p.Shape) == 1:
				x = 1 + 0.1*x
			case j%17 == 0:
				x = float32(math.Copysign(0, float64(x))) // sign(±0) = +1
			}
			data[j] = x
		}
		m.Parameters[i].Data = data
	}
	return m
}

func exact(x float32) float32 { return x }

func pack(t testing.TB, m checkpoint.Model) []byte {
	t.Helper()
	return packTested(t, m, nil)
}

func packTested(t testing.TB, m checkpoint.Model, test *SelfTest) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, m.Config, m.Provenance, model.Each(m.Parameters), test); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func unpack(b []byte) (checkpoint.Model, error) {
	f, err := New("model", bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return checkpoint.Model{}, err
	}
	return readAll(f)
}

// readAll keeps every parameter.
func readAll(f *File) (checkpoint.Model, error) {
	m := checkpoint.Model{Config: f.Config, Provenance: f.Provenance}
	for p, err := range f.Parameters() {
		if err != nil {
			return m, err
		}
		p.Data = slices.Clone(p.Data)
		m.Parameters = append(m.Parameters, p)
	}
	return m, nil
}

func TestRoundTrip(t *testing.T) {
	type scaled struct {
		model.Config
		scale func(float32) float32
	}
	for name, c := range map[string]scaled{
		"v76, float16": {v76, float16.Round}, "v76, float32": {v76, exact},
		"v77, float16": {v77, float16.Round}, "v77, float32": {v77, exact},
	} {
		want := small(c.Config, c.scale)
		if strings.HasSuffix(name, "float32") {
			want.Documents = model.Documents{Separate: true, EndOfText: 3}
		}
		packed := pack(t, want)
		if n, err := Size(want); err != nil || n != int64(len(packed)) {
			t.Errorf("%s: Size says %d, %v; %d bytes were written", name, n, err, len(packed))
		}
		got := reopened(t, packed)
		for _, p := range want.Parameters {
			if isCodebook(p) && c.CodebookBits > 1 {
				copy(p.Data, got.Parameters[1].Data) // TestCodebookRoundTrip compares levels
			}
			for i, w := range p.Data {
				if len(p.Shape) == 2 && kindOf(c.Config, p) == kindSign {
					p.Data[i] = -1
					if w >= 0 {
						p.Data[i] = 1
					}
				}
			}
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: the model came back different", name)
		}
		if again := pack(t, got); !bytes.Equal(again, packed) {
			t.Errorf("%s: packing what was unpacked gives other bytes", name)
		}
	}
}

// reopened writes a packed model to a file and reads the file.
func reopened(t *testing.T, packed []byte) checkpoint.Model {
	t.Helper()
	path := filepath.Join(t.TempDir(), "model.bit2")
	if err := os.WriteFile(path, packed, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	got, err := readAll(f)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	return got
}

// A model is written in the first version that has words for it.
func TestVersions(t *testing.T) {
	for want, options := range map[int][]func(*model.Config){
		1: {func(*model.Config) {}, func(c *model.Config) { c.StreamBits = kernels.FloatBits },
			func(c *model.Config) {
				c.HiddenBits, c.QueryBits, c.ValueBits, c.ReadBits, c.CodebookBits = 1, 1, 1, 1, 1
			}},
		2: {func(c *model.Config) { c.HiddenBits = 2 }, func(c *model.Config) { c.ValueBits = 8 },
			func(c *model.Config) { c.ValueBits, c.ReadBits = 2, 2 }, func(c *model.Config) { c.CodebookBits = 3 },
			func(c *model.Config) { c.Hadamard = 8 }, func(c *model.Config) { *c = c.V77() }},
		3: {func(c *model.Config) { c.QueryBits = 2 }, func(c *model.Config) { *c = c.V77(); c.QueryBits = 8 }},
	} {
		for _, set := range options {
			m := small(v76, exact)
			set(&m.Config)
			packed := pack(t, m)
			if got := binary.LittleEndian.Uint32(packed[4:]); int(got) != want || Version(m.Config, m.Provenance) != want {
				t.Errorf("%+v is written in version %d, and to be in version %d; want %d", m.Config, got,
					Version(m.Config, m.Provenance), want)
			}
			if got, err := unpack(packed); err != nil || got.Config.HiddenBits > 1 != (m.Config.HiddenBits > 1) ||
				got.Config.Queries() != m.Config.Queries() || got.Config.Hadamard != m.Config.Hadamard ||
				got.Config.Codebook() != m.Config.Codebook() {
				t.Errorf("%+v came back as %+v, %v", m.Config, got.Config, err)
			}
		}
	}
}

// A reader may map the file: every tensor begins at a multiple of 64 bytes, and the weights of q, k and v are one
// matrix.
func TestMapped(t *testing.T) {
	c := v77
	c.D, c.Hadamard = 128, 128
	packed := pack(t, small(c, exact))
	f, err := New("model", bytes.NewReader(packed), int64(len(packed)))
	if err != nil {
		t.Fatal(err)
	}
	data := prefixSize + int64(binary.LittleEndian.Uint64(packed[8:]))
	at := map[string]int64{}
	for _, e := range f.list {
		at[e.Name] = data + e.Offset
		if at[e.Name]%64 != 0 {
			t.Errorf("%s begins at %d", e.Name, at[e.Name])
		}
	}
	for l := range c.Layers {
		name := fmt.Sprintf("blocks.%d.attn.", l)
		q, size := at[name+"q.weight"], int64(c.D*c.D/8)
		if at[name+"k.weight"] != q+size || at[name+"v.weight"] != q+2*size {
			t.Errorf("layer %d: weights of q, k and v begin at %d, %d and %d", l, q, at[name+"k.weight"], at[name+"v.weight"])
		}
	}
}

// TestSameComputation holds a packed model to its checkpoint: the same pointers and, to the last bit, the same logits.
func TestSameComputation(t *testing.T) {
	v77strict, v77mixed, queries := v76, v77, v77
	queries.QueryBits = 4
	v77strict.StreamBits, v77strict.CodebookBits, v77strict.Hadamard = 1, 8, 8
	v77mixed.HiddenBits, v77mixed.ReadBits, v77mixed.CodebookBits = 2, 3, 2
	for _, c := range []struct {
		model.Config
		scaleBits, streamBits int
		scale                 func(float32) float32
	}{
		{v76, 16, 1, float16.Round}, {v76, 16, 4, float16.Round}, {v76, 32, 1, exact}, {v76, 32, kernels.FloatBits, exact},
		{v77, 16, 4, float16.Round}, {v77mixed, 32, 3, exact}, {v77strict, 32, 1, exact},
		{queries, 16, 4, float16.Round},
	} {
		m := small(c.Config, c.scale)
		m.Config.StreamBits = c.streamBits
		packed, err := unpack(pack(t, m))
		if err != nil {
			t.Fatal(err)
		}
		wantLogits, wantPointers := run(t, m, c.scaleBits)
		logits, pointers := run(t, packed, c.scaleBits)
		if !slices.Equal(pointers, wantPointers) {
			t.Errorf("scales of %d bits: pointers differ", c.scaleBits)
		}
		if !slices.Equal(logits, wantLogits) {
			t.Errorf("scales of %d bits: logits differ", c.scaleBits)
		}
	}
}

func run(t *testing.T, m checkpoint.Model, scaleBits int) (logits []float32, pointers []int32) {
	t.Helper()
	net, err := model.New(m.Config, cpu.New(cpu.Options{}), model.Options{Inference: true, ScaleBits: scaleBits})
	if err != nil {
		t.Fatal(err)
	}
	if err := net.Load(model.Each(m.Parameters)); err != nil {
		t.Fatal(err)
	}
	tokens := make([]int32, m.Config.Seq)
	for i := range tokens {
		tokens[i] = int32(i * 29 % m.Config.Vocab)
	}
	logits, err = net.Logits(tokens, 0, len(tokens), model.Settings{Gamma: m.Gamma, Mix: m.Mix})
	if err != nil {
		t.Fatal(err)
	}
	for l := range m.Config.Layers {
		p, err := net.Pointers(l)
		if err != nil {
			t.Fatal(err)
		}
		pointers = append(pointers, p...)
	}
	return logits, pointers
}

// TestPresetSizes holds the sizes that the document states to those of the format; the PyTorch project's README says 45
// MB for 300M. A v77 has three bits more for every weight of its codebook.
func TestPresetSizes(t *testing.T) {
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	page := strings.Join(strings.Fields(string(text)), " ")
	before, as77, _ := strings.Cut(page, "as a v77, ")
	for preset, megabytes := range map[string]float64{"300M": 41, "75M": 10} {
		c, err := model.Preset(preset)
		if err != nil {
			t.Fatal(err)
		}
		more := 3 * float64(c.Vocab*c.D) / 8e6
		for _, f := range []struct {
			model.Config
			megabytes float64
			page      string
		}{{c, megabytes, before}, {c.V77(), megabytes + more, as77}} {
			n, err := Size(checkpoint.Model{Config: f.Config, Parameters: f.Parameters()})
			if err != nil || math.Abs(float64(n)/1e6-f.megabytes) > 0.5 {
				t.Errorf("%s packs to %d bytes (%v), want about %v MB", preset, n, err, f.megabytes)
			}
			stated := fmt.Sprintf("the %s preset takes %d,%03d,%03d bytes", preset, n/1e6, n/1e3%1e3, n%1e3)
			if !strings.Contains(f.page, stated) {
				t.Errorf("%s does not state: %s", document, stated)
			}
		}
	}
}

func TestWriteRefuses(t *testing.T) {
	for name, spoil := range map[string]func(*checkpoint.Model){
		"blended weights": func(m *checkpoint.Model) { m.Mix = 0.5 },
		"missing tensor":  func(m *checkpoint.Model) { m.Parameters = m.Parameters[1:] },
	} {
		m := small(v77, exact)
		spoil(&m)
		if Write(&bytes.Buffer{}, m.Config, m.Provenance, model.Each(m.Parameters), nil) == nil {
			t.Errorf("%s: written", name)
		}
	}
}

func TestRefusesEveryFlippedBitAndTruncation(t *testing.T) {
	for name, good := range map[string][]byte{"version 1": pack(t, tiny()), "version 2": pack(t, tinyV77())} {
		for i := range good {
			for bit := range 8 {
				bad := slices.Clone(good)
				bad[i] ^= 1 << bit
				if _, err := unpack(bad); err == nil {
					t.Fatalf("%s: bit %d of byte %d flipped: accepted", name, bit, i)
				}
			}
			if _, err := unpack(good[:i]); err == nil {
				t.Fatalf("%s: cut to %d bytes: accepted", name, i)
			}
		}
		if _, err := unpack(append(slices.Clone(good), 0)); err == nil {
			t.Errorf("%s: a byte more: accepted", name)
		}
	}
}

// seal replaces the digest by the right one, as a forger would.
func seal(b []byte) []byte {
	body := slices.Clone(b[:len(b)-digestSize])
	digest := blake3.Sum256(body)
	return append(body, digest[:]...)
}

// TestRefusesForgeries changes a file and its digest: the contents must contradict nothing.
func TestRefusesForgeries(t *testing.T) {
	good := pack(t, tiny())
	header := int64(binary.LittleEndian.Uint64(good[8:]))
	edit := func(old, new string) []byte {
		if len(old) != len(new) || bytes.Count(good, []byte(old)) == 0 {
			t.Fatalf("%q does not stand for %q", new, old)
		}
		return bytes.Replace(good, []byte(old), []byte(new), 1)
	}
	put := func(at int, b ...byte) []byte {
		bad := slices.Clone(good)
		copy(bad[at:], b)
		return bad
	}
	for name, bad := range map[string][]byte{
		"magic":          put(0, 'b'),
		"later version":  put(4, 3),
		"version 0":      put(4, 0),
		"another layout": put(4, 2),
		"header length":  put(8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f),
		"odd header":     put(8, good[8]+1),
		"header":         put(prefixSize, '['),
		"configuration":  edit(`"ff":2`, `"ff":3`),
		"huge":           edit(`"vocab":3,"d":2`, `"vocab":9,"d":9`),
		"unknown key":    edit(`"alibi"`, `"alibj"`),
		"step":           edit(`"step":"7"`, `"step":"x"`),
		"kind":           edit(`"codebook.weight","kind":"sign"`, `"codebook.weight","kind":"f32" `),
		"sign of vector": edit(`"norm_out","kind":"f32"`, `"norm_out","kind":"zig"`),
		"name":           edit(`"name":"norm_out"`, `"name":"norm_in_"`),
		"shape":          edit(`"shape":[3,2]`, `"shape":[2,3]`),
		"offset":         edit(`"offset":8`, `"offset":0`),
		"vector sign": bytes.Replace(good, []byte(`"norm_out","kind":"f32",`), []byte(`"norm_out","kind":"sign",`),
			1),
		"row padding":  put(int(prefixSize+header+8), 0x80),
		"extra data":   slices.Insert(slices.Clone(good), len(good)-digestSize, make([]byte, 8)...),
		"missing data": slices.Delete(slices.Clone(good), len(good)-digestSize-8, len(good)-digestSize),
	} {
		if _, err := unpack(seal(bad)); err == nil {
			t.Errorf("%s: accepted", name)
		} else if strings.Contains(err.Error(), "digest") {
			t.Errorf("%s: the digest was to be right: %v", name, err)
		}
	}
	if _, err := unpack(seal(good)); err != nil {
		t.Errorf("the file itself is refused: %v", err)
	}
}

// inVersion packs m in a version that is not the model's.
func inVersion(t *testing.T, v version, m checkpoint.Model) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := write(&b, v, m.Config, m.Provenance, model.Each(m.Parameters), nil); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// What version 2 has beside version 1 is held to the configuration, too.
func TestRefusesForgeriesOfVersion2(t *testing.T) {
	good := packTested(t, tinyV77(), tinyTest(t))
	for name, change := range map[string]struct{ old, new string }{
		"bits":                  {`"bits":2`, `"bits":3`},
		"unit":                  {`"unit":0.49785`, `"unit":0.49784`},
		"no unit":               {`"unit":0.49785`, `"unix":0.49785`},
		"signs":                 {`"kind":"planes"`, `"kind":"sign"  `},
		"planes of a block":     {`"blocks.0.up.weight","kind":"sign"`, `"blocks.0.up.weight","kind":"plan"`},
		"tensor not aligned":    {`"shape":[2],"offset":64`, `"shape":[2],"offset":56`},
		"another first":         {`"tensors","offset":0`, `"tensorz","offset":0`},
		"size of tensors":       {`"offset":0,"size":1`, `"offset":0,"size":2`},
		"place of a section":    {`"selftest","offset":1`, `"selftest","offset":2`},
		"size of a section":     {`"offset":1536,"size":8`, `"offset":1536,"size":3`},
		"two of one name":       {`"selftest","offset":`, `"tensors","offset": `},
		"bits of configuration": {`"codebook_bits":2`, `"codebook_bits":3`},
	} {
		if bytes.Count(good, []byte(change.old)) == 0 {
			t.Errorf("%s: there is no %s", name, change.old)
			continue
		}
		bad := bytes.Replace(good, []byte(change.old), []byte(change.new), 1)
		if longer := len(bad) - len(good); longer != 0 {
			t.Errorf("%s: %d bytes longer", name, longer)
		}
		if _, err := unpack(seal(bad)); err == nil || strings.Contains(err.Error(), "digest") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A file of a version says nothing that the version has no words for; later versions have words for all models of
// earlier ones.
func TestModelsInTheOtherVersion(t *testing.T) {
	if _, err := unpack(inVersion(t, v1, tinyV77())); err == nil ||
		!strings.Contains(err.Error(), "version 1 does not have") {
		t.Errorf("a v77 in version 1: %v", err)
	}
	queries := tinyV77()
	queries.Config.QueryBits = 4
	if _, err := unpack(inVersion(t, v2, queries)); err == nil ||
		!strings.Contains(err.Error(), "version 2 does not have") {
		t.Errorf("queries of levels in version 2: %v", err)
	}
	m := small(v76, exact)
	want, err := unpack(pack(t, m))
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []version{v2, v3} {
		if got, err := unpack(inVersion(t, v, m)); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("a v76 in version %d is another model (%v)", v, err)
		}
	}
}

func TestLaterVersion(t *testing.T) {
	later := pack(t, tiny())
	later[4] = 4
	const want = "version 4, and this program reads versions up to 3: update this program"
	if _, err := unpack(later); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("version 4: %v", err)
	}
}

func FuzzRead(f *testing.F) {
	for _, good := range [][]byte{pack(f, tiny()), packTested(f, tinyV77(), tinyTest(f))} {
		f.Add(good)
		f.Add(good[:100])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		// A header of a byte for each tensor, and four bytes for each bit.
		bound := int64(1<<18 + 512*len(b))
		alloctest.AtMost(t, bound, func() { unpack(b) })
		if len(b) < prefixSize+digestSize {
			return
		}
		var m checkpoint.Model
		var err error
		alloctest.AtMost(t, bound, func() { m, err = unpack(seal(b)) })
		if err != nil {
			return
		}
		if err := m.Check(); err != nil {
			t.Fatalf("accepted what is no model: %v", err)
		}
		for _, p := range m.Parameters {
			for _, w := range p.Data {
				if kindOf(m.Config, p) == kindSign && w != 1 && w != -1 {
					t.Fatalf("%s holds %v", p.Name, w)
				}
			}
		}
	})
}

// Stored says where weights lie in the file, and has all else.
func TestStored(t *testing.T) {
	for _, c := range []model.Config{v76, v77} {
		packed := pack(t, small(c, exact))
		f, err := New("model", bytes.NewReader(packed), int64(len(packed)))
		if err != nil {
			t.Fatal(err)
		}
		want, err := readAll(f)
		if err != nil {
			t.Fatal(err)
		}
		i := 0
		for s, err := range f.Stored() {
			if err != nil {
				t.Fatal(err)
			}
			due := want.Parameters[i]
			if s.Name != due.Name || !slices.Equal(s.Shape, due.Shape) {
				t.Fatalf("%s %v where %s %v is due", s.Name, s.Shape, due.Name, due.Shape)
			}
			data := s.Data
			if len(s.Shape) == 2 {
				if s.Data != nil {
					t.Errorf("the weights of %s are read", s.Name)
				}
				data = make([]float32, s.Parameter.Size())
				if err := f.list[i].decode(data, packed[s.At:][:s.Size], c.Codebook()); err != nil {
					t.Fatal(err)
				}
			}
			if !slices.Equal(data, due.Data) {
				t.Errorf("%s has other values", s.Name)
			}
			i++
		}
		if i != len(want.Parameters) {
			t.Errorf("%d parameters, want %d", i, len(want.Parameters))
		}
	}
}
