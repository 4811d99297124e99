//go:build cuda

package cuda

import "bitnet1/kernels"

// AdamW is one update of decoupled-weight-decay Adam (Loshchilov and Hutter 2019), as PyTorch computes it.
func (d *Device) AdamW(a kernels.Adam) {
	d.run("AdamW", kernels.CheckAdamW(a), func() error {
		n := a.Param.Len()
		return d.launch(d.elementwise(n)).adamw(adam{
			param: float32s(a.Param, n), m: float32s(a.M, n), v: float32s(a.V, n), master: float32s(a.Master, n),
			grad: float32s(a.Grad, n), squaredNorm: float32s(a.SquaredNorm, 1), n: int64(n),
			beta1: float32(a.Beta1), beta2: float32(a.Beta2), rest1: float32(1 - a.Beta1), rest2: float32(1 - a.Beta2),
			eps: float32(a.Eps), decays: either(a.Decays, int32(1), 0), maxNorm: a.MaxNorm,
		}, d.memory.scalars)
	})
}
