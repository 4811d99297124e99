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
	"bitnet1/shared/lm/checkpoint"
	"bitnet1/shared/lm/model"

	"github.com/zeebo/blake3"
)

// small is a random model with widths that are no multiples of 64. scale rounds alpha and theta.
func small(scale func(float32) float32) checkpoint.Model {
	random := rand.New(rand.NewPCG(2, 2))
	c := model.Config{Vocab: 61, D: 72, Layers: 2, Heads: 4, FF: 130, Seq: 24, Eps: 1e-5, StreamBits: 4,
		Alibi: true}.V76()
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
	var b bytes.Buffer
	if err := Write(&b, m.Config, m.Provenance, model.Each(m.Parameters)); err != nil {
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
	for name, scale := range map[string]func(float32) float32{"float16": float16.Round, "float32": exact} {
		want := small(scale)
		if name == "float32" {
			want.Documents = model.Documents{Separate: true, EndOfText: 3}
		}
		packed := pack(t, want)
		if n, err := Size(want); err != nil || n != int64(len(packed)) {
			t.Errorf("%s: Size says %d, %v; %d bytes were written", name, n, err, len(packed))
		}
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
		for _, p := range want.Parameters {
			for i, w := range p.Data {
				if len(p.Shape) == 2 {
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

// TestSameComputation holds a packed model to its checkpoint: the same pointers and, to the last bit, the same logits.
func TestSameComputation(t *testing.T) {
	for _, c := range []struct {
		scaleBits, streamBits int
		scale                 func(float32) float32
	}{{16, 1, float16.Round}, {16, 4, float16.Round}, {32, 1, exact}, {32, kernels.FloatBits, exact}} {
		m := small(c.scale)
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
// MB for 300M.
func TestPresetSizes(t *testing.T) {
	page, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	for preset, megabytes := range map[string]float64{"300M": 41, "75M": 10} {
		c, err := model.Preset(preset)
		if err != nil {
			t.Fatal(err)
		}
		n, err := Size(checkpoint.Model{Config: c, Parameters: c.Parameters()})
		if err != nil || math.Abs(float64(n)/1e6-megabytes) > 0.5 {
			t.Errorf("%s packs to %d bytes (%v), want about %v MB", preset, n, err, megabytes)
		}
		stated := fmt.Sprintf("the %s preset takes %d,%03d,%03d bytes", preset, n/1e6, n/1e3%1e3, n%1e3)
		if !strings.Contains(string(page), stated) {
			t.Errorf("%s does not state: %s", document, stated)
		}
	}
}

func TestWriteRefuses(t *testing.T) {
	for name, spoil := range map[string]func(*checkpoint.Model){
		"blended weights": func(m *checkpoint.Model) { m.Mix = 0.5 },
		"missing tensor":  func(m *checkpoint.Model) { m.Parameters = m.Parameters[1:] },
	} {
		m := small(exact)
		spoil(&m)
		if Write(&bytes.Buffer{}, m.Config, m.Provenance, model.Each(m.Parameters)) == nil {
			t.Errorf("%s: written", name)
		}
	}
}

func TestRefusesEveryFlippedBitAndTruncation(t *testing.T) {
	good := pack(t, tiny())
	for i := range good {
		for bit := range 8 {
			bad := slices.Clone(good)
			bad[i] ^= 1 << bit
			if _, err := unpack(bad); err == nil {
				t.Fatalf("bit %d of byte %d flipped: accepted", bit, i)
			}
		}
		if _, err := unpack(good[:i]); err == nil {
			t.Fatalf("cut to %d bytes: accepted", i)
		}
	}
	if _, err := unpack(append(slices.Clone(good), 0)); err == nil {
		t.Error("a byte more: accepted")
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
		"version":        put(4, 2),
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

func FuzzRead(f *testing.F) {
	good := pack(f, tiny())
	f.Add(good)
	f.Add(good[:100])
	f.Fuzz(func(t *testing.T, b []byte) {
		unpack(b)
		if len(b) < prefixSize+digestSize {
			return
		}
		m, err := unpack(seal(b))
		if err != nil {
			return
		}
		if err := m.Check(); err != nil {
			t.Fatalf("accepted what is no model: %v", err)
		}
		for _, p := range m.Parameters {
			for _, w := range p.Data {
				if len(p.Shape) == 2 && w != 1 && w != -1 {
					t.Fatalf("%s holds %v", p.Name, w)
				}
			}
		}
	})
}
