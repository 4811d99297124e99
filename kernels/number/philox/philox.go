// Package philox is the counter-based random generator Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy
// as 1, 2, 3", 2011): a pure function of key and counter, so what it draws depends on no thread, device or history.
package philox

import "math"

// Philox4x32's round multipliers and key increments.
const (
	m0, m1 = 0xD2511F53, 0xCD9E8D57
	w0, w1 = 0x9E3779B9, 0xBB67AE85
	rounds = 10
)

// Block returns the four words of counter c under key k.
func Block(k [2]uint32, c [4]uint32) [4]uint32 {
	for range rounds {
		p0, p1 := uint64(c[0])*m0, uint64(c[2])*m1
		c = [4]uint32{uint32(p1>>32) ^ c[1] ^ k[0], uint32(p1), uint32(p0>>32) ^ c[3] ^ k[1], uint32(p0)}
		k[0] += w0
		k[1] += w1
	}
	return c
}

// Key splits a seed into a key.
func Key(seed uint64) [2]uint32 { return [2]uint32{uint32(seed), uint32(seed >> 32)} }

// Uniform maps a word to the middle of its interval in (0, 1).
func Uniform(w uint32) float64 { return (float64(w) + 0.5) / (1 << 32) }

// Normal draws one value of the standard normal distribution from two words (Box and Muller).
func Normal(w0, w1 uint32) float64 {
	return math.Sqrt(-2*math.Log(Uniform(w0))) * math.Cos(2*math.Pi*Uniform(w1))
}

// Gumbel draws one value of the standard Gumbel distribution.
func Gumbel(w uint32) float64 { return -math.Log(-math.Log(Uniform(w))) }
