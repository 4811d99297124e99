// Package dataset holds the files between documents and a training step: token batches, which the stage tokenize
// writes, shards of sequences of fixed length, and the manifest that names the shards of a dataset. The package writes
// the files, reads them, and gives the order in which an epoch reads the sequences. Package seal makes a dataset from
// token batches.
//
// Token batches and shards are Arrow IPC files. They are mapped into memory, so that any sequence is read without a
// copy.
//
// The package knows nothing of events, stores or models: files come in as paths and go out through the caller's
// writers. A damaged file gives an error and never a crash, as long as nobody shortens it while it is mapped.
package dataset

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
)

// ManifestFormat is the version of the manifest format.
const ManifestFormat = "bitnet1.dataset.v1"

// Manifest describes a dataset completely: datasets with equal manifests are equal. It contains no time, host or path.
type Manifest struct {
	Format          string        `json:"format"`
	Tokenizer       TokenizerInfo `json:"tokenizer"`
	SequenceLength  int           `json:"sequence_length"`   // targets of a full sequence
	Counted         []int         `json:"counted,omitempty"` // from, to: only these targets count; absent: all
	Seed            uint64        `json:"seed"`
	ValidationShare float64       `json:"validation_share"`
	Duplicates      *Duplicates   `json:"duplicates,omitempty"` // nil: not looked for
	Mixture         []Share       `json:"mixture,omitempty"`    // empty: all documents
	Sources         []Source      `json:"sources"`              // by name; ranges refer to them by index
	Splits          Splits        `json:"splits"`
}

// Source is a file that documents came from.
type Source struct {
	Name      string `json:"name"`
	Documents int64  `json:"documents"`
	Tokens    int64  `json:"tokens"` // of the documents' text, without their ends of text
	Bytes     int64  `json:"bytes"`  // of the documents' text
}

// Duplicates counts the documents that a dataset leaves out as duplicates.
type Duplicates struct {
	Method     string   `json:"method"`               // exact or near
	Similarity *float64 `json:"similarity,omitempty"` // least similarity of near duplicates; absent if the method is exact
	Exact      int64    `json:"exact"`                // exact duplicates, documents
	Near       int64    `json:"near"`                 // near duplicates, documents
	Tokens     int64    `json:"tokens"`               // of all documents left out
	Bytes      int64    `json:"bytes"`                // of all documents left out

	Known   []string `json:"known,omitempty"`           // digests of the lists of texts of earlier datasets
	Earlier int64    `json:"known_documents,omitempty"` // documents left out because a list contains their text
}

// Share is a part of a mixture: some of the sources, and their share of the tokens of the dataset.
type Share struct {
	Sources string  `json:"sources"` // a pattern of source names, see package glob
	Weight  float64 `json:"weight"`  // relative to the weights of the other parts

	Documents int64 `json:"documents"` // in the dataset
	Tokens    int64 `json:"tokens"`    // of their text
	Left      int64 `json:"left"`      // documents left out to reach the shares
}

// Splits are the two disjoint parts of a dataset.
type Splits struct {
	Train      SplitInfo `json:"train"`
	Validation SplitInfo `json:"validation"`
}

// SplitInfo describes a split. Bits per byte is the sum of the loss over all Tokens, in bits, divided by Bytes.
type SplitInfo struct {
	Documents int64   `json:"documents"`
	Sequences int64   `json:"sequences"`
	Tokens    int64   `json:"tokens"` // targets: the tokens of the documents, and an end of text after each document
	Bytes     int64   `json:"bytes"`  // of the documents' text
	Shards    []Shard `json:"shards"`
}

// Shard names a file of sequences.
type Shard struct {
	Name      string `json:"name"`
	Digest    string `json:"digest"`
	Size      int64  `json:"size"` // of the file in bytes
	Sequences int64  `json:"sequences"`
}

// Encode returns the only form of the manifest: one line of JSON, with keys in the order of the struct.
func (m *Manifest) Encode() ([]byte, error) {
	if err := m.Validate(); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(m); err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	return b.Bytes(), nil
}

// ParseManifest reads and validates a manifest. Unknown keys are an error: a newer format has a new version.
func ParseManifest(data []byte) (*Manifest, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	m := new(Manifest)
	if err := d.Decode(m); err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("manifest: something follows the JSON object")
	}
	return m, m.Validate()
}

// Validate reports a manifest that is not well formed, or whose sums do not agree.
func (m *Manifest) Validate() error {
	if m.Format != ManifestFormat {
		return fmt.Errorf("manifest: format %q instead of %q", m.Format, ManifestFormat)
	}
	if err := m.Tokenizer.validate(); err != nil {
		return fmt.Errorf("manifest: %w", err)
	}
	if m.SequenceLength < 1 || m.SequenceLength > math.MaxInt32-1 {
		return fmt.Errorf("manifest: a sequence length of %d", m.SequenceLength)
	}
	if err := CheckCounted(m.Counted, m.SequenceLength); err != nil {
		return fmt.Errorf("manifest: %w", err)
	}
	if !(m.ValidationShare >= 0 && m.ValidationShare < 1) {
		return fmt.Errorf("manifest: a validation share of %v", m.ValidationShare)
	}
	var documents, tokens, size int64
	for _, s := range m.Sources {
		if s.Documents < 0 || s.Tokens < 0 || s.Bytes < 0 {
			return fmt.Errorf("manifest: source %s has a negative count", s.Name)
		}
		documents, tokens, size = documents+s.Documents, tokens+s.Tokens, size+s.Bytes
	}
	train, validation := m.Splits.Train, m.Splits.Validation
	if got := train.Documents + validation.Documents; got != documents {
		return fmt.Errorf("manifest: %d documents in splits but %d in sources", got, documents)
	}
	if got := train.Tokens + validation.Tokens; got != tokens+documents {
		return fmt.Errorf("manifest: %d targets in splits but %d tokens and %d ends of text in sources", got, tokens,
			documents)
	}
	if got := train.Bytes + validation.Bytes; got != size {
		return fmt.Errorf("manifest: %d bytes in splits but %d in sources", got, size)
	}
	return errors.Join(train.validate("train", m.SequenceLength), validation.validate("validation", m.SequenceLength))
}

func (s SplitInfo) validate(name string, length int) error {
	if s.Documents < 0 || s.Sequences < 0 || s.Tokens < 0 || s.Bytes < 0 {
		return fmt.Errorf("manifest: split %s has a negative count", name)
	}
	var sequences int64
	for _, shard := range s.Shards {
		if shard.Name == "" || shard.Digest == "" || shard.Size < 1 || shard.Sequences < 1 {
			return fmt.Errorf("manifest: split %s: shard %q of %d bytes and %d sequences with digest %q is not valid",
				name, shard.Name, shard.Size, shard.Sequences, shard.Digest)
		}
		sequences += shard.Sequences
	}
	t := int64(length)
	if sequences != s.Sequences || s.Sequences != s.Tokens/t+min(s.Tokens%t, 1) {
		return fmt.Errorf("manifest: split %s: %d sequences in shards and %d in the split for %d targets of %d a "+
			"sequence", name, sequences, s.Sequences, s.Tokens, length)
	}
	return nil
}

// CheckCounted checks Manifest.Counted for sequences of the given length.
func CheckCounted(counted []int, length int) error {
	if len(counted) == 0 || len(counted) == 2 && 0 <= counted[0] && counted[0] < counted[1] && counted[1] <= length {
		return nil
	}
	return fmt.Errorf("counted targets %v: give from and to, 0 <= from < to <= %d", counted, length)
}
