package main

import (
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"bitnet1/shared/digest"
	"bitnet1/shared/run/command"
	"bitnet1/shared/run/stage"
)

// Params are the stage's parameters. Those below MicroTokens came later: with their defaults nothing changes.
type Params struct {
	Sequences   int    `json:"sequences" usage:"number of validation sequences, from the first; 0: all"`
	Repeats     int    `json:"repeats" usage:"induction probe: number of sequences of random tokens, each written twice"`
	Seed        uint64 `json:"seed" usage:"induction probe: seed of the random tokens"`
	MicroTokens int    `json:"micro_tokens" usage:"tokens computed at once"`

	Heads bool   `json:"heads" digest:"unless=false" usage:"also write histograms of distances and scores of every head; without a dataset always"`
	Text  string `json:"text" digest:"-" usage:"a file of text to look at in place of the validation split, at most its first 64 MiB; needs no dataset"`
	// Prompt is Text itself.
	Prompt         string `json:"prompt" digest:"unless=" usage:"a text to look at, like that of a file"`
	SequenceLength int    `json:"sequence_length" digest:"unless=0" usage:"tokens of a sequence of text or of random tokens; 0: as many as the model reads; with the dataset's own text 0"`
	Show           int    `json:"show" digest:"unless=0" usage:"number of a sequence, from 1, whose attention is written and drawn; 0: none, of a prompt the first"`
	ShowHead       string `json:"show_head" digest:"unless=" usage:"the head that is drawn large, such as L0.H3; empty: the one with the highest IPMR"`
	TextDigest     string `json:"text_digest" digest:"unless=" usage:"digest of the file text; computed when absent, and a file of another digest is refused"`
}

func defaults() Params { return Params{Sequences: 128, Repeats: 32, Seed: 42, MicroTokens: 4096} }

func check(p Params) error {
	switch {
	case p.Sequences < 0 || p.Repeats < 1 || p.MicroTokens < 1:
		return errors.New("sequences must not be negative, repeats and micro_tokens must be positive")
	case p.Text != "" && p.Prompt != "":
		return errors.New("text and prompt exclude each other: put the prompt into the file, or leave the file out")
	case p.SequenceLength < 0 || p.Show < 0:
		return errors.New("sequence_length and show must not be negative")
	}
	if p.ShowHead != "" {
		_, _, err := parseHead(p.ShowHead)
		return err
	}
	return nil
}

// parseHead reads L0.H3.
func parseHead(text string) (layer, head int, err error) {
	if n, err := fmt.Sscanf(text, "L%d.H%d", &layer, &head); n != 2 || err != nil || headName(layer, head) != text {
		return 0, 0, fmt.Errorf("show_head %q: write layer and head as in L0.H3", text)
	}
	return layer, head, nil
}

func headName(layer, head int) string { return fmt.Sprintf("L%d.H%d", layer, head) }

// complete sets TextDigest, because a job is known by the content of the file and not by its path. A prompt is shown.
func (p *Params) complete() error {
	if p.Prompt != "" {
		p.Show = max(p.Show, 1)
	}
	if p.Text == "" {
		if p.TextDigest != "" {
			return errors.New("text_digest is given without text: name the file")
		}
		return nil
	}
	sum, _, err := digest.File(p.Text)
	if err != nil {
		return fmt.Errorf("text: %w", err)
	}
	if p.TextDigest != "" && p.TextDigest != sum {
		return fmt.Errorf("text: %s has digest %s, text_digest says %s: it is another file", p.Text, digest.Short(sum),
			digest.Short(p.TextDigest))
	}
	p.TextDigest = sum
	return nil
}

// batches are flags of `run` under the names that the PyTorch project's scripts have: the number of sequences as
// batches of equal size, and the length of sequences.
func batches() *stage.OneShot[Params] {
	return &stage.OneShot[Params]{
		Flags: []cli.Flag{
			&cli.IntFlag{Name: "n-batches", Usage: "look at `N` batches, in place of --sequences and --repeats"},
			&cli.IntFlag{Name: "batch-size", Usage: "sequences of a batch of --n-batches", Value: 1},
			&cli.IntFlag{Name: "seq-len", Usage: "the same as --sequence-length"},
		},
		Overlay: func(c *cli.Context, p *Params) error {
			n, size := c.Int("n-batches"), c.Int("batch-size")
			switch {
			case c.IsSet("prompt") && p.Prompt == "":
				return command.Usagef("the prompt is empty: give a text, or leave --prompt out for random tokens")
			case c.IsSet("batch-size") && !c.IsSet("n-batches"):
				return command.Usagef("--batch-size does nothing without --n-batches: add it")
			case c.IsSet("n-batches") && (n < 1 || size < 1):
				return command.Usagef("--n-batches %d --batch-size %d: use 1 or more", n, size)
			case c.IsSet("seq-len") && c.Int("seq-len") < 1:
				return command.Usagef("--seq-len %d: use 1 or more", c.Int("seq-len"))
			}
			if c.IsSet("seq-len") {
				p.SequenceLength = c.Int("seq-len")
			}
			if c.IsSet("n-batches") {
				p.Sequences, p.Repeats = n*size, n*size
				if p.SequenceLength > 0 {
					p.MicroTokens = size * p.SequenceLength
				}
			}
			return nil
		},
	}
}
