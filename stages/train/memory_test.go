package main

import (
	"errors"
	"log/slog"
	"strings"
	"testing"

	"bitnet1/kernels/cpu"
	"bitnet1/kernels/devicetest"
	"bitnet1/shared/data/dataset"
	"bitnet1/shared/lm/model"
	"bitnet1/shared/run/stage"
)

// A micro-batch that does not fit is answered with the one that does. The device is one of limited memory on the
// processor.
func TestMicroBatchThatDoesNotFit(t *testing.T) {
	p := defaults()
	p.D, p.Layers, p.Heads, p.FF = 24, 2, 2, 40
	c, err := p.config(dataset.TokenizerInfo{Vocab: 257}, 16)
	if err != nil {
		t.Fatal(err)
	}
	dev := &devicetest.Limited{Device: cpu.New(cpu.Options{})}
	options := model.Options{Seq: 16, Snapshots: true}
	memory := func(batch int) int {
		options.Batch = batch
		n, err := model.Memory(c, dev, options)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	dev.Limit = memory(6) * 21 / 20
	for _, test := range []struct {
		limit, micro, per int
		want              string // nothing: it fits
	}{
		{dev.Limit, 6, 24, ""},
		{dev.Limit, 24, 24, "too little memory for 384 tokens at once: use --micro-tokens 96, which fits; " +
			"a step stays 384 tokens"},
		// 6 sequences fit, 5 divide the step
		{dev.Limit, 20, 40, "use --micro-tokens 80, which fits; a step stays 640 tokens"},
		{memory(8) - 1, 8, 56, "use --micro-tokens 112, which fits"},
		{memory(1) * 21 / 20, 4, 12, "use --micro-tokens 16, which fits"},
		{1000, 6, 24, "too little memory to train this model, even a sequence of 16 tokens at a " +
			"time: use a smaller --preset"},
	} {
		options.Batch = test.micro
		tr := &trainer{
			job: &stage.Job[Params]{Params: p, Log: slog.New(slog.DiscardHandler)}, config: c, options: options,
			batches: prefetcher{batches: &batches{perStep: newRamp(0, test.per, 0)}},
		}
		err := tr.build(&devicetest.Limited{Device: dev.Device, Limit: test.limit})
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%d sequences at once: %v, want %q", test.micro, err, test.want)
		}
	}
	other := errors.New("not of memory")
	if tr := (&trainer{device: dev}); tr.advise(other) != other || tr.advise(nil) != nil {
		t.Error("another error was changed")
	}
}
