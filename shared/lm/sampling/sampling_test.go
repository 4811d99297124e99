package sampling

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// logs are the logits whose probabilities are in proportion to parts.
func logs(parts ...float64) (logits []float32) {
	for _, p := range parts {
		logits = append(logits, float32(math.Log(p)))
	}
	return logits
}

func TestCandidates(t *testing.T) {
	infinite := float32(math.Inf(1))
	logits := logs(1, 4, 2, 2, 1) // of 10
	for name, c := range map[string]struct {
		Options
		logits []float32
		tokens []int32
		want   []Candidate
	}{
		"greedy":               {Options{}, logs(1, 4, 4, 2), nil, []Candidate{{1, 1}}},
		"greedy with the rest": {Options{TopK: 3, TopP: 0.9, MinP: 0.1}, logits, nil, []Candidate{{1, 1}}},
		"temperature 1": {Options{Temperature: 1}, logits, nil,
			[]Candidate{{0, 0.1}, {1, 0.4}, {2, 0.2}, {3, 0.2}, {4, 0.1}}},
		"temperature 0.5":  {Options{Temperature: 0.5}, logs(1, 3), nil, []Candidate{{0, 0.1}, {1, 0.9}}},
		"temperature 2":    {Options{Temperature: 2}, logs(1, 9), nil, []Candidate{{0, 0.25}, {1, 0.75}}},
		"tiny temperature": {Options{Temperature: 1e-300}, logits, nil, []Candidate{{1, 1}}},
		"top-k":            {Options{Temperature: 1, TopK: 2}, logits, nil, []Candidate{{1, 2. / 3}, {2, 1. / 3}}},
		"top-k of more than all": {Options{Temperature: 1, TopK: 9}, logs(1, 3), nil,
			[]Candidate{{1, 0.75}, {0, 0.25}}},
		"top-p": {Options{Temperature: 1, TopP: 0.55}, logits, nil,
			[]Candidate{{1, 2. / 3}, {2, 1. / 3}}},
		"small top-p":                          {Options{Temperature: 1, TopP: 1e-9}, logits, nil, []Candidate{{1, 1}}},
		"top-p that one token reaches exactly": {Options{Temperature: 1, TopP: 0.5}, logs(1, 1), nil, []Candidate{{0, 1}}},
		"top-k of all but one":                 {Options{Temperature: 1, TopK: 1}, logs(1, 3), nil, []Candidate{{1, 1}}},
		"top-p of 1": {Options{Temperature: 1, TopP: 1}, logits, nil,
			[]Candidate{{1, 0.4}, {2, 0.2}, {3, 0.2}, {0, 0.1}, {4, 0.1}}},
		"top-p of what top-k leaves": {Options{Temperature: 1, TopK: 3, TopP: 0.7}, logits, nil,
			[]Candidate{{1, 2. / 3}, {2, 1. / 3}}},
		"min-p":      {Options{Temperature: 1, MinP: 0.4}, logits, nil, []Candidate{{1, 0.5}, {2, 0.25}, {3, 0.25}}},
		"min-p of 1": {Options{Temperature: 1, MinP: 1}, logs(2, 4, 4), nil, []Candidate{{1, 0.5}, {2, 0.5}}},
		"min-p of what top-p leaves": {Options{Temperature: 1, TopP: 0.85, MinP: 0.4}, logits, nil,
			[]Candidate{{1, 0.5}, {2, 0.25}, {3, 0.25}}},
		"repetition penalty of positive and negative logits": {Options{RepetitionPenalty: 2, Temperature: 1},
			[]float32{2, -1, 1, -2}, []int32{0, 1, 0, 0, 99, -1}, []Candidate{
				{0, math.E / (2*math.E + 2/math.E/math.E)}, {1, 1 / math.E / math.E / (2*math.E + 2/math.E/math.E)},
				{2, math.E / (2*math.E + 2/math.E/math.E)}, {3, 1 / math.E / math.E / (2*math.E + 2/math.E/math.E)}}},
		"repetition penalty, greedy": {Options{RepetitionPenalty: 1.5}, []float32{2, 3}, []int32{1, 1, 1, 0, 1, 1, 0},
			[]Candidate{{1, 1}}},
		"repetition penalty of a logit below 1": {Options{RepetitionPenalty: 2}, []float32{0.5, 0.4}, []int32{0},
			[]Candidate{{1, 1}}},
		"infinite logits": {Options{Temperature: 1}, []float32{infinite, 1, infinite}, nil,
			[]Candidate{{0, 0.5}, {2, 0.5}}},
		"NaN and -Inf": {Options{Temperature: 1, TopK: 4}, []float32{float32(math.NaN()), 1, -infinite, 1}, nil,
			[]Candidate{{1, 0.5}, {3, 0.5}}},
	} {
		got, err := c.Candidates(c.logits, c.tokens)
		if err != nil || !near(got, c.want) {
			t.Errorf("%s: %v, %v, want %v", name, got, err, c.want)
		}
	}
}

func near(a, b []Candidate) bool {
	return slices.EqualFunc(a, b, func(x, y Candidate) bool {
		return x.Token == y.Token && math.Abs(x.Probability-y.Probability) < 1e-6
	})
}

// Few tokens of many are those that sorting all finds.
func TestMostProbable(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	logits := make([]float32, 5000)
	for i := range logits {
		logits[i] = float32(math.Round(random.NormFloat64()*20)) / 4 // some are equal
	}
	all, err := Options{Temperature: 0.8}.Candidates(logits, nil)
	if err != nil {
		t.Fatal(err)
	}
	slices.SortStableFunc(all, func(a, b Candidate) int { return cmp.Compare(b.Probability, a.Probability) })
	for _, n := range []int{1, 2, 10, 777} {
		var mass float64
		for _, c := range all[:n] {
			mass += c.Probability
		}
		for _, o := range []Options{{TopK: n}, {TopP: mass - 1e-9}} {
			o.Temperature = 0.8
			got, err := o.Candidates(logits, nil)
			if err != nil || len(got) != n {
				t.Fatalf("%+v: %d tokens, %v, want %d", o, len(got), err, n)
			}
			for i, c := range got {
				if c.Token != all[i].Token || math.Abs(c.Probability-all[i].Probability/mass) > 1e-9 {
					t.Fatalf("%+v: %v at %d, want token %d", o, c, i, all[i].Token)
				}
			}
		}
	}
}

// Tokens are as frequent as they are probable.
func TestNextFollowsTheProbabilities(t *testing.T) {
	for _, o := range []Options{{Temperature: 1}, {Temperature: 1, TopP: 0.99}} {
		const n = 20_000
		counts := make([]float64, 4)
		tokens := make([]int32, 0, n)
		for range n {
			next, err := o.Next(logs(1, 4, 2, 3), tokens)
			if err != nil {
				t.Fatal(err)
			}
			counts[next]++
			tokens = append(tokens, next)
		}
		for i, p := range []float64{0.1, 0.4, 0.2, 0.3} {
			if deviation := (counts[i] - n*p) / math.Sqrt(n*p*(1-p)); math.Abs(deviation) > 4 {
				t.Errorf("%+v: token %d came %v of %d times, %.1f standard deviations off", o, i, counts[i], n, deviation)
			}
		}
	}
}

// One seed gives one text, wherever it is begun, and other seeds give others.
func TestNextIsPure(t *testing.T) {
	write := func(o Options, tokens []int32) []int32 {
		for len(tokens) < 40 {
			next, err := o.Next(logs(1, 1, 1, 1, 1, 1, 1, 1), tokens)
			if err != nil {
				t.Fatal(err)
			}
			tokens = append(tokens, next)
		}
		return tokens
	}
	a := write(Options{Temperature: 1, Seed: 7}, nil)
	if b := write(Options{Temperature: 1, Seed: 7}, slices.Clone(a[:11])); !slices.Equal(a, b) {
		t.Errorf("%v goes on from 11 tokens as %v", a, b)
	}
	for _, seed := range []uint64{0, 8, 7 | 1<<32} {
		if b := write(Options{Temperature: 1, Seed: seed}, nil); slices.Equal(a, b) {
			t.Errorf("seeds 7 and %d give the same text", seed)
		}
	}
}

func TestRefusals(t *testing.T) {
	for want, o := range map[string]Options{
		"temperature is -1, want 0 or more": {Temperature: -1},
		"temperature is NaN":                {Temperature: math.NaN()},
		"temperature is +Inf":               {Temperature: math.Inf(1)},
		"top-k is -1":                       {TopK: -1},
		"top-p is 1.5, want 0 to 1":         {TopP: 1.5},
		"min-p is -0.1, want 0 to 1":        {MinP: -0.1},
		"penalty is -2, want 0 or more":     {RepetitionPenalty: -2},
	} {
		if _, err := o.Next([]float32{1, 2}, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", o, err, want)
		}
	}
	for _, logits := range [][]float32{nil, {float32(math.NaN())}, {float32(math.Inf(-1)), float32(math.Inf(-1))}} {
		for _, o := range []Options{{}, {Temperature: 1}, {Temperature: 1, TopK: 2}} {
			if _, err := o.Next(logits, nil); err != errNoToken {
				t.Errorf("logits %v: %v", logits, err)
			}
		}
	}
	logits := []float32{1, 2}
	if _, err := (Options{RepetitionPenalty: 2}).Next(logits, []int32{1}); err != nil ||
		!reflect.DeepEqual(logits, []float32{1, 2}) {
		t.Errorf("logits are changed to %v, %v", logits, err)
	}
}

// Two tokens are drawn from the three most probable ones.
func Example() {
	logits := []float32{0.5, 2, -1, 1.5, 1}
	o := Options{Temperature: 0.7, TopK: 3, Seed: 42}
	list, err := o.Candidates(logits, nil)
	for _, c := range list {
		fmt.Printf("token %d: %.3f\n", c.Token, c.Probability)
	}
	first, _ := o.Next(logits, nil)
	second, _ := o.Next(logits, []int32{first})
	fmt.Println(first, second, err)
	// Output:
	// token 1: 0.578
	// token 3: 0.283
	// token 4: 0.139
	// 3 4 <nil>
}
