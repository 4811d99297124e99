// Command tokenize is the stage that turns documents into token batches: for
// every source of the run it writes one Arrow file with a row per document.
package main

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"bitnet1/shared/artifact"
	"bitnet1/shared/dataset"
	"bitnet1/shared/event"
	"bitnet1/shared/stage"
	"bitnet1/shared/tokenizer"
)

// Params are the stage's parameters.
type Params struct {
	Tokenizer string `json:"tokenizer" usage:"gpt2 (r50k) or bytes (256 bytes and an end of text)"`
}

func main() {
	os.Exit(stage.Main(stage.Spec[Params, event.SourceAdded]{
		Name:     "tokenize",
		About:    "turn documents (parquet, JSON lines) into token batches",
		Example:  "tokenize run --in books/*.parquet --out tokens --tokenizer gpt2",
		Version:  "1",
		Defaults: Params{Tokenizer: "gpt2"},
		Check: func(p Params) error {
			_, err := tokenizer.New(p.Tokenizer)
			return err
		},
		Work:  tokenize,
		Files: sources,
		Emits: []event.Body{event.TokensWritten{}},
	}, os.Args))
}

// sources makes an event of every file that the command line names.
func sources(in *stage.Files) ([]event.SourceAdded, error) {
	var all []event.SourceAdded
	for _, file := range in.In {
		ref, err := in.Add("source", "", file)
		if err != nil {
			return nil, err
		}
		all = append(all, event.SourceAdded{Name: ref.Name, Path: file, Digest: ref.Digest, Size: ref.Size})
	}
	return all, nil
}

func tokenize(ctx context.Context, job *stage.Job[Params], in event.SourceAdded) error {
	if err := unchanged(in); err != nil {
		return stage.Refuse(err)
	}
	t, err := tokenizer.New(job.Params.Tokenizer)
	if err != nil {
		return stage.Refuse(err)
	}
	documents, err := dataset.OpenDocuments(in.Path, dataset.DocumentOptions{Source: in.Name})
	if err != nil {
		return stage.Refuse(err)
	}
	defer documents.Close()
	out, err := job.Create("tokens", "application/vnd.apache.arrow.file", batchName(in.Name))
	if err != nil {
		return err
	}
	defer out.Abort()
	tokens, err := write(ctx, job, out, t, documents)
	if err != nil {
		return err
	}
	ref, err := out.Commit()
	if err != nil {
		return err
	}
	n := documents.Count()
	warn(job, in.Name, n)
	return job.Emit(ctx, event.TokensWritten{
		Source: in.Name, Batch: ref, Documents: n.Documents, Tokens: tokens,
		Bytes: n.Bytes, Nulls: n.Nulls, InvalidUTF8: n.InvalidUTF8,
	})
}

// unchanged makes sure that the file is still the one that was announced.
func unchanged(in event.SourceAdded) error {
	digest, _, err := artifact.DigestFile(in.Path)
	if err != nil {
		return fmt.Errorf("source %s: %w", in.Name, err)
	}
	if digest != in.Digest {
		return fmt.Errorf("source %s has changed since the run began (it is %s, not %s): start a new run with it", in.Name, artifact.Short(digest), artifact.Short(in.Digest))
	}
	return nil
}

// write tokenizes the documents into a batch and returns the number of tokens.
func write(ctx context.Context, job *stage.Job[Params], out *artifact.Writer, t tokenizer.Tokenizer, documents *dataset.Documents) (int64, error) {
	batch, err := dataset.NewBatchWriter(out, dataset.TokenizerInfo{Name: t.Name(), Vocab: t.Vocab(), EndOfText: t.EndOfText()})
	if err != nil {
		return 0, err
	}
	var total int64
	var tokens []uint32
	started := time.Now()
	for d, err := range documents.All() {
		if err != nil {
			return 0, stage.Refuse(err)
		}
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		tokens = t.Encode(tokens[:0], d.Text)
		total += int64(len(tokens))
		row := dataset.BatchDocument{ID: d.ID, Source: d.Source, Row: d.Row, Bytes: int64(len(d.Text))}
		if err := batch.Append(row, tokens); err != nil {
			return 0, err
		}
		n := documents.Count()
		job.Progress(stage.Progress{
			Done: n.Rows, Total: max(documents.Rows(), n.Rows), Unit: "documents",
			Values: map[string]float64{"bytes_per_second": float64(n.Bytes) / time.Since(started).Seconds()},
		})
	}
	return total, batch.Close()
}

// warn tells of rows that were left out or look damaged.
func warn(job *stage.Job[Params], source string, n dataset.Count) {
	if n.Nulls > 0 {
		job.Log.Warn(fmt.Sprintf("%s: %d of %d rows have no text and were left out", source, n.Nulls, n.Rows))
	}
	if n.InvalidUTF8 > 0 {
		job.Log.Warn(fmt.Sprintf("%s: %d of %d documents are not valid UTF-8; their bytes are kept as they are", source, n.InvalidUTF8, n.Documents))
	}
	if n.Documents == 0 {
		job.Log.Warn(fmt.Sprintf("%s: no documents", source))
	}
}

// batchName is the file name of a source's batch.
func batchName(source string) string {
	name := strings.TrimSuffix(filepath.ToSlash(source), path.Ext(source))
	return strings.TrimLeft(strings.ReplaceAll(name, "/", "_"), ".") + ".tokens.arrow"
}
