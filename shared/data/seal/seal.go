// Package seal makes a dataset of token batches: it leaves out documents that come more than once, mixes sources by
// their shares, divides the documents into training and validation, shuffles them, and packs them into shards of
// sequences of fixed length. See Dataset.
//
// What comes out depends on the documents and the options alone. The package knows nothing of events and stores: token
// batches come in as paths, shards go out through writers the caller gives.
package seal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"

	"github.com/zeebo/xxh3"

	"bitnet1/shared/data/dataset"
	"bitnet1/shared/data/tokenizer"
)

// Options are the choices in sealing a dataset. A zero is a value like any other: DefaultOptions has the usual ones.
type Options struct {
	// SequenceLength is the number of targets of a sequence, T.
	SequenceLength int
	// Counted, if given, is the range from, to of the targets of a sequence that are to be predicted: a synthetic task
	// may have an answer at known places, behind what cannot be known. The sums of the manifest are of all targets.
	Counted []int
	// SequencesPerShard bounds a shard's size. 0: as many as make 64 MiB of tokens.
	SequencesPerShard int
	// Seed decides the order of the documents and which of them validate.
	Seed uint64
	// ValidationShare is about the share of documents in the validation split, below 1. Unless it is 0, both splits get
	// a document if there are two; the end of an only one validates.
	ValidationShare float64
	// Duplicates says which documents that come more than once are left out: KeepDuplicates, ExactDuplicates or
	// NearDuplicates.
	Duplicates string
	// Similarity is the share of phrases that near duplicates have in common, from 0 to 1. At 0 whatever MinHash finds
	// worth comparing is left out.
	Similarity float64
	// Known are lists of the texts of earlier datasets: documents with such a text are left out as duplicates are. It
	// goes with ExactDuplicates and NearDuplicates, and does not find near duplicates of earlier documents.
	Known []KnownTexts
	// Duplicate, if set, is told of every document left out, in order.
	Duplicate func(Duplicate)
	// Step, if set, is told of every step before it begins: StepIndex and so on, in order.
	Step func(name string)
	// Mixture gives sources shares of the tokens. Default: all documents, whatever their shares.
	Mixture []dataset.Share
	// Threads is how many processors may be used. What comes out does not depend on it. Default: 1.
	Threads int
}

// Steps of sealing.
const (
	StepIndex      = "index"       // what the batches say of their documents, sorted
	StepDuplicates = "deduplicate" // duplicates found and left out
	StepMixture    = "mix"         // shares of sources
	StepWrite      = "write"       // documents shuffled, split, cut into sequences, written
)

// DefaultOptions are the choices where there is no reason for others.
func DefaultOptions() Options {
	return Options{SequenceLength: 2048, ValidationShare: 0.01, Duplicates: KeepDuplicates, Similarity: 0.8}
}

// sequencesPerShard is SequencesPerShard, or what makes 64 MiB of tokens.
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

// Output is a file being written to wherever the shards are kept.
type Output interface {
	io.Writer
	// Commit makes the file permanent and returns its digest and size in bytes.
	Commit() (digest string, size int64, err error)
	// Abort discards the file. It is called at most once and not after Commit.
	Abort() error
}

// Dataset makes a dataset of the documents in token batches, given by their paths: it shuffles all documents, splits
// them into train and validation, and writes each split as shards of fixed-length sequences, one at a time, to outputs
// that create makes. Where duplicates are looked for, a list of the texts that stay is written as well, see
// TextsFormat. What comes out depends on the documents and options alone, not on how documents lie in batches.
//
// Memory grows by 40 bytes a document, by 60 while exact duplicates are looked for and by about 150 for near ones;
// tokens stay in the batches.
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
	train, validation, err := s.divide()
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
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

// NoDatasetError says why the documents make no dataset: they will not another time either.
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
	cut       int              // how many tokens of the only document train; 0: all, or there are more documents
	cutBytes  int64            // of the text that these stand for

	duplicates *dataset.Duplicates // nil: not looked for
	shares     []dataset.Share
}

// entry is a document waiting to be written.
type entry struct {
	batch, document uint32
	source          uint32
	validation      bool
	row             int64
	text            xxh3.Uint128 // digest of its text; zero unless duplicates are looked for
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

// index reads what all batches say of their documents, and sorts the documents by source and row.
func (s *sealer) index(ctx context.Context) error {
	sources := map[string]*dataset.Source{}
	number := map[string]uint32{} // in order of appearance, until all names are known
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
			source := sources[d.Source]
			if source == nil {
				source = &dataset.Source{Name: d.Source}
				sources[d.Source] = source
				number[d.Source] = uint32(len(number))
			}
			source.Documents++
			source.Tokens += int64(tokens.Len())
			source.Bytes += d.Bytes
			s.entries = append(s.entries, entry{
				batch: uint32(bi), document: uint32(i), source: number[d.Source], row: d.Row,
				validation: s.validates(xxh3.HashStringSeed(d.ID, s.options.Seed)),
			})
		}
	}
	if len(s.entries) == 0 {
		return NoDatasetError{"there are no documents: every row is without a text, filtered, or in a file that was " +
			"left out"}
	}
	rank := make([]uint32, len(number))
	for i, name := range slices.Sorted(maps.Keys(sources)) {
		s.sources = append(s.sources, *sources[name])
		rank[number[name]] = uint32(i)
	}
	for i := range s.entries {
		s.entries[i].source = rank[s.entries[i].source]
	}
	slices.SortFunc(s.entries, func(a, b entry) int {
		return cmp.Or(cmp.Compare(a.source, b.source), cmp.Compare(a.row, b.row))
	})
	return s.refuseRepeats()
}

func (s *sealer) validates(hash uint64) bool {
	return hash < uint64(math.Ldexp(s.options.ValidationShare, 64))
}

// refuseRepeats finds a row of a source that came twice: a batch listed twice, or different files of the same name.
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

// divide returns the documents of each split, in their order by source and row. If chance leaves a split without any,
// the document whose turn would come first goes there. An only document is in both, see cut.
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
	// A stable partition in place would save memory only for an instant: sort by split.
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

// cutOnly finds where the only document is cut: its last tokens validate, as many as their share says, but one token of
// text with the end of text at least, and another trains. Where nobody knows how many bytes tokens stand for, it is not
// cut.
func (s *sealer) cutOnly() error {
	_, tokens, err := s.batches[s.entries[0].batch].Document(int(s.entries[0].document))
	if err != nil {
		return err
	}
	t, err := tokenizer.New(s.tokenizer.Name)
	if err != nil {
		return nil //nolint:nilerr // a tokenizer of others
	}
	n := tokens.Len() + 1 // with the end of text
	if n < 3 {
		return nil
	}
	s.cut = n - min(max(int(math.Round(s.options.ValidationShare*float64(n))), 2), n-1)
	s.cutBytes = int64(len(t.Decode(nil, tokens.Slice(0, s.cut).AppendTo(nil))))
	return nil
}

// The permutations of sealing are told apart from each other and from Order's by these.
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
