package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bitnet1/shared/data/tokenizer"
	"bitnet1/shared/digest"
)

// TestTokenizerOfAFile: the digest of a tokenizer.json takes the place of its path, so that jobs are known by what the
// file holds, and a file that has changed since is refused.
func TestTokenizerOfAFile(t *testing.T) {
	built, err := tokenizer.New("bytes")
	if err != nil {
		t.Fatal(err)
	}
	file, err := tokenizer.HuggingFace(built)
	if err != nil {
		t.Fatal(err)
	}
	all := &tokenizers{made: map[string]tokenizer.Tokenizer{}}
	path := write(t, filepath.Join(t.TempDir(), "own.json"), string(file))
	p := defaults
	p.Tokenizer = path
	if err := all.complete(&p); err != nil {
		t.Fatal(err)
	}
	if p.Tokenizer != tokenizer.FileName(digest.Bytes(file)) || p.TokenizerFile != path {
		t.Errorf("the parameters are %q and %q", p.Tokenizer, p.TokenizerFile)
	}
	completed := p
	if err := all.complete(&p); err != nil || p.Tokenizer != completed.Tokenizer {
		t.Errorf("completed again: %q, %v", p.Tokenizer, err)
	}
	write(t, path, string(file)+"\n")
	if err := all.complete(&p); err == nil || !strings.Contains(err.Error(), "changed since") {
		t.Errorf("a changed file: %v", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := all.complete(&p); err != nil { // jobs that are done need no file
		t.Error(err)
	}
	text := write(t, filepath.Join(t.TempDir(), "text"), "no tokenizer")
	for named, want := range map[[2]string]string{
		{path, ""}: "no such file", {"gpt2", text}: "leave tokenizer_file out", {text, ""}: "name a tokenizer.json",
	} {
		p := defaults
		p.Tokenizer, p.TokenizerFile = named[0], named[1]
		if err := all.complete(&p); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: want %q: %v", named, want, err)
		}
	}
}
