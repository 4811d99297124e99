//go:build cuda

package cuda

import (
	"fmt"

	"bitnet1/kernels/cuda/driver"
)

// Bits is a matrix of small integers in device memory as packed bit planes: bit c%32 of 32-bit word c/32 of a row is column c,
// plane p has weight 2^p. Bits are ±1 (1 is +1), so an entry is Σ 2^p s_p, one of the 2^Planes odd numbers around zero; or, when
// Signed, they are {0,1} and an entry is the two's-complement number they spell.
//
// Rows are padded to 128 bits and their number to 256, with zeros, as the matrix units and the copy engine want it.
type Bits struct {
	Rows, Columns, Planes int
	Signed                bool
	data                  Buffer
	popcounts             Buffer // [Rows] int32: Σ_p weight_p * popcount, the top weight negative when Signed
}

// NewBits allocates a matrix whose bits are all zero, which means -1 everywhere unless signed.
func (d *Device) NewBits(rows, columns, planes int, signed bool) (b *Bits, err error) {
	if rows < 1 || columns < 1 || planes < 1 || planes > 8 {
		return nil, fmt.Errorf("bit matrix of %d x %d in %d planes: sizes must be positive, planes at most 8", rows, columns, planes)
	}
	b = &Bits{Rows: rows, Columns: columns, Planes: planes, Signed: signed}
	if b.data, err = d.Alloc(planes * b.planeBytes()); err != nil {
		return nil, err
	}
	if b.popcounts, err = d.Alloc(4 * roundUp(rows, 256)); err != nil {
		return nil, err
	}
	return b, nil
}

// FreeBits gives matrices back; nil ones are skipped.
func (d *Device) FreeBits(matrices ...*Bits) error {
	var buffers []Buffer
	for _, b := range matrices {
		if b != nil {
			buffers = append(buffers, b.data, b.popcounts)
		}
	}
	return d.Free(buffers...)
}

func (b *Bits) rowBytes() int   { return roundUp(b.Columns, 128) / 8 }
func (b *Bits) planeBytes() int { return b.rowBytes() * roundUp(b.Rows, 256) }

func (b *Bits) negativeTop() int32 {
	if b.Signed {
		return 1
	}
	return 0
}

func (b *Bits) String() string {
	kind := "±1"
	if b.Signed {
		kind = "two's-complement"
	}
	return fmt.Sprintf("%d x %d bits in %d %s planes", b.Rows, b.Columns, b.Planes, kind)
}

// WriteBits fills b from words [Planes][Rows][ceil(Columns/64)]uint64, least significant bit first; bits past Columns must be zero.
func (d *Device) WriteBits(b *Bits, words []uint64) error {
	perRow := ceilDiv(b.Columns, 64)
	if len(words) != b.Planes*b.Rows*perRow {
		return fmt.Errorf("write of %d words to %v: it takes %d", len(words), b, b.Planes*b.Rows*perRow)
	}
	padded := make([]uint64, b.Planes*b.planeBytes()/8)
	for p := range b.Planes {
		for r := range b.Rows {
			copy(padded[p*b.planeBytes()/8+r*b.rowBytes()/8:], words[(p*b.Rows+r)*perRow:][:perRow])
		}
	}
	if err := Write(d, b.data, padded); err != nil {
		return err
	}
	return d.countRows(b)
}

// ReadBits is the inverse of WriteBits.
func (d *Device) ReadBits(b *Bits) ([]uint64, error) {
	padded := make([]uint64, b.Planes*b.planeBytes()/8)
	if err := Read(d, padded, b.data); err != nil {
		return nil, err
	}
	perRow := ceilDiv(b.Columns, 64)
	words := make([]uint64, b.Planes*b.Rows*perRow)
	for p := range b.Planes {
		for r := range b.Rows {
			copy(words[(p*b.Rows+r)*perRow:][:perRow], padded[p*b.planeBytes()/8+r*b.rowBytes()/8:])
		}
	}
	return words, nil
}

func (d *Device) countRows(b *Bits) error {
	return d.launch("count_rows", warpPerRow(b.Rows), arg(b.data.pointer), arg(int32(b.Rows)), arg(int32(b.rowBytes()/4)),
		arg(int32(b.Planes)), arg(int64(b.planeBytes()/4)), arg(b.negativeTop()), arg(b.popcounts.pointer))
}

// PackSigns sets out [rows, columns], one ±1 plane, to the signs of x: bit 1 where x >= 0. x holds float32 rows `stride` elements apart.
func (d *Device) PackSigns(out *Bits, x Buffer, stride int) error {
	if out.Planes != 1 || out.Signed || stride < out.Columns || x.size < 4*((out.Rows-1)*stride+out.Columns) {
		return fmt.Errorf("signs of %d bytes of float32, stride %d, into %v: sizes do not fit", x.size, stride, out)
	}
	return d.launch("pack_signs", warpPerRow(out.Rows), arg(x.pointer), arg(int64(stride)), arg(int32(out.Rows)),
		arg(int32(out.Columns)), arg(out.data.pointer), arg(int32(out.rowBytes()/4)), arg(out.popcounts.pointer))
}

func warpPerRow(rows int) driver.Geometry {
	return driver.Geometry{Grid: [3]int{ceilDiv(rows, 8)}, Block: [3]int{256}}
}
