package philox

import (
	"math"
	"testing"
)

// The known answers that come with Random123 for philox4x32-10.
func TestKnownAnswers(t *testing.T) {
	ones := uint32(0xffffffff)
	for _, c := range []struct {
		key           [2]uint32
		counter, want [4]uint32
	}{
		{[2]uint32{0, 0}, [4]uint32{}, [4]uint32{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
		{[2]uint32{ones, ones}, [4]uint32{ones, ones, ones, ones}, [4]uint32{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
		{[2]uint32{0xa4093822, 0x299f31d0}, [4]uint32{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
			[4]uint32{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
	} {
		if got := Block(c.key, c.counter); got != c.want {
			t.Errorf("Block(%x, %x) = %x, want %x", c.key, c.counter, got, c.want)
		}
	}
}

func TestMoments(t *testing.T) {
	const n = 40000
	var normal, square, gumbel float64
	for i := range uint32(n) {
		w := Block(Key(7), [4]uint32{i})
		x := Normal(w[0], w[1])
		normal, square, gumbel = normal+x, square+x*x, gumbel+Gumbel(w[2])
	}
	if m, v, g := normal/n, square/n, gumbel/n; math.Abs(m) > 0.02 || math.Abs(v-1) > 0.03 || math.Abs(g-0.5772) > 0.03 {
		t.Errorf("normal mean %v, variance %v, Gumbel mean %v; want 0, 1, 0.577", m, v, g)
	}
}
