package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"bitnet1/shared/lm/checkpoint"
	"bitnet1/shared/measure/measuretest"
	"bitnet1/shared/run/event"
	"bitnet1/stages/generate/generation"
)

var provenance = checkpoint.Provenance{Step: 7, Tokens: 99, Tokenizer: "bytes", Gamma: 0.3, Mix: 1}

// packed is a packed model with a context of seq tokens.
func packed(t *testing.T, seq int) string {
	t.Helper()
	return measuretest.Packed(t, measuretest.Checkpoint(t, measuretest.Config(seq), provenance))
}

// program runs the stage's program, and returns what it wrote to its two outputs, and its exit status.
func program(t *testing.T, stdin string, args ...string) (out, notes string, status int) {
	t.Helper()
	cmd, _ := measuretest.Program(t)
	cmd.Args = append(cmd.Args[:1], args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
	if err := cmd.Run(); err != nil && !errors.As(err, new(*exec.ExitError)) {
		t.Fatal(err)
	}
	return stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()
}

// A packed model's samples have the fixed prompts and the user's. They are the same bytes whenever they are made, and
// on however many threads; another seed gives others.
func TestSamples(t *testing.T) {
	path := packed(t, 64)
	write := func(out string, flags ...string) (file string, announced event.TextWritten) {
		t.Helper()
		args := []string{"--in", path, "--out", out, "--json", "--log-level", "error"}
		said := measuretest.Run(t, append(args, flags...)...)
		var line struct {
			Kind string
			Body event.TextWritten
		}
		if err := json.Unmarshal([]byte(said), &line); err != nil || line.Kind != "text.written" {
			t.Fatalf("announced %s (%v)", said, err)
		}
		b, err := os.ReadFile(filepath.Join(out, "step-000007_text.json"))
		if err != nil {
			t.Fatal(err)
		}
		return string(b), line.Body
	}
	dir := t.TempDir()
	first, announced := write(dir, "--prompt", "A pot, B", "--tokens", "20", "--threads", "1")
	var r samples
	if err := json.Unmarshal([]byte(first), &r); err != nil {
		t.Fatal(err)
	}
	var prompts []string
	tokens := 0
	for _, s := range r.Texts {
		prompts, tokens = append(prompts, s.Prompt), tokens+s.Tokens
		if s.PromptTokens != len(s.Prompt) || s.Finish == generation.Length && s.Tokens != 20 {
			t.Errorf("sample %+v", s)
		}
	}
	if !slices.Equal(prompts, []string{"A pot, B"}) {
		t.Errorf("prompts %q", prompts)
	}
	if announced.Step != 7 || announced.Texts != len(r.Texts) || announced.Tokens != tokens || tokens == 0 ||
		announced.Pack.Digest != r.Model || announced.Text.Name != "step-000007_text.json" {
		t.Errorf("announced %+v of %+v", announced, r)
	}
	if again, event := write(dir, "--prompt", "A pot, B", "--tokens", "20"); again != first ||
		!reflect.DeepEqual(event, announced) {
		t.Errorf("from the record: %+v", event)
	}
	if again, event := write(dir, "--prompt", "A pot, B", "--tokens", "20", "--threads", "3", "--force"); again != first ||
		!reflect.DeepEqual(event, announced) {
		t.Errorf("made again: %+v\n%s", event, again)
	}
	if other, _ := write(t.TempDir(), "--prompt", "A pot, B", "--tokens", "20", "--seed", "43"); other == first {
		t.Error("another seed gives the same text")
	}
	all, _ := write(t.TempDir(), "--prompt", "A pot, B", "--fixed-prompts")
	fixed, _ := write(t.TempDir())
	for _, prompt := range fixedPrompts {
		for _, text := range []string{all, fixed} {
			if !strings.Contains(text, `"prompt": "`+prompt+`"`) {
				t.Errorf("the fixed prompt %q is not continued in\n%s", prompt, text)
			}
		}
	}
	if !strings.Contains(all, "A pot, B") || strings.Contains(fixed, "A pot, B") {
		t.Error("the user's prompt is not where it was asked for")
	}
	measuretest.Documented(t, "Text", samples{})
	measuretest.Defaults(t, `{"prompts": null, "fixed_prompts": true, "tokens": 128, "temperature": 0.8, "top_k": 0,
		"top_p": 0, "min_p": 0, "repetition_penalty": 0, "stop": null, "seed": 42}`)
}

// Fixed prompts that a model has no room or no tokens for are left out; the user's prompts are refused.
func TestSamplesOfSmallModels(t *testing.T) {
	short := packed(t, 12) // "Once upon a time" has 16 bytes
	said := measuretest.Run(t, "--in", short, "--out", t.TempDir())
	if !strings.Contains(said, "checkpoint 7 wrote 2 texts, ") {
		t.Errorf("said %s", said)
	}
	symbols := provenance
	symbols.Tokenizer = "symbols-64"
	path := measuretest.Packed(t, measuretest.Checkpoint(t, measuretest.Config(16), symbols))
	if out := measuretest.Run(t, "--in", path, "--json"); strings.Count(out, `"prompt":`) != 1 ||
		!strings.Contains(out, `"prompt":"","prompt_tokens":1`) {
		t.Errorf("symbols: %s", out)
	}
	if out, said, status := program(t, "", "run", "--in", short); status != 0 || !strings.Contains(out, "\n\nIt is not") {
		t.Errorf("status %d: %s%s", status, out, said)
	}
	for _, output := range [][]string{{"--out", t.TempDir()}, {"--json"}, nil} {
		args := append([]string{"run", "--in", short, "--prompt", "A", "--prompt", "Once upon a time"}, output...)
		out, said, status := program(t, "", args...)
		if status != 1 || out != "" ||
			!strings.Contains(said, `prompt "Once upon a time": the prompt has 16 tokens, and the model's context is 12`) {
			t.Errorf("status %d: %s%s", status, out, said)
		}
	}
}

// The printed text is the prompt and the text of the samples, whichever way the prompt comes.
func TestPrint(t *testing.T) {
	path, dir := packed(t, 64), t.TempDir()
	file := filepath.Join(dir, "prompt")
	for _, prompt := range []string{"A pot", "", "two\nlines\n", "\xff\xfe broken", "-- --in"} {
		if err := os.WriteFile(file, []byte(prompt), 0o644); err != nil {
			t.Fatal(err)
		}
		var r samples
		said, notes, status := program(t, "", "run", "--in", path, "--tokens", "9", "--json", "--prompt-file", file)
		if err := json.Unmarshal([]byte(said), &r); err != nil || status != 0 || len(r.Texts) != 1 || len(r.Model) != 64 {
			t.Fatalf("prompt %q: status %d, %v: %s%s", prompt, status, err, said, notes)
		}
		want := generation.Valid(prompt) + r.Texts[0].Text + "\n"
		if r.Texts[0].Prompt != generation.Valid(prompt) {
			t.Errorf("prompt %q became %q", prompt, r.Texts[0].Prompt)
		}
		for _, args := range [][]string{{"--prompt=" + prompt}, {"--prompt-file", file}, {"--prompt-file", "-"}} {
			got, notes, status := program(t, prompt, append([]string{"run", "--in", path, "--tokens", "9"}, args...)...)
			if got != want || status != 0 {
				t.Errorf("prompt %q, %q: wrote %q, want %q (status %d) %s", prompt, args, got, want, status, notes)
			}
		}
	}
	both, _, _ := program(t, "", "run", "--in", path, "--tokens", "3", "--prompt", "one", "--prompt", "two")
	if !strings.HasPrefix(both, "one") || !strings.Contains(both, "\n\ntwo") {
		t.Errorf("two prompts: %q", both)
	}
	if found, err := filepath.Glob(filepath.Join(dir, "*")); err != nil || len(found) != 1 {
		t.Errorf("printing leaves files: %v, %v", found, err)
	}
}

// Bad input is refused with what is wrong with it.
func TestRefused(t *testing.T) {
	path, text := packed(t, 64), filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("no model"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		status int
		want   string
		args   []string
	}{
		{1, "no such file", []string{"run", "--in", path + "x"}},
		{1, "is text", []string{"run", "--in", text}},
		{1, "the prompt has 65 tokens", []string{"run", "--in", path, "--prompt", strings.Repeat("x", 65)}},
		{2, "no such file", []string{"run", "--in", path, "--prompt-file", path + "x"}},
		{2, "nothing to continue", []string{"run", "--in", path, "--fixed-prompts=false"}},
		{2, "top-p is 2, want 0 to 1", []string{"run", "--in", path, "--top-p", "2"}},
		{2, "temperature is -1", []string{"run", "--in", path, "--temperature=-1"}},
		{2, "tokens must not be negative", []string{"run", "--in", path, "--tokens=-1"}},
		{2, "not an integer", []string{"run", "--in", path, "--top-k", "many"}},
		{2, "--force does nothing without --out", []string{"run", "--in", path, "--force"}},
		{2, "say what to work on", []string{"run"}},
		{2, "serve, run, describe, chat or api", []string{"talk"}},
		{2, "say which model: --in FILE", []string{"chat"}},
		{2, "say which model: --in FILE", []string{"api"}},
		{2, "--mode verse: use auto, conversation or continuation", []string{"chat", "--in", path, "--mode", "verse"}},
		{2, "{text}", []string{"chat", "--in", path, "--turn-template", "x"}},
		{2, "min-p", []string{"chat", "--in", path, "--min-p", "7"}},
		{1, "is text", []string{"chat", "--in", text}},
	} {
		if out, notes, status := program(t, "", c.args...); status != c.status || !strings.Contains(notes, c.want) {
			t.Errorf("%q: status %d, want %d and %q in\n%s%s", c.args, status, c.status, c.want, out, notes)
		}
	}
}

func TestRepeated(t *testing.T) {
	for _, c := range []struct {
		texts [][]int32
		want  float64
	}{
		{[][]int32{{1, 2, 3}, nil}, -1},
		{[][]int32{{1, 2, 3, 4}, {1, 2, 3, 4}}, 0}, // each text has its own
		{[][]int32{{7, 7, 7, 7, 7}}, 0.5},
		{[][]int32{{1, 2, 1, 2, 1, 2, 1}, {1, 2, 3, 4}}, 0.4},
	} {
		got := repeated(c.texts)
		if got == nil && c.want >= 0 || got != nil && *got != c.want {
			t.Errorf("%v: %v, want %g", c.texts, got, c.want)
		}
	}
}
