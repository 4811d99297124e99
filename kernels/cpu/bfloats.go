package cpu

import (
	"math"

	"bitnet1/kernels"
)

// bfloats keeps, as float32, what bfloat16 has of each value. Who writes to it settles what was written; who reads needs not know.
type bfloats []float32

func (b bfloats) Len() int                          { return len(b) }
func (b bfloats) Slice(from, to int) kernels.Floats { return b[from:to] }

// gradientValues is values for what may be bfloats.
func gradientValues(x kernels.Floats) []float32 {
	if b, ok := x.(bfloats); ok {
		return b
	}
	return values(x)
}

// settling returns what writes values to memory of x as x can keep them. It may be where they are.
func (d *Device) settling(x kernels.Floats) func(dst, values []float32) {
	if _, ok := x.(bfloats); ok {
		return d.roundBFloats
	}
	return func(dst, values []float32) { copy(dst, values) }
}

// roundBFloatsGo writes the nearest bfloat16, ties to even. NaN stays NaN.
func roundBFloatsGo(dst, src []float32) {
	for i, v := range src[:len(dst)] {
		b := math.Float32bits(v)
		if v != v {
			b |= 1 << 22
		} else {
			b += 0x7fff + b>>16&1
		}
		dst[i] = math.Float32frombits(b &^ 0xffff)
	}
}
