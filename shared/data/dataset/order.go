package dataset

import "math/bits"

// Permutation is an order of the integers from 0 to n-1 that can be read at any place in constant time and memory.
type Permutation struct {
	n           uint64
	left, right uint // bits of the two halves
	keys        [orderRounds]uint64
}

// orderRounds Feistel rounds; an even number, so that halves of different size end where they began. With a good round
// function four rounds already pass for random (Luby and Rackoff, 1988); small domains want more.
const orderRounds = 10

// Order is the order in which epoch reads n things: a keyed permutation that depends on nothing but its arguments.
func Order(n int, seed uint64, epoch int) Permutation {
	return NewPermutation(n, SplitMix64(SplitMix64(seed)^uint64(epoch)))
}

// NewPermutation encrypts numbers of just enough bits for n with a Feistel network.
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

// At returns what comes at place i in [0, Len). It returns -1 for any other i.
func (p Permutation) At(i int) int {
	if i < 0 || uint64(i) >= p.n {
		return -1
	}
	// The network permutes the next power of two, less than 2n: walk its cycle until back below n.
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

// SplitMix64 scrambles 64 bits: the finalizer of SplitMix64 (Steele, Lea, Flood 2014).
func SplitMix64(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
