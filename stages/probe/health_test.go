package main

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"bitnet1/shared/measure"
	"bitnet1/shared/model"
)

// bruteMatches says by the definition whether key u of query t follows an earlier occurrence of t's token, from start on.
func bruteMatches(tokens []int32, start, t int, u int32) bool {
	return int(u)-1 >= start && int(u)-1 < t && tokens[u-1] == tokens[t]
}

// A sequence of which everything is known: the token b occurs again at 3 and 5.
func TestMatchesInASmallSequence(t *testing.T) {
	tokens := []int32{7, 2, 9, 2, 4, 2} // a b c b d b
	seen := occurrencesOf(tokens, make([]int32, len(tokens)))
	for k, want := range []int32{0, 0, 0, 1, 0, 2} {
		if seen.before[k] != want {
			t.Errorf("token %d occurred %d times before, want %d", k, seen.before[k], want)
		}
	}
	for _, c := range []struct {
		k    int
		u    int32
		want bool
	}{{3, 2, true}, {3, 1, false}, {5, 2, true}, {5, 4, true}, {5, 0, false}, {5, 5, false}, {3, -1, false}} {
		if got := seen.matches(c.k, c.u); got != c.want {
			t.Errorf("query %d, key %d: match %v, want %v", c.k, c.u, got, c.want)
		}
	}
}

// Of separate documents, here b, c b d b, nothing before the own one counts.
func TestMatchesInSeparateDocuments(t *testing.T) {
	seen := occurrencesOf([]int32{2, 9, 2, 4, 2}, []int32{0, 1, 1, 1, 1})
	if want := []int32{0, 0, 0, 0, 1}; !slices.Equal(seen.before, want) {
		t.Errorf("occurrences before %v, want %v", seen.before, want)
	}
	for u, want := range []bool{false, false, false, true, false} {
		if got := seen.matches(4, int32(u)); got != want {
			t.Errorf("key %d: match %v, want %v", u, got, want)
		}
	}
}

// Random tokens and pointers, against the definitions in plain words, packed and of separate documents.
func TestRatesAgainstDefinitions(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 5))
	const seq, survivors, padding = 40, 5, 6
	for n := range 30 {
		documents := model.Documents{Separate: n%2 == 1, EndOfText: 0}
		tokens, targets, pointers := make([]int32, seq), make([]int32, seq), make([]int32, seq*survivors)
		for k := range tokens {
			tokens[k], targets[k] = int32(r.IntN(12)), 1
			if k >= seq-padding {
				targets[k] = -1
			}
		}
		starts := documents.Starts(tokens, seq)
		for k := range tokens {
			start := int(starts[k])
			for j := range survivors {
				pointers[k*survivors+j] = int32(start + r.IntN(k-start+1))
				if j > k-start {
					pointers[k*survivors+j] = -1
				}
			}
		}
		repeated, first, four := 0, 0, 0
		chance := 0.0
		distances := map[int]int{}
		for k := range seq - padding {
			chosen := pointers[k*survivors:][:survivors]
			distances[k-int(chosen[0])]++
			before, keys := 0, 0
			start := int(starts[k])
			for u := start; u < k; u++ {
				if tokens[u] == tokens[k] {
					before++
				}
			}
			for u := range k + 1 {
				if bruteMatches(tokens, start, k, int32(u)) {
					keys++
				}
			}
			if before == 0 {
				continue
			}
			repeated++
			chance += float64(keys) / float64(k+1-start)
			if bruteMatches(tokens, start, k, chosen[0]) {
				first++
			}
			for _, u := range chosen[:4] {
				if bruteMatches(tokens, start, k, u) {
					four++
					break
				}
			}
		}
		n := &tally{
			Subject: &measure.Subject{Seq: seq}, layers: 1, heads: 1, survivors: survivors,
			first: make([]int64, 1), four: make([]int64, 1), distances: [][]int64{make([]int64, seq)}, matched: make([]bool, seq),
		}
		seen := occurrencesOf(tokens, starts)
		n.context(targets, make([]float32, seq), seen)
		n.head(0, 0, targets, pointers, seen)
		for _, m := range n.matched {
			if m {
				n.anyHead++
			}
		}
		got := n.report()
		for what, pair := range map[string][2]float64{
			"IPMR": {got.Top.IPMR, float64(first) / float64(repeated)}, "M4": {got.Top.M4, float64(four) / float64(repeated)},
			"random IPMR": {got.RandomIPMR, chance / float64(repeated)}, "global IPMR": {got.GlobalIPMR, float64(first) / float64(repeated)}, // there is one head
			"HDR": {got.Top.HDR, plainDiversity(distances, seq)}, "positions": {float64(got.Positions), seq - padding},
		} {
			if !(math.Abs(pair[0]-pair[1]) <= 1e-12) {
				t.Fatalf("%s is %g, want %g", what, pair[0], pair[1])
			}
		}
	}
}

func plainDiversity(distances map[int]int, possible int) float64 {
	total := 0
	for _, n := range distances {
		total += n
	}
	product := 1.0
	for _, n := range distances {
		p := float64(n) / float64(total)
		product *= math.Pow(p, -p)
	}
	return product / float64(possible)
}

// A head that always points at one distance has the least diversity, one that uses all alike the most.
func TestDiversity(t *testing.T) {
	if got := diversity([]int64{0, 9, 0, 0}); !(math.Abs(got-0.25) <= 1e-12) {
		t.Errorf("one distance of four: %g, want 0.25", got)
	}
	if got := diversity([]int64{3, 3, 3, 3}); !(math.Abs(got-1) <= 1e-12) {
		t.Errorf("four distances alike: %g, want 1", got)
	}
}
