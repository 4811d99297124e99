// Package seal makes a dataset from token batches. Dataset does all of it: it leaves out duplicates, mixes sources by
// their shares, divides the documents into training and validation, shuffles them, and packs them into shards of
// sequences of fixed length.
//
// The dataset depends on the documents and the options alone. The package knows nothing of events and stores: token
// batches come in as paths, and shards go out through the caller's writers.
package seal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/zeebo/xxh3"

	"bitnet1/shared/data/dataset"
)

// Options say how a dataset is made. A zero is a value like any other: DefaultOptions has the usual values.
type Options struct {
	// SequenceLength is the number of targets of a sequence, T.
	SequenceLength int
	// Counted, if set, is a range from, to: only these targets of a sequence are predicted. A synthetic task may have its
	// answers at known places. The sums of the manifest count all targets.
	Counted []int
	// SequencesPerShard is the number of sequences of a shard. 0: about 64 MiB of tokens.
	SequencesPerShard int
	// Seed decides about the order of the documents and the choice of the validation split.
	Seed uint64
	// ValidationShare is about the share of the documents in the validation split, below 1. Unless it is 0, each split
	// gets a document if there are two. The end of a single document validates.
	ValidationShare float64
	// Duplicates says which duplicates are left out: KeepDuplicates, ExactDuplicates or NearDuplicates.
	Duplicates string
	// Similarity is the share of common phrases from which on two documents are near duplicates, from 0 to 1. At 0 every
	// pair that MinHash proposes counts.
	Similarity float64
	// Known are lists of the texts of earlier datasets. Documents with such a text are left out; documents that are only
	// similar to such a text stay. Known needs ExactDuplicates or NearDuplicates.
	Known []KnownTexts
	// Duplicate, if set, is called for every document left out, in order.
	Duplicate func(Duplicate)
	// Step, if set, is called before every step, with StepIndex and so on.
	Step func(name string)
	// Tokenizer locates the tokenizer.json of the tokens, where they are those of a file. Looking for duplicates, and
	// dividing a single document, takes the tokenizer.
	Tokenizer func(dataset.TokenizerInfo) (path string, err error)
	// Mixture gives sources shares of the tokens. Default: all documents stay.
	Mixture []dataset.Share
	// Threads is the number of processors to use. The dataset does not depend on it. Default: 1.
	Threads int
}

// Steps of sealing.
const (
	StepIndex      = "index"       // documents of all batches are listed and sorted
	StepDuplicates = "deduplicate" // duplicates are left out
	StepMixture    = "mix"         // documents are left out to reach the shares of the mixture
	StepWrite      = "write"       // documents are shuffled and written as shards
)

// DefaultOptions are the usual options.
func DefaultOptions() Options {
	return Options{SequenceLength: 2048, ValidationShare: 0.01, Duplicates: KeepDuplicates, Similarity: 0.8}
}

// sequencesPerShard is SequencesPerShard, or the number that makes 64 MiB of tokens.
func (o Options) sequencesPerShard(t dataset.TokenizerInfo) int {
	if o.SequencesPerShard > 0 {
		return o.SequencesPerShard
	}
	size := 2
	if t.Wide() {
		size = 4
	}
	return max(1, (64<<20)/(size*(o.SequenceLength+1)))
}

// Validate reports options that make no dataset.
func (o Options) Validate() error {
	if o.SequenceLength < 1 || o.SequenceLength > math.MaxInt32-1 {
		return fmt.Errorf("a sequence length of %d: it must be positive and fit 31 bits", o.SequenceLength)
	}
	if err := dataset.CheckCounted(o.Counted, o.SequenceLength); err != nil {
		return err
	}
	if o.SequencesPerShard < 0 {
		return fmt.Errorf("%d sequences per shard: it must be positive, or 0 for about 64 MiB of tokens",
			o.SequencesPerShard)
	}
	if !(o.ValidationShare >= 0 && o.ValidationShare < 1) {
		return fmt.Errorf("a validation share of %v: it must be below 1; 0 makes no validation split",
			o.ValidationShare)
	}
	if o.Duplicates != KeepDuplicates && o.Duplicates != ExactDuplicates && o.Duplicates != NearDuplicates {
		return fmt.Errorf("duplicates %q: choose %s, %s or %s", o.Duplicates, KeepDuplicates, ExactDuplicates,
			NearDuplicates)
	}
	if o.Duplicates == KeepDuplicates && len(o.Known) > 0 {
		return fmt.Errorf("known texts with duplicates %s: choose %s or %s", KeepDuplicates, ExactDuplicates,
			NearDuplicates)
	}
	if !(o.Similarity >= 0 && o.Similarity <= 1) {
		return fmt.Errorf("a similarity of %v: it must lie between 0 and 1, both included", o.Similarity)
	}
	for _, share := range o.Mixture {
		if err := validateShare(share); err != nil {
			return err
		}
	}
	return nil
}

// Output is a file that is being written, wherever the caller keeps shards.
type Output interface {
	io.Writer
	// Commit makes the file permanent and returns its digest and size in bytes.
	Commit() (digest string, size int64, err error)
	// Abort discards the file. It is called at most once and not after Commit.
	Abort() error
}

// Dataset makes a dataset of the documents in the token batches at the given paths. It writes one shard after another,
// each to an Output of create. If duplicates are looked for, it also writes a list of the texts that stay, see
// TextsFormat. The dataset does not depend on how the documents are distributed over batches.
//
// Memory grows by 40 bytes for each document, by 60 with exact duplicates, and by about 150 with near ones. The tokens
// stay in the mapped batches.
func Dataset(
	ctx context.Context, o Options, batches []string, create func(name string) (Output, error),
) (*dataset.Manifest, error) {
	s := &sealer{create: create}
	defer s.close()
	step := o.Step
	if step == nil {
		step = func(string) {}
	}
	step(StepIndex)
	if err := s.openBatches(batches); err != nil {
		return nil, err
	}
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	o.SequencesPerShard = o.sequencesPerShard(s.tokenizer)
	s.options = o
	if err := s.index(ctx); err != nil {
		return nil, err
	}
	step(StepDuplicates)
	if err := s.deduplicate(ctx); err != nil {
		return nil, err
	}
	if len(s.entries) == 0 {
		return nil, NoDatasetError{"the datasets in known have the texts of all documents"}
	}
	step(StepMixture)
	if err := s.mixture(); err != nil {
		return nil, err
	}
	step(StepWrite)
	return s.write(ctx)
}

// write writes the shards of both splits and the list of texts.
func (s *sealer) write(ctx context.Context) (*dataset.Manifest, error) {
	train, validation, err := s.divide()
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	o := s.options
	m := &dataset.Manifest{
		Format: dataset.ManifestFormat, Tokenizer: s.tokenizer, SequenceLength: o.SequenceLength, Counted: o.Counted,
		Seed: o.Seed, ValidationShare: o.ValidationShare, Duplicates: s.duplicates, Mixture: s.shares,
		Sources: s.sources,
	}
	if m.Splits.Train, err = s.writeSplit(ctx, "train", train); err != nil {
		return nil, err
	}
	if m.Splits.Validation, err = s.writeSplit(ctx, "validation", validation); err != nil {
		return nil, err
	}
	if s.duplicates != nil {
		if err := s.writeTexts(); err != nil {
			return nil, fmt.Errorf("seal: list of texts: %w", err)
		}
	}
	return m, m.Validate()
}

// writeTexts writes the list of the texts that stay.
func (s *sealer) writeTexts() error {
	texts := make([]xxh3.Uint128, len(s.entries))
	for i, e := range s.entries {
		texts[i] = e.text
	}
	out, err := s.create(TextsName)
	if err != nil {
		return err
	}
	if err := writeTexts(out, texts); err != nil {
		return errors.Join(err, out.Abort())
	}
	_, _, err = out.Commit()
	return err
}

// NoDatasetError is the error if the documents make no dataset. Trying again does not help.
type NoDatasetError struct{ Why string }

func (e NoDatasetError) Error() string { return "no dataset can be made: " + e.Why }

// sealer is the state of one Dataset.
type sealer struct {
	options   Options
	create    func(string) (Output, error)
	paths     []string
	batches   []*dataset.Batch
	tokenizer dataset.TokenizerInfo
	sources   []dataset.Source // by name
	entries   []entry          // by source and row
	cut       int              // tokens of a single document that train; 0: no document is cut
	cutBytes  int64            // bytes of text of these tokens

	duplicates *dataset.Duplicates // nil: not looked for
	shares     []dataset.Share
}

// entry is a document waiting to be written.
type entry struct {
	batch, document uint32
	source          uint32
	validation      bool
	row             int64
	text            xxh3.Uint128 // digest of the text; zero if duplicates are kept
}

func (s *sealer) close() {
	for _, b := range s.batches {
		b.Close()
	}
}

func (s *sealer) openBatches(paths []string) error {
	if len(paths) == 0 {
		return errors.New("seal: no token batches given")
	}
	s.paths = paths
	for _, path := range paths {
		b, err := dataset.OpenBatch(path)
		if err != nil {
			return fmt.Errorf("seal: %w", err)
		}
		s.batches = append(s.batches, b)
		if b.Tokenizer() != s.batches[0].Tokenizer() {
			return fmt.Errorf("seal: %s has %s tokens but %s has %s: tokenize both alike", path, b.Tokenizer().Name,
				paths[0], s.batches[0].Tokenizer().Name)
		}
	}
	s.tokenizer = s.batches[0].Tokenizer()
	return nil
}

// index lists the documents of all batches, sorted by source and row.
func (s *sealer) index(ctx context.Context) error {
	number := map[string]uint32{} // index into s.sources, by name
	documents := 0
	for _, b := range s.batches {
		documents += b.Len()
	}
	s.entries = make([]entry, 0, documents)
	for bi, b := range s.batches {
		if err := ctx.Err(); err != nil {
			return err
		}
		for i := range b.Len() {
			d, tokens, err := b.Document(i)
			if err != nil {
				return fmt.Errorf("seal: %w", err)
			}
			if d.Bytes < 0 {
				return fmt.Errorf("seal: token batch %s: document %d claims %d bytes: %w", b.Path(), i, d.Bytes,
					dataset.ErrCorrupt)
			}
			n, known := number[d.Source]
			if !known {
				n = uint32(len(number))
				number[d.Source] = n
				s.sources = append(s.sources, dataset.Source{Name: d.Source})
			}
			source := &s.sources[n]
			source.Documents++
			source.Tokens += int64(tokens.Len())
			source.Bytes += d.Bytes
			s.entries = append(s.entries, entry{
				batch: uint32(bi), document: uint32(i), source: n, row: d.Row,
				validation: s.validates(xxh3.HashStringSeed(d.ID, s.options.Seed)),
			})
		}
	}
	if len(s.entries) == 0 {
		return NoDatasetError{"there are no documents: every row is without a text, filtered, or in a file that was " +
			"left out"}
	}
	s.sort(number)
	return s.refuseRepeats()
}

// sort sorts the sources by name, and the entries by source and row. number is the index of each source so far.
func (s *sealer) sort(number map[string]uint32) {
	slices.SortFunc(s.sources, func(a, b dataset.Source) int { return cmp.Compare(a.Name, b.Name) })
	rank := make([]uint32, len(number))
	for i, source := range s.sources {
		rank[number[source.Name]] = uint32(i)
	}
	for i := range s.entries {
		s.entries[i].source = rank[s.entries[i].source]
	}
	slices.SortFunc(s.entries, func(a, b entry) int {
		return cmp.Or(cmp.Compare(a.source, b.source), cmp.Compare(a.row, b.row))
	})
}

func (s *sealer) validates(hash uint64) bool {
	return hash < uint64(math.Ldexp(s.options.ValidationShare, 64))
}

// refuseRepeats reports a row of a source that comes twice: a batch was listed twice, or two files have the same name.
func (s *sealer) refuseRepeats() error {
	for i := 1; i < len(s.entries); i++ {
		a, b := s.entries[i-1], s.entries[i]
		if a.source == b.source && a.row == b.row {
			return fmt.Errorf("seal: row %d of source %s is in %s and in %s: is a batch listed twice, or do two "+
				"files have the same name?",
				a.row, s.sources[a.source].Name, s.paths[a.batch], s.paths[b.batch])
		}
	}
	return nil
}

// divide returns the documents of each split, in the order of sources and rows. If chance leaves a split empty, the
// first document of a permutation goes there. A single document is in both splits, see cutOnly.
func (s *sealer) divide() (train, validation []entry, err error) {
	n := len(s.entries)
	switch {
	case s.options.ValidationShare == 0:
		return s.entries, nil, nil
	case n == 1:
		if err := s.cutOnly(); err != nil || s.cut == 0 {
			return s.entries, nil, err
		}
		return s.entries, s.entries, nil
	}
	inTrain := func(e entry) bool { return !e.validation }
	first := dataset.NewPermutation(n, dataset.SplitMix64(s.options.Seed^domainDivide)).At(0)
	switch {
	case slices.IndexFunc(s.entries, inTrain) < 0:
		s.entries[first].validation = false
	case !slices.ContainsFunc(s.entries, func(e entry) bool { return e.validation }):
		s.entries[first].validation = true
	}
	// Sorting by split is simpler than a stable partition in place, and takes no more memory for long.
	slices.SortStableFunc(s.entries, func(a, b entry) int {
		switch {
		case a.validation == b.validation:
			return 0
		case b.validation:
			return -1
		}
		return 1
	})
	split := slices.IndexFunc(s.entries, func(e entry) bool { return e.validation })
	return s.entries[:split], s.entries[split:], nil
}

// cutOnly finds the place where a single document is cut. Its last tokens validate: their share is ValidationShare, at
// least one token of text and the end of text, and at least one token trains. The document is not cut if its tokenizer
// is unknown, because nobody can count the bytes of the parts.
func (s *sealer) cutOnly() error {
	_, tokens, err := s.batches[s.entries[0].batch].Document(int(s.entries[0].document))
	if err != nil {
		return err
	}
	t, err := s.tokenizer.Open(s.options.Tokenizer)
	if err != nil && s.tokenizer.Digest != "" {
		return err
	}
	if err != nil {
		return nil //nolint:nilerr // an unknown tokenizer
	}
	n := tokens.Len() + 1 // with the end of text
	if n < 3 {
		return nil
	}
	s.cut = n - min(max(int(math.Round(s.options.ValidationShare*float64(n))), 2), n-1)
	s.cutBytes = int64(len(t.Decode(nil, tokens.Slice(0, s.cut).AppendTo(nil))))
	return nil
}

// These constants give sealing permutations that differ from one another and from dataset.Order.
const (
	domainDivide  = 0x646976696465
	domainShuffle = 0x73687566666c65
	domainMixture = 0x6d697874757265
)

// writeSplit writes the documents of a split in shuffled order.
func (s *sealer) writeSplit(ctx context.Context, name string, entries []entry) (dataset.SplitInfo, error) {
	p := newPacker(s, name)
	order := dataset.NewPermutation(len(entries), dataset.SplitMix64(s.options.Seed^domainShuffle))
	var err error
	for i := range entries {
		if err = ctx.Err(); err != nil {
			break
		}
		if err = p.add(entries[order.At(i)]); err != nil {
			break
		}
	}
	if err == nil {
		err = p.finish()
	}
	if err != nil {
		return dataset.SplitInfo{}, errors.Join(fmt.Errorf("seal: split %s: %w", name, err), p.abort())
	}
	return p.info, nil
}
