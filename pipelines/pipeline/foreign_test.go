package main

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bitnet1/shared/pythontest"
	"bitnet1/shared/run/bus"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/journal"
)

// The launcher uses the server that NATS_URL names, and writes the events of other programs into the run's journal.
func TestEventsOfStrangers(t *testing.T) {
	server, err := bus.StartServer(t.TempDir(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Stop()
	b, err := bus.Connect(t.Context(), server.Address(), "stranger")
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	w := newWorld(t)
	w.env = server.Address().Environ()
	cmd := w.command("pipeline", tiny("--run", "r")...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	begun := func() bool {
		events, _, err := b.History(t.Context(), "r", event.RunStarted{}.Kind(), 0)
		if err != nil {
			t.Fatal(err)
		}
		return len(events) > 0
	}
	w.eventually("the beginning of the run", begun)
	raw, err := event.Marshal(map[string]any{"colour": "red"})
	if err != nil {
		t.Fatal(err)
	}
	strange, err := event.Wrap("r", "stranger", "", event.Part{}, "colour.seen", raw)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Publish(t.Context(), strange); err != nil {
		t.Fatal(err)
	}
	if status := w.status(cmd.Wait()); status != 0 {
		t.Fatalf("status %d: %s", status, stderr.String())
	}
	kept, err := journal.Open(w.data).Read("r", "colour.seen")
	if err != nil || len(kept) != 1 || kept[0].ID != strange.ID {
		t.Errorf("%+v, %v", kept, err)
	}
}

// A stage in Python has its line on the screen and its column in the table. After a rerun without a launcher the table
// has the column, too.
func TestAForeignStageHasAColumn(t *testing.T) {
	python := pythontest.Interpreter(t, "nats", "msgpack") // as docs/examples/watch.py needs
	w := newWorld(t)
	file := w.write("stages: {tokenize: , shard: , train: , evaluate: , watch: }\ncommands: {watch: [" + python +
		", docs/examples/watch.py]}\n")
	args := tiny("--run", "r", "--set", "train.steps=40")
	args = slices.DeleteFunc(append(args[:len(args)-1], file), func(a string) bool { return a == "--json" })
	for i := len(args) - 1; i > 0; i-- { // the pipeline has no probe
		if strings.HasPrefix(args[i], "probe.") {
			args = slices.Delete(args, i-1, i+1)
		}
	}
	said := w.must("pipeline", args...)
	for _, want := range []string{"checkpoint 40 watched", "  gain\n", "gain        how much less the loss is",
		"(bits/token; higher is better)"} {
		if !strings.Contains(said, want) {
			t.Errorf("%q is missing:\n%s", want, said)
		}
	}
	var shown struct {
		Checkpoints []struct {
			Bits    float64 `json:"bits_per_token"`
			Unigram float64 `json:"unigram_entropy"`
			Gain    float64 `json:"gain"`
		}
	}
	if err := json.Unmarshal([]byte(w.must("pipeline", "runs", "--json", "r")), &shown); err != nil {
		t.Fatal(err)
	}
	for _, c := range shown.Checkpoints {
		if len(shown.Checkpoints) != 2 || c.Gain == 0 || math.Abs(c.Unigram-c.Bits-c.Gain) > 1e-9 {
			t.Errorf("%+v", shown.Checkpoints)
		}
	}
}

// The example stages in Go and in Python take part in a run: flips compares each checkpoint with the one before, and
// sample, which finds its parameter in the run's definition, has each packed model continue a text.
func TestExamplesOfStages(t *testing.T) {
	python := pythontest.Interpreter(t, "nats", "msgpack")
	w := newWorld(t)
	example, err := os.ReadFile(filepath.Join("..", "..", "docs", "examples", "v76-own.yml"))
	if err != nil {
		t.Fatal(err)
	}
	file := w.write(strings.Replace(string(example), "python3", python, 1))
	args := slices.DeleteFunc(tiny("--run", "r", "--set", "sample.tokens=5", "--set",
		"sample.generate="+filepath.Join(programs, "generate")), func(a string) bool { return a == "--json" })
	args[len(args)-1] = file
	for i := len(args) - 1; i > 0; i-- { // the pipeline has no probe
		if strings.HasPrefix(args[i], "probe.") {
			args = slices.Delete(args, i-1, i+1)
		}
	}
	said := w.must("pipeline", args...)
	for _, want := range []string{"checkpoint 80: ", "of the weights flipped since 60",
		"checkpoint 80 wrote: It was a dark", "flips       share of the weights whose sign is another one"} {
		if !strings.Contains(said, want) {
			t.Errorf("%q is missing:\n%s", want, said)
		}
	}
	var shown struct {
		Checkpoints []struct {
			Step  int
			Flips *float64
		}
	}
	if err := json.Unmarshal([]byte(w.must("pipeline", "runs", "--json", "r")), &shown); err != nil {
		t.Fatal(err)
	}
	for i, c := range shown.Checkpoints {
		if len(shown.Checkpoints) != 4 || (c.Flips == nil) != (i == 0) || i > 0 && (*c.Flips <= 0 || *c.Flips >= 0.5) {
			t.Errorf("%+v", shown.Checkpoints)
		}
	}
	samples, err := journal.Open(w.data).Read("r", "sample.written")
	if err != nil || len(samples) != 4 {
		t.Fatalf("%d samples, %v", len(samples), err)
	}
	texts := map[string]bool{}
	for _, e := range samples {
		var body struct {
			Text string `msgpack:"text"`
		}
		if err := event.Unmarshal(e.Body, &body); err != nil {
			t.Fatal(err)
		}
		texts[body.Text] = true
	}
	if len(texts) < 2 {
		t.Errorf("all checkpoints wrote %v", texts)
	}
	if again := w.must("flips", "run", "--run", "r", "--picture=false"); strings.Count(again, "_flips.json") != 3 {
		t.Errorf("flips over the finished run: %s", again)
	}
}

// A program that cannot describe itself is described by a file beside it.
func TestAFileDescribesAStage(t *testing.T) {
	w := newWorld(t)
	program := write(t, "count.sh", []byte("#!/bin/sh\nexit 1\n"))
	description := `{"name": "count", "kind": "source.added", "emits": [],
		"parameters": [{"key": "least", "type": "integer", "default": 3}],
		"results": [{"kind": "words.counted", "columns": [{"key": "n", "name": "words", "value": "{n}"}]}]}`
	beside := filepath.Join(filepath.Dir(program), "count.json")
	if err := os.WriteFile(beside, []byte(description), 0o644); err != nil {
		t.Fatal(err)
	}
	file := w.write("stages: {count: {least: 5}}\ncommands: {count: [sh, " + program + "]}\n")
	said := w.must("pipeline", "run", "--check", "--json", file)
	if !strings.Contains(said, `"stage":"count","answers":"source.added"`) || !strings.Contains(said, `"name":"words"`) {
		t.Errorf("it says %s", said)
	}
	w.refuses(1, []string{"least: \"many\" is not an integer"}, "pipeline", "run", "--check", "--set", "count.least=many",
		file)
	if err := os.WriteFile(beside, []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	w.refuses(1, []string{beside + " holds is not a description"}, "pipeline", "run", "--check", file)
}
