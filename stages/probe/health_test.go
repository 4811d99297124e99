package main

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"bitnet1/shared/lm/model"
	"bitnet1/shared/measure"
)

// bruteMatches says by the definition whether key u of query t follows an earlier occurrence of t's token, from start
// on.
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
		n := tallyOf(seq, survivors, 1)
		n.matched = make([]bool, seq)
		seen := occurrencesOf(tokens, starts)
		random := n.context(targets, make([]float32, seq), seen)
		n.random.join(random)
		n.head(0, 0, targets, pointers, seen, random)
		n.anyHead.Add(float64(first), float64(repeated)) // there is one head
		got := n.report()
		for what, pair := range map[string][2]float64{
			"IPMR": {got.Top.IPMR, float64(first) / float64(repeated)}, "M4": {got.Top.M4, float64(four) / float64(repeated)},
			"random IPMR": {got.RandomIPMR, chance / float64(repeated)},
			"global IPMR": {got.GlobalIPMR, float64(first) / float64(repeated)},
			"HDR":         {got.Top.HDR, plainDiversity(distances, seq)}, "positions": {float64(got.Positions), seq - padding},
		} {
			if !(math.Abs(pair[0]-pair[1]) <= 1e-12) {
				t.Fatalf("%s is %g, want %g", what, pair[0], pair[1])
			}
		}
	}
}

// tallyOf is a tally of one layer, for sequences that no model has computed.
func tallyOf(seq, survivors, heads int) *tally {
	t := &tally{Subject: &measure.Subject{Seq: seq}, layers: 1, heads: heads, survivors: survivors,
		read: make([]int64, seq)}
	t.first, t.four, t.above = make([]measure.Mean, heads), make([]measure.Mean, heads), make([]measure.Mean, heads)
	for range heads {
		t.distances = append(t.distances, make([]int64, seq))
	}
	return t
}

// What the report says of random keys is what heads give that draw their keys, and such heads are no specialists; one
// that points behind an earlier occurrence six times in ten is.
func TestRandomKeysGiveTheBaselines(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 4))
	const seq, survivors, heads, sequences, symbols = 48, 5, 6, 1500, 20
	tally := tallyOf(seq, survivors, heads)
	for range sequences {
		tokens, targets := make([]int32, seq), make([]int32, seq)
		for k := range tokens {
			tokens[k] = int32(r.IntN(symbols))
		}
		seen := occurrencesOf(tokens, make([]int32, seq))
		random := tally.context(targets, make([]float32, seq), seen)
		tally.random.join(random)
		tally.matched = make([]bool, seq)
		for h := range heads {
			pointers := make([]int32, seq*survivors)
			for k := range seq {
				keys := r.Perm(k + 1)
				for j := range survivors {
					pointers[k*survivors+j] = -1
					if j < len(keys) {
						pointers[k*survivors+j] = int32(keys[j])
					}
				}
				if h == 3 && r.Float64() < 0.6 {
					for u := range k + 1 {
						if bruteMatches(tokens, 0, k, int32(u)) {
							pointers[k*survivors] = int32(u)
						}
					}
				}
			}
			if h == 3 { // what any head matches is asked of the random ones
				matched := tally.matched
				tally.matched = make([]bool, seq)
				tally.head(h, 0, targets, pointers, seen, random)
				tally.matched = matched
				continue
			}
			tally.head(h, 0, targets, pointers, seen, random)
		}
		any := 0
		for _, m := range tally.matched {
			if m {
				any++
			}
		}
		tally.anyHead.Add(float64(any), float64(random.positions))
	}
	got := tally.report()
	if got.Specialists != 1 || got.Top.Head != 3 || got.Top.IPMR < 0.6 {
		t.Errorf("%d specialists, the best is head %d with %g", got.Specialists, got.Top.Head, got.Top.IPMR)
	}
	near := func(what string, measured, e, want float64) {
		t.Helper()
		if math.Abs(measured-want) > 4*e {
			t.Errorf("random keys give %s %g ± %g, the report says %g", what, measured, e, want)
		}
	}
	for _, h := range got.Heads {
		if h.Head == 3 {
			continue
		}
		near("IPMR", h.IPMR, *h.IPMRError, got.RandomIPMR)
		near("M4", h.M4, *h.M4Error, got.RandomM4)
		near("HDR", h.HDR, 0.002, got.RandomHDR)
	}
	if got.GlobalIPMR > got.RandomGlobalIPMR || got.GlobalIPMR < got.RandomGlobalIPMR-0.1 { // of five, not of six
		t.Errorf("any of five heads matches in %g, the report says %g of six", got.GlobalIPMR, got.RandomGlobalIPMR)
	}
}

// Random keys by hand: 2 of 5 keys match.
func TestChances(t *testing.T) {
	var c chances
	c.add(2, 5, 4, 3)
	for what, pair := range map[string][2]float64{
		"first": {c.first, 0.4}, "any of four": {c.four, 1 - 3.0/5*2/4*1/3*0},
		"any of three heads": {c.anyHead, 1 - 0.6*0.6*0.6},
	} {
		if math.Abs(pair[0]-pair[1]) > 1e-12 {
			t.Errorf("%s: %g, want %g", what, pair[0], pair[1])
		}
	}
	c = chances{}
	c.add(1, 10, 2, 1)
	if want := 1 - 9.0/10*8/9; math.Abs(c.four-want) > 1e-12 {
		t.Errorf("two survivors, one of ten keys: %g, want %g", c.four, want)
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

func TestComparedPositions(t *testing.T) {
	for seq, want := range map[int][2]int{2048: {50, 500}, 512: {50, 500}, 256: {25, 250}, 32: {3, 31}} {
		if early, late := compared(seq); early != want[0] || late != want[1] {
			t.Errorf("sequences of %d are compared at %d and %d, want %v", seq, early, late, want)
		}
	}
}
