package kernels

import (
	"fmt"
	"math"
)

// FloatBits is the number of bits that stands for floats wherever a configuration counts bits.
const FloatBits = 16

// Quantization says which values a tensor can have, and which integers stand for them: a value is Unit() times an
// integer, and the integer is Σ_b 2^b p_b over the tensor's planes p_b, whose bits mean ±1 or {0,1}. So a product of
// tensors is a product of integers times their units. It is one of
//
//	Sign()           one plane of ±1: -1 and +1
//	MidRise(bits)    planes of ±1: 2^bits levels between -2.5 and 2.5, none of them 0
//	Normal(bits)     planes of ±1: 2^bits levels at the distance that suits a unit normal distribution best
//	Unsigned(bits)   planes of {0,1}: 2^bits levels from 0 to 4
//	Unquantized()    floats, no planes
//
// The residual stream has Sign, MidRise or Unquantized. In v77 queries, values and what attention reads have Sign or
// MidRise, the output of up (squared ReLU) Sign or Unsigned, and the rows of the codebook, divided by their root mean
// square, Sign or Normal.
type Quantization struct {
	levels levels
	bits   int
}

type levels int

const (
	unset levels = iota
	signs
	midRise
	normal
	unsigned
	floats
)

// levelRules are by levels.
var levelRules = [...]struct {
	name      string
	plusMinus bool                   // bits mean ±1
	unit      func(bits int) float64 // what 1 of the integer is worth
	passLimit float64                // of the straight-through gradient
}{
	signs:    {"signs", true, func(int) float64 { return 1 }, 1},
	midRise:  {"mid-rise levels", true, func(bits int) float64 { return 2.5 / float64(int(1)<<bits) }, 2.5},
	normal:   {"levels of a normal", true, func(bits int) float64 { return normalSteps[bits] / 2 }, math.Inf(1)},
	unsigned: {"unsigned levels", false, func(bits int) float64 { return 4 / float64(int(1)<<bits-1) }, 4},
	floats:   {"floats", false, func(int) float64 { return 1 }, math.Inf(1)},
}

// normalSteps are by bits the distances between levels with the least squared error on a unit normal (Max 1960).
var normalSteps = [...]float64{2: 0.9957, 3: 0.5860, 4: 0.3352, 5: 0.1881, 6: 0.1041, 7: 0.0569, 8: 0.0308}

// Sign is -1 and +1; 0 is +1 and NaN is -1.
func Sign() Quantization { return Quantization{signs, 1} }

// Unquantized leaves floats as they are.
func Unquantized() Quantization { return Quantization{floats, FloatBits} }

// MidRise is what so many bits of a configuration mean for the residual stream: Sign for 1, Unquantized for FloatBits,
// and levels for 2 to 8. Check refuses other numbers.
func MidRise(bits int) Quantization {
	if bits == FloatBits {
		return Unquantized()
	}
	return signOr(midRise, bits)
}

// Normal is Sign for 1 bit and levels for 2 to 8. Check refuses other numbers.
func Normal(bits int) Quantization { return signOr(normal, bits) }

// Unsigned is Sign for 1 bit and levels for 2 to 8. Check refuses other numbers.
func Unsigned(bits int) Quantization { return signOr(unsigned, bits) }

func signOr(l levels, bits int) Quantization {
	if bits == 1 {
		return Sign()
	}
	return Quantization{l, bits}
}

// Check refuses numbers of bits for which there are no levels.
func (q Quantization) Check() error {
	switch {
	case q == Sign() || q == Unquantized() || q.levels != unset && 2 <= q.bits && q.bits <= 8:
		return nil
	case q.levels == midRise:
		return fmt.Errorf("%d bits: want 1 for signs, 2 to 8 for levels, or %d for floats", q.bits, FloatBits)
	}
	return fmt.Errorf("%d bits: want 1 for signs, or 2 to 8 for levels", q.bits)
}

// Bits is the number of bits of a value, as configurations count them.
func (q Quantization) Bits() int { return q.bits }

// Planes is the number of planes, 0 for floats.
func (q Quantization) Planes() int {
	if q.levels == floats {
		return 0
	}
	return q.bits
}

// PlusMinus says whether the bits of planes mean ±1; otherwise they mean {0,1}.
func (q Quantization) PlusMinus() bool { return levelRules[q.levels].plusMinus }

// Unit is what 1 of the integer behind a value is worth.
func (q Quantization) Unit() float32 { return float32(levelRules[q.levels].unit(q.bits)) }

// Step is the distance between neighbouring levels.
func (q Quantization) Step() float64 {
	step := levelRules[q.levels].unit(q.bits)
	if q.PlusMinus() { // all integers are odd
		step *= 2
	}
	return step
}

// Largest is the largest absolute value of the integer behind a value.
func (q Quantization) Largest() int { return 1<<q.bits - 1 }

// Integer is the integer behind the level nearest to v; half way between two levels, it is the one of even number,
// counted from the lowest. NaN has the lowest level.
func (q Quantization) Integer(v float64) int {
	top := float64(q.Largest())
	switch {
	case q.levels == signs && v >= 0:
		return 1
	case q.levels == signs || v != v && q.PlusMinus():
		return -q.Largest()
	case v != v:
		return 0
	case q.PlusMinus():
		half := (top + 1) / 2
		return 2*int(min(max(math.RoundToEven(v/q.Step()-0.5)+half, 0), top)) - q.Largest()
	}
	return int(min(max(math.RoundToEven(v*(top/4)), 0), top)) // divided by the step, ties would not be exact
}

// PassLimit bounds the absolute value of what was quantized where its gradient passes (the straight-through estimator's
// mask).
func (q Quantization) PassLimit() float64 { return levelRules[q.levels].passLimit }

func (q Quantization) String() string {
	if q.levels == signs || q.levels == floats {
		return levelRules[q.levels].name
	}
	return fmt.Sprintf("%d-bit %s", q.bits, levelRules[q.levels].name)
}
