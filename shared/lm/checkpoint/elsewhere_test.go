package checkpoint

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"bitnet1/shared/lm/safetensors"
)

// Training scripts save NumPy's numbers, objects and histories beside the weights (testdata/save.py made the files).
func TestReadsWhatTrainingScriptsSave(t *testing.T) {
	for name, tokens := range map[string]int64{"numpy.pt": 512, "namespaces.pt": 0} {
		m, err := read(filepath.Join("testdata", name))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if m.Gamma != 0.25 || m.Mix != 1 || m.Step != 7 || m.Tokens != tokens || m.Config.D != 4 || !m.Config.Alibi ||
			m.Config.Eps != 1e-5 {
			t.Errorf("%s: read %+v, %+v", name, m.Config, m.Provenance)
		}
	}
}

// What is there and cannot be understood is an error: the default would make another model of it.
func TestRefusesWhatItDoesNotUnderstand(t *testing.T) {
	for name, want := range map[string]string{"array.pt": `"gamma"`, "mix.pt": `"mix"`} {
		if _, err := read(filepath.Join("testdata", name)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %s in it", name, err, want)
		}
	}
	m := small()
	for key, value := range map[string]string{"mix": "half", "gamma": "null", "step": "1.5", "config": "Config(d=32)"} {
		metadata := map[string]string{"format": "pt", "config": mustConfig(t, m), "gamma": "0.5"}
		metadata[key] = value
		if _, err := read(saveForeign(t, m, metadata)); err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("%s = %s: error %v", key, value, err)
		}
	}
	nulled := strings.Replace(mustConfig(t, m), `"kshift_layers":[0]`, `"kshift_layers":[null]`, 1)
	if _, err := read(saveForeign(t, m, map[string]string{"config": nulled, "gamma": "0.5"})); err == nil ||
		!strings.Contains(err.Error(), "kshift_layers[0]") {
		t.Errorf("a layer that is null: error %v", err)
	}
}

func mustConfig(t *testing.T, m Model) string {
	t.Helper()
	b, err := json.Marshal(m.Config)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Wrappers of modules put prefixes before and into names, in any order and number.
func TestNamesWithPrefixes(t *testing.T) {
	m := small()
	for _, rename := range []func(string) string{
		func(n string) string { return "module." + n },
		func(n string) string { return "_orig_mod.module." + n },
		func(n string) string { return "module._orig_mod._orig_mod.module." + n },
		func(n string) string { return "model.net." + n },
		func(n string) string { return "_forward_module.student." + n },
		func(n string) string {
			return strings.Replace(n, "blocks.1.", "blocks.1._orig_mod._checkpoint_wrapped_module.", 1)
		},
		func(n string) string { return "_fsdp_wrapped_module." + strings.Replace(n, "attn.", "attn.module.", 1) },
	} {
		tensors, err := stateDict(m)
		if err != nil {
			t.Fatal(err)
		}
		for i := range tensors {
			tensors[i].Name = rename(tensors[i].Name)
		}
		tensors = append(tensors, safetensors.Tensor{Name: "n_averaged", Data: []int64{3}})
		path := save(t, func(b *bytes.Buffer) error {
			return safetensors.Write(b, map[string]string{"config": mustConfig(t, m), "gamma": "0.5"}, tensors)
		})
		got, err := read(path)
		if err != nil || !reflect.DeepEqual(got.Parameters, m.Parameters) {
			t.Errorf("%s: read differently: %v", tensors[0].Name, err)
		}
	}
}

func TestRefusesTwoOfOneName(t *testing.T) {
	m := small()
	tensors, err := stateDict(m)
	if err != nil {
		t.Fatal(err)
	}
	second := tensors[3]
	second.Name = "ema." + second.Name
	path := save(t, func(b *bytes.Buffer) error {
		return safetensors.Write(b, map[string]string{"config": mustConfig(t, m), "gamma": "0.5"},
			append(tensors, second))
	})
	if _, err := read(path); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%q", second.Name)) {
		t.Errorf("error %v", err)
	}
}

// A value that is not finite is refused wherever parameters are read.
func TestRefusesWhatIsNotFinite(t *testing.T) {
	for _, bad := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		m := small()
		path := save(t, func(b *bytes.Buffer) error { return Write(b, m) })
		file, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		n := len(file)
		// The last tensor's last value: the files hold the largest types first, then names in order.
		binary.LittleEndian.PutUint32(file[n-4:], math.Float32bits(float32(bad)))
		if err := os.WriteFile(path, file, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := read(path); !errors.Is(err, ErrNotFinite) || !strings.Contains(err.Error(), "tensor") {
			t.Errorf("%v: error %v", bad, err)
		}
	}
}

// A file that is no checkpoint is named for what it is.
func TestNamesOtherFiles(t *testing.T) {
	llama := func(b *bytes.Buffer) error {
		return safetensors.Write(b, map[string]string{"format": "pt"}, []safetensors.Tensor{
			{Name: "model.layers.0.self_attn.q_proj.weight", Shape: []int{1}, Data: []float32{1}},
		})
	}
	stranger := func(b *bytes.Buffer) error {
		return safetensors.Write(b, nil, []safetensors.Tensor{{Name: "conv.weight", Shape: []int{1},
			Data: []float32{1}}})
	}
	state := func(b *bytes.Buffer) error { // both moments of a parameter, as AdamW has them
		return WriteState(b, State{Checkpoint: strings.Repeat("ab", 32), Tensors: []safetensors.Tensor{
			{Name: "exp_avg.norm_out", Shape: []int{1}, Data: []float32{1}},
			{Name: "exp_avg_sq.norm_out", Shape: []int{1}, Data: []float32{1}}}})
	}
	text := func(s string) func(*bytes.Buffer) error {
		return func(b *bytes.Buffer) error { b.WriteString(s); return nil }
	}
	for want, write := range map[string]func(*bytes.Buffer) error{
		"packed model":        text("BIT2\x01\x00"),
		"Arrow file":          text("ARROW1\x00\x00"),
		"Llama":               llama,
		"conv.weight":         stranger,
		"training state":      state,
		"log of a training":   text(`{"event":"step","step":10}` + "\n"),
		"manifest":            text(`{"format":"bitnet1.dataset.v1"}`),
		"JSON text":           text(`{"weight_map":{}}`),
		"empty":               text(""),
		"gzip":                text("\x1f\x8b\x08\x00"),
		"web page":            text("<!DOCTYPE html><html>"),
		"is text":             text("To be, or not to be\n"),
		"git lfs pull":        text("version https://git-lfs.github.com/spec/v1\n"),
		"GGUF":                text("GGUF\x03\x00\x00\x00"),
		"not safetensors":     text("\x00\x01\x02\x03\x04\x05\x06\x77"),
		"too short":           text("\x08\x00"),
		"before PyTorch 1.6":  text("\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."),
		"parquet":             text("PAR1\x15\x04"),
		"docs/formats/checkp": stranger,
	} {
		path := save(t, write)
		if _, err := read(path); err == nil || !strings.Contains(err.Error(), want) ||
			!strings.Contains(err.Error(), path) {
			t.Errorf("error %v, want %q and the file in it", err, want)
		}
	}
	if _, err := read(t.TempDir()); err == nil || !strings.Contains(err.Error(), "folder") {
		t.Errorf("a folder: error %v", err)
	}
}
