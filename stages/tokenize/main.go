// Command tokenize is the stage that turns documents into token batches: for every source of the run it writes one
// Arrow file with a row per document.
//
// Its command train makes a tokenizer of one's own (train.go).
//
// A second process decodes the file (decoder.go), this process encodes the documents (encode.go) and writes them in
// parts (parts.go), so that an interrupted job goes on after its last part.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"runtime"
	"runtime/debug"
	"strings"
	"unicode"

	"github.com/urfave/cli/v2"

	"bitnet1/shared/data/dataset"
	"bitnet1/shared/data/documents"
	"bitnet1/shared/data/source"
	"bitnet1/shared/data/tokenizer"
	"bitnet1/shared/digest"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/param"
	"bitnet1/shared/run/stage"
)

// Params are the stage's parameters.
type Params struct {
	Tokenizer string `json:"tokenizer" source:"same" usage:"gpt2, cl100k, o200k, bytes, or path of a tokenizer.json"`

	TextColumn     string   `json:"text_column" usage:"column of the text; empty: found by its name"`
	TurnsColumn    string   `json:"turns_column" usage:"column with a list of turns, {from, value} or {role, content}, instead of a text"`
	PromptColumn   string   `json:"prompt_column" usage:"column of the prompt, instead of a text; needs response_column"`
	ResponseColumn string   `json:"response_column" usage:"column of the response to the prompt"`
	IDColumn       string   `json:"id_column" usage:"column of the documents' ids; empty: the column id, if there is one"`
	TurnTemplate   string   `json:"turn_template" usage:"text of a turn: {role} and {text} stand for its parts"`
	TurnSeparator  string   `json:"turn_separator" usage:"text between two turns"`
	StripThinking  bool     `json:"strip_thinking" usage:"leave out thoughts, from an opening think tag to the closing one"`
	Filters        []string `json:"filters" usage:"conditions that a row must meet, all of them, such as score >= 3 or language = en"`
	Format         string   `json:"format" usage:"format of files that are not parquet, one of those in docs/data.md, such as jsonl or text; empty: by extension and first bytes"`
	TextSplit      string   `json:"text_split" usage:"how plain text is divided into documents: file (not at all), blank (at empty lines), line, or another text, at which it is divided"`
	OnBadFile      string   `json:"on_bad_file" source:"same" usage:"what a file that cannot be read does: stop the run, or skip the file"`

	TokenizerFile string `json:"tokenizer_file" source:"same" digest:"-" usage:"computed where tokenizer is a path"`
}

var defaults = Params{Tokenizer: "gpt2", TurnTemplate: "{role}: {text}", TurnSeparator: "\n\n",
	TextSplit: documents.SplitFile, OnBadFile: stop}

// options are the part of the parameters that says how documents are read.
func (p Params) options() (documents.Options, error) {
	o := documents.Options{
		Format: p.Format, Split: p.TextSplit,
		Fields: documents.Fields{ID: p.IDColumn, Text: p.TextColumn, Turns: p.TurnsColumn, Prompt: p.PromptColumn,
			Response: p.ResponseColumn},
		Template: documents.Template{Turn: p.TurnTemplate, Between: p.TurnSeparator, StripThinking: p.StripThinking},
	}
	for _, condition := range p.Filters {
		f, err := documents.ParseFilter(condition)
		if err != nil {
			return o, err
		}
		o.Filters = append(o.Filters, f)
	}
	return o, o.Validate()
}

const (
	stop = "stop"
	skip = "skip"
)

func main() { os.Exit(program(os.Args)) }

func program(args []string) int {
	if len(args) == 2 && args[1] == decodeCommand {
		return decodeMain(os.Stdin, os.Stdout, os.Stderr)
	}
	if len(args) > 1 && args[1] == trainCommand {
		return stage.Main(spec(), args)
	}
	// This process and the one that decodes a file take at most 512 MiB together, on a machine of few processors: the
	// limit has the collector work harder. It grows with the processors, because each encoding thread has blocks of its
	// own.
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(int64(160+6*runtime.NumCPU()) << 20)
	}
	return stage.Main(spec(), args)
}

func spec() stage.Spec[Params, event.SourceAdded] {
	all := &tokenizers{made: map[string]tokenizer.Tokenizer{}}
	return stage.Spec[Params, event.SourceAdded]{
		Name:    "tokenize",
		About:   "turn documents (parquet, JSON, CSV, plain text) into token batches",
		Example: "tokenize run --in books/*.parquet --out tokens --tokenizer gpt2",
		Version: "3", Defaults: defaults,
		Check:    check,
		Complete: all.complete,
		Threads:  true,
		Work:     all.tokenize,
		Files:    sources,
		Emits:    []event.Body{event.TokensWritten{}},
		Commands: []*cli.Command{trainTokenizer()},
	}
}

func check(p Params) error {
	if p.OnBadFile != stop && p.OnBadFile != skip {
		return fmt.Errorf("on_bad_file %q: choose %s or %s", p.OnBadFile, stop, skip)
	}
	if p.TurnTemplate == "" {
		return errors.New("turn_template is empty, so that every turn would be: write {text}, and {role} where it is wanted")
	}
	if p.TextSplit == "" {
		return errors.New("text_split is empty: choose file, blank or line, or give the text that " +
			"stands between two documents")
	}
	if _, err := p.options(); err != nil {
		return err
	}
	return checkTokenizer(p)
}

// sources makes an event source.added of every file that --in names.
func sources(in *stage.Files) ([]event.SourceAdded, error) {
	named := make([]source.Named, len(in.In))
	for i, location := range in.In {
		named[i].Location = location
	}
	found, err := client(nil).FindAll(in.Context, named)
	if err != nil {
		return nil, err
	}
	all := make([]event.SourceAdded, len(found))
	for i, f := range found {
		all[i] = event.SourceAdded{Name: f.Name, Path: f.Location, Digest: f.Digest, Size: f.Size, Version: f.Version}
	}
	return all, nil
}

func (all *tokenizers) tokenize(ctx context.Context, job *stage.Job[Params], in event.SourceAdded) error {
	t, err := all.get(job.Params)
	if err != nil {
		return stage.Permanent(err)
	}
	path, err := locate(ctx, job, in)
	if err != nil {
		return err
	}
	params, err := ofSource(job.Params, in)
	if err != nil {
		return err
	}
	w, err := resume(job, dataset.InfoOf(t))
	if err != nil {
		return err
	}
	reason := ""
	if err := w.read(ctx, job, params, t, path, in.Name); err != nil {
		if ctx.Err() != nil || !unreadable(err) {
			return err
		}
		if job.Params.OnBadFile == stop {
			return stage.Permanent(advised(err))
		}
		reason = err.Error()
		job.Log.Warn(fmt.Sprintf("%s: file left out: %s", in.Name, reason))
		w.discard()
	}
	var ref artifact.Ref
	w.times.Do(stepWrite, func() { ref, err = w.finish(ctx, job, batchName(in.Name)) })
	if err != nil {
		return err
	}
	file, err := keep(job, t)
	if err != nil {
		return err
	}
	n := w.count
	warn(job, in.Name, w.tally)
	if err := job.WriteTimes(strings.TrimSuffix(ref.Name, batchSuffix),
		stage.JobTimes{Stage: "tokenize", Of: in.Name, Bytes: n.Bytes, Steps: w.times.Steps()}); err != nil {
		return err
	}
	return job.Emit(ctx, event.TokensWritten{
		Source: in.Name, Batch: ref, Documents: n.Documents, Tokens: w.tokens,
		Bytes: n.Bytes, Nulls: n.Nulls, InvalidUTF8: n.InvalidUTF8, Rows: n.Rows, Filtered: n.Filtered,
		Refused: reason, Counted: w.counted, Miscounted: w.miscounted, Odd: n.Odd, OddRows: w.oddRows(),
		Tokenizer: file,
	})
}

// ofSource are the parameters for one source: those of the stage, with the source's own in their place.
func ofSource(p Params, in event.SourceAdded) (Params, error) {
	own := p
	if err := param.Decode([]byte(in.Parameters), &own); err != nil {
		return p, stage.Permanent(fmt.Errorf("source %s: %w", in.Name, err))
	}
	if own.Tokenizer != p.Tokenizer || own.TokenizerFile != p.TokenizerFile || own.OnBadFile != p.OnBadFile {
		return p, stage.Permanentf("source %s: tokenizer and on_bad_file are the same for all sources", in.Name)
	}
	if err := check(own); err != nil {
		return p, stage.Permanent(fmt.Errorf("source %s: %w", in.Name, err))
	}
	return own, nil
}

// badFile is an error that the contents of a file caused.
type badFile struct{ error }

func (b badFile) Unwrap() error { return b.error }

// advised adds to the error of a file that cannot be read what its user can do.
func advised(err error) error {
	advice := stage.Setting("tokenize", "on_bad_file", "skip") + " leaves such files out"
	if strings.Contains(err.Error(), documents.WhichColumn) {
		advice = stage.Setting("tokenize", "text_column", "COLUMN") + "; " + advice
	}
	return fmt.Errorf("%w (%s)", err, advice)
}

// unreadable reports whether the contents of a file caused err, and not the disk or the network.
func unreadable(err error) bool { return errors.As(err, new(badFile)) }

// warn logs the rows that were left out or look damaged.
func warn(job *stage.Job[Params], source string, n tally) {
	if n.count.Nulls > 0 {
		job.Log.Warn(fmt.Sprintf("%s: %d of %d rows have no text and were left out", source, n.count.Nulls, n.count.Rows))
	}
	if n.count.Odd > 0 {
		job.Log.Warn(fmt.Sprintf("%s: %d of %d rows cannot be understood and were left out: %s", source, n.count.Odd,
			n.count.Rows, strings.Join(n.oddRows(), "; ")))
	}
	if n.count.InvalidUTF8 > 0 {
		job.Log.Warn(fmt.Sprintf("%s: %d of %d documents are not valid UTF-8; their bytes are kept as they are", source,
			n.count.InvalidUTF8, n.count.Documents))
	}
	if n.count.Documents == 0 {
		job.Log.Warn(fmt.Sprintf("%s: no documents", source))
	}
	if n.miscounted > 0 {
		job.Log.Warn(
			fmt.Sprintf("%s: of %d documents whose file says how many GPT-2 tokens they have, %d have another number of them",
				source, n.counted, n.miscounted))
	}
}

const batchSuffix = ".tokens.arrow"

// maxBatchName is the most bytes of a source's path in the file name of its batch. The name of an artifact has at most
// 200.
const maxBatchName = 180

// batchName is the file name of the batch of a source: the source's path without slashes and unprintable characters.
func batchName(source string) string {
	name := strings.Map(func(r rune) rune {
		if r == '/' || r == '\\' || !unicode.IsPrint(r) {
			return '_'
		}
		return r
	}, strings.TrimSuffix(source, path.Ext(source)))
	name = strings.TrimLeft(name, ".")
	if len(name) > maxBatchName {
		name = strings.ToValidUTF8(name[:maxBatchName-13], "") + "_" + digest.Bytes([]byte(name))[:12]
	}
	return cmp.Or(name, "documents") + batchSuffix
}
