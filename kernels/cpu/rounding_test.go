package cpu

import (
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"
)

// Of the 2^32 random numbers, as many round a value up as its fraction is worth, whatever its size: rounding has no
// bias above 2^-32.
func TestRoundingHasNoBias(t *testing.T) {
	const n, limit = 64 + 32 + 7, 127 // for the longest registers, shorter ones, and what is left over
	r, one := random(11), slices.Repeat([]float32{1}, n)
	for _, set := range instructionSets() {
		for name, round := range map[string]func(dst []int8, v []float32, numbers []uint16){
			"rows":     func(dst []int8, v []float32, numbers []uint16) { set.roundRow(dst, v, one, 1, numbers, limit) },
			"channels": func(dst []int8, v []float32, numbers []uint16) { set.roundColumns(dst, v, one, numbers, limit) },
		} {
			for range 20 {
				v := spread(r, n, limit)
				// The least random number that rounds each value up, found by halving: larger ones do so too.
				low, high := make([]uint64, n), slices.Repeat([]uint64{1 << 32}, n)
				dst, numbers := make([]int8, n), make([]uint16, n+1)
				for range 33 {
					for i := range v {
						setRandom(numbers, i, uint32((low[i]+high[i])/2))
						round(dst, v, numbers)
						if low[i] >= high[i] {
							continue
						}
						if middle := (low[i] + high[i]) / 2; float64(dst[i]) > math.Floor(float64(v[i])) {
							high[i] = middle
						} else {
							low[i] = middle + 1
						}
					}
				}
				for i, x := range v {
					if got, want := 1<<32-low[i], fraction32(x); got != want {
						t.Fatalf("%s, %s: %d of 2^32 random numbers round value %d, %g, up; want %d", set.name, name, got, i, x, want)
					}
				}
			}
		}
	}
}

// fraction32 is v - floor(v), in units of 2^-32.
func fraction32(v float32) uint64 {
	x := new(big.Float).SetPrec(300).SetFloat64(float64(v))
	x.Sub(x, big.NewFloat(math.Floor(float64(v))))
	n, _ := x.SetMantExp(x, 32).Uint64()
	return n
}

// setRandom makes r the random number of value i.
func setRandom(numbers []uint16, i int, r uint32) {
	numbers[i], numbers[i^1] = uint16(r>>16), uint16(r)
}

// spread are values of all sizes from 1e-12 to the limit and of both signs, zeros, integers, and what lies just beside
// these.
func spread(r *rand.Rand, n int, limit float64) []float32 {
	v := make([]float32, n)
	for i := range v {
		x := math.Exp(math.Log(1e-12) + r.Float64()*math.Log(limit/1e-12))
		switch r.IntN(4) {
		case 0:
			x = float64(r.IntN(int(limit)))
		case 1:
			x = float64(math.Nextafter32(float32(1+r.IntN(int(limit)-1)), float32(limit*float64(r.IntN(2)))))
		}
		v[i] = float32(math.Copysign(x, r.NormFloat64()))
	}
	return v
}
