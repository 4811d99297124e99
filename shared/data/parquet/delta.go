package parquet

import (
	"encoding/binary"
	"errors"
)

var errDelta = errors.New("delta-encoded integers that are not valid or end early: the file is corrupt")

// delta decodes DELTA_BINARY_PACKED integers one at a time. Integers of 32 and of 64 bits are decoded alike, because
// the sums wrap around.
type delta struct {
	data   []byte // of the blocks that have not begun
	left   uint64 // integers that are not read yet
	last   int64
	first  bool // the next integer is the one in the header
	size   uint64
	least  int64  // smallest difference of the block
	widths []byte // of the block's miniblocks not begun
	perMin uint64 // integers in a miniblock

	bits  []byte // of the current miniblock
	bit   uint64
	width uint64
	mini  uint64 // integers left in it
}

func newDelta(data []byte) (*delta, error) {
	var head [3]uint64 // block size, miniblocks in a block, integers
	for i := range head {
		v, n := binary.Uvarint(data)
		if n <= 0 {
			return nil, errDelta
		}
		head[i], data = v, data[n:]
	}
	first, n := binary.Varint(data)
	// The format asks for multiples of 128 and 32. These bounds keep the products below from overflowing.
	if n <= 0 || head[0] == 0 || head[0] > 1<<24 || head[1] == 0 || head[1] > head[0] || head[0]%head[1] != 0 ||
		head[0]/head[1]%8 != 0 {
		return nil, errDelta
	}
	return &delta{data: data[n:], left: head[2], last: first, first: true, size: head[1], perMin: head[0] / head[1]},
		nil
}

// next returns the next integer.
func (d *delta) next() (int64, error) {
	if d.left == 0 {
		return 0, errDelta
	}
	d.left--
	if d.first {
		d.first = false
		return d.last, nil
	}
	if d.mini == 0 {
		if err := d.nextMini(); err != nil {
			return 0, err
		}
	}
	d.mini--
	var difference uint64
	if d.width > 0 {
		difference = load64(d.bits, d.bit>>3) >> (d.bit & 7)
		if over := d.bit&7 + d.width; over > 64 {
			difference |= uint64(d.bits[d.bit>>3+8]) << (64 - d.bit&7)
		}
		if d.width < 64 {
			difference &= 1<<d.width - 1
		}
		d.bit += d.width
	}
	d.last += d.least + int64(difference)
	return d.last, nil
}

// nextMini begins the next miniblock, which may be the first of a new block.
func (d *delta) nextMini() error {
	if len(d.widths) == 0 {
		least, n := binary.Varint(d.data)
		if n <= 0 || d.size > uint64(len(d.data)-n) {
			return errDelta
		}
		d.least, d.widths, d.data = least, d.data[n:n+int(d.size)], d.data[n+int(d.size):]
	}
	d.width = uint64(d.widths[0])
	d.widths = d.widths[1:]
	size := d.perMin / 8 * d.width
	if d.width > 64 || size > uint64(len(d.data)) {
		return errDelta
	}
	d.bits, d.data, d.bit, d.mini = d.data[:size], d.data[size:], 0, d.perMin
	return nil
}

// skipDelta returns the data behind the delta-encoded integers at the start of data, and the number of integers.
func skipDelta(data []byte) (rest []byte, n uint64, err error) {
	d, err := newDelta(data)
	if err != nil {
		return nil, 0, err
	}
	n = d.left
	for d.left > 0 {
		if _, err := d.next(); err != nil {
			return nil, 0, err
		}
		// Whole miniblocks are skipped without decoding.
		skip := min(d.mini, d.left)
		d.mini, d.left = d.mini-skip, d.left-skip
	}
	return d.data, n, nil
}
