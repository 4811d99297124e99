package server

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode/utf8"
)

// scored is a token with the logarithm of its probability, in nats.
type scored struct {
	token   int32
	logprob float64
}

// score returns the logarithms of the probability of a token, and of the most probable ones, in their order. They are
// of the model's own distribution, whatever the options of sampling; evaluate measures the same.
func (s *Server) score(logits []float32, token int32, top int) chosen {
	most := float64(slices.Max(logits))
	sum := 0.0
	for _, l := range logits {
		sum += math.Exp(float64(l) - most)
	}
	of := func(t int32) scored { return scored{t, float64(logits[t]) - most - math.Log(sum)} }
	c := chosen{scored: of(token)}
	for _, t := range mostProbable(logits[:s.model.Tokenizer.Vocab()], top) {
		c.top = append(c.top, of(t))
	}
	return c
}

// mostProbable returns the n tokens of the largest logits, the largest first, and of equal ones the smaller token.
func mostProbable(logits []float32, n int) (top []int32) {
	for t, l := range logits {
		if len(top) == n && (n == 0 || l <= logits[top[n-1]]) {
			continue
		}
		at := len(top)
		for at > 0 && l > logits[top[at-1]] {
			at--
		}
		top = slices.Insert(top, at, int32(t))
		top = top[:min(len(top), n)]
	}
	return top
}

// bytesOf are the bytes of a token.
func (s *Server) bytesOf(token int32) []byte {
	return s.model.Tokenizer.Decode(nil, []uint32{uint32(token)})
}

// name is a token as text. Bytes that are no whole characters are written as OpenAI writes them, so that different
// tokens have different names.
func (s *Server) name(token int32) string {
	b := s.bytesOf(token)
	if utf8.Valid(b) {
		return string(b)
	}
	var name strings.Builder
	name.WriteString("bytes:")
	for _, c := range b {
		fmt.Fprintf(&name, `\x%02x`, c)
	}
	return name.String()
}
