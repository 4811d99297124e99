// Package float16 converts to and from IEEE 754 half precision, in which per-channel scales are stored.
package float16

import "math"

// FromFloat32 rounds x to the nearest half, ties to even. What is too large becomes an infinity.
func FromFloat32(x float32) uint16 {
	b := math.Float32bits(x)
	sign := uint16(b>>16) & 0x8000
	b &= 0x7fffffff
	switch {
	case b > 0x7f800000: // NaN
		return sign | 0x7e00
	case b >= 0x477ff000: // rounds to 65536 or more
		return sign | 0x7c00
	case b < 0x38800000: // below the smallest normal half: adding 2^-1 leaves units of 2^-24 in the low bits
		return sign | uint16(math.Float32bits(math.Float32frombits(b)+0.5)-0x3f000000)
	}
	b += 0xfff + b>>13&1 // to nearest, ties to even
	return sign | uint16((b-0x38000000)>>13)
}

// ToFloat32 returns the value of h exactly.
func ToFloat32(h uint16) float32 {
	sign := uint32(h&0x8000) << 16
	exponent, fraction := uint32(h>>10&0x1f), uint32(h&0x3ff)
	switch exponent {
	case 0:
		v := float32(fraction) / (1 << 24)
		return math.Float32frombits(sign | math.Float32bits(v))
	case 0x1f:
		return math.Float32frombits(sign | 0x7f800000 | fraction<<13)
	}
	return math.Float32frombits(sign | (exponent+112)<<23 | fraction<<13)
}

// Round returns the half nearest to x as a float32.
func Round(x float32) float32 { return ToFloat32(FromFloat32(x)) }
