package cpu

import (
	"math"

	"bitnet1/kernels"
	"bitnet1/kernels/number/float16"
)

// AdamW is one update of decoupled-weight-decay Adam (Loshchilov and Hutter 2019), as PyTorch computes it.
func (d *Device) AdamW(a kernels.Adam) {
	d.run("AdamW", kernels.CheckAdamW(a), func() {
		param, grad, m, v := values(a.Param), values(a.Grad), values(a.M), values(a.V)
		target := param
		if a.Master != nil {
			target = values(a.Master)
		}
		u := d.update(a)
		d.blocks(len(param), 1<<14, func(from, to int, _ *scratch) {
			d.adam(target[from:to], grad[from:to], m[from:to], v[from:to], &u)
			if a.Master != nil {
				for i, x := range target[from:to] {
					param[from+i] = float16.Round(x)
				}
			}
		})
	})
}

// update holds the factors of one update in the precision of their use. The assembly reads them in this order.
type update struct {
	clip, beta1, beta2, rest1, rest2, keep, rate, root, eps float32
}

// clip is the factor on gradients whose Σ gradient² is given; 1 where it is not.
func clip(squaredNorm kernels.Floats, most float64) float32 {
	if squaredNorm == nil {
		return 1
	}
	return float32(min(1, most/(math.Sqrt(float64(values(squaredNorm)[0]))+1e-6)))
}

func (d *Device) update(a kernels.Adam) update {
	s, decay := d.scalars, 0.0
	if a.Decays {
		decay = s.Decay
	}
	return update{
		clip:  clip(a.SquaredNorm, a.MaxNorm),
		beta1: float32(a.Beta1), beta2: float32(a.Beta2),
		rest1: float32(1 - a.Beta1), rest2: float32(1 - a.Beta2),
		keep: float32(1 - s.LearningRate*decay),
		rate: float32(s.LearningRate / s.Correction1),
		root: float32(1 / math.Sqrt(s.Correction2)),
		eps:  float32(a.Eps),
	}
}

// adamGo updates parameters and moments.
func adamGo(param, grad, m, v []float32, u *update) {
	for i, g := range grad {
		g *= u.clip
		m[i] = float32(u.beta1*m[i]) + float32(u.rest1*g)
		v[i] = float32(u.beta2*v[i]) + float32(u.rest2*float32(g*g))
		denominator := float32(float32(math.Sqrt(float64(v[i])))*u.root) + u.eps
		param[i] = float32(param[i]*u.keep) - float32(u.rate*m[i])/denominator
	}
}
