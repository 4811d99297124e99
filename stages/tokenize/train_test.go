package main

import (
	"bufio"
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"bitnet1/shared/data/tokenizer"
)

// rareWords are JSON Lines of words that hardly recur.
func rareWords(documents int) string {
	random := rand.New(rand.NewPCG(3, 4))
	var b strings.Builder
	for range documents {
		b.WriteString(`{"text":"`)
		for range 400 {
			for range 2 + random.IntN(14) {
				b.WriteByte(byte('a' + random.IntN(26)))
			}
			b.WriteByte(' ')
		}
		b.WriteString("\"}\n")
	}
	return b.String()
}

// TestTrainTokenizer: the file is the same whatever the number of threads, also where memory is short, and documents
// are encoded with it.
func TestTrainTokenizer(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a.jsonl"), lines(3<<20))
	write(t, filepath.Join(dir, "b.jsonl"), rareWords(700))
	text := write(t, filepath.Join(dir, "c.txt"), strings.Repeat("tokenizers tokenize tokens. ", 500))
	var files [][]byte
	for threads := range 4 {
		out := filepath.Join(dir, fmt.Sprint(threads, ".json"))
		c := self("train", "--in", filepath.Join(dir, "*.jsonl"), text, "--out", out, "--vocab-size", "900",
			"--threads", fmt.Sprint(threads+1), "--memory", "64")
		said, err := c.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, said)
		}
		if !bytes.Contains(said, []byte("memory was short")) || !bytes.Contains(said, []byte(", 900 ids, of ")) {
			t.Errorf("it says %s", said)
		}
		file, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
		if !bytes.Equal(file, files[0]) {
			t.Errorf("%d threads make another file", threads+1)
		}
	}
	own, err := tokenizer.Parse(files[0])
	if err != nil || own.Vocab() != 900 {
		t.Fatal(own, err)
	}
	if ids := own.Encode(nil, []byte(" tokenizers tokenize")); len(ids) > 4 {
		t.Errorf("a frequent word is %d tokens", len(ids))
	}
	status := run("--in", text, "--out", filepath.Join(dir, "tokens"), "--tokenizer", filepath.Join(dir, "0.json"))
	if status != 0 {
		t.Errorf("tokenize run: status %d", status)
	}
}

// TestTrainTokenizerOfLittle: where no pair occurs twice, the ids are the bytes and the end of text.
func TestTrainTokenizerOfLittle(t *testing.T) {
	dir := t.TempDir()
	text := write(t, filepath.Join(dir, "a.txt"), "a text")
	said, err := self("train", "--in", text, "--out", filepath.Join(dir, "t.json")).CombinedOutput()
	if err != nil || !bytes.Contains(said, []byte("the vocabulary has 257 ids instead of 32768")) ||
		!bytes.Contains(said, []byte(", 257 ids, of ")) {
		t.Errorf("%v: %s", err, said)
	}
}

// TestTrainTokenizerRefused: what cannot be is refused at once, and writes nothing.
func TestTrainTokenizerRefused(t *testing.T) {
	dir := t.TempDir()
	text := write(t, filepath.Join(dir, "text.txt"), "some text, some text")
	empty := write(t, filepath.Join(dir, "empty.txt"), "")
	bad := write(t, filepath.Join(dir, "bad.parquet"), "PAR1 and no more")
	there := write(t, filepath.Join(dir, "there.json"), "there")
	out := filepath.Join(dir, "out.json")
	for _, test := range []struct {
		args   string
		status int
		want   string
	}{
		{"--out " + out, 2, "--in FILE"},
		{"--in " + text, 2, "--out FILE"},
		{"--in " + text + " --out " + dir, 2, "is a directory"},
		{"--in " + text + " --out " + there, 2, "--force"},
		{"--in " + text + " --out " + filepath.Join(text, "x.json"), 2, "--out"},
		{"--in " + text + " --out " + out + " --vocab-size 256", 2, "257 at least"},
		{"--in " + text + " --out " + out + " --min-frequency 0", 2, "frequency"},
		{"--in " + text + " --out " + out + " --pattern gpt3", 2, "choose one of cl100k, gpt2"},
		{"--in " + text + " --out " + out + " --memory 1", 2, "--memory 1: choose 64"},
		{"--in " + text + " --out " + out + " --tokenizer gpt2", 2, "tokenizer"},
		{"--in " + text + " --out " + out + " --filters what", 2, "what"},
		{"--in " + filepath.Join(dir, "nothing") + " --out " + out, 1, "nothing"},
		{"--in " + empty + " --out " + out, 1, "there is no text"},
		{"--in " + bad + " --out " + out, 1, "--on-bad-file skip"},
		{"--in " + bad + " --on-bad-file skip --out " + out, 1, "there is no text"},
	} {
		c := self(append([]string{"train"}, strings.Fields(test.args)...)...)
		said, _ := c.CombinedOutput()
		if c.ProcessState.ExitCode() != test.status || !strings.Contains(string(said), test.want) {
			t.Errorf("%s: status %d, want %d: %s", test.args, c.ProcessState.ExitCode(), test.status, said)
		}
	}
	if files, err := filepath.Glob(filepath.Join(dir, "*")); err != nil || len(files) != 4 {
		t.Errorf("there are %v, %v", files, err)
	}
	if b, err := os.ReadFile(there); err != nil || string(b) != "there" {
		t.Errorf("%q, %v", b, err)
	}
	c := self("train", "--in", text, "--out", there, "--force", "--vocab-size", "999")
	if said, err := c.CombinedOutput(); err != nil || !strings.Contains(string(said), "instead of 999") {
		t.Errorf("%v: %s", err, said)
	}
}

// TestTrainTokenizerStopped: a signal ends the training soon, and nothing is left of it.
func TestTrainTokenizerStopped(t *testing.T) {
	dir := t.TempDir()
	in := write(t, filepath.Join(dir, "rare.jsonl"), rareWords(1000)) // merging all that can be takes a minute
	c := self("train", "--in", in, "--out", filepath.Join(dir, "out.json"), "--vocab-size", "9000000",
		"--min-frequency", "1")
	stderr, err := c.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	var last string
	for said := bufio.NewScanner(stderr); said.Scan(); {
		if last = said.Text(); strings.HasPrefix(last, "merging: ") {
			if err := c.Process.Signal(syscall.SIGINT); err != nil {
				t.Fatal(err)
			}
		}
	}
	err = c.Wait()
	if c.ProcessState.ExitCode() != 1 || !strings.Contains(last, "no tokenizer was written") {
		t.Errorf("%v: %s", err, last)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 1 {
		t.Errorf("there are %v, %v", files, err)
	}
}
