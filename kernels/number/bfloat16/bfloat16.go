// Package bfloat16 converts between float32 and bfloat16, the upper 16 bits of a float32. Gradients pass from one
// operation to the next in bfloat16.
package bfloat16

import "math"

// FromFloat32 rounds x to the nearest bfloat16, ties to even. What is too large becomes an infinity; NaN stays NaN.
func FromFloat32(x float32) uint16 {
	b := math.Float32bits(x)
	if x != x {
		b |= 1 << 22 // or its upper half could be an infinity's
	} else {
		b += 0x7fff + b>>16&1
	}
	return uint16(b >> 16)
}

// ToFloat32 is exact.
func ToFloat32(h uint16) float32 { return math.Float32frombits(uint32(h) << 16) }
