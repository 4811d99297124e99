package dataset

// What the tests of the package see of its inside.

const (
	BatchDocuments = batchDocuments
	BatchTokens    = batchTokens
)

// ParseArrow returns where the record batches of an Arrow file lie: offset, bytes of the header, bytes of the body.
func ParseArrow(data []byte) (blocks [][3]int64, err error) {
	a, err := parseArrow(data)
	if err != nil {
		return nil, err
	}
	for _, b := range a.blocks {
		blocks = append(blocks, [3]int64{b.offset, b.header, b.body})
	}
	return blocks, nil
}

// Mappings are the mapped shards of a split.
func (s *Split) Mappings() (all [][]byte) {
	for _, f := range s.files {
		all = append(all, f.data)
	}
	return all
}

// RecordBatches is the number of record batches of a split's shards.
func (s *Split) RecordBatches() int { return len(s.chunks) }
