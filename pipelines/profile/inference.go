package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"bitnet1/kernels/cpu"
	"bitnet1/shared/lm/model"
	"bitnet1/shared/run/command"
)

// inferenceCommand measures packed models. Each is measured in a process of its own, whose memory is that of this model
// alone.
func inferenceCommand() *cli.Command {
	return &cli.Command{
		Name: "inference", Usage: "measure packed models of random weights on the processor, beside llama.cpp",
		Description: "Example:\n   profile inference --preset 300M --llama-cpp llama.cpp",
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "preset", Value: cli.NewStringSlice("75M", "300M"), Usage: "sizes of models"},
			&cli.IntFlag{Name: "tokens", Value: 512, Usage: "tokens of a prompt, and before those that are decoded"},
			&cli.IntFlag{Name: "rounds", Value: 20, Usage: "the fastest of so many rounds counts"},
			command.ThreadsFlag("worker threads"),
			&cli.StringFlag{Name: "llama-cpp", Usage: "`DIR` with llama-bench and llama-batched-bench, and models that " +
				"docs/examples/llamacpp.py wrote"},
			&cli.StringFlag{Name: "out", Value: "profiles/inference.md", Usage: "write this `FILE`"},
		},
		Action: func(c *cli.Context) error {
			s := inferenceSettings{Tokens: c.Int("tokens"), Rounds: c.Int("rounds"), Threads: command.Threads(c)}
			if s.Tokens < shortPrompt || s.Rounds < 1 {
				return command.Usagef("%d tokens, %d rounds: want at least %d tokens and a round", s.Tokens, s.Rounds, shortPrompt)
			}
			return profileInference(c.StringSlice("preset"), s, c.String("llama-cpp"), c.String("out"))
		},
	}
}

// measureCommands are what inferenceCommand starts as processes.
func measureCommands() []*cli.Command {
	return []*cli.Command{
		{Name: "write-random", Hidden: true, ArgsUsage: "PRESET KIND FILE", Action: func(c *cli.Context) error {
			config, err := model.Preset(c.Args().Get(0))
			if err != nil {
				return err
			}
			return writeRandom(c.Args().Get(2), packedKinds[c.Args().Get(1)](config))
		}},
		{Name: "measure-inference", Hidden: true, ArgsUsage: "FILE SETTINGS", Action: func(c *cli.Context) error {
			var s inferenceSettings
			if err := json.Unmarshal([]byte(c.Args().Get(1)), &s); err != nil {
				return err
			}
			m, err := s.measure(c.Args().First())
			if err != nil {
				return err
			}
			return json.NewEncoder(os.Stdout).Encode(m)
		}},
	}
}

func profileInference(presets []string, s inferenceSettings, llamaCpp, out string) error {
	folder, err := os.MkdirTemp("", "inference-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	var rows []inferenceSpeed
	for _, preset := range presets {
		for _, kind := range kindsInOrder {
			row, err := measurePacked(folder, preset, kind, s)
			if err != nil {
				return fmt.Errorf("%s %s: %w", preset, kind, err)
			}
			rows = append(rows, row)
			fmt.Fprintf(os.Stderr, "%s: %.0f tokens/s\n", row.Name, row.Decode[1])
		}
		theirs, err := measureLlamaCpp(llamaCpp, preset, s)
		if err != nil {
			return err
		}
		rows = append(rows, theirs...)
	}
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return err
	}
	f, err := os.Create(out)
	if err != nil {
		return err
	}
	return errors.Join(writeInference(io.MultiWriter(f, os.Stdout), s, rows), f.Close())
}

// measurePacked measures a model of random weights.
func measurePacked(folder, preset, kind string, s inferenceSettings) (m inferenceSpeed, err error) {
	self, err := os.Executable()
	if err != nil {
		return m, err
	}
	path := filepath.Join(folder, "model.bit2")
	if out, err := exec.Command(self, "write-random", preset, kind, path).CombinedOutput(); err != nil {
		return m, fmt.Errorf("%w: %s", err, out)
	}
	settings, err := json.Marshal(s)
	if err != nil {
		return m, err
	}
	c := exec.Command(self, "measure-inference", path, string(settings))
	c.Stderr = os.Stderr
	out, err := c.Output()
	if err != nil {
		return m, err
	}
	err = json.Unmarshal(out, &m)
	m.Name = preset + " " + kind
	return m, err
}

// writeInference writes the table of all that was measured.
func writeInference(w io.Writer, s inferenceSettings, rows []inferenceSpeed) error {
	theirs := false
	var b strings.Builder
	fmt.Fprintf(&b, "Tokens per second on %s. Weights are random. %d tokens come before those\n"+
		"that are decoded, and a prompt has as many; several streams are decoded together, and the table has the tokens of\n"+
		"all. The fastest of %d rounds counts. The first token follows a prompt of %d tokens, with a model that is open.\n"+
		"Resident is the most memory of the process with one stream, the mapped file included.\n\n",
		cpu.New(cpu.Options{Workers: s.Threads}).Name(), s.Tokens, s.Rounds, shortPrompt)
	b.WriteString("| model | weights | file | decode |")
	for _, n := range streams[1:] {
		fmt.Fprintf(&b, " %d streams |", n)
	}
	b.WriteString(" prompt | first token | open | resident |\n|---|" + strings.Repeat("---:|", len(streams)+6) + "\n")
	for _, r := range rows {
		theirs = theirs || r.LlamaCpp
		fmt.Fprintf(&b, "| %s | %.0f M | %.1f MB |", r.Name, r.Weights/1e6, float64(r.File)/1e6)
		for _, n := range streams {
			b.WriteString(" " + orNone(r.Decode[n] > 0, "%.0f", r.Decode[n]) + " |")
		}
		fmt.Fprintf(&b, " %.0f | %.1f ms | %s | %.0f MB |\n", r.Prompt, milliseconds(r.FirstToken),
			orNone(r.Open > 0, "%.0f ms", milliseconds(r.Open)), float64(r.Resident)/1e6)
	}
	if !theirs {
		b.WriteString("\nllama.cpp was not measured: docs/recipes/inference.md says how to get it, then --llama-cpp DIR.\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func orNone(known bool, format string, v float64) string {
	if !known {
		return "–"
	}
	return fmt.Sprintf(format, v)
}
