package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/urfave/cli/v2"

	"bitnet1/shared/digest"
	"bitnet1/shared/run/command"
	"bitnet1/shared/run/stage"
	"bitnet1/stages/generate/generation"
)

// promptFlags are the flags of `run` that give prompts as they are: no comma separates them, and no space is taken off.
func promptFlags() []cli.Flag {
	return []cli.Flag{
		&cli.GenericFlag{Name: "prompt", Value: new(verbatim), Usage: "`TEXT` to continue; may be given more than once"},
		&cli.GenericFlag{Name: "prompt-file", Value: new(verbatim), Usage: "`FILE` whose text is to be continued; -: " +
			"standard input"},
	}
}

// verbatim is the values of a flag that may be given more than once.
type verbatim []string

// Set implements flag.Value.
func (v *verbatim) Set(text string) error {
	*v = append(*v, text)
	return nil
}

// String implements flag.Value. It is the default on help pages.
func (v *verbatim) String() string { return "" }

// maxPrompt bounds a prompt that is read from a file, in bytes.
const maxPrompt = 4 << 20

// readPrompts sets the prompts that promptFlags give. They are the only ones, unless the fixed ones are asked for.
func readPrompts(c *cli.Context, p *Params) error {
	given := slices.Clone(*c.Generic("prompt").(*verbatim))
	for _, name := range *c.Generic("prompt-file").(*verbatim) {
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

// printTexts continues the prompts with the model of every file, and writes the texts as they come; with --json one
// line for each model, as in *_text.json.
func printTexts(c *cli.Context, in []string, p Params, host stage.Host) error {
	for _, path := range in {
		m, err := generation.Open(path, host.Threads)
		if err != nil {
			return err
		}
		if c.Bool("json") {
			err = printJSON(c, path, m, p)
		} else {
			err = printText(c, m, p)
		}
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

func printJSON(c *cli.Context, path string, m *generation.Model, p Params) error {
	of, _, err := digest.File(path)
	if err != nil {
		return err
	}
	s, err := newSamples(c.Context, m, of, p)
	if err != nil {
		return err
	}
	return json.NewEncoder(c.App.Writer).Encode(s)
}

func printText(c *cli.Context, m *generation.Model, p Params) error {
	prompts := p.prompts(m)
	if len(prompts) == 0 {
		return command.Usagef("there is nothing to continue: give --prompt TEXT or --prompt-file FILE")
	}
	for _, prompt := range prompts { // before any of them is shown
		if err := m.Fits(m.Encode(prompt)); err != nil {
			return ofPrompt(prompt, err)
		}
	}
	g, err := m.NewGenerator()
	if err != nil {
		return err
	}
	shown := newScreen(c.App.Writer)
	for i, prompt := range prompts {
		if i > 0 {
			prompt = "\n" + prompt
		}
		if err := shown.write(generation.Valid(prompt)); err != nil {
			return err
		}
		_, err := g.Generate(c.Context, m.Encode(prompts[i]), p.options(), func(piece generation.Piece) error {
			return shown.write(piece.Text)
		})
		if ended := shown.write("\n"); err == nil {
			err = ended
		}
		if err != nil {
			return err
		}
	}
	return nil
}
