package seal

import (
	"fmt"

	"bitnet1/shared/data/dataset"
)

// packer cuts the token stream of a split into sequences, and the sequences into shards. See dataset.ShardFormat.
type packer struct {
	sealer *sealer
	split  string
	about  dataset.ShardInfo
	info   dataset.SplitInfo

	window []uint32        // the sequence being filled
	ranges []dataset.Range // of the window
	tokens []uint32        // of the document being added

	output Output // of the current shard; nil if there is none
	shard  *dataset.ShardWriter
}

func newPacker(s *sealer, split string) *packer {
	names := make([]string, len(s.sources))
	for i, source := range s.sources {
		names[i] = source.Name
	}
	return &packer{
		sealer: s, split: split,
		about: dataset.ShardInfo{Tokenizer: s.tokenizer, SequenceLength: s.options.SequenceLength, Split: split,
			Sources: names},
		info:   dataset.SplitInfo{Shards: []dataset.Shard{}},
		window: []uint32{s.tokenizer.EndOfText},
	}
}

// add appends a document and its end of text to the stream.
func (p *packer) add(e entry) error {
	b := p.sealer.batches[e.batch]
	d, tokens, err := b.Document(int(e.document))
	if err != nil {
		return err
	}
	p.tokens = append(tokens.AppendTo(p.tokens[:0]), p.sealer.tokenizer.EndOfText)
	for _, id := range p.tokens {
		if int64(id) >= int64(p.sealer.tokenizer.Vocab) {
			return fmt.Errorf("token batch %s: document %s has token %d, outside the vocabulary: %w: tokenize its "+
				"source again", b.Path(), d.ID, id, dataset.ErrCorrupt)
		}
	}
	from, to := p.part(d)
	width := p.sealer.options.SequenceLength + 1
	for offset := from; offset < to; {
		n := min(width-len(p.window), to-offset)
		p.ranges = append(p.ranges, dataset.Range{Start: len(p.window), Length: n, Document: d.ID,
			Source: int(e.source), Row: e.row, Offset: int64(offset)})
		p.window = append(p.window, p.tokens[offset:offset+n]...)
		offset += n
		if len(p.window) == width {
			if err := p.emit(width - 1); err != nil {
				return err
			}
			p.carry()
		}
	}
	return nil
}

// part returns the range of the document's tokens that is in the split, and counts the document and its bytes. A
// document that is cut counts in the split of its beginning.
func (p *packer) part(d dataset.BatchDocument) (from, to int) {
	cut, size := p.sealer.cut, p.sealer.cutBytes
	switch {
	case cut == 0:
		to, size = len(p.tokens), d.Bytes
	case p.split == "train":
		to = cut
	default:
		from, to, size = cut, len(p.tokens), d.Bytes-size
	}
	if from == 0 {
		p.info.Documents++
	}
	p.info.Bytes += size
	return from, to
}

// carry begins the next window with the last token of the current one.
func (p *packer) carry() {
	last := p.ranges[len(p.ranges)-1]
	p.window = append(p.window[:0], p.window[len(p.window)-1])
	p.ranges = append(p.ranges[:0], dataset.Range{Length: 1, Document: last.Document, Source: last.Source,
		Row: last.Row, Offset: last.Offset + int64(last.Length) - 1})
}

// emit writes the window as a sequence.
func (p *packer) emit(valid int) error {
	o := p.sealer.options
	if p.shard == nil {
		if err := p.begin(); err != nil {
			return err
		}
	}
	if err := p.shard.Append(p.window, valid, p.ranges); err != nil {
		return err
	}
	p.info.Sequences++
	p.info.Tokens += int64(valid)
	if p.shard.Sequences() == int64(o.SequencesPerShard) {
		return p.commit()
	}
	return nil
}

func (p *packer) begin() (err error) {
	name := fmt.Sprintf("%s-%05d.arrow", p.split, len(p.info.Shards))
	if p.output, err = p.sealer.create(name); err != nil {
		return fmt.Errorf("creating shard %s: %w", name, err)
	}
	p.shard, err = dataset.NewShardWriter(p.output, p.about)
	return err
}

func (p *packer) commit() error {
	shard := dataset.Shard{Name: fmt.Sprintf("%s-%05d.arrow", p.split, len(p.info.Shards)),
		Sequences: p.shard.Sequences()}
	if err := p.shard.Close(); err != nil {
		return fmt.Errorf("writing shard %s: %w", shard.Name, err)
	}
	output := p.output
	p.output, p.shard = nil, nil
	var err error
	if shard.Digest, shard.Size, err = output.Commit(); err != nil {
		return fmt.Errorf("committing shard %s: %w", shard.Name, err)
	}
	p.info.Shards = append(p.info.Shards, shard)
	return nil
}

// finish writes the last, short sequence, padded with ends of text.
func (p *packer) finish() error {
	if valid := len(p.window) - 1; valid > 0 {
		for len(p.window) <= p.sealer.options.SequenceLength {
			p.window = append(p.window, p.sealer.tokenizer.EndOfText)
		}
		if err := p.emit(valid); err != nil {
			return err
		}
	}
	if p.shard != nil {
		return p.commit()
	}
	return nil
}

// abort discards a shard that was not committed.
func (p *packer) abort() error {
	if p.output == nil {
		return nil
	}
	return p.output.Abort()
}
