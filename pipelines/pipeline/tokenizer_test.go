package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bitnet1/shared/data/tokenizer"
	"bitnet1/shared/run/event"
)

// A run with a tokenizer that was trained before: its packed model, alone in a folder, writes text and is evaluated,
// and a dataset of another tokenizer is refused.
func TestOwnTokenizer(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	own := filepath.Join(dir, "own.json")
	source := filepath.Join(dir, "x.txt")
	if err := os.WriteFile(source, []byte(strings.Repeat("some text of two. ", 99)), 0o644); err != nil {
		t.Fatal(err)
	}
	w.must("tokenize", "train", "--in", source, "--out", own, "--vocab-size", "262")
	all := messages(w.must("pipeline", tiny("--set", "tokenize.tokenizer="+own)...))
	var packed map[string]any // the last pack.written
	for _, m := range all {
		if m.Event.Kind == (event.PackWritten{}).Kind() {
			packed = m.Body
		}
	}
	file, _ := packed["tokenizer"].(map[string]any)
	if name, _ := file["name"].(string); !strings.HasPrefix(name, tokenizer.FilePrefix) {
		t.Fatalf("pack.written names the tokenizer %v", file)
	}
	name, _ := packed["pack"].(map[string]any)["name"].(string)
	if err := os.Remove(own); err != nil {
		t.Fatal(err)
	}
	runs := filepath.Join(w.data, "runs", all[0].Run)
	model, err := os.ReadFile(filepath.Join(runs, "pack", name))
	if err != nil {
		t.Fatal(err)
	}
	alone := filepath.Join(dir, "alone.bit2")
	if err := os.WriteFile(alone, model, 0o644); err != nil {
		t.Fatal(err)
	}
	text := w.must("generate", "run", "--in", alone, "--prompt", "Once", "--tokens", "4")
	if !strings.Contains(text, "Once") {
		t.Errorf("generated %q", text)
	}
	w.must("tokenize", "train", "--in", source, "--out", own, "--vocab-size", "263")
	at := func(name string) string { return filepath.Join(dir, name) }
	for tokens, from := range map[string]string{"same": alone, "other": own} {
		w.must("tokenize", "run", "--in", source, "--out", at(tokens), "--tokenizer", from)
		w.must("shard", "run", "--in", at(tokens)+"/x.tokens.arrow", "--out", at(tokens), "--sequence-length", "16",
			"--validation-share", "0.5")
	}
	w.must("evaluate", "run", "--in", alone, "--dataset", at("same/manifest.json"), "--out", at("evaluated"))
	o := w.run("evaluate", "run", "--in", alone, "--dataset", at("other/manifest.json"), "--out", at("refused"))
	if o.status != 1 || strings.Count(o.stderr, tokenizer.FilePrefix) != 2 {
		t.Errorf("another tokenizer: status %d, %s", o.status, o.stderr)
	}
}
