package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/urfave/cli/v2"

	"bitnet1/shared/run/command"
	"bitnet1/shared/run/stage"
	"bitnet1/stages/generate/generation"
)

// promptFlags are the flags of `run` that give prompts as they are: no comma separates them.
func promptFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringSliceFlag{Name: "prompt", Usage: "`TEXT` to continue; may be given more than once"},
		&cli.StringSliceFlag{Name: "prompt-file", Usage: "`FILE` whose text is to be continued; -: standard input"},
	}
}

// maxPrompt bounds a prompt that is read from a file, in bytes.
const maxPrompt = 64 << 20

// readPrompts sets the prompts that promptFlags give. They are the only ones, unless the fixed ones are asked for.
func readPrompts(c *cli.Context, p *Params) error {
	given := c.StringSlice("prompt")
	for _, name := range c.StringSlice("prompt-file") {
		text, err := readPrompt(name)
		if err != nil {
			return err
		}
		given = append(given, text)
	}
	if len(given) > 0 {
		p.Prompts = append(p.Prompts, given...)
		p.FixedPrompts = c.IsSet("fixed-prompts") && p.FixedPrompts
	}
	return nil
}

func readPrompt(name string) (string, error) {
	in := io.Reader(os.Stdin)
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return "", err
		}
		defer f.Close()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, maxPrompt+1))
	if err == nil && len(b) > maxPrompt {
		err = fmt.Errorf("prompt %s has more than %d bytes", name, maxPrompt)
	}
	return string(b), err
}

var errInterrupted = errors.New("interrupted")

// printTexts continues the prompts with the model of every file, and writes the texts as they come; with --json one line
// for each model, as in *_text.json.
func printTexts(c *cli.Context, in []string, p Params, host stage.Host) error {
	for _, path := range in {
		m, err := generation.Open(path, host.Threads)
		if err != nil {
			return err
		}
		err = printOf(c, m, p)
		if closed := m.Close(); err == nil {
			err = closed
		}
		if c.Context.Err() != nil {
			return errInterrupted
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func printOf(c *cli.Context, m *generation.Model, p Params) error {
	if c.Bool("json") {
		s, err := newSamples(c.Context, m, "", p)
		if err != nil {
			return err
		}
		return json.NewEncoder(c.App.Writer).Encode(s)
	}
	prompts := p.prompts(m)
	if len(prompts) == 0 {
		return command.Usagef("there is nothing to continue: give --prompt TEXT or --prompt-file FILE")
	}
	g, err := m.NewGenerator()
	if err != nil {
		return err
	}
	for i, prompt := range prompts {
		if i > 0 {
			fmt.Fprint(c.App.Writer, "\n")
		}
		shown := newScreen(c.App.Writer)
		shown.write(generation.Valid(prompt))
		_, err := g.Generate(c.Context, m.Encode(prompt), p.options(), func(piece generation.Piece) error {
			return shown.write(piece.Text)
		})
		shown.write("\n")
		if err != nil {
			return err
		}
	}
	return nil
}
