package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"slices"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/time/rate"

	"bitnet1/shared/data/documents"
	"bitnet1/shared/data/source"
	"bitnet1/shared/data/tokenizer"
	"bitnet1/shared/digest"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/command"
	"bitnet1/shared/run/param"
	"bitnet1/shared/run/stage"
	"bitnet1/shared/run/vfs"
)

const trainCommand = "train"

// trainTokenizer is the command that trains a tokenizer. It is no work of the stage: a run begins with the tokenizer
// that it has.
func trainTokenizer() *cli.Command {
	flags := []cli.Flag{
		&cli.StringSliceFlag{Name: "in", Usage: "`FILE`s of documents, patterns or URLs"},
		&cli.StringFlag{Name: "out", Usage: "`FILE` to write, such as tokenizer.json"},
		&cli.BoolFlag{Name: "force", Usage: "write over a file that is there"},
		&cli.IntFlag{Name: "vocab-size", Value: 32768, Usage: "most ids, with the 256 bytes and the end of text"},
		&cli.StringFlag{Name: "pattern", Value: "cl100k", Usage: "the vocabulary whose pattern splits texts into " +
			"pieces: cl100k, gpt2, o200k, qwen or tekken"},
		&cli.Int64Flag{Name: "min-frequency", Value: 2, Usage: "a pair of tokens that occurs less often is not merged"},
		&cli.Int64Flag{Name: "memory", Value: 4096, Usage: "most `MiB` for the pieces of the texts; the rarest " +
			"are left out where more is needed"},
		command.ThreadsFlag("threads that read texts; the result does not depend on them"),
	}
	for _, f := range param.Flags(defaults) {
		if !slices.Contains([]string{"tokenizer", "tokenizer-file", "id-column"}, f.Names()[0]) {
			flags = append(flags, f)
		}
	}
	return &cli.Command{
		Name: trainCommand, Usage: "train a tokenizer of one's own on files of documents",
		Description: "Writes byte-level byte pair encoding as the tokenizer.json that --tokenizer takes.\n\n" +
			"Example:\n   tokenize train --in books/*.parquet --out tokenizer.json --vocab-size 16384",
		Flags: flags, Action: train,
	}
}

// training is the work of the command.
type training struct {
	tokenizer.Training
	params  Params // how documents are read
	in      []string
	out     string
	pattern string
	memory  int64 // bytes
	threads int
	say     func(format string, args ...any) // tells the user

	pieces  *tokenizer.Pieces
	count   documents.Count
	dropped int64 // occurrences of pieces that were left out
}

func train(c *cli.Context) error {
	t, err := trainingOf(c)
	if err != nil {
		return command.UsageError(err)
	}
	ctx, stop := signal.NotifyContext(c.Context, os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	err = t.run(ctx)
	if ctx.Err() != nil {
		return errors.New("stopped by a signal: no tokenizer was written")
	}
	return err
}

// trainingOf is what the flags say. It refuses what cannot be before anything is read.
func trainingOf(c *cli.Context) (*training, error) {
	t := &training{
		Training: tokenizer.Training{Vocab: c.Int("vocab-size"), MinFrequency: c.Int64("min-frequency")},
		params:   defaults, in: c.StringSlice("in"), out: c.String("out"), pattern: c.String("pattern"),
		memory: c.Int64("memory") << 20, threads: command.Threads(c),
		say: func(format string, args ...any) { fmt.Fprintf(c.App.ErrWriter, format+"\n", args...) },
	}
	switch {
	case c.NArg() > 0:
		return nil, fmt.Errorf("unexpected argument %q: files of documents are given by --in", c.Args().First())
	case len(t.in) == 0:
		return nil, errors.New("say what to train on: --in FILE")
	case t.out == "":
		return nil, errors.New("say where to: --out FILE, tokenizer.json for instance")
	case t.memory < leastMemory || t.memory > mostMemory:
		return nil, fmt.Errorf("--memory %d: choose %d to %d", c.Int64("memory"), leastMemory>>20, mostMemory>>20)
	}
	if err := param.Apply(c, &t.params); err != nil {
		return nil, err
	}
	err := errors.Join(check(t.params), t.Validate(), tokenizer.CheckPattern(t.pattern))
	if err == nil {
		err = writable(t.out, c.Bool("force"))
	}
	return t, err
}

// Bounds of --memory. A piece may be as long as a document, and places in the pieces have 32 bits.
const (
	leastMemory = 64 << 20
	mostMemory  = 128 << 30
)

// writable reports why nothing can be written to path, before hours of work are for it.
func writable(path string, force bool) error {
	info, err := os.Stat(path)
	switch {
	case err == nil && info.IsDir():
		return fmt.Errorf("--out %s is a directory: name a file in it, such as %s", path,
			filepath.Join(path, "tokenizer.json"))
	case err == nil && !force:
		return fmt.Errorf("--out %s is there: name another file, or write over it with --force", path)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("--out: %w", err)
	}
	dir := filepath.Dir(path)
	if err := vfs.MkdirAll(vfs.OS, dir); err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	f, err := vfs.CreateTemp(vfs.OS, dir, ".tokenizer-")
	if err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

func (t *training) run(ctx context.Context) error {
	debug.SetMemoryLimit(t.memory) // near it the collector works harder
	named := make([]source.Named, len(t.in))
	for i, location := range t.in {
		named[i].Location = location
	}
	found, err := client(nil).FindAll(ctx, named)
	if err != nil {
		return err
	}
	t.pieces = tokenizer.NewPieces(t.pattern)
	for _, f := range found {
		if err := t.read(ctx, f); err != nil {
			return err
		}
	}
	if t.pieces.Len() == 0 {
		return fmt.Errorf("there is no text in the %d files: of %d rows none has one", len(found), t.count.Rows)
	}
	sometimes := rate.Sometimes{Interval: 2 * time.Second}
	ids := 0
	t.Merged = func(n int) {
		ids = n
		sometimes.Do(func() { t.say("merging: %d of %d ids", n, t.Vocab) })
	}
	file, err := tokenizer.Train(ctx, t.pieces, t.Training)
	if err != nil {
		return err
	}
	return t.write(file, ids)
}

// read counts the pieces of a file.
func (t *training) read(ctx context.Context, f source.Found) error {
	path, _ := source.Path(f.Location)
	if source.Remote(f.Location) {
		dir, err := os.MkdirTemp("", "tokenize-train-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		path = filepath.Join(dir, "fetched")
		if err := client(nil).Fetch(ctx, f.Object(), path, func(int64) {}); err != nil {
			return err
		}
	}
	times := new(stage.Times)
	d := &decoder{
		request: request{Path: []byte(path), Source: f.Name, Params: t.params, Memory: decoderMemory},
		silence: decoderSilence, times: times,
	}
	sometimes := rate.Sometimes{Interval: 2 * time.Second}
	empty := t.pieces.Empty() // t.pieces changes while blocks are counted
	work := func(b *block) { b.countPieces(empty.Empty()) }
	err := inOrder(ctx, work, t.threads, times, d.read, func(b *block) error {
		t.count = t.count.Add(b.count)
		t.pieces.Merge(b.pieces)
		t.dropped += t.pieces.Prune(t.memory)
		sometimes.Do(func() {
			t.say("%s: %d documents, %.1f MB so far, %d different pieces", f.Name, t.count.Documents,
				float64(t.count.Bytes)/1e6, t.pieces.Len())
		})
		return nil
	})
	switch {
	case err == nil || !unreadable(err) || ctx.Err() != nil:
		return err
	case t.params.OnBadFile == stop:
		return advised(err)
	}
	t.say("%s: the rest of the file left out: %v", f.Name, err)
	return nil
}

// write writes the file and says what is in it.
func (t *training) write(file []byte, ids int) error {
	if err := artifact.WriteFile(t.out, file); err != nil {
		return err
	}
	if left := t.count.Nulls + t.count.Odd; left > 0 {
		t.say("%d of %d rows have no text, or cannot be understood, and were left out", left, t.count.Rows)
	}
	if t.dropped > 0 {
		t.say("memory was short (--memory): pieces that occurred %d times, the rarest, were left out", t.dropped)
	}
	if ids < t.Vocab {
		t.say("no other pair of tokens occurs %d times: the vocabulary has %d ids instead of %d", t.MinFrequency, ids,
			t.Vocab)
	}
	t.say("%s: %s, %d ids, of %d documents, %.1f MB, %d different pieces", t.out,
		tokenizer.FileName(digest.Bytes(file)), ids, t.count.Documents, float64(t.count.Bytes)/1e6, t.pieces.Len())
	return nil
}
