package model

import (
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	"bitnet1/kernels/timing"
	"bitnet1/shared/compute"
)

var (
	operationsPreset = flag.String("operations.preset", "", "measure the operations of training steps of this preset")
	operationsDevice = flag.String("operations.device", compute.CPU, "on this device")
	operationsStream = flag.Int("operations.stream", 1, "bits of the stream")
	operationsGrad   = flag.Int("operations.grad", 4, "bits of gradients")
	operationsTokens = flag.Int("operations.tokens", 4096, "tokens of a step")
	operationsSteps  = flag.Int("operations.steps", 20, "steps to measure")
	operationsTable  = flag.String("operations.table", "", "write the table to this file as well")
)

// TestOperations prints a table of what every operation takes in a training step.
func TestOperations(t *testing.T) {
	if *operationsPreset == "" {
		t.Skip("measures with -operations.preset")
	}
	c, err := Preset(*operationsPreset)
	if err != nil {
		t.Fatal(err)
	}
	c.StreamBits = *operationsStream
	inner, err := compute.Open(*operationsDevice, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer inner.Close()
	dev := timing.New(inner)
	batch := max(1, *operationsTokens/c.Seq)
	m, err := New(c, dev, Options{Batch: batch, GradBits: *operationsGrad})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Init(1); err != nil {
		t.Fatal(err)
	}
	var start time.Time
	for step := range 2 + *operationsSteps {
		if step == 2 { // all memory is there, and warm
			dev.Reset()
			start = time.Now()
		}
		tokens, targets := sequences(c, batch, uint64(step))
		if err := m.Step(tokens, targets, Update{Settings: Settings{Gamma: 0.5, Step: uint64(step)}, LearningRate: 1e-3, MaxNorm: 1}); err != nil {
			t.Fatal(err)
		}
	}
	rate := float64(*operationsSteps*batch*c.Seq) / time.Since(start).Seconds()
	title := fmt.Sprintf("%s on %s, stream %d, gradients %d: a step of %d tokens, %.1f k tokens/s\n\n",
		*operationsPreset, dev.Name(), *operationsStream, *operationsGrad, batch*c.Seq, rate/1000)
	out := []*os.File{os.Stdout}
	if *operationsTable != "" {
		f, err := os.Create(*operationsTable)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		out = append(out, f)
	}
	for _, f := range out {
		fmt.Fprint(f, title)
		if err := timing.WriteTable(f, dev.Operations(), *operationsSteps); err != nil {
			t.Fatal(err)
		}
	}
}
