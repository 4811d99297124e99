package dataset

import "math/bits"

// Permutation is an order of the integers from 0 to n-1. Any place of it is computed in constant time and memory.
type Permutation struct {
	n           uint64
	left, right uint // bits of the two halves
	keys        [orderRounds]uint64
}

// orderRounds is the number of rounds of the Feistel network. It is even, so that halves of different widths end where
// they began. Four rounds of a good round function are enough for large domains (Luby and Rackoff, 1988); small ones
// need more.
const orderRounds = 10

// Order is the order in which an epoch reads n things. It depends on the arguments alone.
func Order(n int, seed uint64, epoch int) Permutation {
	return NewPermutation(n, SplitMix64(SplitMix64(seed)^uint64(epoch)))
}

// NewPermutation returns the permutation of n things with a key: a Feistel network that encrypts numbers with the bits
// of n-1.
func NewPermutation(n int, key uint64) Permutation {
	p := Permutation{n: uint64(max(n, 0))}
	width := uint(0)
	if p.n > 1 {
		width = uint(bits.Len64(p.n - 1))
	}
	p.left, p.right = (width+1)/2, width/2
	for i := range p.keys {
		p.keys[i] = SplitMix64(key + uint64(i+1)*0x9e3779b97f4a7c15)
	}
	return p
}

// Len is n.
func (p Permutation) Len() int { return int(p.n) }

// At returns the number at place i in [0, Len), or -1 for any other i.
func (p Permutation) At(i int) int {
	if i < 0 || uint64(i) >= p.n {
		return -1
	}
	// The network permutes the numbers below the next power of two, which is less than 2n. Encrypting again until the
	// result is below n permutes the numbers below n (cycle walking).
	x := p.encrypt(uint64(i))
	for x >= p.n {
		x = p.encrypt(x)
	}
	return int(x)
}

func (p Permutation) encrypt(x uint64) uint64 {
	left, right := p.left, p.right
	l, r := x>>right, x&(1<<right-1)
	for _, key := range p.keys {
		l, r = r, (l^SplitMix64(r^key))&(1<<left-1)
		left, right = right, left
	}
	return l<<right | r
}

// SplitMix64 mixes 64 bits: the finalizer of the generator SplitMix64 (Steele, Lea and Flood, "Fast splittable
// pseudorandom number generators", 2014).
func SplitMix64(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
