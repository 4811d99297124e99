package cpu

import (
	"encoding/binary"
	"math"

	"bitnet1/kernels"
)

// Quantize refreshes the quantized weights, and bonsai's effective weights, of a linear.
func (d *Device) Quantize(l kernels.Linear) {
	d.run("Quantize", kernels.CheckQuantize(l), func() {
		weight, mixed, p := values(l.Weight), values(l.Mixed), l.Quantized.(*planes)
		d.blocks(l.Out, 16, func(from, to int, s *scratch) {
			for r := from; r < to; r++ {
				row := weight[r*l.In:][:l.In]
				if p.bits == 1 {
					d.packSigns(p.row(r), row)
				} else {
					d.quantizeWeights(p, r, row, s)
				}
				if mixed != nil {
					quantized := s.quantizedRow.take(l.In)
					p.segment(quantized, r, 0)
					blend(mixed[r*l.In:][:l.In], row, quantized, d.scalars.Mix)
				}
			}
		})
	})
}

// quantizeWeights writes the levels of w / rms(w) to row r of p.
func (d *Device) quantizeWeights(p *planes, r int, w []float32, s *scratch) {
	z, index := s.scaledWeights.take(len(w)), s.weightLevels.take(len(w))
	rms := math.Sqrt(max(d.sumSquares(w)/float64(len(w)), 1e-24))
	for i, v := range w {
		z[i] = float64(v) / rms
	}
	half, step := halfLevels(p.quantization)
	d.nearestLevels(index, z, 1, step, half)
	d.setLevels(p, r, index)
}

// blend writes (1-mix) * w / mean|w| + mix * quantized.
func blend(dst, w, quantized []float32, mix float64) {
	var sum float64
	for _, v := range w {
		sum += math.Abs(float64(v))
	}
	factor := (1 - mix) / max(sum/float64(len(w)), 1e-12)
	for i, v := range w {
		dst[i] = float32(float64(float64(v)*factor) + float64(mix*float64(quantized[i])))
	}
}

// effective is the weight of l that products use: bonsai's mixed one, or the quantized one.
func effective(l kernels.Linear) matrix {
	if l.Mixed != nil {
		return dense{data: values(l.Mixed), cols: l.In}
	}
	return l.Quantized.(*planes)
}

// ones returns n ones.
func (d *Device) ones(n int) []float32 {
	x := d.shared.ones.take(n)
	if n > 0 && x[n-1] != 1 { // new memory
		for i := range x {
			x[i] = 1
		}
	}
	return x
}

// halfLevels is half the number of q's levels, and the step from one to the next.
func halfLevels(q kernels.Quantization) (half, step float64) {
	return float64(q.Largest()+1) / 2, q.Step()
}

// quantizeGo is nearestLevelsGo for gain * x * r.
func quantizeGo(dst []byte, x, gain []float32, r, step, half float64) {
	for i, v := range x[:len(dst)] {
		dst[i] = nearestLevel(float64(float64(gain[i])*float64(v))*r, step, half)
	}
}

// nearestLevelsGo writes the indices of the levels nearest to x * r, of 2*half levels that are step apart: the even one
// of two that are as near, and 0 where the product is NaN.
func nearestLevelsGo(dst []byte, x []float64, r, step, half float64) {
	for i, v := range x[:len(dst)] {
		dst[i] = nearestLevel(float64(v*r), step, half)
	}
}

func nearestLevel(v, step, half float64) byte {
	if q := math.RoundToEven(v/step-0.5) + half; q > 0 {
		return byte(min(q, 2*half-1))
	}
	return 0
}

// setLevels writes the indices of levels to row r.
func (d *Device) setLevels(p *planes, r int, index []byte) {
	d.packLevels(p.row(r), p.stride, index)
}

// packLevels writes the bits of indices to planes that are stride words apart, and clears what follows: bit b of an
// index goes to plane b.
func (d *instructions) packLevels(words []uint64, stride int, index []byte) {
	clear(words)
	d.setBits(words, stride, len(words)/stride, index)
}

// setBitsGo sets the bits of indices in planes that are stride words apart. They are clear before.
func setBitsGo(words []uint64, stride, planes int, index []byte) {
	var eight [8]byte
	for i := 0; i < len(index); i += 8 {
		part := index[i:min(i+8, len(index))]
		if len(part) == 8 {
			copy(eight[:], part)
		} else {
			clear(eight[copy(eight[:], part):])
		}
		x := binary.LittleEndian.Uint64(eight[:])
		for b := range planes {
			// The product collects the lowest bits of all bytes in the top byte.
			bits := x >> b & spread1 * 0x0102040810204080 >> 56
			words[b*stride+i>>6] |= bits << (i & 63)
		}
	}
}
