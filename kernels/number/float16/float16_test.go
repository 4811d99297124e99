package float16

import (
	"math"
	"testing"
)

func TestEveryHalfSurvives(t *testing.T) {
	for h := range 1 << 16 {
		x := ToFloat32(uint16(h))
		if x != x {
			if back := FromFloat32(x); back&0x7c00 != 0x7c00 || back&0x3ff == 0 {
				t.Fatalf("NaN %04x became %04x", h, back)
			}
			continue
		}
		if back := FromFloat32(x); back != uint16(h) {
			t.Fatalf("%04x is %v, which became %04x", h, x, back)
		}
	}
}

// Between two neighbouring halves everything rounds to the nearer, the middle to the even one.
func TestRoundsToNearestEven(t *testing.T) {
	for h := range uint16(0x7bff) {
		low, high := ToFloat32(h), ToFloat32(h+1)
		middle := low + (high-low)/2
		even := h + h&1
		for _, c := range []struct {
			x    float32
			want uint16
		}{{middle, even}, {math.Nextafter32(middle, -1), h}, {math.Nextafter32(middle, 1e9), h + 1}} {
			if got := FromFloat32(c.x); got != c.want {
				t.Fatalf("%v became %04x, want %04x", c.x, got, c.want)
			}
			if got := FromFloat32(-c.x); got != c.want|0x8000 {
				t.Fatalf("%v became %04x, want %04x", -c.x, got, c.want|0x8000)
			}
		}
	}
	if FromFloat32(65519) != 0x7bff || FromFloat32(65520) != 0x7c00 {
		t.Error("65519 must stay finite and 65520 must not")
	}
}
