package cpu

import (
	"math"

	"bitnet1/kernels"
)

// rotated returns a row of gain * x in rotated blocks, and the factor that is missing: 1/rms(x) and the one that makes
// the rotation orthonormal. The row is valid until the next call with the same scratch.
func (d *Device) rotated(s *scratch, x, gain []float32, n kernels.RMSNorm) (v []float64, factor float64) {
	v = s.rotatedRow.take(len(x))
	d.products(v, x, gain)
	d.rotate(v, n.Rotation)
	return v, d.reciprocalRMS(x, n.Eps) * rotationFactor(n.Rotation)
}

func rotationFactor(block int) float64 { return 1 / math.Sqrt(float64(block)) }

// quantizeRotated writes v * factor to row r of out.
func (d *Device) quantizeRotated(out kernels.Activation, r int, v []float64, factor float64, s *scratch) {
	if out.Floats != nil {
		d.narrowScaled(values(out.Floats)[r*len(v):][:len(v)], v, factor)
		return
	}
	p, index := out.Planes.(*planes), s.rotatedLevels.take(len(v))
	if p.quantization == kernels.Sign() {
		for i, x := range v {
			index[i] = 0
			if x >= 0 {
				index[i] = 1
			}
		}
	} else {
		half, step := halfLevels(p.quantization)
		d.nearestLevels(index, v, factor, step, half)
	}
	d.setLevels(p, r, index)
}

// rotateBack returns the gradient of gain * x / rms(x), given da, the gradient of a rotated row that was quantized: it
// passes where that row lies within limit.
func (d *Device) rotateBack(s *scratch, da, x, gain []float32, n kernels.RMSNorm, limit float64) []float32 {
	v, factor := d.rotated(s, x, gain, n)
	d.maskRotated(v, da, factor, limit)
	d.rotate(v, n.Rotation)
	back := s.rotatedBack.take(len(v))
	d.narrowScaled(back, v, rotationFactor(n.Rotation))
	return back
}

// productsGo writes a * b, exactly.
func productsGo(dst []float64, a, b []float32) {
	for i := range dst {
		dst[i] = float64(a[i]) * float64(b[i])
	}
}

// rotateGo multiplies blocks of x by the Hadamard matrix of ±1 of their size, a power of two (Sylvester's order).
func rotateGo(x []float64, block int) {
	for n := 1; n < block; n *= 2 {
		for i := 0; i < len(x); i += 2 * n {
			low, high := x[i:i+n], x[i+n:i+2*n]
			for j, a := range low {
				b := high[j]
				low[j], high[j] = a+b, a-b
			}
		}
	}
}

// maskRotatedGo replaces v by da where |v * r| <= limit, and elsewhere by 0.
func maskRotatedGo(v []float64, da []float32, r, limit float64) {
	for i, x := range v {
		v[i] = 0
		if math.Abs(float64(x*r)) <= limit {
			v[i] = float64(da[i])
		}
	}
}

// narrowScaledGo writes x * factor.
func narrowScaledGo(dst []float32, x []float64, factor float64) {
	for i := range dst {
		dst[i] = float32(float64(x[i] * factor))
	}
}
