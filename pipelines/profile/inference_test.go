package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bitnet1/shared/lm/model"
)

// Every kind of model is packed, opened and measured.
func TestMeasuresPackedModels(t *testing.T) {
	c, err := model.Preset("nano")
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range kindsInOrder {
		path := filepath.Join(t.TempDir(), "model.bit2")
		if err := writeRandom(path, packedKinds[kind](c)); err != nil {
			t.Fatal(err)
		}
		m, err := inferenceSettings{Tokens: shortPrompt, Rounds: 2, Threads: 2}.measure(path)
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if m.File != info.Size() || m.Weights < float64(8*m.File)/10 || m.FirstToken <= 0 || m.Open <= 0 || m.Prompt <= 0 ||
			m.Resident < m.File || len(m.Decode) != len(streams) {
			t.Errorf("%s: %+v of a file of %d bytes", kind, m, info.Size())
		}
	}
}

func TestInferenceTable(t *testing.T) {
	ours := inferenceSpeed{
		Name: "75M v77", Weights: 76e6, File: 19.8e6, Open: 9 * time.Millisecond, FirstToken: 4600 * time.Microsecond,
		Prompt: 11460, Decode: map[int]float64{1: 1359.4, 4: 2000, 16: 3000}, Resident: 78e6,
	}
	for name, c := range map[string]struct {
		rows []inferenceSpeed
		want []string
	}{
		"alone": {[]inferenceSpeed{ours}, []string{
			"| model | weights | file | decode | 4 streams | 16 streams | prompt | first token | open | resident |\n",
			"| 75M v77 | 76 M | 19.8 MB | 1359 | 2000 | 3000 | 11460 | 4.6 ms | 9 ms | 78 MB |\n",
			"\nllama.cpp was not measured",
		}},
		"beside llama.cpp": {[]inferenceSpeed{ours, {Name: "75M llama.cpp Q1_0", LlamaCpp: true, Weights: 74e6, File: 10.5e6,
			FirstToken: 8 * time.Millisecond, Prompt: 1900, Decode: map[int]float64{1: 300}, Resident: 60e6}}, []string{
			"| 75M llama.cpp Q1_0 | 74 M | 10.5 MB | 300 | – | – | 1900 | 8.0 ms | – | 60 MB |\n",
		}},
	} {
		var b strings.Builder
		if err := writeInference(&b, inferenceSettings{Tokens: 512, Rounds: 20, Threads: 2}, c.rows); err != nil {
			t.Fatal(err)
		}
		for _, want := range c.want {
			if !strings.Contains(b.String(), want) {
				t.Errorf("%s: the table lacks %q:\n%s", name, want, b.String())
			}
		}
		if name != "alone" && strings.Contains(b.String(), "not measured") {
			t.Errorf("llama.cpp was measured:\n%s", b.String())
		}
	}
}

// What llama.cpp's programs print is read: the script prints what they do of one model.
func TestReadsLlamaBench(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"75M-Q1_0.gguf": "some bytes",
		"llama-bench": `#!/bin/sh
case "$*" in
*"-p 16,512 -n 0"*)
	echo '{"model_n_params": 74000000, "n_prompt": 16, "samples_ns": [9000000, 8000000], "samples_ts": [1, 2]}'
	echo '{"model_n_params": 74000000, "n_prompt": 512, "samples_ns": [1, 1], "samples_ts": [1900.5, 1800]}' ;;
*"-p 0 -n 16 -d 512"*)
	echo '{"model_n_params": 74000000, "n_prompt": 0, "samples_ns": [1], "samples_ts": [290, 305.5]}' ;;
*) exit 1 ;;
esac
`,
		"llama-batched-bench": `#!/bin/sh
echo '{"pl": 4, "speed_tg": 400.25}'
echo '{"pl": 16, "speed_tg": 480}'
`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	rows, err := measureLlamaCpp(dir, "75M", inferenceSettings{Tokens: 512, Rounds: 2, Threads: 2})
	if err != nil || len(rows) != 1 {
		t.Fatalf("%v, %v", rows, err)
	}
	if m := rows[0]; m.Name != "75M llama.cpp Q1_0" || m.File != 10 || m.FirstToken != 8*time.Millisecond ||
		m.Prompt != 1900.5 || m.Decode[1] != 305.5 || m.Decode[4] != 400.25 || m.Decode[16] != 480 || m.Weights != 74e6 {
		t.Errorf("%+v", m)
	}
	for dir, want := range map[string]string{t.TempDir(): "has no 75M-*.gguf: write them with docs/examples/llamacpp.py",
		dir: "exit status 1"} {
		_, err := measureLlamaCpp(dir, "75M", inferenceSettings{Tokens: 100, Rounds: 2, Threads: 2})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
