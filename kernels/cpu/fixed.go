package cpu

import (
	"math"
	"sync/atomic"

	"bitnet1/kernels"
)

// ZeroLongs clears x.
func (d *Device) ZeroLongs(x kernels.Longs) {
	d.run("ZeroLongs", kernels.CheckZeroLongs(x), func() {
		all := x.(longs)
		d.blocks(len(all), 1<<16, func(from, to int, _ *scratch) { clear(all[from:to]) })
	})
}

// AddFixed adds x to sums.
func (d *Device) AddFixed(sums kernels.FixedSums, x kernels.Floats) {
	d.run("AddFixed", kernels.CheckFixed(sums, x), func() { d.addTerms(sums, values(x), false) })
}

// SetFixed replaces sums by x.
func (d *Device) SetFixed(sums kernels.FixedSums, x kernels.Floats) {
	d.run("SetFixed", kernels.CheckFixed(sums, x), func() { d.addTerms(sums, values(x), true) })
}

// addTerms adds terms to sums, or to 0 where they are set.
func (d *Device) addTerms(sums kernels.FixedSums, terms floats, set bool) {
	all, overflow := sums.Sums.(longs)[:len(terms)], sums.Overflow.(longs)
	limit, units := sums.Limit(), 1/sums.Unit()
	var odd atomic.Int64
	d.blocks(len(terms), 1<<16, func(from, to int, _ *scratch) {
		if set {
			clear(all[from:to])
		}
		for i, v := range terms[from:to] {
			if v := float64(v); math.Abs(v) < limit {
				all[from+i] += int64(math.RoundToEven(v * units))
			} else {
				odd.Add(1)
			}
		}
	})
	overflow[0] += odd.Load()
}

// ReadFixed writes sums to x.
func (d *Device) ReadFixed(x kernels.Floats, sums kernels.FixedSums) {
	d.run("ReadFixed", kernels.CheckFixed(sums, x), func() {
		to := values(x)
		all, unit := sums.Sums.(longs)[:len(to)], float32(sums.Unit())
		if sums.Overflow.(longs)[0] != 0 {
			unit = float32(math.NaN())
		}
		d.blocks(len(to), 1<<16, func(from, end int, _ *scratch) {
			for i, n := range all[from:end] {
				to[from+i] = float32(n) * unit
			}
		})
	})
}
