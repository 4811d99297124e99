package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bitnet1/shared/run/results"
)

// write makes a pipeline file.
func (w *world) write(content string) string {
	w.t.Helper()
	path := filepath.Join(filepath.Dir(w.data), "p.yml")
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		w.t.Fatal(err)
	}
	return path
}

// Mistakes are found before anything is started or written, and the message says what to give instead.
func TestMistakesAreFoundBeforeAnythingStarts(t *testing.T) {
	for _, c := range []struct {
		name, file string // the content of the pipeline file, or ""
		args       []string
		words      []string
	}{
		{"no stage announces", "stages: {train: {}}", nil,
			[]string{"stage train answers dataset.sealed events", "train describe"}},
		{"a chain without its first", "stages: {shard: {}, train: {}}", nil,
			[]string{"stage shard answers tokens.written", "stage train"}},
		{"lengths of a copy task", "", []string{"--source", "copy:length=32", "pipelines/copy.yml"},
			[]string{"--set shard.sequence_length=65 --set shard.counted_targets=33,64 --set tokenize.tokenizer=symbols-64 " +
				"--set train.batch_tokens=2080"}},
		{"symbols of a copy task", "", []string{"--source", "copy:symbols=8", "pipelines/copy.yml"},
			[]string{"--set tokenize.tokenizer=symbols-8"}},
		{"no checkpoint", "", []string{"--set", "train.init=go.mod", "pipelines/v76.yml"}, []string{"init: ", "go.mod"}},
		{"a parameter as a flag", "", []string{"--steps", "10", "pipelines/v76.yml"},
			[]string{"-steps", "given as --set train.steps=10"}},
		{"a parameter as a flag of two stages", "", []string{"pipelines/v76.yml", "--micro-tokens=9"},
			[]string{"--set train.micro_tokens=9 or --set evaluate.micro_tokens=9 or --set probe.micro_tokens=9"}},
		{"nearly a parameter", "", []string{"--learning-rat", "1", "pipelines/v76.yml"},
			[]string{"--set train.learning_rate=1"}},
		{"without the stage", "", []string{"--set", "steps=10", "pipelines/v76.yml"}, []string{"e.g. train.steps=10"}},
		{"a wrong value", "", []string{"--set", "train.steps=ten", "pipelines/v76.yml"},
			[]string{"--set train.steps=ten", "is not an integer"}},
		{"an id that is a path", "", []string{"--run", "../x", "pipelines/v76.yml"}, []string{"--run ../x: use letters"}},
		{"no port", "", []string{"--nats-port", "65536", "pipelines/v76.yml"}, []string{"--nats-port 65536: use 1 to 65535"}},
		{"a time before now", "", []string{"--stall", "-5m", "pipelines/v76.yml"}, []string{"--stall -5m0s", "0 for never"}},
		{"hardly a time", "", []string{"--outage", "999us", "pipelines/v76.yml"},
			[]string{"--outage 999µs: use 1ms or more"}},
		{"no address", "", []string{"--view=foo", "pipelines/v76.yml"}, []string{"--view foo: use true, false or HOST:PORT"}},
		{"two files", "", []string{"pipelines/v75.yml", "pipelines/v76.yml"}, []string{"give one pipeline file"}},
		{"a rotation of another width", "", []string{"--set", "train.d=96", "pipelines/v77.yml"},
			[]string{"hadamard is 128", "divides d = 96", "--set train.d=96 and pipelines/v77.yml"}},
		{"no whole sequences", "", []string{"--preset", "nano", "--set", "train.batch_tokens=1000", "--set",
			"train.micro_tokens=100", "--set", "train.sequence_start=48", "pipelines/v77.yml"}, []string{
			"train.batch_tokens is 1000, no multiple of shard.sequence_length, 128: use 1024",
			"train.micro_tokens is 100, less than shard.sequence_length: use 128 or more",
			"train.sequence_start is 48: shard.sequence_length, 128, must be 2, 4, 8 … times it"}},
		{"no whole sequences at the start", "", []string{"--preset", "nano", "--set", "shard.sequence_length=96", "--set",
			"train.batch_tokens=1600", "--set", "train.batch_start=100", "--set", "train.sequence_start=32", "--set",
			"train.hadamard=32", "pipelines/v77.yml"}, []string{
			"train.batch_tokens is 1600, no multiple of shard.sequence_length, 96: use 1632",
			"train.batch_start is 100, no multiple of shard.sequence_length, 96: use 192",
			"train.sequence_start is 32: shard.sequence_length, 96, must be 2, 4, 8 … times it"}},
		{"more bits of reads than of values", "", []string{"--set", "train.value_bits=3", "pipelines/v77.yml"},
			[]string{"read_bits is 4 and value_bits 3", "--set train.value_bits=3"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			args := append([]string{"run", "--check"}, c.args...)
			if c.file != "" {
				args = append(args, w.write(c.file))
			}
			o := w.run("pipeline", args...)
			if o.status == 0 {
				t.Fatal("it is not refused")
			}
			for _, word := range c.words {
				if !strings.Contains(o.stderr, word) {
					t.Errorf("it does not say %q: %s", word, o.stderr)
				}
			}
			if _, err := os.Stat(w.data); err == nil {
				t.Error("it made a data directory")
			}
		})
	}
}

// A stage that checks its parameters for a launcher advises in the form of the launcher's flags.
func TestAdviceOfACheck(t *testing.T) {
	w := newWorld(t)
	w.env = []string{"BITNET1_DEVICES=cpu,cpu"}
	o := w.run("pipeline", "run", "--check", "pipelines/v76.yml")
	if o.status == 0 || !strings.Contains(o.stderr, "use --set train.gradient_sums=fixed") {
		t.Errorf("two devices with float sums: status %d, %s", o.status, o.stderr)
	}
}

// The advice of the messages about copy tasks is accepted, and so are correct copy tasks.
func TestCheckAcceptsWhatIsRight(t *testing.T) {
	w := newWorld(t)
	w.must("pipeline", "run", "--check", "pipelines/v76.yml", "--preset", "nano", "--set", "train.kshift_layers=[0,2]",
		"--set", "train.steps=1e3")
	w.must("pipeline", "run", "--check", "--nats-port", "65535", "--stall", "0", "--outage", "1ms", "--view",
		"127.0.0.1:0", "--run", "a_b-1", "--preset", "nano", "--set", "train.micro_tokens=128", "--set",
		"train.batch_tokens=1024", "--set", "train.batch_start=256", "--set", "train.sequence_start=32", "pipelines/v77.yml")
	w.must("pipeline", "run", "--check", "--nats-port", "0", "pipelines/v76.yml")
	w.must("pipeline", "run", "--check", "--source", "copy:symbols=8,length=32", "pipelines/copy.yml",
		"--set", "shard.sequence_length=65", "--set", "shard.counted_targets=33,64", "--set", "tokenize.tokenizer=symbols-8",
		"--set", "train.batch_tokens=2080")
	w.must("pipeline", "run", "--check",
		w.write("stages: {tokenize: {filters: 'score >= 3, language = en'}}\nsources: [sample]\n"))
	said := w.must("pipeline", "run", "--check", "--json", "pipelines/v76.yml")
	var checked struct{ Stages []results.Declaration }
	if err := json.Unmarshal([]byte(said), &checked); err != nil || len(checked.Stages) != 7 ||
		len(checked.Stages[3].Results) == 0 || checked.Stages[3].Stage != "evaluate" {
		t.Errorf("%v, %s", err, said)
	}
	if _, err := os.Stat(w.data); err == nil {
		t.Error("it made a data directory")
	}
}

// A shell expands a pattern to several arguments.
func TestASourcesPatternNeedsNoQuotes(t *testing.T) {
	w := newWorld(t)
	books, err := filepath.Glob(texts)
	if err != nil || len(books) < 2 {
		t.Fatal(books, err)
	}
	file := w.write("stages: {tokenize: {}}\n")
	for _, args := range [][]string{
		append(append([]string{"run", "--json", "--run", "a", "--source"}, books...), file),
		append([]string{"run", "--json", "--run", "b", file, "--source"}, books...),
	} {
		w.must("pipeline", args...)
		made, err := filepath.Glob(filepath.Join(w.data, "runs", args[3], "tokenize", "*.tokens.arrow"))
		if err != nil || len(made) != len(books) {
			t.Errorf("%v: %d batches of %d books, %v", args, len(made), len(books), err)
		}
	}
}

// A run does not read what the runs before it wrote, so the same command is the same run.
func TestAPatternLeavesOutDataDirectories(t *testing.T) {
	w := newWorld(t)
	around := filepath.Dir(w.data)
	for _, name := range []string{"texts/a.txt", "texts/b.txt"} {
		path := filepath.Join(around, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755),
			os.WriteFile(path, []byte(strings.Repeat(name, 1000)), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	args := []string{"run", "--preset", "nano", "--source", filepath.Join(around, "**", "*.txt"),
		w.write("stages: {tokenize: {}}")}
	w.must("pipeline", args...)
	if said := w.must("pipeline", args...); !strings.Contains(said, "2 source files") ||
		!strings.Contains(said, "this run has finished before") {
		t.Errorf("the same command once more: %s", said)
	}
}

// A job that takes too long ends its run, with the cause.
func TestALaunchedStageHasADeadline(t *testing.T) {
	w := newWorld(t)
	o := w.run("pipeline", tiny("--deadline", "train=1ms", "--attempts", "train=1")...)
	if o.status != 1 || !strings.Contains(o.stderr, "the job took longer than --deadline 1ms") {
		t.Errorf("status %d: %s", o.status, tail(o.stderr))
	}
}

// A value that a stage refuses is named with where it was given.
func TestARefusedValueIsFound(t *testing.T) {
	w := newWorld(t)
	file := w.write("stages: {tokenize: , shard: , train: {\n    beta1: 3}}\n")
	w.refuses(1, []string{"pipeline: stage train: batch_tokens is 0", "(given by --set train.batch_tokens=0)"},
		"pipeline", "run", "--check", "--preset", "nano", "--set", "train.batch_tokens=0", "pipelines/v76.yml")
	w.refuses(1, []string{"pipeline: stage train: batch_tokens is -1000"}, "pipeline", "run", "--check", "--preset",
		"nano", "--set", "train.batch_tokens=-1000", "pipelines/v76.yml")
	w.refuses(1, []string{"pipeline: stage train: ", "beta1", "(given by " + file + ":2)"}, "pipeline", "run", "--check",
		"--preset", "nano", file)
}

// A cause for which several jobs failed is told once at the end.
func TestACauseIsToldOnce(t *testing.T) {
	w := newWorld(t)
	o := w.run("pipeline", tiny("--set", "shard.validation_share=0", "--set", "train.steps=40")...)
	if o.status != 1 || !strings.Contains(o.stderr, "4 jobs failed:") ||
		strings.Count(o.stderr, "nothing to measure on") != 1 {
		t.Errorf("status %d: %s", o.status, o.stderr)
	}
}
