package cpu

import (
	"bitnet1/kernels"
	"bitnet1/kernels/number/bfloat16"
)

// bfloats are the upper halves of float32.
type bfloats []uint16

func (b bfloats) Len() int                          { return len(b) }
func (b bfloats) Slice(from, to int) kernels.Floats { return b[from:to] }

// memory is where gradients lie between operations: one of the two.
type memory struct {
	floats []float32
	halves []uint16
}

func memoryOf(x kernels.Floats) memory {
	if b, ok := x.(bfloats); ok {
		return memory{halves: b}
	}
	return memory{floats: values(x)}
}

func (m memory) from(at int) memory {
	if m.halves != nil {
		return memory{halves: m.halves[at:]}
	}
	return memory{floats: m.floats[at:]}
}

// read returns the values from at, as many as line has: where they are, or in line.
func (d *Device) read(line []float32, m memory, at int) []float32 {
	if m.halves == nil {
		return m.floats[at:][:len(line)]
	}
	d.widenBFloats(line, 0, m.halves[at:], 0, 1, len(line))
	return line
}

// write stores values from at on, which may be where they are.
func (d *Device) write(m memory, at int, values []float32) {
	d.writeRows(m, at, 0, values, 1)
}

// writeRows stores so many rows from at on, stride apart.
func (d *Device) writeRows(m memory, at, stride int, values []float32, rows int) {
	width := len(values) / rows
	if m.halves != nil {
		d.roundBFloats(m.halves[at:], stride, values, width, rows, width)
		return
	}
	for r := range rows {
		copy(m.floats[at+r*stride:][:width], values[r*width:])
	}
}

// roundBFloatsGo writes rows of cols values, in strides, as bfloat16.
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

// widenBFloatsGo writes rows of cols values, in strides, as floats.
func widenBFloatsGo(dst []float32, dstStride int, src []uint16, srcStride, rows, cols int) {
	for r := range rows {
		widenLine(dst[r*dstStride:], src[r*srcStride:][:cols])
	}
}

func widenLine(dst []float32, src []uint16) {
	for i, h := range src {
		dst[i] = bfloat16.ToFloat32(h)
	}
}

// maskBFloatsGo writes the values of src where a bit is set, and zeros elsewhere.
func maskBFloatsGo(dst []float32, src []uint16, words []uint64) {
	widenLine(dst, src[:len(dst)])
	maskGo(dst, dst, words)
}
