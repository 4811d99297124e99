package model

import (
	"errors"
	"testing"

	"bitnet1/kernels"
	"bitnet1/kernels/cpu"
	"bitnet1/kernels/devicetest"
)

// limited is a device, on the processor, on which a batch of n sequences just fits with the options o.
func limited(t *testing.T, c Config, o Options, n int) *devicetest.Limited {
	t.Helper()
	dev := &devicetest.Limited{Device: cpu.New(cpu.Options{})}
	o.Batch = n
	need, err := Memory(c, dev, o)
	if err != nil {
		t.Fatal(err)
	}
	dev.Limit = need + need/16
	return dev
}

// The batch that Fits names can be trained, and the next larger one cannot. The device is one of limited memory on the
// processor.
func TestFits(t *testing.T) {
	for _, v := range []struct {
		config Config
		o      Options
	}{
		{small(), Options{Snapshots: true}}, {small(), Options{GradBits: 4, Bonsai: true}},
		{small().V77(), Options{Snapshots: true, Muon: true}}, {small().V77(), Options{GradBits: 4}},
	} {
		c, o := v.config, v.o
		dev := limited(t, c, o, 8)
		batch, err := Fits(c, dev, o, []int{64, 32, 16, 8, 4, 2, 1})
		if err != nil || batch != 8 {
			t.Fatalf("%+v: a batch of %d fits (%v), want 8", o, batch, err)
		}
		o.Batch = batch
		m, err := New(c, dev, o)
		if err != nil {
			t.Fatal(err)
		}
		train(t, m, 0, 2)
		o.Batch = 16
		if _, err := New(c, limited(t, c, Options{}, 8), o); !errors.Is(err, kernels.ErrMemory) {
			t.Errorf("a batch of 16 gave %v", err)
		}
	}
	dev := limited(t, small(), Options{}, 1)
	need, err := Memory(small(), dev, Options{Batch: 1})
	if err != nil {
		t.Fatal(err)
	}
	for dev.Limit = need; dev.Limit-dev.Limit/32 < need; { // to the byte, beside the reserve
		dev.Limit++
	}
	for limit, want := range map[int]int{dev.Limit: 1, dev.Limit - 1: 0} {
		dev.Limit = limit
		if batch, err := Fits(small(), dev, Options{}, []int{1}); batch != want || err != nil {
			t.Errorf("in %d bytes, of which %d are needed, a batch of %d fits (%v), want %d", limit, need, batch, err,
				want)
		}
	}
	dev.Limit /= 2
	if batch, err := Fits(small(), dev, Options{}, []int{2, 1}); batch != 0 || err != nil {
		t.Errorf("a batch of %d fits where none does (%v)", batch, err)
	}
}
