package safetensors

import "math"

// FromFloat16 returns the value of an IEEE 754 binary16; every one is a float32. NaN keeps its payload.
func FromFloat16(h uint16) float32 {
	sign, exponent, fraction := uint32(h&0x8000)<<16, uint32(h>>10)&0x1f, uint32(h&0x3ff)
	switch exponent {
	case 0: // zero and subnormals: fraction · 2^-24
		return math.Float32frombits(sign | math.Float32bits(float32(fraction)/(1<<24)))
	case 0x1f:
		return math.Float32frombits(sign | 0x7f800000 | fraction<<13)
	}
	return math.Float32frombits(sign | (exponent+127-15)<<23 | fraction<<13)
}

// ToFloat16 rounds v to the nearest binary16, ties to even; beyond 65504 it gives an infinity, as IEEE 754 says.
func ToFloat16(v float32) uint16 {
	bits := math.Float32bits(v)
	sign := uint16(bits>>16) & 0x8000
	abs := bits &^ (1 << 31)
	switch {
	case abs > 0x7f800000: // NaN: stay one even when the payload's low bits are lost
		return sign | 0x7e00 | uint16(abs>>13)&0x3ff
	case abs >= 0x477ff000: // 65520, from where rounding reaches infinity
		return sign | 0x7c00
	case abs < 0x38800000: // below 2^-14: subnormal, a multiple of 2^-24
		return sign | uint16(math.RoundToEven(float64(math.Float32frombits(abs))*(1<<24)))
	}
	abs += 0xfff + abs>>13&1 // ties to even; a carry moves into the exponent, as it must
	return sign | uint16(abs>>13-(127-15)<<10)
}

// RoundFloat16 is v rounded to the nearest value that float16 holds.
func RoundFloat16(v float32) float32 { return FromFloat16(ToFloat16(v)) }
