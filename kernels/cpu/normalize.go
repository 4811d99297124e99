package cpu

import (
	"math"

	"bitnet1/kernels"
)

// reciprocalRMS is 1 / sqrt(mean(x²) + eps).
func reciprocalRMS(x []float32, eps float64) float64 {
	var sum float64
	for _, v := range x {
		sum += float64(v) * float64(v)
	}
	return 1 / math.Sqrt(sum/float64(len(x))+eps)
}

// Normalize is RMSNorm followed by the reading of the residual stream. It works in float64, so that what decides a sign
// or a level is the float32 input alone.
func (d *Device) Normalize(out kernels.Activation, x, gain kernels.Floats, eps float64) {
	d.run("Normalize", func() {
		in, g := values(x), values(gain)
		width := len(g)
		d.blocks(len(in)/width, 16, func(from, to int, s *scratch) {
			a := s.doubles(0, width)
			for r := from; r < to; r++ {
				row := in[r*width:][:width]
				rms := reciprocalRMS(row, eps)
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
		in, g, grad := values(x), values(gain), values(dOut)
		width, limit := len(g), passLimit(bits)
		rows := len(in) / width
		rms := d.shared.doubles(0, rows)
		d.blocks(rows, 16, func(from, to int, s *scratch) {
			for r := from; r < to; r++ {
				rms[r] = normalizeRow(values(dx)[r*width:][:width], grad[r*width:][:width], in[r*width:][:width], g, eps, limit, s)
			}
		})
		d.blocks(width, 64, func(from, to int, s *scratch) {
			sums := s.doubles(0, to-from)
			clear(sums)
			for r := range rows {
				da := grad[r*width+from : r*width+to]
				for i, v := range in[r*width+from : r*width+to] {
					if n := float64(v) * rms[r]; math.Abs(float64(g[from+i])*float64(v)*rms[r]) <= limit {
						sums[i] += float64(da[i]) * n
					}
				}
			}
			for i, v := range sums {
				values(dGain)[from+i] += float32(v)
			}
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

// normalizeRow adds the gradient of one row to dx and returns its reciprocal RMS.
func normalizeRow(dx, da, x, gain []float32, eps, limit float64, s *scratch) float64 {
	r := reciprocalRMS(x, eps)
	scaled := s.doubles(0, len(x)) // da * gain where the gradient passes
	var dot float64
	for i, v := range x {
		scaled[i] = 0
		if math.Abs(float64(gain[i])*float64(v)*r) <= limit {
			scaled[i] = float64(da[i]) * float64(gain[i])
		}
		dot += scaled[i] * float64(v)
	}
	dot *= r * r / float64(len(x))
	for i, v := range x {
		dx[i] += float32(r * (scaled[i] - float64(v)*dot))
	}
	return r
}
