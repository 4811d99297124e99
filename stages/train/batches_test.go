package main

import (
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bitnet1/kernels/cpu"
	"bitnet1/shared/data/seal"
	"bitnet1/shared/lm/model"
	"bitnet1/shared/lm/trainlog"
	"bitnet1/shared/measure/measuretest"
)

// A step has exactly batch_tokens; what is computed at once divides it and stays within micro_tokens.
func TestSequencesOfAStep(t *testing.T) {
	for _, c := range []struct{ batch, microTokens, seq, micro, step int }{
		{4096, 4096, 128, 32, 32},
		{512, 4096, 128, 4, 4},
		{1024, 4096, 128, 8, 8},
		{4096, 3000, 128, 16, 32}, // 23 sequences are within 3,000 tokens
		{65536, 3000, 128, 16, 512},
		{128, 128, 128, 1, 1},
		{131 * 128, 32 * 128, 128, 1, 131},
		{12 * 16, 5 * 16, 16, 4, 12},
		{12 * 16, 6*16 + 15, 16, 6, 12},
	} {
		p := Params{BatchTokens: c.batch, MicroTokens: c.microTokens, BatchRamp: 1, Steps: 2}
		if micro, step, err := p.sequences(c.seq); err != nil || micro != c.micro || step != newRamp(0, c.step, 2) {
			t.Errorf("batch %d, micro %d, sequences of %d: %d at once of %d (%v), want %d of %d", c.batch, c.microTokens, c.seq,
				micro, step, err, c.micro, c.step)
		}
	}
	for _, c := range []struct {
		batch, micro int
		want         string
	}{
		{100, 128, "batch_tokens is 100, and a sequence of the dataset has 128 tokens: use 128"},
		{1000, 128, "batch_tokens is 1000, no multiple of the 128 tokens of the dataset's sequences: use 896 or 1024"},
		{128, 127, "micro_tokens is 127, and a sequence of the dataset has 128 tokens, which are computed " +
			"together: use 128 or more"},
	} {
		if _, _, err := (Params{BatchTokens: c.batch, MicroTokens: c.micro}).sequences(128); err == nil ||
			!strings.Contains(err.Error(), c.want) {
			t.Errorf("batch %d, micro %d: %v, want %q", c.batch, c.micro, err, c.want)
		}
	}
}

// steps are the lines of a training log that are about steps.
func steps(t *testing.T, dir string) (lines []trainlog.Step) {
	t.Helper()
	for _, line := range readLog(t, dir) {
		if step, ok := line.(trainlog.Step); ok {
			lines = append(lines, step)
		}
	}
	return lines
}

func readLog(t *testing.T, dir string) []trainlog.Line {
	t.Helper()
	lines, err := trainlog.Read(filepath.Join(dir, trainlog.FileName))
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

// The division of a step into micro-batches changes nothing but the order in which floats are added up. The numbers of
// sequences at once include some that do not divide the six of a step.
func TestMicroBatchesDoNotMatter(t *testing.T) {
	manifest := writeDataset(t, 16, proverbs()...)
	train := func(micro string) []trainlog.Step {
		dir := t.TempDir()
		trainWith(t, small(manifest, dir, "--steps", "6", "--batch-tokens", "96", "--micro-tokens", micro)...)
		return steps(t, dir)
	}
	want := train("96")
	if len(want) != 6 || want[5].Tokens != 6*96 {
		t.Fatalf("steps %+v", want)
	}
	for _, micro := range []string{"16", "35", "80", "1000"} {
		for i, got := range train(micro) {
			if got.Tokens != want[i].Tokens || !(math.Abs(got.TrainBPC-want[i].TrainBPC) <= 1e-4) ||
				!(math.Abs(got.GradientNorm-want[i].GradientNorm) <= 1e-3*want[i].GradientNorm) {
				t.Errorf("%s tokens at once, step %d: %+v, want %+v", micro, i+1, got, want[i])
			}
		}
	}
}

// A step that cannot be what is asked for is refused, with what can.
func TestRefusesPartsOfSequences(t *testing.T) {
	manifest := writeDataset(t, 16, proverbs()...)
	cmd, said := program(t, small(manifest, t.TempDir(), "--batch-tokens", "100")...)
	if err := cmd.Run(); err == nil || !strings.Contains(said.String(), "use 96 or 112") {
		t.Errorf("batch_tokens 100 (%v):\n%s", err, said)
	}
}

// The log has every log_every-th step, and the last.
func TestLogEvery(t *testing.T) {
	dir := t.TempDir()
	trainWith(t, small(writeDataset(t, 16, proverbs()...), dir, "--steps", "17", "--log-every", "7")...)
	var logged []int
	for _, line := range steps(t, dir) {
		logged = append(logged, line.Step)
	}
	if !slices.Equal(logged, []int{7, 14, 17}) {
		t.Errorf("steps %v are in the log", logged)
	}
}

// One sequence is enough to train on.
func TestOneSequence(t *testing.T) {
	manifest := measuretest.Sealed(t, seal.Options{SequenceLength: 2, Seed: 3}, "")
	if n := measuretest.Open(t, manifest).Train.Len(); n != 1 {
		t.Fatalf("%d sequences", n)
	}
	trainWith(t, small(manifest, t.TempDir(), "--steps", "2", "--batch-tokens", "2")...)
}

// Every epoch reads every sequence once, in an order of its own, wherever its steps begin.
func TestEpochs(t *testing.T) {
	data := measuretest.Open(t, writeDataset(t, 16, proverbs()...))
	const per = 7
	n := data.Train.Len()
	b := newBatches(data.Train, 5, 16, newRamp(0, per, 0), start{})
	var epochs [3][]string
	for step := range (3*n + per - 1) / per {
		tokens, targets, err := b.step(step, nil, nil)
		if err != nil || len(tokens) != per*16 || len(targets) != len(tokens) {
			t.Fatalf("step %d: %d tokens, %d targets, %v", step, len(tokens), len(targets), err)
		}
		for i := range per {
			if at := step*per + i; at < 3*n {
				epochs[at/n] = append(epochs[at/n], fmt.Sprint(tokens[i*16:][:16], targets[i*16:][:16]))
			}
		}
	}
	for i, order := range epochs {
		if next := epochs[(i+1)%3]; slices.Equal(order, next) {
			t.Errorf("epochs %d and %d have the same order", i, (i+1)%3)
		}
		sorted := slices.Sorted(slices.Values(order))
		if !slices.Equal(sorted, slices.Sorted(slices.Values(epochs[0]))) || len(order) != n {
			t.Errorf("epoch %d does not read every sequence once", i)
		}
	}
	// A step is the same whichever was read before.
	late, _, err := newBatches(data.Train, 5, 16, newRamp(0, per, 0), start{}).step(n/per+3, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if again, _, err := b.step(n/per+3, nil, nil); err != nil || !slices.Equal(late, again) {
		t.Errorf("a step depends on the one before: %v", err)
	}
	if other, _, err := newBatches(data.Train, 6, 16, newRamp(0, per, 0), start{}).step(0, nil, nil); err != nil ||
		slices.Equal(other, firstOf(t, b)) {
		t.Errorf("the first step does not depend on the seed: %v", err)
	}
}

// The batch of the next step is read, and the other ranks are told of it, while the present one is computed, as long
// as there is a next step.
func TestNextBatchIsRead(t *testing.T) {
	data := measuretest.Open(t, writeDataset(t, 16, proverbs()...))
	var told []int
	p := prefetcher{batches: newBatches(data.Train, 5, 16, newRamp(0, 3, 0), start{}), steps: 4}
	p.tell = func(b batch) error { told = append(told, b.step); return nil }
	for _, step := range []int{0, 2, 3} { // also where one is left out
		tokens, targets, err := p.of(step)
		if err != nil {
			t.Fatal(err)
		}
		next := p.wait()
		want, wantTargets, err := newBatches(data.Train, 5, 16, newRamp(0, 3, 0), start{}).step(step, nil, nil)
		if err != nil || !slices.Equal(tokens, want) || !slices.Equal(targets, wantTargets) {
			t.Errorf("step %d has the batch of another one (%v)", step, err)
		}
		if last := step == 3; last != (next.tokens == nil) || !last && next.step != step+1 {
			t.Errorf("during step %d the batch of step %d is read: %d tokens", step, next.step, len(next.tokens))
		}
		if step == 2 && !slices.Equal(told, []int{0, 1, 2, 3}) {
			t.Errorf("the ranks were told to take steps %v", told)
		}
		p.next = make(chan batch, 1)
		p.next <- next
	}
	p.tell = func(batch) error { return model.ErrAbandoned }
	if _, _, err := p.of(0); !errors.Is(err, model.ErrAbandoned) {
		t.Errorf("a rank that was lost gave %v", err)
	}
}

// A batch that cannot be read is no order to other ranks.
func TestADamagedBatch(t *testing.T) {
	data := measuretest.Open(t, writeDataset(t, 16, proverbs()...))
	data.Manifest.Tokenizer.Vocab = 1 // of which the bytes of proverbs are not
	p := prefetcher{batches: newBatches(data.Train, 5, 16, newRamp(0, 3, 0), start{}), steps: 4}
	p.tell = func(b batch) error {
		t.Errorf("the ranks were told to take step %d", b.step)
		return nil
	}
	if _, _, err := p.of(0); err == nil || !strings.Contains(err.Error(), "corrupt") {
		t.Errorf("%v", err)
	}
}

// Closing waits for the batch that is being read: the dataset's mappings end after it.
func TestCloseWaitsForTheNextBatch(t *testing.T) {
	tr := &trainer{device: cpu.New(cpu.Options{}), batches: prefetcher{next: make(chan batch)}}
	read := false
	go func() { read = true; tr.batches.next <- batch{} }()
	tr.close()
	if !read || tr.batches.next != nil {
		t.Error("a batch is still being read")
	}
}

func firstOf(t *testing.T, b *batches) []int32 {
	t.Helper()
	tokens, _, err := b.step(0, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return tokens
}
