package main

import (
	"math"

	"bitnet1/shared/lm/model"
)

// calibrationBins is the number of bins of Guo et al. 2017 (arXiv:1706.04599).
const calibrationBins = 15

// calibration compares how probable a model says its most probable token is (the confidence) with how often that token
// is the right one.
type calibration [calibrationBins]struct{ tokens, right, confidence float64 }

// calibrationReport is the content of the report's calibration.
type calibrationReport struct {
	Error      float64          `json:"expected_calibration_error"` // mean of |accuracy - confidence| over tokens
	Accuracy   float64          `json:"accuracy"`
	Confidence float64          `json:"confidence"`
	Bins       []calibrationBin `json:"bins"`
}

// calibrationBin has the tokens with a confidence above From, at most To. A bin without tokens has no means.
type calibrationBin struct {
	From       float64  `json:"from"`
	To         float64  `json:"to"`
	Tokens     int64    `json:"tokens"`
	Accuracy   *float64 `json:"accuracy"`
	Confidence *float64 `json:"confidence"`
}

// add adds a prediction of target.
func (c *calibration) add(logits []float32, target int32) {
	best := model.Best(logits)
	sum := 0.0
	for _, x := range logits {
		sum += math.Exp(float64(x) - float64(logits[best]))
	}
	p := 1 / sum
	b := &c[min(max(int(math.Ceil(p*calibrationBins))-1, 0), calibrationBins-1)]
	b.tokens++
	b.confidence += p
	if best == target {
		b.right++
	}
}

// report needs one prediction at least.
func (c *calibration) report() *calibrationReport {
	r := &calibrationReport{}
	tokens := 0.0
	for i, b := range c {
		bin := calibrationBin{From: float64(i) / calibrationBins, To: float64(i+1) / calibrationBins, Tokens: int64(b.tokens)}
		if b.tokens > 0 {
			accuracy, confidence := b.right/b.tokens, b.confidence/b.tokens
			bin.Accuracy, bin.Confidence = &accuracy, &confidence
		}
		r.Bins = append(r.Bins, bin)
		tokens += b.tokens
		r.Error += math.Abs(b.right - b.confidence)
		r.Accuracy += b.right
		r.Confidence += b.confidence
	}
	r.Error, r.Accuracy, r.Confidence = r.Error/tokens, r.Accuracy/tokens, r.Confidence/tokens
	return r
}
