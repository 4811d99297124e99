//go:build cuda

package cuda

import (
	"fmt"
	"unsafe"

	"bitnet1/kernels"

	"gorgonia.org/cu"
)

// planes is a matrix of small integers. Its entries are the numbers that the bits of planes spell: bit c%32 of 32-bit
// word c/32 of a row is column c, and plane p has weight 2^p, but for the top plane of a signed matrix, which has
// -2^p (two's complement). Working memory may keep entries as signed bytes instead. encoding says which integers the
// entries stand for.
//
// Rows of bits are padded with zeros to 128 bits, rows of bytes to 16 bytes, and their number to 256: the matrix units
// and bulk copies need that.
type planes struct {
	rows, cols, bits int
	quantization     kernels.Quantization // unset in working memory
	encoding         encoding
	signed           bool
	bytes            bool // one plane of bytes
	planeBytes       int
	data             cu.DevicePtr
	popcounts        cu.DevicePtr // an int32 for each row: Σ_p weight_p * popcount
}

// encoding says which integers stand behind the entries of a matrix: factor*entry - offset. The sum of a row's entries
// is its popcount + perColumn for each column.
type encoding struct {
	factor, offset, perColumn int
	largest                   int // absolute value of an integer
}

// encodingOf is that of the planes of quantized values.
func encodingOf(q kernels.Quantization) encoding {
	if q.PlusMinus() { // Σ 2^p s_p with s_p = 2 p_p - 1
		return encoding{factor: 2, offset: q.Largest(), largest: q.Largest()}
	}
	return encoding{factor: 1, largest: q.Largest()}
}

// encodingOfGradients is that of gradients rounded to so many bits.
func encodingOfGradients(bits int) encoding { return encoding{factor: 1, largest: 1<<(bits-1) - 1} }

func (p *planes) Rows() int { return p.rows }
func (p *planes) Cols() int { return p.cols }

func (p *planes) Quantization() kernels.Quantization { return p.quantization }

func (p *planes) Slice(from, to int) kernels.Planes {
	checkSlice(from, to, p.rows)
	s := *p
	s.rows = to - from
	s.data += cu.DevicePtr(from * p.rowBytes())
	s.popcounts += cu.DevicePtr(4 * from)
	return &s
}

func (p *planes) rowBytes() int {
	if p.bytes {
		return roundUp(p.cols, 16)
	}
	return roundUp(p.cols, 128) / 8
}

func (p *planes) words() int { return p.rowBytes() / 4 }

// values is p as kernels read it.
func (p *planes) values() quantized {
	return quantized{
		data: p.data, planeWords: int64(p.planeBytes / 4), words: int32(p.words()), planes: int32(p.bits),
		factor: int32(p.encoding.factor), offset: int32(p.encoding.offset), unit: p.quantization.Unit(),
	}
}

// levels is p as kernels write it, where p's columns are channels from..from+cols-1 of a linear.
func (p *planes) levels(from int) levels {
	return levels{
		from: int32(from), width: int32(p.cols), bits: int32(p.bits), words: int32(p.words()),
		planeWords: int64(p.planeBytes / 4), data: p.data, popcounts: p.popcounts,
	}
}

func (p *planes) String() string {
	switch {
	case p.bytes:
		return fmt.Sprintf("%d × %d bytes", p.rows, p.cols)
	case p.signed:
		return fmt.Sprintf("%d × %d in %d two's-complement planes", p.rows, p.cols, p.bits)
	case p.encoding.factor == 1:
		return fmt.Sprintf("%d × %d in %d planes of {0,1}", p.rows, p.cols, p.bits)
	}
	return fmt.Sprintf("%d × %d in %d planes of ±1", p.rows, p.cols, p.bits)
}

// NewPlanes allocates planes whose bits are all zero, that is -1.
func (d *Device) NewPlanes(rows, cols int, q kernels.Quantization) (kernels.Planes, error) {
	if err := kernels.CheckPlanes(rows, cols, q); err != nil {
		return nil, fmt.Errorf("CUDA device %d: %w", d.index, err)
	}
	p := &planes{rows: rows, cols: cols, bits: q.Planes(), quantization: q, encoding: encodingOf(q)}
	p.planeBytes = p.rowBytes() * roundUp(rows, 256)
	var err error
	if p.data, err = d.allocate("bytes of bit planes", p.bits*p.planeBytes, p.bits*p.planeBytes); err != nil {
		return nil, err
	}
	p.popcounts, err = d.allocate("popcounts", rows, 4*roundUp(rows, 256))
	return p, err
}

// scratch gives p working memory of undefined content. A kernel that fills it writes whole rows, padding included.
// There is no memory for popcounts.
func (p *planes) scratch(d *Device, name string) (_ *planes, err error) {
	p.planeBytes = p.rowBytes() * roundUp(p.rows, 256)
	p.data, err = d.scratch(name, p.bits*p.planeBytes)
	return p, err
}

// DownloadPlanes copies the words of src, row by row, without padding beyond whole words.
func (d *Device) DownloadPlanes(dst []uint64, src kernels.Planes) error {
	d.run("DownloadPlanes", kernels.CheckDownloadPlanes(len(dst), src), func() error {
		p := src.(*planes)
		n := ceilDiv(p.cols, 64)
		stride := p.rowBytes() / 8
		padded := make([]uint64, p.rows*stride)
		for b := range p.bits {
			from := p.data + cu.DevicePtr(b*p.planeBytes)
			if err := d.receive(unsafe.Pointer(unsafe.SliceData(padded)), from, 8*len(padded)); err != nil {
				return err
			}
			for r := range p.rows {
				copy(dst[(r*p.bits+b)*n:][:n], padded[r*stride:])
			}
		}
		return nil
	})
	return d.err
}

// transpose returns p's planes with rows and columns exchanged, the columns padded to a number of columns. order is
// their order: kNeighbours or kGradientOrder. The result has no popcounts.
func (d *Device) transpose(name string, p *planes, columns, order int) (*planes, error) {
	out, err := (&planes{rows: p.cols, cols: columns, bits: p.bits, encoding: p.encoding}).scratch(d, name)
	if err != nil {
		return nil, err
	}
	g := grid(ceilDiv(p.words(), 4), ceilDiv(out.words(), 8), p.bits)
	return out, d.launch(g).transposeBits(p.data, p.rows, p.cols, p.words(), p.planeBytes/4,
		out.data, out.words(), out.planeBytes/4, order)
}

// asBytes describes a matrix whose entries are those of p as bytes. An entry of n planes that are not signed becomes
// that entry minus 2^(n-1), which fits for up to 8 planes. Bytes of padding are zero.
func (p *planes) asBytes(rows, cols int) *planes {
	out := &planes{rows: rows, cols: cols, bits: 1, encoding: p.encoding, bytes: true}
	if half := 1 << (p.bits - 1); !p.signed {
		out.encoding.offset -= p.encoding.factor * half
		out.encoding.perColumn -= half
	}
	return out
}

// transposeBytes returns p's entries as bytes, with rows and columns exchanged, the columns padded to a number of
// columns. The result has no popcounts. Padding is zero, or that of planes, so it must meet zeros.
func (d *Device) transposeBytes(name string, p *planes, columns int) (*planes, error) {
	if p.bits > 4 || p.signed {
		t, err := d.transpose("transposed "+name, p, columns, kNeighbours)
		if err != nil {
			return nil, err
		}
		return d.spread(name, t)
	}
	out, err := p.asBytes(p.cols, columns).scratch(d, name)
	if err != nil {
		return nil, err
	}
	g := grid(ceilDiv(p.words(), 4), ceilDiv(columns, 256))
	return out, d.launch(g).transposeSpread(p.data, p.rows, p.cols, p.words(), p.planeBytes/4, p.bits,
		out.data, out.rowBytes())
}

// spread returns the entries of planes as bytes.
func (d *Device) spread(name string, p *planes) (*planes, error) {
	out, err := p.asBytes(p.rows, p.cols).scratch(d, name)
	if err != nil {
		return nil, err
	}
	out.popcounts = p.popcounts
	g := grid(p.rows, ceilDiv(p.words(), 256))
	return out, d.launch(g).spreadBytes(p.data, p.cols, p.words(), p.planeBytes/4, p.bits, either(p.signed, 1, 0),
		out.data, out.rowBytes())
}

// Quantize refreshes the quantized weights, and bonsai's effective weights, of a linear.
func (d *Device) Quantize(l kernels.Linear) {
	d.run("Quantize", kernels.CheckQuantize(l), func() error {
		weight, to := float32s(l.Weight, l.In*l.Out), l.Quantized.(*planes)
		var err error
		if g := d.launch(warpPerRow(l.Out)); to.quantization == kernels.Sign() {
			err = g.packSigns(weight, l.In, l.Out, l.In, to.data, to.words(), to.popcounts)
		} else {
			err = g.packLevels(weight, l.Out, to.quantization.Step(), to.levels(0))
		}
		if err != nil || l.Mixed == nil {
			return err
		}
		return d.launch(grid(l.Out)).blend(weight, l.In, to.values(), d.memory.scalars, float32s(l.Mixed, l.In*l.Out))
	})
}
