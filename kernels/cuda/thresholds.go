//go:build cuda

package cuda

import (
	"gorgonia.org/cu"
)

// largestThreshold bounds |s| where bits are decided by thresholds, so that all of their arithmetic is exact in
// float32.
const largestThreshold = 1<<18 - 1

// thresholds decide a channel's two output bits from its integer dot product s:
//
//	sign: u >= 0      pass: |u| <= 1      u = alpha * (unit * s) - theta, each operation rounded to float32
//
// Rounding is monotonic. So over the integers the tests are s >= middle (inverted where alpha is negative) and low <= s
// <= high. A kernel finds the three by bisection, with the operations that other devices use for u.
//
// In quarters of s, one centre and one radius serve both tests: 4s >= centre, and |4s - centre| <= radius. All of
// 4·middle-3 … 4·middle decide the sign alike. A centre within 1 of 2(low+high) has a radius that separates low and
// high from their neighbours. Without rounding the two ranges of the centre always overlap. Where the rounding of u
// moves low or high by one, they may not: then the sign is kept, and the pass bit of one sum is wrong. This takes an
// alpha of more than 11 significant bits, and no such model packs.
type thresholds struct {
	centreRadius cu.DevicePtr // pairs of float32 in the order of gemm_wgmma.cu's accumulators
	negative     cu.DevicePtr // bit: alpha is negative
}

// thresholds computes them for products of a matrix like a with b, whose rows are the channels.
func (d *Device) thresholds(alpha, theta cu.DevicePtr, unit float32, a, b *planes) (t thresholds, err error) {
	p, err := linearFormOf(a, b)
	if err != nil {
		return t, err
	}
	channels := roundUp(b.rows, kTileColumns)
	if t.centreRadius, err = d.scratch("thresholds", 8*channels); err != nil {
		return t, err
	}
	if t.negative, err = d.scratch("negative channels", channels/8); err != nil {
		return t, err
	}
	return t, d.launch(grid(channels/256)).channelThresholds(alpha, theta, unit, b.rows, largestSum(a, b), b.popcounts,
		int(p.columnWeight), int(p.bias), t.centreRadius, t.negative)
}
