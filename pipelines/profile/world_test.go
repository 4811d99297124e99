package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bitnet1/kernels"
	"bitnet1/kernels/timing"
)

func TestMeasureTogether(t *testing.T) { measuresTogether(t, "cpu", "cpu") }

// measuresTogether tests that two devices take steps together, and that one of them takes its half alone.
func measuresTogether(t *testing.T, devices ...string) {
	t.Helper()
	s := small(devices...)
	s.muon, s.muonSteps = true, 3
	pprofFile := filepath.Join(t.TempDir(), "cpu.pprof")
	m, err := s.measure(pprofFile)
	if err != nil {
		t.Fatal(err)
	}
	hasProfile(t, pprofFile)
	all := m.together
	if m.tokens != 32 || m.threads != 1 || m.median <= 0 || len(m.operations) == 0 {
		t.Errorf("measured %+v alone", m)
	}
	if m.gpu() != (m.memory > 0) {
		t.Errorf("training takes %d bytes of %s", m.memory, m.name)
	}
	if all.tokens != 64 || all.median <= 0 || all.floatAlone <= 0 {
		t.Errorf("measured %+v together", *all)
	}
	parameters, blocks := 0.0, 0.0
	for _, p := range s.config.Parameters() {
		parameters += float64(p.Size())
		if strings.HasPrefix(p.Name, "blocks.") && strings.HasSuffix(p.Name, ".weight") {
			blocks += float64(p.Size())
		}
	}
	megabytes := map[string]float64{}
	for _, o := range all.exchanges {
		var calls float64
		if calls, megabytes[o.Name], _ = all.perStep(o); calls < 1 || o.Time <= 0 {
			t.Errorf("measured %+v", o)
		}
	}
	// Sums are 8 bytes each, and there are a few beside those of gradients. Muon's weights are 4 bytes each.
	if got := megabytes["AllReduce"] * 1e6 / 8; got < parameters || got > parameters+20 {
		t.Errorf("a step sums %g values up, and has %g parameters", got, parameters)
	}
	if got := megabytes["Broadcast"] * 1e6 / 4; got != blocks {
		t.Errorf("a step broadcasts %g values, and Muon has %g", got, blocks)
	}
	if calls, took := all.waited(); calls < 1 || took <= 0 {
		t.Errorf("a device waits %g times, %v", calls, took)
	}
	if list := timing.Sum(all.exchanges); len(list) != 3 {
		t.Errorf("exchanges are %+v", list)
	}
}

// Where a rank fails, no other waits for it.
func TestAFailedRankEndsTheStep(t *testing.T) {
	w, err := small("cpu", "cpu", "cpu").join()
	if err != nil {
		t.Fatal(err)
	}
	cause := errors.New("rank 1 is out of memory")
	err = w.each(func(r *rank) error {
		if r.exchanges.Rank() == 1 {
			return cause
		}
		a := &kernels.Allocator{Device: r.device}
		r.exchanges.AllReduce(a.Longs(50000))
		r.exchanges.Join()
		return errors.Join(a.Err, r.exchanges.Err())
	})
	if !errors.Is(err, cause) {
		t.Errorf("the step ended with %v, want %v", err, cause)
	}
	if err := w.close(); err != nil {
		t.Error(err)
	}
}

func TestDevicesOfTheCommandLine(t *testing.T) {
	out := filepath.Join(t.TempDir(), "step")
	profile := func(flags string) error {
		const model = " --preset nano --d 16 --layers 1 --heads 1 --ff 16 --steps 1 --threads 2 --sequence-length 16 "
		return newApp().Run(append(strings.Fields("profile"+model+flags), "--out", out))
	}
	for flags, want := range map[string]string{
		"--devices cpu,cpu --gradient-sums float":             "several devices need fixed",
		"--gradient-sums double":                              `gradient-sums is "double"`,
		"--devices cpu,":                                      "is no device",
		"--devices cpu,cpu --tokens 96 --micro-tokens 32":     "3 micro-batches on 2 devices: want as many on each",
		"--devices cpu,cpu --tokens 16":                       "16 tokens in micro-batches of 8",
		"--devices cpu,cpu --tokens 64 --micro-tokens 32":     "",
		"--device cuda:99 --devices cpu --tokens 64":          "",
		"--device cpu --tokens 64 --gradient-sums fixed":      "",
		"--devices cpu,cpu --tokens 64 --gradient-sums fixed": "",
	} {
		if err := profile(flags); (want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: ended with %v, want %q", flags, err, want)
		}
	}
	if err := profile("--devices cpu,cpu --tokens 64"); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(out + ".md")
	if err != nil || !strings.Contains(string(text), " on 2 × cpu, 1 workers") ||
		!strings.Contains(string(text), ": 64 tokens a step in micro-batches of 32, ") {
		t.Errorf("the report of two devices is (%v)\n%s", err, text)
	}
}
