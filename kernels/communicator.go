package kernels

import "math"

// Communicator joins the devices of the ranks that train together: equal models, each in a process with a device of its
// own. All ranks make the same calls in the same order, as with NCCL, whose words these are. A graph cannot hold
// exchanges: none is made within Device.Capture.
//
// An exchange begins when the operations that were enqueued before it are done, and goes on beside those enqueued after
// it. These must leave its memory alone until Join. Exchanges are done in order.
type Communicator interface {
	Rank() int  // of this process, 0 to Ranks()-1
	Ranks() int // number of processes

	// AllReduce replaces x by the sum of x over all ranks.
	AllReduce(x Longs)
	// Broadcast makes one or more broadcasts, which may go on together: those of several roots use both directions of
	// a connection.
	Broadcast(all ...Broadcast)
	// Join waits for all exchanges before it, or for the first failure.
	Join()

	// Err is why exchanges fail, once one has failed: what they were to write is undefined from then on. After Join it
	// is nil only where all exchanges before Join are done.
	Err() error
	// Abort ends all exchanges, those at work included: they fail with cause here. On the other ranks they fail, or wait
	// until these abort them too. Any goroutine may call it. It also ends what the communicator holds, so it is called
	// in the end, too.
	Abort(cause error)
}

// Broadcast says that X, which is float32, becomes the X of rank Root.
type Broadcast struct {
	X    Floats
	Root int
}

// MaxTerms is how many values may be added to one of FixedSums, over all ranks: with more their sum may pass 64 bits.
const MaxTerms = 256

// fixedTermBits bounds a term of FixedSums: MaxTerms terms fit 63 bits.
const fixedTermBits = 55

// FixedSums are sums of float32 values as integers in units of 2^-Fraction (fixed point). They do not depend on the
// order in which terms are added, nor on how the terms are divided among ranks.
type FixedSums struct {
	Sums     Longs
	Overflow Longs // 1 value: how many terms were not finite or too large
	Fraction int
}

// Limit is what every term must be less than: 2^(55-Fraction).
func (s FixedSums) Limit() float64 { return math.Ldexp(1, fixedTermBits-s.Fraction) }

// Unit is the distance of neighbouring sums: 2^-Fraction.
func (s FixedSums) Unit() float64 { return math.Ldexp(1, -s.Fraction) }
