package main

import (
	"math"
	"testing"

	"bitnet1/shared/data/tokenizer"
	"bitnet1/shared/measure"
)

// Bytes are those of the text that the predicted tokens stand for; an end of text stands for none.
func TestBytes(t *testing.T) {
	text, err := tokenizer.New("gpt2")
	if err != nil {
		t.Fatal(err)
	}
	e := evaluation{Subject: &measure.Subject{Tokenizer: text}, counts: make([]int64, 50304)}
	const words = " the cat and the dog and the bird"
	ids := text.Encode(nil, []byte(words))
	for _, id := range append(ids, text.EndOfText()) {
		e.counts[id]++
	}
	if got := e.bytes(); got != int64(len(words)) {
		t.Errorf("%d bytes, want %d", got, len(words))
	}
}

// The baselines are those of the frequencies of training, whatever the tokens evaluated are: 3, 1 and 0 of three tokens
// make 4/7, 2/7 and 1/7 with one more of each.
func TestUnigram(t *testing.T) {
	u := unigram{counts: []int64{3, 1, 0}, total: 4}
	evaluated := []int64{0, 2, 2}
	want := (2*math.Log2(7.0/2) + 2*math.Log2(7.0/1)) / 4
	if got := u.entropy(evaluated); !(math.Abs(got-want) <= 1e-12) {
		t.Errorf("entropy %g, want %g", got, want)
	}
	if got := u.accuracy([]int64{1, 2, 1}); got != 0.25 {
		t.Errorf("accuracy %g, want 0.25: the first token is the most frequent one in training", got)
	}
	if got := (unigram{counts: []int64{2, 2}, total: 4}).accuracy([]int64{3, 1}); got != 0.75 {
		t.Errorf("accuracy %g, want 0.75: of equally frequent tokens the first is named", got)
	}
}
