package kernels

import (
	"math"
	"slices"
	"strings"
	"testing"
)

// The weights of every kind, by hand.
func TestWeights(t *testing.T) {
	for _, c := range []struct {
		kind   AttentionKind
		scores []float64
		gamma  float64
		want   []float64
	}{
		{Softmax, []float64{0, math.Log(3)}, 0.5, []float64{0.25, 0.75}},
		{Softmax, []float64{1000, 1000 + math.Log(4), 1000}, 0.5, []float64{1. / 6, 4. / 6, 1. / 6}},
		{Pointer, []float64{-3}, 0.5, []float64{1}},
		{RWSP, []float64{7, 1, 0}, 0.5, []float64{4. / 7, 2. / 7, 1. / 7}},
		{RWSP, []float64{7, 1}, 1, []float64{0.5, 0.5}},
	} {
		got := slices.Clone(c.scores)
		c.kind.Rule().Weights(got, c.gamma)
		for i, w := range got {
			if math.Abs(w-c.want[i]) > 1e-12 {
				t.Errorf("%v of scores %v, gamma %g: weights %v, want %v", c.kind, c.scores, c.gamma, got, c.want)
				break
			}
		}
	}
	probabilities := []float64{0, math.Log(9)}
	if SoftmaxWeights(probabilities, 2); math.Abs(probabilities[1]-0.75) > 1e-12 {
		t.Errorf("softmax at temperature 2 is %v, want 1/4 and 3/4", probabilities)
	}
}

// Each kind is known by its name, and nothing else is a kind.
func TestAttentionKinds(t *testing.T) {
	for _, kind := range AttentionKinds() {
		if got, err := ParseAttentionKind(kind.String()); err != nil || got != kind {
			t.Errorf("%v is parsed as %v, %v", kind, got, err)
		}
		if r := kind.Rule(); r.Weights == nil || r.About == "" || r.MaxSurvivors < 1 || r.MaxSurvivors > MaxSurvivors ||
			r.Noise && r.MaxSurvivors > 1 {
			t.Errorf("the rule of %v is %+v", kind, r)
		}
	}
	if _, err := ParseAttentionKind("linear"); err == nil ||
		!strings.HasPrefix(err.Error(), `attention is "linear", want pointer, rwsp`) {
		t.Errorf("an unknown kind gave %v", err)
	}
	if got := AttentionKind(77).String(); got != "kind 77" {
		t.Errorf("a kind beyond the table is called %q", got)
	}
}

// Slopes are powers of two where 8 is a multiple of the number of heads.
func TestSlope(t *testing.T) {
	a := Attention{Heads: 8, HeadDim: 4, Alibi: true}
	for h := range 8 {
		if got := a.Slope(h); got != math.Ldexp(1, -h-1) {
			t.Errorf("head %d of 8 has slope %g", h, got)
		}
	}
	if a.Alibi = false; a.Slope(3) != 0 {
		t.Error("without ALiBi there is a slope")
	}
}

// Scores are by the number of bits that differ: those of plane b count 2^b.
func TestDotScores(t *testing.T) {
	a := Attention{HeadDim: 4}
	if got := a.DotScores(Sign()); !slices.Equal(got, []float64{2, 1, 0, -1, -2}) {
		t.Errorf("scores of 4 channels are %v", got)
	}
	// Levels are odd multiples of 0.625: the highest score has 3 of them in all 4 channels.
	got := a.DotScores(MidRise(2))
	if len(got) != 3*4+1 || got[0] != 3.75 || got[1] != 3.125 || got[6] != 0 || got[12] != -3.75 {
		t.Errorf("scores of 4 channels of 2 bits are %v", got)
	}
	a.HeadDim = 37
	for _, bits := range []int{1, 2, 5, 8} {
		q, scores := MidRise(bits), a.DotScores(MidRise(bits))
		for n, s := range scores {
			if want := float64(q.Unit()) * float64(q.Largest()*37-2*n) / math.Sqrt(37); s != want {
				t.Fatalf("%v: score %d is %v, want %v", q, n, s, want)
			}
		}
	}
}

// With gamma = 1 the survivors vote, and a tie is +.
func TestSignedSum(t *testing.T) {
	w := make([]float64, 4)
	RankWeights(w, 1)
	for pattern, want := range map[int]float32{0b1111: 1, 0b0001: -0.5, 0b0011: 0, 0b0111: 0.5, 0: -1} {
		if got := SignedSum(w, pattern); got != want {
			t.Errorf("pattern %04b sums to %g, want %g", pattern, got, want)
		}
	}
}
