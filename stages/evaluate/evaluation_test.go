package main

import (
	"math"
	"testing"

	"bitnet1/shared/measure"
	"bitnet1/shared/tokenizer"
)

// Bytes are those of the text that the predicted tokens stand for; an end of text stands for none. The entropy is that of
// their frequencies.
func TestBytesAndEntropy(t *testing.T) {
	text, err := tokenizer.New("gpt2")
	if err != nil {
		t.Fatal(err)
	}
	e := evaluation{Subject: &measure.Subject{Tokenizer: text}, counts: make([]int64, 50304)}
	const words = " the cat and the dog and the bird"
	ids := text.Encode(nil, []byte(words))
	for _, id := range append(ids, text.EndOfText()) {
		e.counts[id]++
		e.tokens++
	}
	if got := e.bytes(); got != int64(len(words)) {
		t.Errorf("%d bytes, want %d", got, len(words))
	}
	frequencies := map[uint32]float64{}
	for _, id := range append(ids, text.EndOfText()) {
		frequencies[id]++
	}
	want := 0.0
	for _, n := range frequencies {
		p := n / float64(len(ids)+1)
		want += p * math.Log2(1/p)
	}
	if got := e.entropy(); !(math.Abs(got-want) <= 1e-12) || got < 2 {
		t.Errorf("entropy %g, want %g", got, want)
	}
}
