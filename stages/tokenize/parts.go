package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"bitnet1/shared/data/dataset"
	"bitnet1/shared/data/documents"
	"bitnet1/shared/data/tokenizer"
	"bitnet1/shared/digest"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/stage"
)

// partTokens is about the number of tokens of a part. A worker that is killed loses the work on one part.
const partTokens = 2 << 20

// tally counts the rows that have been read.
type tally struct {
	count               documents.Count
	tokens              int64
	counted, miscounted int64
	odd                 []oddRow // the first ones
}

// oddRow is a row that cannot be read.
type oddRow struct {
	Row int64  `json:"row"`
	Why string `json:"why"` // and where the row is
}

// maxOddRows is the most odd rows of a file that are named. The others are counted.
const maxOddRows = 10

// oddRows are the descriptions of the odd rows.
func (t *tally) oddRows() (all []string) {
	for _, row := range t.odd {
		all = append(all, row.Why)
	}
	return all
}

// partRecord is the JSON file beside a part. It is written after the part is synced.
type partRecord struct {
	Digest     string          `json:"digest"` // of the part; "": written by an older version
	Next       int64           `json:"next"`   // first row after the part
	Count      documents.Count `json:"count"`
	Tokens     int64           `json:"tokens"`
	Counted    int64           `json:"counted"`
	Miscounted int64           `json:"miscounted"`
	Odd        []oddRow        `json:"odd,omitempty"`

	Times []stage.StepTime `json:"times"` // of all attempts so far
}

// writer collects the tokens of a source. It writes parts, each a token batch of some rows, into the job's scratch
// folder; a later attempt, by any worker, goes on after the last part. The batch of the whole source is then written
// document by document, so that its bytes do not depend on where parts end.
type writer struct {
	tally
	job       *stage.Job[Params]
	dir       string
	tokenizer dataset.TokenizerInfo
	parts     []string // their digests
	next      int64

	blocks  []*block // not in a part yet
	pending int      // tokens in them
	times   *stage.Times
}

func (w *writer) name(part int, suffix string) string {
	return fmt.Sprintf("part-%06d.%s", part, suffix)
}

// part is the path of a part. An older version kept no digests.
func (w *writer) part(part int, sum string) string {
	name := w.name(part, "arrow")
	if sum != "" {
		name = artifact.KeptName(name, sum)
	}
	return filepath.Join(w.dir, name)
}

// resume makes a writer with the parts that earlier attempts left.
func resume(job *stage.Job[Params], t dataset.TokenizerInfo) (*writer, error) {
	dir, err := job.Scratch()
	if err != nil {
		return nil, err
	}
	w := &writer{job: job, dir: dir, tokenizer: t, times: new(stage.Times)}
	for {
		r, err := w.readPart(len(w.parts))
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err != nil {
			job.Log.Warn("a part of an earlier attempt is damaged, and is made again with those after it", "error", err)
			break
		}
		w.parts = append(w.parts, r.Digest)
		w.next = r.Next
		w.tally = tally{r.Count, r.Tokens, r.Counted, r.Miscounted, r.Odd}
		w.times.Restore(r.Times)
	}
	if len(w.parts) > 0 {
		job.Log.Info("going on where an earlier attempt stopped", "row", w.next, "parts", len(w.parts))
	}
	return w, nil
}

// readPart reads the record of a part, and checks the part.
func (w *writer) readPart(part int) (r partRecord, err error) {
	path := filepath.Join(w.dir, w.name(part, "json"))
	data, err := os.ReadFile(path)
	if err == nil {
		err = digest.VerifyChecksum(data)
	}
	if err == nil {
		err = json.Unmarshal(data, &r)
	}
	if err != nil {
		return r, fmt.Errorf("%s: %w", path, err)
	}
	return r, artifact.VerifyKept(w.part(part, r.Digest))
}

// read encodes the documents of the file from the first row that is in no part.
func (w *writer) read(ctx context.Context, job *stage.Job[Params], params Params, t tokenizer.Tokenizer, path,
	source string) error {
	d := &decoder{
		request: request{Path: []byte(path), Source: source, From: w.next, Params: params, Memory: decoderMemory},
		silence: decoderSilence, times: w.times,
	}
	started, before := time.Now(), w.count.Bytes
	work := func(b *block) { b.encode(t) }
	return inOrder(ctx, work, job.Host.Threads, w.times, d.read, func(b *block) (err error) {
		w.add(b, t.Name() == "gpt2")
		job.Progress(stage.Progress{
			Done: w.count.Rows, Total: max(d.rows.Load(), w.count.Rows), Unit: "documents",
			Values: map[string]float64{"bytes_per_second": float64(w.count.Bytes-before) / time.Since(started).Seconds()},
		})
		if w.pending < partTokens {
			return nil
		}
		w.times.Do(stepWrite, func() { err = w.flush() })
		return err
	})
}

// add takes a block. With compare it compares the numbers of tokens that the file states with ours.
func (w *writer) add(b *block, compare bool) {
	w.blocks = append(w.blocks, b)
	w.pending += len(b.tokens)
	w.tokens += int64(len(b.tokens))
	w.count = w.count.Add(b.count)
	w.next = max(w.next, b.next)
	for _, odd := range b.odd {
		if len(w.odd) < maxOddRows {
			w.odd = append(w.odd, odd)
		}
	}
	start := 0
	for _, d := range b.documents {
		if compare && d.counted >= 0 {
			w.counted++
			if d.counted != int64(d.tokenEnd-start) {
				w.miscounted++
			}
		}
		start = d.tokenEnd
	}
}

// flush writes the blocks that are in no part as a part.
func (w *writer) flush() error {
	sum, err := w.job.Keep(w.name(len(w.parts), "arrow"), func(out io.Writer) error {
		batch, err := dataset.NewBatchWriter(out, w.tokenizer)
		if err != nil {
			return err
		}
		return errors.Join(w.appendBlocks(batch), batch.Close())
	})
	if err != nil {
		return err
	}
	record := partRecord{sum, w.next, w.count, w.tokens, w.counted, w.miscounted, w.odd, w.times.Steps()}
	if err := w.job.WriteScratch(w.name(len(w.parts), "json"), record); err != nil {
		return err
	}
	w.parts = append(w.parts, sum)
	w.blocks, w.pending = nil, 0
	return nil
}

func (w *writer) appendBlocks(batch *dataset.BatchWriter) error {
	for _, b := range w.blocks {
		start := 0
		for _, d := range b.documents {
			if err := batch.Append(d.BatchDocument, b.tokens[start:d.tokenEnd]); err != nil {
				return err
			}
			start = d.tokenEnd
		}
	}
	return nil
}

// discard forgets all documents of a file that is left out.
func (w *writer) discard() {
	w.blocks, w.parts, w.tally = nil, nil, tally{}
}

// finish writes the batch of the whole source.
func (w *writer) finish(ctx context.Context, job *stage.Job[Params], name string) (artifact.Ref, error) {
	out, err := job.Create("tokens", "application/vnd.apache.arrow.file", name)
	if err != nil {
		return artifact.Ref{}, err
	}
	defer out.Abort()
	batch, err := dataset.NewBatchWriter(out, w.tokenizer)
	if err != nil {
		return artifact.Ref{}, err
	}
	for part, sum := range w.parts {
		if err := ctx.Err(); err != nil {
			return artifact.Ref{}, err
		}
		if err := appendPart(batch, w.part(part, sum)); err != nil {
			return artifact.Ref{}, err
		}
	}
	if err := errors.Join(w.appendBlocks(batch), batch.Close()); err != nil {
		return artifact.Ref{}, err
	}
	return out.Commit()
}

func appendPart(batch *dataset.BatchWriter, path string) error {
	if err := artifact.VerifyKept(path); err != nil {
		return stage.Anew(err)
	}
	part, err := dataset.OpenBatch(path)
	if err != nil {
		return err
	}
	defer part.Close()
	var ids []uint32
	for i := range part.Len() {
		d, tokens, err := part.Document(i)
		if err != nil {
			return err
		}
		ids = tokens.AppendTo(ids[:0])
		if err := batch.Append(d, ids); err != nil {
			return err
		}
	}
	return nil
}
