package cpu

import (
	"bitnet1/kernels"
	"bitnet1/kernels/number/bfloat16"
)

// bfloats are bfloat16 values: each is the upper 16 bits of a float32.
type bfloats []uint16

func (b bfloats) Len() int                          { return len(b) }
func (b bfloats) BFloat16() bool                    { return true }
func (b bfloats) Slice(from, to int) kernels.Floats { return b[from:to] }

// anyFloats is memory for gradients in one of the two formats: the other slice is nil.
type anyFloats struct {
	floats  []float32
	bfloats []uint16
}

func anyFloatsOf(x kernels.Floats) anyFloats {
	if b, ok := x.(bfloats); ok {
		return anyFloats{bfloats: b}
	}
	return anyFloats{floats: values(x)}
}

// given says whether there is such memory.
func (m anyFloats) given() bool { return m.floats != nil || m.bfloats != nil }

func (m anyFloats) from(at int) anyFloats {
	if m.bfloats != nil {
		return anyFloats{bfloats: m.bfloats[at:]}
	}
	return anyFloats{floats: m.floats[at:]}
}

// read returns len(line) values of m from index at: a part of m itself if m has float32, otherwise line.
func (d *Device) read(line []float32, m anyFloats, at int) []float32 {
	if m.bfloats == nil {
		return m.floats[at:][:len(line)]
	}
	d.widenBFloats(line, 0, m.bfloats[at:], 0, 1, len(line))
	return line
}

// write stores values in m from index at. The values may be those that read returned.
func (d *Device) write(m anyFloats, at int, values []float32) {
	d.writeRows(m, at, 0, values, 1)
}

// writeRows stores rows of equal length in m: the first from index at, each following one stride further.
func (d *Device) writeRows(m anyFloats, at, stride int, values []float32, rows int) {
	width := len(values) / rows
	if m.bfloats != nil {
		d.roundBFloats(m.bfloats[at:], stride, values, width, rows, width)
		return
	}
	for r := range rows {
		copy(m.floats[at+r*stride:][:width], values[r*width:])
	}
}

// roundBFloatsGo rounds a rows × cols matrix to bfloat16. The strides are those from one row to the next.
func roundBFloatsGo(dst []uint16, dstStride int, src []float32, srcStride, rows, cols int) {
	for r := range rows {
		roundLine(dst[r*dstStride:][:cols], src[r*srcStride:])
	}
}

// roundLine writes the nearest bfloat16, ties to even. NaN stays NaN.
func roundLine(dst []uint16, src []float32) {
	for i, v := range src[:len(dst)] {
		dst[i] = bfloat16.FromFloat32(v)
	}
}

// widenBFloatsGo converts a rows × cols matrix of bfloat16 to float32.
func widenBFloatsGo(dst []float32, dstStride int, src []uint16, srcStride, rows, cols int) {
	for r := range rows {
		widenLine(dst[r*dstStride:], src[r*srcStride:][:cols])
	}
}

func widenLine(dst []float32, src []uint16) {
	for i, b := range src {
		dst[i] = bfloat16.ToFloat32(b)
	}
}

// maskBFloatsGo is maskGo for bfloat16.
func maskBFloatsGo(dst []float32, src []uint16, words []uint64) {
	widenLine(dst, src[:len(dst)])
	maskGo(dst, dst, words)
}
