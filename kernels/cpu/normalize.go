package cpu

import (
	"math"

	"bitnet1/kernels"
)

// reciprocalRMS is 1 / sqrt(mean(x²) + eps).
func (d *Device) reciprocalRMS(x []float32, eps float64) float64 {
	return 1 / math.Sqrt(d.sumSquares(x)/float64(len(x))+eps)
}

// Normalize is RMSNorm (Zhang and Sennrich 2019) followed by quantization. It computes in float64, so that all devices
// find the same levels for the same float32 input. Signs follow from the signs of gain and x alone.
func (d *Device) Normalize(out kernels.Activation, x kernels.Floats, n kernels.RMSNorm) {
	d.run("Normalize", kernels.CheckNormalize(out, x, n), func() {
		in, g := values(x), values(n.Gain)
		width := len(g)
		rows := len(in) / width
		switch {
		case n.Rotation > 1:
			d.blocks(rows, 16, func(from, to int, s *scratch) {
				for r := from; r < to; r++ {
					v, factor := d.rotated(s, in[r*width:][:width], g, n)
					d.quantizeRotated(out, r, v, factor, s)
				}
			})
			return
		case out.Floats == nil && out.Planes.Quantization() == kernels.Sign():
			d.normalizedSigns(out.Planes.(*planes), in, g, rows)
			return
		}
		d.blocks(rows, 16, func(from, to int, s *scratch) {
			index := s.levelIndices.take(width)
			for r := from; r < to; r++ {
				row := in[r*width:][:width]
				rms := d.reciprocalRMS(row, n.Eps)
				if out.Floats == nil {
					p := out.Planes.(*planes)
					half, step := halfLevels(p.quantization)
					d.quantize(index, row, g, rms, step, half)
					d.setLevels(p, r, index)
					continue
				}
				for i, v := range row {
					values(out.Floats)[r*width+i] = float32(float64(g[i]) * float64(v) * rms)
				}
			}
		})
	})
}

// normalizedSigns writes the signs of gain * x. It replaces gain by its signs first, because a tiny float32 product
// would be zero.
func (d *Device) normalizedSigns(out *planes, x, gain []float32, rows int) {
	width := len(gain)
	signs := d.shared.gainSigns.take(width)
	for i, g := range gain {
		if signs[i] = g; g != 0 && g-g == 0 { // infinity stays, which makes NaN of 0, and so does NaN
			signs[i] = float32(math.Copysign(1, float64(g)))
		}
	}
	d.blocks(rows, 32, func(from, to int, s *scratch) {
		line := s.signedRow.take(width)
		for r := from; r < to; r++ {
			d.multiply(line, x[r*width:][:width], signs)
			d.packSigns(out.row(r), line)
		}
	})
}

// NormalizeBackward is the gradient of Normalize: with a = gain * x * r, dx = r * (da*gain - x * r²/d * Σ da*gain*x).
func (d *Device) NormalizeBackward(dx, dGain, dOut, x kernels.Floats, n kernels.RMSNorm, q kernels.Quantization) {
	d.run("NormalizeBackward", kernels.CheckNormalizeBackward(dx, dGain, dOut, x, n, q), func() {
		in, g, grad, to := values(x), values(n.Gain), anyFloatsOf(dOut), anyFloatsOf(dx)
		width, limit := len(g), q.PassLimit()
		d.sumRows(values(dGain), len(in)/width, width, 1, func(from, end int, dGain []float64, s *scratch) {
			const most = 8 // rows at a time: while a reduction of one row waits for its last sums, the next row begins
			var rms, dots [most]float64
			da := s.maskedRows.take(most * width)
			for first := from; first < end; first += most {
				last := min(first+most, end)
				row := func(r int) []float32 { return in[r*width:][:width] }
				for r := first; r < last; r++ {
					rms[r-first] = d.reciprocalRMS(row(r), n.Eps)
				}
				for r := first; r < last; r++ {
					masked, line := da[(r-first)*width:][:width], d.read(s.normalizedRow.take(width), grad, r*width)
					limit := limit
					if n.Rotation > 1 {
						line, limit = d.rotateBack(s, line, row(r), g, n, limit), math.Inf(1)
					}
					dots[r-first] = d.maskNormalized(masked, line, row(r), g, rms[r-first], limit)
				}
				for r := first; r < last; r++ {
					rms, masked := rms[r-first], da[(r-first)*width:][:width]
					sum := d.read(s.inputRow.take(width), to, r*width)
					d.addNormalized(sum, dGain, masked, row(r), g, rms, dots[r-first]*rms*rms/float64(width))
					d.write(to, r*width, sum)
				}
			}
		})
	})
}

// maskNormalizedGo applies the STE mask |a| <= limit, with a = gain * x * r, to the gradient da of a. It returns Σ dst
// * gain * x.
func maskNormalizedGo(dst, da, x, gain []float32, r, limit float64) float64 {
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
