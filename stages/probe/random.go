package main

import "math"

// chances are expected matches of heads that point at random keys, summed over positions.
type chances struct {
	positions int64
	first     float64 // of one random key
	four      float64 // of any of up to four distinct random keys
	anyHead   float64 // of any of the heads of the model, with one random key each
}

// add counts a position at which `matching` of the `keys` keys that it may read match.
func (c *chances) add(matching, keys, survivors, heads int) {
	miss := 1 - float64(matching)/float64(keys)
	c.positions++
	c.first += 1 - miss
	c.anyHead += 1 - math.Pow(miss, float64(heads))
	none := 1.0 // probability that no key drawn so far matches
	for drawn := range min(maxSurvivors, survivors, keys) {
		none *= max(0, float64(keys-matching-drawn)/float64(keys-drawn))
	}
	c.four += 1 - none
}

func (c *chances) join(other chances) {
	c.positions += other.positions
	c.first += other.first
	c.four += other.four
	c.anyHead += other.anyHead
}

// share divides a sum over positions by the number of positions.
func (c *chances) share(sum float64) float64 { return sum / float64(max(c.positions, 1)) }

// randomDiversity is the HDR of a head that points at a random key, where read[n] positions may read n+1 keys.
func randomDiversity(read []int64) float64 {
	expected := make([]float64, len(read)) // by distance: expected number of pointers
	longer := 0.0
	for n := len(read) - 1; n >= 0; n-- {
		longer += float64(read[n]) / float64(n+1)
		expected[n] = longer
	}
	return diversity(expected)
}
