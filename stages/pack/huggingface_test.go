package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bitnet1/kernels"
	"bitnet1/shared/data/tokenizer"
	"bitnet1/shared/digest"
	"bitnet1/shared/lm/checkpoint"
	"bitnet1/shared/lm/model"
	"bitnet1/shared/measure/history/historytest"
	"bitnet1/shared/measure/measuretest"
	"bitnet1/shared/pythontest"
	"bitnet1/shared/run/results"
)

// computedIn prints, as JSON, what transformers finds with each folder: the logits after each token, the tokens of a
// text, what generate() writes after it, the same beside a longer text and padded, the loss, and errors.
const computedIn = `
import json, sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
tokens, text = torch.tensor([json.loads(sys.argv[1])]), sys.argv[2]
for folder in sys.argv[3:]:
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    out = model(tokens, labels=tokens)
    def error(*args, **kwargs):
        try:
            model(*args, **kwargs)
        except ValueError as e:
            return str(e)
    def written(**prompt):
        start = prompt["input_ids"].shape[1]
        return model.generate(**prompt, max_new_tokens=8)[0, start:].tolist()
    mask = torch.ones_like(tokens)
    mask[0, 3] = 0
    print(json.dumps(dict(
        logits=out.logits.flatten().tolist(), loss=out.loss.item(), ids=tokenizer(text).input_ids,
        written=written(**tokenizer(text, return_tensors="pt")),
        padded=written(**tokenizer([text, text + text], return_tensors="pt", padding=True)),
        half=(AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, dtype="bfloat16")(tokens).logits
              - out.logits).abs().max().item(),
        gap=error(tokens, attention_mask=mask), long=error(torch.cat((tokens, tokens), 1)))))
`

// transformers gives the folder of every kind of model the logits that this project's own devices give it, and writes
// the same most probable tokens, also in a batch that is padded.
func TestHuggingFace(t *testing.T) {
	python := pythontest.Interpreter(t, "torch", "transformers")
	const seq, text = 48, "a<|endoftext|>" // which is ordinary text
	tokens := make([]int32, seq)
	for i := range tokens {
		tokens[i] = int32(i * i % 11)
	}
	type kind struct {
		name      string
		change    func(*model.Config)
		documents model.Documents
	}
	kinds := []kind{
		{"v75", func(c *model.Config) { c.Attention, c.KShiftLayers = kernels.Pointer.String(), nil }, model.Documents{}},
		{"v76", func(c *model.Config) { c.StreamBits = 4 }, model.Documents{}},
		{"v77", func(c *model.Config) { *c = c.V77() }, model.Documents{}},
		{"queries", func(c *model.Config) { *c = c.V77(); c.QueryBits = 4 }, model.Documents{}},
		{"documents", func(c *model.Config) { *c = c.V77() }, model.Documents{Separate: true, EndOfText: 4}},
	}
	command := []string{"-c", computedIn, listOf(tokens), text}
	var paths []string
	for _, k := range kinds {
		config := measuretest.Config(seq)
		k.change(&config)
		config.Vocab = 300 // rows that no token has
		path := measuretest.Shaken(t, measuretest.Checkpoint(t, config, checkpoint.Provenance{Step: 7, Tokenizer: "bytes",
			Gamma: 0.3, Mix: 1, Documents: k.documents}))
		paths = append(paths, path)
		from := path
		if k.name == "v77" {
			from = measuretest.Packed(t, path)
		}
		folder := filepath.Join(t.TempDir(), k.name)
		huggingFace(t, "--in", from, "--out", folder)
		command = append(command, folder)
	}
	run := exec.Command(python, command...)
	run.Env = append(os.Environ(), "HF_HOME="+t.TempDir(), "HF_HUB_OFFLINE=1")
	run.Stderr = new(strings.Builder)
	out, err := run.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, run.Stderr)
	}
	lines := slices.Collect(strings.Lines(string(out)))
	if len(lines) != len(kinds) {
		t.Fatalf("transformers said %.300s", out)
	}
	for i, k := range kinds {
		var got struct {
			Logits          []float32
			Loss, Half      float64
			IDs             []int32
			Written, Padded []int32
			Gap, Long       string
		}
		if err := json.Unmarshal([]byte(lines[i]), &got); err != nil {
			t.Fatal(err)
		}
		m, settings := measuretest.Load(t, paths[i], 1)
		logits, err := m.Logits(tokens, 0, seq, settings)
		if err != nil || len(got.Logits) != len(logits) {
			t.Fatalf("%s: %d logits instead of %d: %v", k.name, len(got.Logits), len(logits), err)
		}
		for j, want := range logits {
			if !(math.Abs(float64(got.Logits[j]-want)) <= 1e-4) {
				t.Errorf("%s: after %d tokens logit %d is %g, want %g", k.name, j/300+1, j%300, got.Logits[j], want)
				break
			}
		}
		losses, err := m.Losses(tokens, append(slices.Clone(tokens[1:]), -1), settings)
		if err != nil {
			t.Fatal(err)
		}
		sum := 0.0
		for _, loss := range losses[:seq-1] {
			sum += float64(loss)
		}
		if want := sum / (seq - 1); !(math.Abs(got.Loss-want) <= 1e-4) || got.Half != 0 {
			t.Errorf("%s: loss %g, want %g; in bfloat16 logits differ by %g", k.name, got.Loss, want, got.Half)
		}
		prompt := []int32{}
		for _, b := range []byte(text) {
			prompt = append(prompt, int32(b))
		}
		want := greedy(t, m, settings, prompt, 8)
		if !slices.Equal(got.IDs, prompt) || !slices.Equal(got.Written, want) || !slices.Equal(got.Padded, want) {
			t.Errorf("%s: after the tokens %v it writes %v, padded %v, want %v", k.name, got.IDs, got.Written, got.Padded, want)
		}
		if !strings.Contains(got.Gap, "gaps") || !strings.Contains(got.Long, "at most 48") {
			t.Errorf("%s: errors %q, %q", k.name, got.Gap, got.Long)
		}
	}
}

// greedy writes the most probable tokens, of those that a tokenizer of bytes has.
func greedy(t *testing.T, m *model.Model, settings model.Settings, prompt []int32, n int) []int32 {
	t.Helper()
	tokens := append(slices.Clone(prompt), make([]int32, m.Options().Seq-len(prompt))...)
	for at := len(prompt); at < len(prompt)+n; at++ {
		logits, err := m.Logits(tokens, at-1, at, settings)
		if err != nil {
			t.Fatal(err)
		}
		logits = logits[:257]
		tokens[at] = int32(slices.Index(logits, slices.Max(logits)))
	}
	return tokens[len(prompt):][:n]
}

// huggingFace runs the command, which must succeed.
func huggingFace(t *testing.T, flags ...string) string {
	t.Helper()
	cmd, said := measuretest.Program(t)
	cmd.Args = append([]string{cmd.Path, "huggingface"}, flags...)
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %v\n%s", flags, err, said)
	}
	return said.String()
}

// A model card says of a file what the file says, and leaves the license open.
func TestModelCard(t *testing.T) {
	path := measuretest.Checkpoint(t, measuretest.Config(16), checkpoint.Provenance{Step: 7, Tokens: 99,
		Tokenizer: "bytes", Dataset: strings.Repeat("ab", 32), Recipe: []byte(`{"seed":42}`), Gamma: 0.3, Mix: 1})
	folder := filepath.Join(t.TempDir(), "tiny")
	huggingFace(t, "--in", path, "--out", folder, "--language", "en")
	b, err := os.ReadFile(filepath.Join(folder, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(folder, "model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	size := "| model.safetensors | " + results.Size(info.Size()) + " |"
	for _, part := range []string{size, "---\nlanguage: \"en\"\nlibrary_name: transformers\n", "# tiny\n", "v76", "step 7",
		"99 tokens", strings.Repeat("ab", 32), `"seed": 42`, "**No license is given.**", "None are known of this file alone.",
		"pack huggingface --in " + path + " --out " + folder} {
		if !strings.Contains(string(b), part) {
			t.Errorf("the card lacks %q:\n%s", part, b)
		}
	}
	cmd, said := measuretest.Program(t)
	cmd.Args = []string{cmd.Path, "huggingface", "--in", path, "--out", folder}
	if err := cmd.Run(); err == nil || !strings.Contains(said.String(), "--force") {
		t.Errorf("a folder that has files: %v, %s", err, said)
	}
	huggingFace(t, "--in", path, "--out", folder, "--force")
}

// A tokenizer of one's own is in the folder, and the card calls the end of text as the tokenizer does.
func TestHuggingFaceWithOwnTokenizer(t *testing.T) {
	built, err := tokenizer.New("bytes")
	if err != nil {
		t.Fatal(err)
	}
	file, err := tokenizer.HuggingFace(built)
	if err != nil {
		t.Fatal(err)
	}
	file = bytes.ReplaceAll(file, []byte(`\u003c|endoftext|\u003e`), []byte("</s>"))
	path := measuretest.Checkpoint(t, measuretest.Config(16), checkpoint.Provenance{TokenizerFile: file,
		Tokenizer: tokenizer.FileName(digest.Bytes(file)), Gamma: 0.3, Mix: 1})
	folder := filepath.Join(t.TempDir(), "tiny")
	huggingFace(t, "--in", path, "--out", folder)
	for name, part := range map[string]string{"README.md": "The tokenizer reads `</s>` in a text as ordinary text",
		"tokenizer.json": string(file), "tokenizer_config.json": `"eos_token": "\u003c/s\u003e"`} {
		if b, err := os.ReadFile(filepath.Join(folder, name)); err != nil || !strings.Contains(string(b), part) {
			t.Errorf("%v: %s lacks %q:\n%s", err, name, part, b)
		}
	}
}

// The card of a run's checkpoint has the run's results, their baselines, sources and commands.
func TestModelCardOfRun(t *testing.T) {
	data := t.TempDir()
	historytest.Make(t, data, "made", historytest.Options{})
	for checkpoint, step := range map[string]int{"best": 12, "last": 12, "6": 6} {
		folder := filepath.Join(t.TempDir(), "made")
		huggingFace(t, "--data", data, "--run", "made", "--checkpoint", checkpoint, "--out", folder)
		b, err := os.ReadFile(filepath.Join(folder, "README.md"))
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range []string{fmt.Sprintf("step %d of", step),
			fmt.Sprintf("**bits/token: %.3f ± 0.016**", historytest.Options{}.Bits(step)), "7.500", "| texts | 12 |",
			"pipeline run --preset nano pipelines/v76.yml",
			fmt.Sprintf("pack huggingface --run made --checkpoint %d --out ", step)} {
			if !strings.Contains(string(b), part) {
				t.Errorf("--checkpoint %s: the card lacks %q:\n%s", checkpoint, part, b)
			}
		}
	}
	cmd, said := measuretest.Program(t)
	cmd.Args = []string{cmd.Path, "huggingface", "--data", data, "--run", "made", "--checkpoint", "7",
		"--out", t.TempDir()}
	if err := cmd.Run(); err == nil || !strings.Contains(said.String(), "3, 6, 9, 12") {
		t.Errorf("a step that is none: %v, %s", err, said)
	}
}

// A folder of a model whose tokenizer is not known, or is of symbols, has none, and its card says so.
func TestHuggingFaceWithoutTokenizer(t *testing.T) {
	for _, name := range []string{"", "symbols-64"} {
		path := measuretest.Checkpoint(t, measuretest.Config(16), checkpoint.Provenance{Tokenizer: name, Gamma: 0.3, Mix: 1})
		folder := filepath.Join(t.TempDir(), "tiny")
		huggingFace(t, "--in", path, "--out", folder)
		card, err := os.ReadFile(filepath.Join(folder, "README.md"))
		if err != nil || !strings.Contains(string(card), "no tokenizer") {
			t.Errorf("%v:\n%s", err, card)
		}
		if files, err := filepath.Glob(filepath.Join(folder, "tokenizer*")); err != nil || len(files) > 0 {
			t.Errorf("the folder holds %v, %v", files, err)
		}
	}
}

func listOf(tokens []int32) string {
	b, _ := json.Marshal(tokens)
	return string(b)
}
