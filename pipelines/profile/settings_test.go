package main

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/urfave/cli/v2"

	"bitnet1/kernels/cpu"
	"bitnet1/kernels/devicetest"
	"bitnet1/shared/lm/model"
)

// settingsWith are those that the command line gives.
func settingsWith(t *testing.T, flags string) (s settings) {
	t.Helper()
	app := newApp()
	app.Action = func(c *cli.Context) (err error) {
		s, err = settingsOf(c)
		return err
	}
	if err := app.Run(append([]string{"profile"}, strings.Fields(flags)...)); err != nil {
		t.Fatalf("%s: %v", flags, err)
	}
	return s
}

// A flag changes the options of the model that is measured, and no other flag's.
func TestOptionsOfTheCommandLine(t *testing.T) {
	for flags, change := range map[string]func(o *model.Options){
		"":                      func(*model.Options) {},
		"--grad-bits 5":         func(o *model.Options) { o.GradBits = 5 },
		"--weight-grad-bits 8":  func(o *model.Options) { o.WeightGradBits = 8 },
		"--muon":                func(o *model.Options) { o.Muon = true },
		"--gradient-sums fixed": func(o *model.Options) { o.FixedSums = true },
		"--gradient-sums float": func(*model.Options) {},
		"--devices cpu,cpu":     func(o *model.Options) { o.FixedSums, o.Batch = true, 16 },
		"--micro-tokens 1024":   func(o *model.Options) { o.Batch = 8 },
		"--documents separate": func(o *model.Options) {
			o.Documents = model.Documents{Separate: true, EndOfText: 256}
		},
	} {
		want := model.Options{Batch: 32, GradBits: 4}
		change(&want)
		if got := settingsWith(t, flags).options(); !reflect.DeepEqual(got, want) {
			t.Errorf("%q measures a model with %+v, want %+v", flags, got, want)
		}
	}
}

// The first steps do not count. Those that do sleep, which takes the time that was asked for or more.
func TestMedianLeavesOutTheFirstSteps(t *testing.T) {
	const slow = 20 * time.Millisecond
	s := small("cpu")
	s.steps = 1
	median, err := s.time("", func(step int, _, _ []int32) error {
		if step >= warmUp {
			time.Sleep(slow)
		}
		return nil
	})
	if err != nil || median < slow {
		t.Errorf("a step that takes %v or more took %v (%v)", slow, median, err)
	}
}

// What training takes of a device with memory of its own is that of the options, with the copy for checkpoints. The
// device is one of limited memory on the processor.
func TestMemory(t *testing.T) {
	dev := &devicetest.Limited{Device: cpu.New(cpu.Options{}), Limit: 1 << 30}
	for name, change := range map[string]func(*settings){
		"AdamW": func(*settings) {}, "Muon": func(s *settings) { s.muon = true },
		"half": func(s *settings) { s.micro /= 2 },
	} {
		s := small("cpu")
		change(&s)
		got, err := s.memory(dev)
		if err != nil {
			t.Fatal(err)
		}
		want, err := model.Memory(s.config, dev,
			model.Options{Batch: s.micro / s.config.Seq, GradBits: s.gradBits, Muon: s.muon, Snapshots: true})
		if err != nil || got != want || got == 0 {
			t.Errorf("%s: training takes %d bytes, want %d (%v)", name, got, want, err)
		}
	}
}
