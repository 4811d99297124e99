package kernels

import (
	"fmt"
	"math"
	"strings"
)

// AttentionKind says how a query reads values. Its rule is a row of the table below.
type AttentionKind int

// The kinds of attention.
const (
	Softmax AttentionKind = iota
	Pointer
	RWSP
)

// AttentionRule is what devices, configurations and tests need to know of a kind of attention. In every kind the
// gradient of a value is its weight times the gradient of what is read, and the gradient of the scores is that of a
// softmax.
type AttentionRule struct {
	Name  string // in configurations
	About string // what a query reads, for the help of programs
	// AllKeys: a query reads all keys of its document, in their order. Otherwise it reads its survivors: the best keys,
	// best first.
	AllKeys      bool
	MaxSurvivors int  // the largest Attention.Survivors
	Gamma        bool // the weights depend on Scalars.Gamma and on ranks, not on scores
	// Noise: training adds noise to the scores, Attention.Gumbel or Attention.Noise. Such a kind has one survivor.
	Noise bool

	// Weights replaces the scores of the keys that a query reads by the weights of their values, which sum to 1.
	Weights func(scores []float64, gamma float64)

	// SoftmaxOverAll: the gradient of scores is that of a softmax over all keys, and otherwise over the survivors.
	SoftmaxOverAll bool
	Tau            bool // that softmax divides the scores by Scalars.Tau
}

// attentionRules are by AttentionKind.
var attentionRules = [...]AttentionRule{
	// The control: softmax over all keys. Its one pointer is the first key of the highest score.
	Softmax: {
		Name: "softmax", About: "all keys",
		AllKeys: true, MaxSurvivors: 1, SoftmaxOverAll: true,
		Weights: func(scores []float64, _ float64) { SoftmaxWeights(scores, 1) },
	},
	// v75: the best key alone, chosen with noise in training.
	Pointer: {
		Name: "pointer", About: "v75: the best key",
		MaxSurvivors: 1, Noise: true, SoftmaxOverAll: true, Tau: true,
		Weights: func(scores []float64, _ float64) { RankWeights(scores, 1) },
	},
	// v76, rank-weighted survivors with geometric weights: the best keys, weighted by Gamma^rank.
	RWSP: {
		Name: "rwsp", About: "v76: the best keys, weighted by rank",
		MaxSurvivors: MaxSurvivors, Gamma: true,
		Weights: RankWeights,
	},
}

// MaxSurvivors is the largest number of survivors of any kind.
const MaxSurvivors = 16

// Rule returns the row of kind k. A kind that is not in the table has the zero rule, which no operation takes.
func (k AttentionKind) Rule() AttentionRule {
	if k < 0 || int(k) >= len(attentionRules) {
		return AttentionRule{}
	}
	return attentionRules[k]
}

// String is the kind's name in configurations.
func (k AttentionKind) String() string {
	if name := k.Rule().Name; name != "" {
		return name
	}
	return fmt.Sprintf("kind %d", int(k))
}

// AttentionKinds lists all kinds.
func AttentionKinds() []AttentionKind {
	list := make([]AttentionKind, len(attentionRules))
	for i := range list {
		list[i] = AttentionKind(i)
	}
	return list
}

// ParseAttentionKind returns the kind of the given name.
func ParseAttentionKind(name string) (AttentionKind, error) {
	names := make([]string, len(attentionRules))
	for i, rule := range attentionRules {
		if names[i] = rule.Name; name == rule.Name {
			return AttentionKind(i), nil
		}
	}
	return 0, fmt.Errorf("attention is %q, want %s or %s", name, strings.Join(names[1:], ", "), names[0])
}

// Attention describes one attention read. The score of a query and a key is q·k/sqrt(HeadDim) - Slope(head)*distance,
// plus noise, in float64, over the keys from the start of the query's document to the query itself. Of equal scores the
// most recent key comes first.
type Attention struct {
	Kind                      AttentionKind
	Batch, Seq                int
	Heads, HeadDim, Survivors int
	Alibi                     bool   // scores fall with distance
	Gumbel                    bool   // add noise drawn from Philox(Seed; query and key, Layer and Micro, Step)
	Noise                     Floats // add this noise instead, Batch × Heads × Seq × Seq; may be nil
	Layer                     int    // distinguishes the noise of layers
	Starts                    Ints   // of documents; may be nil
}

// Slope is what a score of head h loses with each token of distance, 0 without Alibi.
func (a Attention) Slope(h int) float64 {
	if !a.Alibi {
		return 0
	}
	return AlibiSlope(h, a.Heads)
}

// AlibiSlope is 2^(-8(h+1)/heads) for head h from 0 (Press, Smith and Lewis 2022). It is computed in this one place:
// math.Exp2 differs from math.Pow in the last bit for a third of all heads.
func AlibiSlope(h, heads int) float64 { return math.Pow(2, -8*float64(h+1)/float64(heads)) }

// DotScores returns q·k/sqrt(HeadDim) by Σ_b 2^b n_b, where n_b is the number of bits in which plane b of q differs
// from k: Largest()*HeadDim + 1 scores. They are rounded once: of Unit a multiple by any of the integers is exact.
func (a Attention) DotScores(queries Quantization) []float64 {
	unit, top := float64(queries.Unit()), queries.Largest()*a.HeadDim
	scores := make([]float64, top+1)
	for n := range scores {
		scores[n] = unit * float64(top-2*n) / math.Sqrt(float64(a.HeadDim))
	}
	return scores
}

// RankWeights writes gamma^r, normalised to 1, for ranks r from 0. Every device keeps this order of operations: with
// some gammas two ranks balance the others exactly, and the order decides the sign of what is read.
func RankWeights(w []float64, gamma float64) {
	var sum float64
	for r := range w {
		w[r] = math.Pow(gamma, float64(r))
		sum += w[r]
	}
	for r := range w {
		w[r] /= sum
	}
}

// SignedSum adds w[r] where bit r of pattern is set and subtracts it elsewhere, in the order of ranks. Its sign is the
// sign that a query reads of values whose bits are the pattern's.
func SignedSum(w []float64, pattern int) float32 {
	var sum float64
	for r, v := range w {
		if pattern>>r&1 == 1 {
			sum += v
		} else {
			sum -= v
		}
	}
	return float32(sum)
}

// SoftmaxWeights replaces scores by softmax(scores / tau).
func SoftmaxWeights(scores []float64, tau float64) {
	top := math.Inf(-1)
	for _, s := range scores {
		top = max(top, s)
	}
	var sum float64
	for i, s := range scores {
		scores[i] = math.Exp((s - top) / tau)
		sum += scores[i]
	}
	for i := range scores {
		scores[i] /= sum
	}
}
