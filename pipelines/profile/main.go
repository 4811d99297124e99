// Command profile measures training steps: the tokens per second of whole steps, and the time of every kernel of a GPU
// or every operation of the processor, in categories. It writes a table and a picture. The trained model is of no use:
// its tokens are random, with the frequencies of language. Its subcommand inference measures packed models.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/pprof"

	"github.com/urfave/cli/v2"

	"bitnet1/kernels"
	"bitnet1/shared/lm/compute"
	"bitnet1/shared/lm/model"
	"bitnet1/shared/run/command"
)

func main() {
	cli.HelpPrinter = command.PrintHelp
	os.Exit(command.ExitStatus("profile", newApp().Run(os.Args), os.Stderr))
}

func newApp() *cli.App {
	return &cli.App{
		Name: "profile", Usage: "measure training steps, and inference", HideVersion: true,
		Description: "Examples:\n   profile --device cuda --preset 300M --stream-bits 1\n" +
			"   profile --devices 0,1 --preset 300M --tokens 131072",
		ExitErrHandler: func(*cli.Context, error) {},
		OnUsageError:   command.OnUsageError,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "device", Value: compute.Auto, Usage: "cpu, cuda, cuda:1 …, or auto"},
			&cli.StringFlag{Name: "devices", Usage: "devices that take a step together, as train's: 0,1 or cpu,cpu"},
			command.ThreadsFlag("worker threads of the processor"),
			&cli.StringFlag{Name: "preset", Value: "nano", Usage: "size of the model: nano, 75M or 300M"},
			&cli.IntFlag{Name: "d", Usage: "width of the residual stream, as train's; 0: the preset's"},
			&cli.IntFlag{Name: "layers", Usage: "number of layers, as train's; 0: the preset's"},
			&cli.IntFlag{Name: "heads", Usage: "attention heads of a layer, as train's; 0: the preset's"},
			&cli.IntFlag{Name: "ff", Usage: "width of the feed-forward layer, as train's; 0: the preset's"},
			&cli.IntFlag{Name: "sequence-length", Usage: "tokens of a sequence, as shard's; 0: the preset's"},
			&cli.IntFlag{Name: "stream-bits", Value: 4, Usage: "bits of the residual stream, as train's"},
			&cli.IntFlag{Name: "hidden-bits", Value: 1, Usage: "bits of the hidden layer, as train's"},
			&cli.IntFlag{Name: "query-bits", Value: 1, Usage: "bits of queries, as train's"},
			&cli.IntFlag{Name: "value-bits", Value: 1, Usage: "bits of values, as train's"},
			&cli.IntFlag{Name: "read-bits", Value: 1, Usage: "bits of what attention reads, as train's"},
			&cli.IntFlag{Name: "codebook-bits", Value: 1, Usage: "bits of embedding and head, as train's"},
			&cli.IntFlag{Name: "hadamard", Usage: "size of the blocks of the stream that are rotated, as train's"},
			&cli.BoolFlag{Name: "muon", Usage: "the blocks' weights take Muon, and not AdamW"},
			&cli.IntFlag{Name: "muon-steps", Value: 3, Usage: "steps of Muon's iteration, as train's"},
			&cli.StringFlag{Name: "attention", Value: kernels.RWSP.String(), Usage: "kind of attention, as train's"},
			&cli.StringFlag{Name: "documents", Value: model.Packed, Usage: "packed or separate, as train's"},
			&cli.IntFlag{Name: "document-tokens", Value: 500, Usage: "mean length of separate documents"},
			&cli.IntFlag{Name: "grad-bits", Value: 4, Usage: "bits of gradients, as train's"},
			&cli.IntFlag{Name: "weight-grad-bits", Usage: "bits of weights' gradients, as train's; 0: those of --grad-bits"},
			&cli.StringFlag{Name: "gradient-sums", Usage: "float or fixed, as train's; several devices need fixed, which is " +
				"their default, and one device takes float"},
			&cli.IntFlag{Name: "tokens", Value: 4096, Usage: "tokens of a step, of all devices together"},
			&cli.IntFlag{Name: "micro-tokens", Usage: "tokens computed at once; 0: all of a step, or of a device's part of it"},
			&cli.IntFlag{Name: "steps", Value: 20, Usage: "whole steps to take the median of, and at most " +
				"4 of these to look into"},
			&cli.StringFlag{Name: "out", Value: "profiles/step", Usage: "write `FILE`.md and FILE.png"},
			&cli.StringFlag{Name: "pprof", Usage: "write the processor's profile of the whole steps to this `FILE`"},
		},
		Action:   run,
		Commands: append(measureCommands(), inferenceCommand()),
	}
}

func run(c *cli.Context) error {
	s, err := settingsOf(c)
	if err != nil {
		return command.UsageError(err)
	}
	m, err := s.measure(c.String("pprof"))
	if err != nil {
		return err
	}
	out := c.String("out")
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return err
	}
	f, err := os.Create(out + ".md")
	if err != nil {
		return err
	}
	if err := errors.Join(writeReport(io.MultiWriter(f, os.Stdout), m), f.Close()); err != nil {
		return err
	}
	if err := drawProfile(out+".png", m); err != nil {
		return err
	}
	fmt.Printf("\nwritten to %s.md and %s.png\n", out, out)
	return nil
}

// settings say what is measured.
type settings struct {
	preset         string
	config         model.Config
	muon           bool
	muonSteps      int
	gradBits       int
	weightGradBits int
	fixedSums      bool // of gradients
	documents      model.Documents
	length         int // of a document on average, in tokens
	tokens         int // of a step
	micro          int // of a micro-batch
	steps          int
	devices        []string
	threads        int // of all devices
	measuredInto   int // steps that are looked into
}

func settingsOf(c *cli.Context) (s settings, err error) {
	s = settings{
		preset: c.String("preset"), gradBits: c.Int("grad-bits"), tokens: c.Int("tokens"), micro: c.Int("micro-tokens"),
		steps: c.Int("steps"), devices: []string{c.String("device")}, threads: command.Threads(c),
	}
	if list := c.String("devices"); list != "" {
		if s.devices, err = compute.Devices(list); err != nil {
			return s, err
		}
	}
	if s.fixedSums, err = sumsFixed(c.String("gradient-sums"), len(s.devices)); err != nil {
		return s, err
	}
	if s.config, err = model.Preset(s.preset); err != nil {
		return s, err
	}
	shape := map[string]*int{"d": &s.config.D, "layers": &s.config.Layers, "heads": &s.config.Heads, "ff": &s.config.FF,
		"sequence-length": &s.config.Seq}
	for name, size := range shape {
		if c.Int(name) != 0 {
			*size = c.Int(name)
		}
	}
	s.weightGradBits = c.Int("weight-grad-bits")
	s.config.StreamBits = c.Int("stream-bits")
	s.config.HiddenBits, s.config.QueryBits = c.Int("hidden-bits"), c.Int("query-bits")
	s.config.ValueBits, s.config.ReadBits = c.Int("value-bits"), c.Int("read-bits")
	s.config.CodebookBits = c.Int("codebook-bits")
	s.config.Hadamard, s.muon, s.muonSteps = c.Int("hadamard"), c.Bool("muon"), c.Int("muon-steps")
	if attention := c.String("attention"); attention != kernels.RWSP.String() {
		s.config = s.config.V75()
		s.config.Attention = attention
	}
	s.length = c.Int("document-tokens")
	if kind := c.String("documents"); kind == model.Separate {
		s.documents = model.Documents{Separate: true, EndOfText: int32(s.config.Vocab - 1)}
	} else if kind != model.Packed {
		return s, fmt.Errorf("documents is %q: it must be %s or %s", kind, model.Packed, model.Separate)
	}
	if s.micro == 0 {
		s.micro = s.tokens / len(s.devices)
	}
	switch {
	case s.length < 1:
		return s, fmt.Errorf("document-tokens is %d: it must be positive", s.length)
	case s.steps < 1:
		return s, fmt.Errorf("steps is %d: it must be positive", s.steps)
	case s.muonSteps < 1:
		return s, fmt.Errorf("muon-steps is %d: it must be positive", s.muonSteps)
	case s.config.Seq < 1:
		return s, fmt.Errorf("sequence-length is %d: it must be positive", s.config.Seq)
	case s.micro < s.config.Seq || s.micro%s.config.Seq != 0 || s.tokens%s.micro != 0 || s.tokens == 0:
		return s, fmt.Errorf("%d tokens in micro-batches of %d: want whole micro-batches of whole sequences of %d", s.tokens,
			s.micro, s.config.Seq)
	case s.tokens/s.micro%len(s.devices) != 0:
		return s, fmt.Errorf("%d micro-batches on %d devices: want as many on each", s.tokens/s.micro, len(s.devices))
	}
	s.measuredInto = min(s.steps, 4)
	return s, s.config.Validate()
}

// sumsFixed reports whether gradients are added up as integers. Several devices train the same as one only so.
func sumsFixed(sums string, devices int) (bool, error) {
	switch {
	case sums == "":
		return devices > 1, nil
	case sums == "float" && devices > 1:
		return false, errors.New("gradient-sums is float: several devices need fixed")
	case sums != "float" && sums != "fixed":
		return false, fmt.Errorf("gradient-sums is %q: it must be float or fixed", sums)
	}
	return sums == "fixed", nil
}

// open opens one device and builds the model on it. It calls with before the model is built.
func (s settings) open(with func(kernels.Device) kernels.Device) (kernels.Device, *model.Model, error) {
	dev, err := compute.Open(s.devices[0], s.threads)
	if err != nil {
		return nil, nil, err
	}
	dev = with(dev)
	m, err := s.build(dev, nil)
	if err != nil {
		return nil, nil, errors.Join(err, dev.Close())
	}
	return dev, m, nil
}

// build builds the model on a device, which c joins with others unless it is nil.
func (s settings) build(dev kernels.Device, c kernels.Communicator) (*model.Model, error) {
	o := s.options()
	o.Communicator = c
	m, err := model.New(s.config, dev, o)
	if err == nil {
		err = m.Init(1)
	}
	return m, err
}

func (s settings) options() model.Options {
	return model.Options{Batch: s.micro / s.config.Seq, GradBits: s.gradBits, WeightGradBits: s.weightGradBits,
		Muon: s.muon, Documents: s.documents, FixedSums: s.fixedSums}
}

// startProfile writes a profile of the processor until the returned function is called.
func startProfile(path string) (stop func() error, err error) {
	if path == "" {
		return func() error { return nil }, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() error {
		pprof.StopCPUProfile()
		return f.Close()
	}, nil
}
