package bfloat16

import (
	"math"
	"testing"
)

func TestEveryHalfSurvives(t *testing.T) {
	for h := range 1 << 16 {
		x := ToFloat32(uint16(h))
		got := FromFloat32(x)
		if x != x {
			if y := ToFloat32(got); y == y {
				t.Errorf("the NaN %#04x became %v", h, y)
			}
			continue
		}
		if got != uint16(h) {
			t.Errorf("%#04x became %#04x", h, got)
		}
	}
}

func TestRoundsToNearestEven(t *testing.T) {
	for bits, want := range map[uint32]uint16{
		0x3f808000: 0x3f80, // half way, down to the even one
		0x3f808001: 0x3f81,
		0x3f818000: 0x3f82, // half way, up to the even one
		0x3f817fff: 0x3f81,
		0xbf808001: 0xbf81,
		0x7f7fffff: 0x7f80, // the largest number becomes an infinity
		0x7f800001: 0x7fc0, // a NaN whose upper half is an infinity's
	} {
		if got := FromFloat32(math.Float32frombits(bits)); got != want {
			t.Errorf("%#08x became %#04x, want %#04x", bits, got, want)
		}
	}
}
