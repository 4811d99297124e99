// Command inspect shows what is in a sealed dataset: its manifest in brief, any of its sequences with the documents
// they come from, and histograms of document lengths and of token frequencies as PNG.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"bitnet1/shared/data/dataset"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "inspect:", err)
		}
		os.Exit(1)
	}
}

// noSequence is the value of the flag sequence that asks for a summary.
const noSequence = -1

func run(args []string, out io.Writer) error {
	flags := flag.NewFlagSet("inspect", flag.ContinueOnError)
	flags.Usage = func() {
		fmt.Fprintln(flags.Output(), "inspect [options] MANIFEST\n\nThe shards are looked for beside the manifest, the "+
			"times of tokenizing in folders beside its own.")
		flags.PrintDefaults()
	}
	split := flags.String("split", "train", "train or validation")
	sequence := flags.Int("sequence", noSequence, "number of a `sequence` to decode; -1: none")
	plots := flags.String("plots", "", "`directory` to write histograms to")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() != 1 {
		return errors.New("name one manifest (options come before it)")
	}
	d, err := open(flags.Arg(0))
	if err != nil {
		return err
	}
	defer d.Close()
	s := d.Train
	if *split == "validation" {
		s = d.Validation
	} else if *split != "train" {
		return fmt.Errorf("split %q: choose train or validation", *split)
	}
	if *sequence < noSequence {
		return fmt.Errorf("-sequence %d: sequences are counted from 0", *sequence)
	}
	if *sequence != noSequence {
		err = show(out, d.Manifest, filepath.Dir(flags.Arg(0)), s, *sequence)
	} else {
		summarize(out, d.Manifest)
		err = writeTimes(out, d.Manifest, filepath.Dir(flags.Arg(0)))
	}
	if err == nil && *plots != "" {
		err = plotAll(out, d.Manifest, s, *plots)
	}
	return err
}

func open(path string) (*dataset.Dataset, error) {
	d, _, err := dataset.Load(path, func(s dataset.Shard) (string, error) {
		if s.Name != filepath.Base(s.Name) {
			return "", fmt.Errorf("a shard named %q", s.Name)
		}
		return filepath.Join(filepath.Dir(path), s.Name), nil
	})
	return d, err
}

func summarize(out io.Writer, m *dataset.Manifest) {
	fmt.Fprintf(out, "tokenizer   %s, %d ids, end of text %d\n", m.Tokenizer.Name, m.Tokenizer.Vocab,
		m.Tokenizer.EndOfText)
	fmt.Fprintf(out, "sequences   of %d targets, seed %d, %g of the documents validate\n", m.SequenceLength, m.Seed,
		m.ValidationShare)
	for name, s := range map[string]dataset.SplitInfo{"train": m.Splits.Train, "validation": m.Splits.Validation} {
		fmt.Fprintf(out, "%-11s %d documents, %d targets in %d sequences, %d shards\n", name, s.Documents, s.Tokens,
			s.Sequences, len(s.Shards))
	}
	if d := m.Duplicates; d != nil {
		if len(d.Known) > 0 {
			fmt.Fprintf(out, "known       %d documents left out that %d earlier datasets have\n", d.Earlier, len(d.Known))
		}
		fmt.Fprintf(out, "duplicates  %d exact, %d near left out (%s)\n", d.Exact, d.Near, d.Method)
	}
	for _, s := range m.Mixture {
		fmt.Fprintf(out, "mixture     %s: weight %g, %d documents, %d tokens, %d left out\n", s.Sources, s.Weight,
			s.Documents, s.Tokens, s.Left)
	}
	for _, s := range m.Sources {
		fmt.Fprintf(out, "source      %s: %d documents, %d tokens, %d bytes\n", s.Name, s.Documents, s.Tokens, s.Bytes)
	}
}

// show decodes a sequence of the dataset in dir, document by document.
func show(out io.Writer, m *dataset.Manifest, dir string, s *dataset.Split, i int) error {
	t, err := m.Tokenizer.Open(func(t dataset.TokenizerInfo) (string, error) {
		return filepath.Join(dir, t.FileName()), nil
	})
	if err != nil {
		return err
	}
	tokens, valid, err := s.Sequence(i, nil)
	if err != nil {
		return err
	}
	ranges, err := s.Ranges(i)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "sequence %d of %d: %d targets\n", i, s.Len(), valid)
	for _, r := range ranges {
		ids := make([]uint32, 0, r.Length)
		for _, id := range tokens[r.Start : r.Start+r.Length] {
			ids = append(ids, uint32(id))
		}
		fmt.Fprintf(out, "\n--- %s (row %d of %s), its tokens %d to %d\n%s\n", r.Document, r.Row, m.Sources[r.Source].Name,
			r.Offset, r.Offset+int64(r.Length), t.Decode(nil, ids))
	}
	return nil
}
