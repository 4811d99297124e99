package main

import (
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"syscall"
	"testing"
	"time"

	"bitnet1/shared/pythontest"
)

var corpus = flag.String("corpus", "", "`FOLDER` of real texts to train on: *.jsonl.zst and fineweb/*.parquet")

// trainScript trains with the package tokenizers on texts of files, and writes the tokenizer.json.
const trainScript = `
import json, sys, time
import pyarrow as pa, pyarrow.parquet as pq
from tokenizers import Tokenizer, Regex, models, trainers, pre_tokenizers
out, like, files = sys.argv[1], json.load(open(sys.argv[2])), sys.argv[3:]
texts = []
for f in files:
    if f.endswith(".parquet"):
        texts += [x for x in pq.read_table(f).column("text").to_pylist() if x is not None]
    else:
        texts += [json.loads(line)["text"] for line in pa.input_stream(f, compression="zstd").read().splitlines()]
regex = like["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"]
t = Tokenizer(models.BPE())
t.pre_tokenizer = pre_tokenizers.Sequence([
    pre_tokenizers.Split(Regex(regex), "isolated"),
    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
wall, busy = time.time(), time.process_time()
t.train_from_iterator(texts, trainers.BpeTrainer(
    vocab_size=len(like["model"]["vocab"]), min_frequency=2, special_tokens=["<|endoftext|>"],
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
print("wall %.1f s, processor %.1f s" % (time.time() - wall, time.process_time() - busy), end="")
t.save(out)
`

// TestTrainCorpus compares the vocabulary, the time and the memory with those of the package tokenizers. The time of
// the package is that of training alone: its texts are in memory.
func TestTrainCorpus(t *testing.T) {
	if *corpus == "" {
		t.Skip("-corpus names no folder")
	}
	python := pythontest.Interpreter(t, "tokenizers", "pyarrow")
	for _, pattern := range []string{"fineweb/*.parquet", "*.jsonl.zst"} {
		files, err := filepath.Glob(filepath.Join(*corpus, pattern))
		if err != nil || len(files) == 0 {
			t.Fatalf("%v, %v", files, err)
		}
		dir := t.TempDir()
		ours, theirs := filepath.Join(dir, "ours.json"), filepath.Join(dir, "theirs.json")
		measured := func(c *exec.Cmd) (wall, busy time.Duration, megabytes int64) {
			c.Stderr = os.Stderr
			started := time.Now()
			said, err := c.Output()
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%s: %s", filepath.Base(c.Path), said)
			used := c.ProcessState.SysUsage().(*syscall.Rusage)
			return time.Since(started), c.ProcessState.UserTime() + c.ProcessState.SystemTime(), used.Maxrss >> 10
		}
		wall, busy, memory := measured(self(append([]string{"train", "--out", ours, "--in"}, files...)...))
		t.Logf("%s: wall %.1f s, processor %.1f s, %d MB", pattern, wall.Seconds(), busy.Seconds(), memory)
		_, _, memory = measured(exec.Command(python, append([]string{"-c", trainScript, theirs, ours}, files...)...))
		t.Logf("%s: tokenizers takes %d MB, with its texts", pattern, memory)
		if a, b := modelOf(t, ours), modelOf(t, theirs); !slices.Equal(a.merges, b.merges) ||
			!reflect.DeepEqual(a.vocab, b.vocab) {
			t.Errorf("%s: the vocabularies differ", pattern)
		}
	}
}

type model struct {
	vocab  map[string]int
	merges []string
}

// modelOf reads the vocabulary and the merges of a tokenizer.json. A merge is a list or, in older files, a text.
func modelOf(t *testing.T, path string) (m model) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var f struct {
		Model struct {
			Vocab  map[string]int `json:"vocab"`
			Merges []any          `json:"merges"`
		} `json:"model"`
	}
	if err := json.Unmarshal(b, &f); err != nil {
		t.Fatal(err)
	}
	for _, merge := range f.Model.Merges {
		if pair, ok := merge.([]any); ok {
			merge = pair[0].(string) + " " + pair[1].(string)
		}
		m.merges = append(m.merges, merge.(string))
	}
	m.vocab = f.Model.Vocab
	return m
}
