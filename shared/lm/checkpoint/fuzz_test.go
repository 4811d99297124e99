package checkpoint

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"bitnet1/shared/alloctest"
	"bitnet1/shared/lm/model"
	"bitnet1/shared/lm/safetensors"
)

// FuzzDescription reads any bytes as the description beside a model file: a model that is described can be built, and
// its configuration comes back as it was.
func FuzzDescription(f *testing.F) {
	config := model.Config{Vocab: 257, D: 24, Layers: 2, Heads: 2, FF: 40, Seq: 16, Alibi: true, Eps: 1e-5, StreamBits: 1}
	good, err := json.Marshal(map[string]any{"config": config.V76(), "gamma": 0.1, "tokenizer": "gpt2", "step": 3})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"config": {"vocab": 1e99, "kshift_layers": [0, 0, -1], "layers": 9223372036854775807}}`))
	f.Add([]byte(`{"config": null} {}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var c model.Config
		var p Provenance
		var err error
		alloctest.AtMost(t, 1<<16+256*int64(len(text)), func() { c, p, err = parseDescription(text) })
		if err != nil {
			return
		}
		if err := c.Validate(); err != nil {
			t.Fatalf("what was read cannot be built: %v", err)
		}
		again, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		back, err := ParseConfig(again)
		if text, failed := json.Marshal(back); err != nil || failed != nil || !bytes.Equal(text, again) {
			t.Errorf("%s came back as %s (%v)", again, text, err)
		}
		if p.Mix < 0 || p.Mix > 1 || p.Gamma < 0 || p.Gamma > 1 {
			t.Errorf("%+v", p)
		}
	})
}

// FuzzOpen has any text as the configuration, and as the provenance, that a checkpoint's metadata holds.
func FuzzOpen(f *testing.F) {
	f.Add(`{"vocab": 2, "d": 1, "layers": 1, "heads": 1, "ff": 1, "seq": 1}`, "step", "3")
	f.Add(`{"vocab": 1048576, "d": 65536, "layers": 1024, "heads": 1, "ff": 65536, "seq": 1048576}`, "recipe", "{}")
	f.Add(`[]`, "documents", "separate")
	f.Add(`null`, "mix", "NaN")
	path := filepath.Join(f.TempDir(), "step-000001.safetensors")
	f.Fuzz(func(t *testing.T, config, key, value string) {
		metadata := map[string]string{"step": "1", "tokens": "1", "gamma": "0", "mix": "1", key: value, "config": config}
		var file bytes.Buffer
		if safetensors.Write(&file, metadata, []safetensors.Tensor{{Name: "norm_out", Shape: []int{1},
			Data: []float32{1}}}) != nil {
			return
		}
		if err := os.WriteFile(path, file.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		// A configuration of 1,024 layers has 19 names of parameters for each.
		alloctest.AtMost(t, 16<<20+256*int64(file.Len()), func() {
			if c, err := Open(path); err == nil {
				c.Close()
			}
			_, _ = ReadStateHeader(path, "")
		})
	})
}
