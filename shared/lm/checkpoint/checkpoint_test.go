package checkpoint

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"bitnet1/kernels/cpu"
	"bitnet1/shared/lm/model"
	"bitnet1/shared/lm/safetensors"

	"github.com/zeebo/blake3"
)

func small() Model {
	random := rand.New(rand.NewPCG(7, 6))
	c := model.Config{Vocab: 61, D: 32, Layers: 2, Heads: 4, FF: 64, Seq: 20, Eps: 1e-5, StreamBits: 4,
		Alibi: true}.V76()
	m := Model{Config: c, Parameters: c.Parameters(), Provenance: Provenance{
		Step: 250, Tokens: 16_384_000, Tokenizer: "gpt2", Dataset: strings.Repeat("5e", 32),
		Recipe: json.RawMessage(`{"lr":0.003}`), Gamma: 0.7320508075688772, Mix: 0.375,
	}}
	for i := range m.Parameters {
		m.Parameters[i].Data = make([]float32, m.Parameters[i].Size())
		for j := range m.Parameters[i].Data {
			m.Parameters[i].Data[j] = float32(random.NormFloat64())
		}
	}
	return m
}

func save(t *testing.T, write func(*bytes.Buffer) error) string {
	t.Helper()
	var b bytes.Buffer
	if err := write(&b); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "file.safetensors")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// read keeps every parameter of a file.
func read(path string) (Model, error) {
	f, err := Open(path)
	if err != nil {
		return Model{}, err
	}
	defer f.Close()
	m := Model{Config: f.Config, Provenance: f.Provenance}
	for p, err := range f.Parameters() {
		if err != nil {
			return m, err
		}
		p.Data = slices.Clone(p.Data)
		m.Parameters = append(m.Parameters, p)
	}
	return m, nil
}

func TestModelRoundTrip(t *testing.T) {
	want := small()
	path := save(t, func(b *bytes.Buffer) error { return Write(b, want) })
	got, err := read(path)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Error("the model came back different")
	}
	f, err := safetensors.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	slopes, err := f.Float32("blocks.1.attn.slopes")
	if err != nil || !slices.Equal(slopes, []float32{0.25, 0.0625, 0.015625, 0.00390625}) {
		t.Errorf("slopes %v, %v", slopes, err)
	}
	if config := f.Metadata()["config"]; !strings.Contains(config, `"kshift_layers":[0]`) {
		t.Errorf("configuration %s", config)
	}
}

// The bytes of v76 checkpoints do not change: jobs are known by their digests.
func TestBytesOfV76(t *testing.T) {
	var b bytes.Buffer
	if err := Write(&b, small()); err != nil {
		t.Fatal(err)
	}
	const want = "d90025507128065d2705271c6a262d3637ceed80b338863c02e90410769b0394"
	if got := blake3.Sum256(b.Bytes()); hex.EncodeToString(got[:]) != want {
		t.Errorf("the file has digest %x, want %s", got, want)
	}
}

// A checkpoint of a v77 says so. One of a v76 does not say that it is none, as no file did before, and takes a
// configuration that says it.
func TestOptionsOfV77(t *testing.T) {
	m := small()
	text, err := json.Marshal(m.Config)
	if err != nil {
		t.Fatal(err)
	}
	off := strings.Replace(string(text), "}",
		`,"hidden_bits":1,"query_bits":1,"value_bits":1,"read_bits":1,"codebook_bits":1,"hadamard":0}`, 1)
	c, err := ParseConfig([]byte(off))
	if err != nil {
		t.Fatal(err)
	}
	if again, err := json.Marshal(c); err != nil || !bytes.Equal(again, text) {
		t.Errorf("options that are off: %s, want %s (%v)", again, text, err)
	}
	m.Config = m.Config.V77()
	m.Config.QueryBits, m.Config.ReadBits, m.Config.CodebookBits, m.Config.Hadamard = 5, 3, 2, 16
	path := save(t, func(b *bytes.Buffer) error { return Write(b, m) })
	got, err := read(path)
	if err != nil || !reflect.DeepEqual(got, m) {
		t.Errorf("a v77 came back as %+v, %v", got.Config, err)
	}
	f, err := safetensors.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if config := f.Metadata()["config"]; !strings.HasSuffix(config,
		`"hidden_bits":4,"query_bits":5,"value_bits":4,"read_bits":3,"codebook_bits":2,"hadamard":16}`) {
		t.Errorf("the file has configuration %s", config)
	}
}

// A model of separate documents is run as it was trained; packed ones are not mentioned, as in all files once.
func TestDocumentsAreKept(t *testing.T) {
	m := small()
	if d, p := m.Metadata()["documents"], m.Metadata()["end_of_text"]; d != "" || p != "" {
		t.Errorf("packed documents are mentioned: %q, %q", d, p)
	}
	m.Documents = model.Documents{Separate: true, EndOfText: 0}
	path := save(t, func(b *bytes.Buffer) error { return Write(b, m) })
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	net, _, err := f.Inference(cpu.New(cpu.Options{}), 1, 0)
	if err != nil {
		t.Fatal(err)
	}
	if f.Documents != m.Documents || net.Options().Documents != m.Documents {
		t.Errorf("read %+v, run as %+v, want %+v", f.Documents, net.Options().Documents, m.Documents)
	}
}

// TestReadRefuses spoils one thing of a good file each time; the error must name it.
func TestReadRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		metadata func(map[string]string)
		tensors  func([]safetensors.Tensor) []safetensors.Tensor
		names    string
	}{
		"format": {metadata: func(m map[string]string) { m["format"] = "bitnet1.checkpoint.v2" },
			names: "later version of bitnet1: update this program"},
		"config": {metadata: func(m map[string]string) { delete(m, "config") }, names: "configuration"},
		"missing key": {metadata: func(m map[string]string) {
			m["config"] = strings.Replace(m["config"], `"kshift_self":true,`, "", 1)
		}, names: "kshift_self"},
		"new key": {metadata: func(m map[string]string) {
			m["config"] = strings.Replace(m["config"], `{`, `{"Vocab":61,`, 1)
		}, names: `key "Vocab" is unknown: correct it if it is misspelt`},
		"later option": {metadata: func(m map[string]string) {
			m["config"] = strings.Replace(m["config"], `{`, `{"gate_bits":2,`, 1)
		}, names: `key "gate_bits" is unknown: correct it if it is misspelt; if it is an option of a later version, update`},
		"impossible bits": {metadata: func(m map[string]string) {
			m["config"] = strings.Replace(m["config"], `{`, `{"value_bits":2,"read_bits":3,`, 1)
		}, names: "read_bits is 3 and value_bits 2"},
		"impossible rotation": {metadata: func(m map[string]string) {
			m["config"] = strings.Replace(m["config"], `{`, `{"hadamard":64,`, 1)
		}, names: "hadamard is 64, want 0 or a power of two that divides d = 32"},
		"bits as text": {metadata: func(m map[string]string) {
			m["config"] = strings.Replace(m["config"], `{`, `{"hidden_bits":"4",`, 1)
		}, names: "hidden_bits"},
		"other size": {metadata: func(m map[string]string) {
			m["config"] = strings.Replace(m["config"], `"ff":64`, `"ff":65`, 1)
		}, names: "blocks.0.up.weight"},
		"huge": {metadata: func(m map[string]string) {
			m["config"] = strings.Replace(m["config"], `"d":32`, `"d":65536`, 1)
		}, names: "norm_out"},
		"step":        {metadata: func(m map[string]string) { m["step"] = "-3" }, names: "step"},
		"gamma":       {metadata: func(m map[string]string) { m["gamma"] = "NaN" }, names: "gamma"},
		"recipe":      {metadata: func(m map[string]string) { m["recipe"] = "{" }, names: "recipe"},
		"documents":   {metadata: func(m map[string]string) { m["documents"] = "apart" }, names: "documents"},
		"end of text": {metadata: func(m map[string]string) { m["documents"] = "separate" }, names: "end_of_text"},
		"missing tensor": {tensors: func(t []safetensors.Tensor) []safetensors.Tensor {
			return slices.DeleteFunc(t, func(t safetensors.Tensor) bool { return t.Name == "blocks.1.down.alpha" })
		}, names: "blocks.1.down.alpha"},
		"extra tensor": {tensors: func(t []safetensors.Tensor) []safetensors.Tensor {
			return append(t, safetensors.Tensor{Name: "bias", Shape: []int{1}, Data: []float32{1}})
		}, names: "bias"},
		"integers": {tensors: func(t []safetensors.Tensor) []safetensors.Tensor {
			t[0].Data = make([]int64, 32)
			return t
		}, names: "norm_out"},
	} {
		m := small()
		tensors, err := stateDict(m)
		if err != nil {
			t.Fatal(err)
		}
		config, _ := json.Marshal(m.Config)
		metadata := m.Metadata()
		metadata["format"], metadata["config"] = Format, string(config)
		if c.metadata != nil {
			c.metadata(metadata)
		}
		if c.tensors != nil {
			tensors = c.tensors(tensors)
		}
		path := save(t, func(b *bytes.Buffer) error { return safetensors.Write(b, metadata, tensors) })
		_, err = read(path)
		if err == nil || !strings.Contains(err.Error(), c.names) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: error %v does not name %s and the file", name, err, c.names)
		}
	}
}

func TestReadTakesOtherFloatsAndNoSlopes(t *testing.T) {
	m := small()
	tensors, err := stateDict(m)
	if err != nil {
		t.Fatal(err)
	}
	tensors = slices.DeleteFunc(tensors, func(t safetensors.Tensor) bool { return strings.HasSuffix(t.Name, "slopes") })
	wide := make([]float64, len(m.Parameters[0].Data))
	for i, x := range m.Parameters[0].Data {
		wide[i] = float64(x)
	}
	tensors[0].Data = wide
	config, _ := json.Marshal(m.Config)
	metadata := m.Metadata()
	metadata["format"], metadata["config"] = Format, string(config)
	got, err := read(save(t, func(b *bytes.Buffer) error { return safetensors.Write(b, metadata, tensors) }))
	if err != nil || !reflect.DeepEqual(got, m) {
		t.Errorf("read differently: %v", err)
	}
}

func TestWriteRefuses(t *testing.T) {
	for name, spoil := range map[string]func(*Model){
		"configuration": func(m *Model) { m.Config.Heads = 5 },
		"order":         func(m *Model) { slices.Reverse(m.Parameters) },
		"length":        func(m *Model) { m.Parameters[3].Data = m.Parameters[3].Data[1:] },
		"missing":       func(m *Model) { m.Parameters = m.Parameters[1:] },
		"mix":           func(m *Model) { m.Mix = 2 },
	} {
		m := small()
		spoil(&m)
		if Write(&bytes.Buffer{}, m) == nil {
			t.Errorf("%s: written", name)
		}
	}
}

func TestStateRoundTrip(t *testing.T) {
	digest := strings.Repeat("a1", 32)
	want := State{
		Checkpoint: digest, Step: 250, Position: 8000, LogOffset: 1 << 33,
		Extra: map[string]string{"optimizer": "adamw"},
		Tensors: []safetensors.Tensor{
			{Name: "m.codebook.weight", Shape: []int{2, 2}, Data: []float32{1, 2, 3, 4}},
			{Name: "counter", Shape: []int{3}, Data: []int8{-128, 0, 127}},
		},
	}
	path := save(t, func(b *bytes.Buffer) error { return WriteState(b, want) })
	got, err := ReadState(path, digest)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("state came back as %+v, %v", got, err)
	}
	if _, err := ReadState(path, strings.Repeat("b2", 32)); err == nil || !strings.Contains(err.Error(), digest) {
		t.Errorf("the state of another checkpoint: error %v", err)
	}
	if _, err := read(path); err == nil {
		t.Error("a state file was read as a model")
	}
}

// A checkpoint carries the tokenizer.json of its tokenizer, byte for byte.
func TestTokenizerFileIsKept(t *testing.T) {
	want := small()
	want.TokenizerFile = []byte("{\"a\": \"\\u0120é<|x|>\t\"}\n")
	path := save(t, func(b *bytes.Buffer) error { return Write(b, want) })
	if got, err := read(path); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%q, %v", got.TokenizerFile, err)
	}
}
