//go:build cuda

package cuda

import "fmt"

// largestThreshold bounds |s| where bits are decided by thresholds, so that all of their arithmetic is exact in float32.
const largestThreshold = 1<<18 - 1

// Thresholds decide a channel's two output bits from its integer dot product s, exactly as the real numbers would:
//
//	sign: u >= 0      clip: |u| <= 1      u = alpha * scale * s - theta
//
// Over the integers these are s >= middle (inverted when alpha is negative) and low <= s <= high. In quarters of s, one centre
// and one radius serve both: 4s >= centre, and |4s - centre| <= radius. 4·middle-3 … 4·middle decide the sign alike, and a centre
// within 1 of 2(low+high) has a radius that separates low and high from their neighbours. Both hold theta/alpha, so they overlap
// (where rounding of the quotients leaves them apart, the sign is kept and a bound of clip moves by one).
type Thresholds struct {
	centreRadius Buffer // pairs of float32 in the order of gemm_wgmma.cu's accumulators
	negative     Buffer // bit: alpha is negative
	channels     int
}

// NewThresholds allocates thresholds for the given number of channels.
func (d *Device) NewThresholds(channels int) (t *Thresholds, err error) {
	t = &Thresholds{channels: channels}
	if t.centreRadius, err = d.Alloc(8 * roundUp(channels, tileColumns)); err != nil {
		return nil, err
	}
	t.negative, err = d.Alloc(roundUp(channels, tileColumns) / 8)
	return t, err
}

// FreeThresholds gives t back.
func (d *Device) FreeThresholds(t *Thresholds) error { return d.Free(t.centreRadius, t.negative) }

// SetThresholds derives t from the float32 tables alpha and theta, one entry per row of b, for products of a matrix like a with b.
// It must be queued again when alpha, theta or b's bits change.
func (d *Device) SetThresholds(t *Thresholds, alpha, theta Buffer, scale float32, a, b *Bits) error {
	p, err := productOf(a, b)
	if err != nil {
		return err
	}
	if t.channels != b.Rows || alpha.size < 4*b.Rows || theta.size < 4*b.Rows {
		return fmt.Errorf("thresholds of %d channels from %d and %d bytes of alpha and theta for %v: sizes do not fit", t.channels, alpha.size, theta.size, b)
	}
	g := warpPerRow(8 * ceilDiv(b.Rows, tileColumns))
	return d.launch("channel_thresholds", g, arg(alpha.pointer), arg(theta.pointer), arg(scale), arg(int32(b.Rows)), arg(int32(largestSum(a))),
		arg(b.popcounts.pointer), arg(p.columnWeight), arg(p.bias), arg(t.centreRadius.pointer), arg(t.negative.pointer))
}
