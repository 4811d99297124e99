package cpu

import "math"

// A product of integers by planes of several bits would take as many products by lookup as there are planes. Where wide
// registers multiply bytes, it takes one product of bytes: of signed integers by the indices Σ_b 2^b of bits.

const (
	byteCols  = 32 // columns of indices that lie together
	byteGroup = 8  // rows of indices that lie together
	byteRows  = 4  // rows of integers that are multiplied together
)

// bytePanels are a depth × cols matrix of indices, the right side of a product of bytes. A panel is byteCols columns:
// the indices of the first byteGroup rows, column by column, then those of the next rows, and so on.
type bytePanels struct {
	cols    int
	groups  int // of byteGroup rows
	largest int // index
	bytes   []byte
}

func newBytePanels(depth, cols int, x *planes, memory *buffer[byte]) bytePanels {
	p := bytePanels{cols: cols, groups: padded(depth) / byteGroup, largest: x.quantization.Largest()}
	p.bytes = memory.take(p.panels() * p.size())
	return p
}

func (p bytePanels) panels() int { return (p.cols + byteCols - 1) / byteCols }

// size is that of a panel.
func (p bytePanels) size() int { return p.groups * byteGroup * byteCols }

// multipliesBytes says whether a product of q by x is one of bytes: a sum of two products has to fit 16 bits.
func (d *Device) multipliesBytes(bound, rows int, x *planes) bool {
	return d.byteProducts != nil && x.bits > 1 && rows >= byteRows && 2*bound*x.quantization.Largest() <= math.MaxInt16
}

// bytesAlongRows arranges x for sums over its rows: column k of the panels is column k of x.
func (d *Device) bytesAlongRows(memory *buffer[byte], x *planes) bytePanels {
	p := newBytePanels(x.rows, x.cols, x, memory)
	width := p.panels() * byteCols
	d.blocks(p.groups, 8, func(from, to int, s *scratch) {
		rows := s.indexRows.take(byteGroup * width)
		for g := from; g < to; g++ {
			for i := range byteGroup {
				row := rows[i*width:][:width]
				if r := g*byteGroup + i; r < x.rows {
					d.expandBits(row, x.row(r), x.stride, x.bits, 0, 0, 1)
				} else {
					clear(row)
				}
			}
			for i := range p.panels() {
				d.transposeBytes(p.bytes[i*p.size()+g*byteGroup*byteCols:], byteGroup, asBytes(rows[i*byteCols:]), width, byteCols)
			}
		}
	})
	return p
}

// bytesAlongColumns arranges x for sums over its columns: column o of the panels is row o of x.
func (d *Device) bytesAlongColumns(memory *buffer[byte], x *planes) bytePanels {
	p := newBytePanels(x.cols, x.rows, x, memory)
	d.blocks(x.rows, 16, func(from, to int, s *scratch) {
		row := s.indexRow.take(p.groups * byteGroup)
		for o := from; o < to; o++ {
			d.expandBits(row, x.row(o), x.stride, x.bits, 0, 0, 1)
			at := o/byteCols*p.size() + o%byteCols*byteGroup
			for g := range p.groups {
				copy(p.bytes[at+g*byteGroup*byteCols:][:byteGroup], asBytes(row[g*byteGroup:]))
			}
		}
	})
	return p
}

// integerRows returns the integers behind x.
func (d *Device) integerRows(x *planes) int8Matrix {
	q := int8Matrix{stride: padded(x.cols), bound: x.quantization.Largest()}
	q.values = d.shared.integerRows.take(x.rows * q.stride)
	d.blocks(x.rows, 64, func(from, to int, _ *scratch) {
		for r := from; r < to; r++ {
			levels{x}.fill(d, q.row(r), r, 0, 0)
		}
	})
	return q
}

// bytesProducts computes Σ_j q[r][j] Σ_b 2^b s_b[j][c] for rows r0..r1-1 and all columns c of p, where s_b is 1 for a
// set bit and otherwise -1. It calls emit with every row: the product is 2*sums[c] - offset.
func (d *Device) bytesProducts(q int8Matrix, p bytePanels, r0, r1 int, s *scratch,
	emit func(row int, sums []int32, offset int32)) {
	width, last := p.panels()*byteCols, len(q.values)/q.stride-byteRows
	all, halves := s.byteSums.take((r1-r0)*width), s.byteHalves.take(byteRows*2*byteCols)
	flush := math.MaxInt16 / (2 * q.bound * p.largest)
	for i := range p.panels() {
		panel := p.bytes[i*p.size():][:p.size()]
		for r := r0; r < r1; r += byteRows {
			first := min(r, last) // the last four may repeat rows
			d.byteProducts(halves, panel, q.values[first*q.stride:], q.stride, p.groups, flush)
			for row := r; row < min(r+byteRows, r1); row++ {
				to := all[(row-r0)*width+i*byteCols:][:byteCols]
				for c, from := 0, halves[(row-first)*2*byteCols:][:2*byteCols]; c < byteCols; c++ {
					to[c] = from[2*c] + from[2*c+1]
				}
			}
		}
	}
	for r := r0; r < r1; r++ {
		emit(r, all[(r-r0)*width:][:p.cols], int32(p.largest*sumOfBytes(q.row(r)[:p.groups*byteGroup])))
	}
}

// byteProductsGo multiplies four rows of q with a panel. dst has two sums for each column: of the first four rows of
// every group, and of the last four. As many products as flush groups have, in pairs, add up to less than 2^15.
func byteProductsGo(dst []int32, panel []byte, q []int8, qStride, groups, flush int) {
	for i := range dst {
		r, half := i/(2*byteCols), i%(2*byteCols)*byteGroup/2
		dst[i] = 0
		for g := range groups {
			for j := range byteGroup / 2 {
				v := q[r*qStride+g*byteGroup+half%byteGroup+j]
				dst[i] += int32(v) * int32(panel[g*byteGroup*byteCols+half+j])
			}
		}
	}
}
