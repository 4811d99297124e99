package cpu

import (
	"math"

	"bitnet1/kernels"
)

// reciprocalRMS is 1 / sqrt(mean(x²) + eps).
func (d *Device) reciprocalRMS(x []float32, eps float64) float64 {
	return 1 / math.Sqrt(d.sumSquares(x)/float64(len(x))+eps)
}

// Normalize is RMSNorm followed by the reading of the residual stream. It works in float64, so that what decides a level is
// the float32 input alone; a sign needs no more than the signs of gain and x.
func (d *Device) Normalize(out kernels.Activation, x, gain kernels.Floats, eps float64) {
	d.run("Normalize", func() {
		in, g := values(x), values(gain)
		width := len(g)
		rows := len(in) / width
		if out.Floats == nil && out.Planes.Bits() == 1 {
			d.normalizedSigns(out.Planes.(*planes), in, g, rows)
			return
		}
		d.blocks(rows, 16, func(from, to int, s *scratch) {
			a := s.doubles(0, width)
			for r := from; r < to; r++ {
				row := in[r*width:][:width]
				rms := d.reciprocalRMS(row, eps)
				for i, v := range row {
					a[i] = float64(g[i]) * float64(v) * rms
				}
				if out.Floats != nil {
					for i, v := range a {
						values(out.Floats)[r*width+i] = float32(v)
					}
					continue
				}
				out.Planes.(*planes).quantize(r, a)
			}
		})
	})
}

// normalizedSigns writes the signs of gain * x, of which a tiny float32 product would lose some.
func (d *Device) normalizedSigns(out *planes, x, gain []float32, rows int) {
	width := len(gain)
	signs := d.shared.floats(sharedGainSigns, width)
	for i, g := range gain {
		switch {
		case g > 0:
			signs[i] = 1
		case g < 0:
			signs[i] = -1
		default:
			signs[i] = 0
		}
	}
	d.blocks(rows, 32, func(from, to int, s *scratch) {
		line := s.floats(0, width)
		for r := from; r < to; r++ {
			d.multiply(line, x[r*width:][:width], signs)
			d.packSigns(out.row(r), line)
			out.count(r)
		}
	})
}

// quantize writes a's levels to row r: sign for one bit, else 2^bits mid-rise levels on [-2.5, 2.5], whose index is
// written in binary across the planes.
func (p *planes) quantize(r int, a []float64) {
	row := p.row(r)
	clear(row)
	half := float64(int(1) << (p.bits - 1))
	step := 2.5 / half
	for i, v := range a {
		var index int
		if p.bits == 1 {
			index = int(^math.Float64bits(v+0) >> 63) // no branch: signs are unpredictable
		} else {
			index = int(min(max(math.RoundToEven(v/step-0.5)+half, 0), 2*half-1))
		}
		for b := range p.bits {
			row[b*p.stride+i>>6] |= uint64(index>>b&1) << (i & 63)
		}
	}
	p.count(r)
}

// NormalizeBackward is the gradient of Normalize: with a = gain * x * r, dx = r * (da*gain - x * r²/d * Σ da*gain*x).
func (d *Device) NormalizeBackward(dx, dGain, dOut, x, gain kernels.Floats, eps float64, bits int) {
	d.run("NormalizeBackward", func() {
		in, g, grad, to := values(x), values(gain), values(dOut), values(dx)
		width, limit := len(g), passLimit(bits)
		d.sumRows(values(dGain), len(in)/width, width, 1, func(r int, dGain []float64, s *scratch) {
			row, da := in[r*width:][:width], s.floats(0, width)
			rms := d.reciprocalRMS(row, eps)
			dot := d.passNormalized(da, grad[r*width:][:width], row, g, rms, limit)
			d.addNormalized(to[r*width:][:width], dGain, da, row, g, rms, dot*rms*rms/float64(width))
		})
	})
}

// passLimit is the largest |a| whose gradient passes the reading of the stream with so many bits.
func passLimit(bits int) float64 {
	switch {
	case bits == 1:
		return 1
	case bits <= 8:
		return 2.5
	}
	return math.Inf(1)
}

// passNormalizedGo copies the gradient da of a = gain * x * r where |a| <= limit, writes zeros elsewhere, and returns
// Σ da * gain * x of what passed.
func passNormalizedGo(dst, da, x, gain []float32, r, limit float64) float64 {
	return inLanes(len(dst), func(i int) float64 {
		v, g := float64(x[i]), float64(gain[i])
		dst[i] = 0
		if math.Abs(float64(g*v)*r) <= limit {
			dst[i] = da[i]
		}
		return float64(float64(float64(dst[i])*g) * v)
	})
}

// addNormalizedGo adds r * (da*gain - x*c) to dx and da * x * r to dGain.
func addNormalizedGo(dx []float32, dGain []float64, da, x, gain []float32, r, c float64) {
	for i := range dx {
		d, v := float64(da[i]), float64(x[i])
		dx[i] += float32(r * (float64(d*float64(gain[i])) - float64(v*c)))
		dGain[i] += float64(d * float64(v*r))
	}
}
