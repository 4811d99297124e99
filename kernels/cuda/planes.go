//go:build cuda

package cuda

import (
	"fmt"
	"unsafe"

	"bitnet1/kernels"

	"gorgonia.org/cu"
)

// planes is a matrix of small integers as packed bit planes. Bit c%32 of 32-bit word c/32 of a row is column c; plane p
// has weight 2^p. If signed is false, bits are ±1 (1 is +1) and an entry is Σ 2^p s_p. If signed is true, bits are 0
// and 1, and an entry is the two's-complement number that they spell.
//
// Rows are padded with zeros to 128 bits, and their number to 256: the matrix units and bulk copies need that.
type planes struct {
	rows, cols, bits int
	quantization     kernels.Quantization // unset in working memory
	signed           bool
	planeBytes       int
	data             cu.DevicePtr
	popcounts        cu.DevicePtr // an int32 for each row: Σ_p weight_p * popcount, the top weight negative when signed
}

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

// plane is plane b alone. Its popcounts are not those of p.
func (p *planes) plane(b int) *planes {
	s := *p
	s.bits = 1
	s.data += cu.DevicePtr(b * p.planeBytes)
	return &s
}

func (p *planes) rowBytes() int { return roundUp(p.cols, 128) / 8 }
func (p *planes) words() int    { return p.rowBytes() / 4 }

func planeBytes(rows, cols int) int { return roundUp(cols, 128) / 8 * roundUp(rows, 256) }

func (p *planes) String() string {
	kind := "±1"
	if p.signed {
		kind = "two's-complement"
	}
	return fmt.Sprintf("%d × %d in %d %s planes", p.rows, p.cols, p.bits, kind)
}

// NewPlanes allocates planes whose bits are all zero, that is -1.
func (d *Device) NewPlanes(rows, cols int, q kernels.Quantization) (kernels.Planes, error) {
	if err := kernels.CheckPlanes(rows, cols, q); err != nil {
		return nil, fmt.Errorf("CUDA device %d: %w", d.index, err)
	}
	bits := q.Planes()
	p := &planes{rows: rows, cols: cols, bits: bits, quantization: q, planeBytes: planeBytes(rows, cols)}
	var err error
	if p.data, err = d.allocate("bytes of bit planes", bits*p.planeBytes, bits*p.planeBytes); err != nil {
		return nil, err
	}
	p.popcounts, err = d.allocate("popcounts", rows, 4*roundUp(rows, 256))
	return p, err
}

// scratchPlanes are planes of undefined content. A kernel that fills them writes whole rows, padding included.
func (d *Device) scratchPlanes(name string, rows, cols, bits int, signed bool) (*planes, error) {
	p := &planes{rows: rows, cols: cols, bits: bits, signed: signed, planeBytes: planeBytes(rows, cols)}
	var err error
	if p.data, err = d.scratch(name, bits*p.planeBytes); err != nil {
		return nil, err
	}
	p.popcounts, err = d.scratch(name+" popcounts", 4*roundUp(rows, 256))
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

// transpose writes p's planes with rows and columns exchanged. order is the order of out's columns: kNeighbours or
// kGradientOrder. It does not write out's popcounts.
func (d *Device) transpose(out, p *planes, order int) error {
	g := grid(ceilDiv(p.words(), 4), ceilDiv(out.words(), 8), p.bits)
	return d.launch(g).transposeBits(p.data, p.rows, p.cols, p.words(), p.planeBytes/4,
		out.data, out.words(), out.planeBytes/4, order)
}

// scratchBytes is a matrix of signed bytes for multiplyBytes, in rows of a multiple of 16 bytes. It is described as
// planes are: 8 bits an entry, and popcounts that are sums of rows.
func (d *Device) scratchBytes(name string, rows, cols int) (*planes, error) {
	return d.scratchPlanes(name, rows, 8*roundUp(cols, 16), 1, true)
}

// spread turns the entries of ±1 planes into bytes (value - 1) / 2.
func (d *Device) spread(p *planes) (*planes, error) {
	out, err := d.scratchBytes("inputs as bytes", p.rows, p.cols)
	if err != nil {
		return nil, err
	}
	g := grid(ceilDiv(p.words(), 256), p.rows)
	return out, d.launch(g).spreadBytes(p.data, p.words(), p.planeBytes/4, p.bits, out.data, out.rowBytes())
}

// Quantize refreshes the signs, and bonsai's effective weights, of a linear.
func (d *Device) Quantize(l kernels.Linear) {
	d.run("Quantize", kernels.CheckQuantize(l), func() error {
		weight, signs := float32s(l.Weight, l.In*l.Out), l.Quantized.(*planes)
		err := d.launch(warpPerRow(l.Out)).packSigns(weight, l.In, l.Out, l.In,
			signs.data, signs.words(), signs.popcounts)
		if err != nil || l.Mixed == nil {
			return err
		}
		return d.launch(grid(l.Out)).blend(weight, l.In, d.memory.scalars, float32s(l.Mixed, l.In*l.Out))
	})
}
