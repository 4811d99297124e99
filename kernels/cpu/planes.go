package cpu

import (
	"fmt"
	"math"

	"bitnet1/kernels"
)

// wordsPerStep is the number of words in a YMM register. Planes of a row are padded to a multiple.
const wordsPerStep = 4

// planes keeps the planes of a row together: plane b of row r starts at word (r*bits + b) * stride.
type planes struct {
	rows, cols, bits int
	quantization     kernels.Quantization
	values           []float32 // of the indices Σ_b 2^b of bits
	stride           int       // words per plane of a row
	words            []uint64
}

// NewPlanes allocates planes whose bits are all zero, that is -1.
func (d *Device) NewPlanes(rows, cols int, q kernels.Quantization) (kernels.Planes, error) {
	if err := kernels.CheckPlanes(rows, cols, q); err != nil {
		return nil, fmt.Errorf("cpu: %w", err)
	}
	bits := q.Planes()
	stride := (cols + 64*wordsPerStep - 1) / (64 * wordsPerStep) * wordsPerStep
	if err := kernels.CheckSize("words of bit planes", rows*bits*stride); err != nil {
		return nil, fmt.Errorf("cpu: %w", err)
	}
	return &planes{rows, cols, bits, q, valuesOf(q), stride, make([]uint64, rows*bits*stride)}, nil
}

// valuesOf lists the values of q, from the lowest.
func valuesOf(q kernels.Quantization) []float32 {
	list := make([]float32, 1<<q.Planes())
	for i := range list {
		n := i
		if q.PlusMinus() {
			n = 2*i - q.Largest()
		}
		list[i] = q.Unit() * float32(n)
	}
	return list
}

func (p *planes) Rows() int { return p.rows }
func (p *planes) Cols() int { return p.cols }

func (p *planes) Quantization() kernels.Quantization { return p.quantization }

func (p *planes) Slice(from, to int) kernels.Planes {
	n := p.bits * p.stride
	part := *p
	part.rows, part.words = to-from, p.words[from*n:to*n]
	return &part
}

// DownloadPlanes copies the words of src without the padding beyond whole words.
func (d *Device) DownloadPlanes(dst []uint64, src kernels.Planes) error {
	d.run("DownloadPlanes", kernels.CheckDownloadPlanes(len(dst), src), func() {
		p := src.(*planes)
		n := wordsOf(p.cols)
		for i := range p.rows * p.bits {
			copy(dst[i*n:][:n], p.words[i*p.stride:])
		}
	})
	return d.err
}

// wordsOf is the number of words that n bits take.
func wordsOf(n int) int { return (n + 63) / 64 }

// row returns all planes of row r.
func (p *planes) row(r int) []uint64 {
	n := p.bits * p.stride
	return p.words[r*n : r*n+n]
}

// packSignsGo sets the bits of words where x >= 0. It has no branches, because signs are unpredictable.
func packSignsGo(words []uint64, x []float32) {
	const infinity = 0x7f800000
	for i := range words {
		var w uint64
		for j, v := range x[min(len(x), i*64):min(len(x), i*64+64)] {
			// -0 + 0 is +0. As an integer, the magnitude of NaN is above that of infinity.
			bits := math.Float32bits(v + 0)
			w |= uint64((bits>>31|(infinity-bits&^(1<<31))>>31)^1) << j
		}
		words[i] = w
	}
}

// packMaskGo sets the bits of words where |x| <= limit, a positive number.
func packMaskGo(words []uint64, x []float32, limit float32) {
	most := math.Float32bits(limit)
	for i := range words {
		var w uint64
		for j, v := range x[min(len(x), i*64):min(len(x), i*64+64)] {
			w |= uint64((math.Float32bits(v)&0x7fffffff-most-1)>>31) << j
		}
		words[i] = w
	}
}

// signs8[b] is the ±1 of a byte's bits, least significant first.
var signs8 = func() (t [256][8]float32) {
	for b := range t {
		for i := range t[b] {
			t[b][i] = float32(b>>i&1)*2 - 1
		}
	}
	return t
}()

// segment writes the values of a row from column col on, a multiple of 8, to dst.
func (p *planes) segment(dst []float32, row, col int) {
	if p.bits == 1 {
		expandSigns(dst, p.row(row), col)
		return
	}
	expandLevels(dst, p.row(row), p.stride, col, p.values)
}

// expandLevels writes the values of planes from bit at on, a multiple of 8. The planes are stride words apart.
func expandLevels(dst []float32, words []uint64, stride, at int, values []float32) {
	for i := 0; i < len(dst); i += 8 {
		index := uint64(0) // of eight values
		for b := 0; b*stride < len(words); b++ {
			index |= spread8[byte(words[b*stride+(at+i)>>6]>>((at+i)&63))] << b
		}
		for j := range dst[i:min(i+8, len(dst))] {
			dst[i+j] = values[byte(index>>(8*j))]
		}
	}
}

// expandSigns writes ±1 for the bits of words from bit at on, a multiple of 8.
func expandSigns(dst []float32, words []uint64, at int) {
	for len(dst) >= 8 {
		*(*[8]float32)(dst) = signs8[byte(words[at>>6]>>(at&63))]
		dst, at = dst[8:], at+8
	}
	if len(dst) > 0 {
		copy(dst, signs8[byte(words[at>>6]>>(at&63))][:])
	}
}

// copyBits copies n bits of all planes of every row, from bit at on, to dst. In dst a plane of a row takes whole words.
// The first row is row, and there are as many as dst has room for.
func (p *planes) copyBits(dst []uint64, row, at, n int) {
	perRow, shift := wordsOf(n), at&63
	for i := range perRow {
		part, from := min(64, n-64*i), row*p.bits*p.stride+at>>6+i
		mask, crosses := uint64(math.MaxUint64)>>(64-part), shift+part > 64
		for to := i; to < len(dst); to += perRow {
			w := p.words[from] >> shift
			if crosses {
				w |= p.words[from+1] << (64 - shift)
			}
			dst[to] = w & mask
			from += p.stride
		}
	}
}

// dense is a row-major matrix of floats. If scale is set, column c is multiplied by scale[c].
type dense struct {
	data  []float32
	cols  int
	scale []float32
}

func (m dense) segment(dst []float32, row, col int) {
	src := m.data[row*m.cols+col:][:len(dst)]
	if m.scale == nil {
		copy(dst, src)
		return
	}
	for i, s := range m.scale[col:][:len(dst)] {
		dst[i] = src[i] * s
	}
}
