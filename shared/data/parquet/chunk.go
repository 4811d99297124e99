package parquet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// batchLevels is the most levels that one Read decodes. It bounds the memory beside that of pages.
const batchLevels = 256

// maxDictionary is the most values of a dictionary. No writer makes so many, and each takes memory beside its bytes.
const maxDictionary = 1 << 21

// Chunk reads the values of one column in one row group. It must be closed.
type Chunk struct {
	file   *File
	group  int
	column Column
	info   chunkInfo

	at, end int64  // bytes of the file that are not read yet
	left    int64  // values that are not read yet
	packed  []byte // the current page as it is in the file
	page    []byte // the current page, decompressed
	held    int64  // bytes of file.held

	dictionary *Values
	last       []byte // last value of a delta-encoded byte array
	decoder    decoder
	def, rep   hybrid
	inPage     int64 // levels left in the page
	err        error

	levels [batchLevels]uint32
	defs   [batchLevels]uint8
	reps   [batchLevels]uint8
}

// Batch is a run of levels with their values. It is valid until the next Read. The values of a repeated column stay
// valid, because its rows can continue in the next page.
type Batch struct {
	// Def and Rep are the definition and repetition levels, one for each value or null. Def is the column's MaxDef if
	// there is a value, and Rep is 0 at the beginning of a row. Each is nil if its maximum is 0.
	Def, Rep []uint8
	Levels   int // number of levels
	Values   Values
}

// Read opens a column of a row group. Both must exist.
func (f *File) Read(group, column int) (*Chunk, error) {
	c := &Chunk{file: f, group: group, column: f.columns[column], info: f.groups[group].chunks[column]}
	if err := c.check(f.groups[group].rows); err != nil {
		return nil, c.error(err)
	}
	c.at, c.end, c.left = c.info.start, c.info.start+c.info.size, c.info.values
	return c, nil
}

// Close releases the memory of the chunk. The batches that it filled are no longer valid.
func (c *Chunk) Close() {
	c.file.held.Add(-c.held)
	*c = Chunk{file: c.file, err: errors.New("parquet: read of a closed chunk")}
}

// hold counts n more bytes of memory, and reports more than the limit.
func (c *Chunk) hold(n int) error {
	c.held += int64(n)
	if held := c.file.held.Add(int64(n)); held > c.file.options.MaxHeld {
		return fmt.Errorf("its pages and those of other columns take %d bytes, more than the limit of %d: write the "+
			"file with smaller pages", held, c.file.options.MaxHeld)
	}
	return nil
}

// check compares the footer's description of the chunk with the schema and the file.
func (c *Chunk) check(rows int64) error {
	i := c.info
	if err := i.problem.error(); err != nil {
		return err
	}
	if err := checkCodec(i.codec); err != nil {
		return err
	}
	switch {
	case i.kind != c.column.Type:
		return fmt.Errorf("it is %v here and %v in the schema: the file is corrupt", i.kind, c.column.Type)
	case c.column.MaxDef > 255 || c.column.MaxRep > 255:
		return errors.New("it is nested too deep")
	case i.values == 0 && rows == 0: // nothing is read, so that the place does not matter
	case i.start < int64(len(Magic)) || i.size < 0 || i.start > c.file.size || i.size > c.file.size-i.start:
		return fmt.Errorf("it lies at %d+%d, outside the %d bytes of pages: the file is corrupt", i.start, i.size,
			c.file.size)
	case i.values < 0 || c.column.MaxRep == 0 && i.values != rows || i.values < rows:
		return fmt.Errorf("%d values for %d rows: the file is corrupt", i.values, rows)
	}
	return nil
}

// Read decodes the next levels and values into b. It returns io.EOF after as many as the footer says there are.
func (c *Chunk) Read(b *Batch) error {
	b.Levels, b.Def, b.Rep = 0, nil, nil
	b.Values.reset()
	if c.err != nil {
		return c.err
	}
	for c.inPage == 0 {
		if c.left == 0 {
			return io.EOF
		}
		if err := c.openPage(); err != nil {
			c.err = c.error(err)
			return c.err
		}
	}
	if err := c.read(b); err != nil {
		c.err = c.error(err)
	}
	return c.err
}

// error adds the place to err.
func (c *Chunk) error(err error) error {
	return fmt.Errorf("row group %d, column %s: %w", c.group, c.column.Path, err)
}

func (c *Chunk) read(b *Batch) error {
	n := int(min(c.inPage, batchLevels))
	switch d := c.decoder.(type) { // their values are not slices of the page
	case *deltaBytes:
		n = 1
	case *split:
		if d.width > 8 {
			n = 1
		}
	}
	if c.column.MaxRep > 0 {
		if err := readLevels(&c.rep, c.levels[:n], c.reps[:n], c.column.MaxRep); err != nil {
			return err
		}
		b.Rep = c.reps[:n]
	}
	values := n
	if c.column.MaxDef > 0 {
		if err := readLevels(&c.def, c.levels[:n], c.defs[:n], c.column.MaxDef); err != nil {
			return err
		}
		b.Def = c.defs[:n]
		values = 0
		for _, d := range b.Def {
			if int(d) == c.column.MaxDef {
				values++
			}
		}
	}
	if err := c.decoder.read(&b.Values, values); err != nil {
		return err
	}
	work := int64(n)
	for _, v := range b.Values.Bytes {
		work += int64(len(v))
	}
	if err := c.file.did(work); err != nil {
		return err
	}
	c.inPage -= int64(n)
	b.Levels = n
	return nil
}

func readLevels(h *hybrid, scratch []uint32, dst []uint8, top int) error {
	if err := h.read(scratch); err != nil {
		return err
	}
	for i, level := range scratch {
		if level > uint32(top) {
			return fmt.Errorf("a level of %d where %d is the highest: the file is corrupt", level, top)
		}
		dst[i] = uint8(level)
	}
	return nil
}

// openPage reads pages up to the next data page.
func (c *Chunk) openPage() error {
	for c.at < c.end {
		h, packed, err := c.nextPage()
		if err != nil {
			return err
		}
		switch h.kind {
		case pageIndex:
		case pageDictionary:
			if err := c.readDictionary(h, packed); err != nil {
				return err
			}
		default:
			return c.openData(h, packed)
		}
	}
	return fmt.Errorf("its pages end %d values early: the file is corrupt", c.left)
}

func (c *Chunk) readDictionary(h pageHeader, packed []byte) error {
	if c.dictionary != nil {
		return errors.New("a second dictionary: the file is corrupt")
	}
	if h.encoding != encodingPlain && h.encoding != encodingPlainDict {
		return fmt.Errorf("a dictionary in encoding %d: the file is corrupt", h.encoding)
	}
	data, err := c.unpack(h, packed)
	if err != nil {
		return err
	}
	// A value takes at least a byte, unless it is a boolean or has no width.
	if c.column.Type == Boolean || h.values > int64(len(data)) || h.values > maxDictionary {
		return fmt.Errorf("a dictionary of %d values in %d bytes: the file is corrupt", h.values, len(data))
	}
	d, err := c.newPlain(data)
	if err != nil {
		return err
	}
	c.dictionary = new(Values)
	switch c.column.Type {
	case ByteArray, FixedLenByteArray, Int96:
		c.dictionary.Bytes = make([][]byte, 0, h.values)
	case Int32, Int64:
		c.dictionary.Ints = make([]int64, 0, h.values)
	default:
		c.dictionary.Floats = make([]float64, 0, h.values)
	}
	return d.read(c.dictionary, int(h.values))
}

// openData prepares the levels and values of a data page.
func (c *Chunk) openData(h pageHeader, packed []byte) error {
	data, err := c.unpack(h, packed)
	if err != nil {
		return err
	}
	c.rep, c.def = hybrid{width: levelWidth(c.column.MaxRep)}, hybrid{width: levelWidth(c.column.MaxDef)}
	if h.kind == pageDataV2 {
		levels := c.packed[:h.repLength+h.defLength]
		if c.column.MaxRep > 0 {
			c.rep.data = levels[:h.repLength]
		}
		if c.column.MaxDef > 0 {
			c.def.data = levels[h.repLength:]
		}
	} else {
		if data, err = takeLevels(&c.rep, data, h.repEncoding); err != nil {
			return err
		}
		if data, err = takeLevels(&c.def, data, h.defEncoding); err != nil {
			return err
		}
	}
	c.inPage = h.values
	c.left -= h.values
	c.decoder, err = c.newDecoder(h.encoding, data)
	return err
}

// takeLevels removes the levels from the front of a page of version 1: their length in 32 bits, and the runs.
func takeLevels(h *hybrid, data []byte, encoding int64) ([]byte, error) {
	if h.width == 0 {
		return data, nil
	}
	if encoding != encodingRLE {
		return nil, fmt.Errorf("levels in encoding %s are not supported", encodingNames[encoding])
	}
	if len(data) < 4 {
		return nil, errHybrid
	}
	length := int64(binary.LittleEndian.Uint32(data))
	if length > int64(len(data)-4) {
		return nil, errHybrid
	}
	h.data = data[4 : 4+length]
	return data[4+length:], nil
}
