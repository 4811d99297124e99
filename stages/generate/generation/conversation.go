package generation

import (
	"math"
	"slices"
	"strings"

	"bitnet1/shared/data/documents"
	"bitnet1/shared/lm/inference"
)

// The roles of a conversation. Templates write other words for neither.
const (
	User      = "user"
	Assistant = "assistant"
)

// Conversation returns the prompt that the model answers as the assistant, and the texts that end its answer. The
// prompt is the beginning of a document, as the stage tokenize makes documents of conversations. It ends before the
// spaces that an answer begins with, since tokens of words have a space in front.
func (m *Model) Conversation(t documents.Template, turns []documents.Turn) (prompt []int32, stop []string) {
	return m.document(trimSpaces(t.Conversation(turns, Assistant))), stops(t, turns)
}

// document returns the tokens of a document that begins with text.
func (m *Model) document(text string) []int32 {
	end := m.Encode("")
	if text == "" {
		return end
	}
	return append(end, m.Encode(text)...)
}

// stops are the texts that end an answer: those with which a turn ends, and the next begins.
func stops(t documents.Template, turns []documents.Turn) (stop []string) {
	if end := t.After(Assistant, ""); strings.TrimSpace(end) != "" {
		return []string{end}
	}
	roles := []string{User, Assistant}
	for _, turn := range turns {
		roles = append(roles, turn.Role)
	}
	for _, role := range roles {
		if s := trimSpaces(t.After(Assistant, role)); s != "" && !slices.Contains(stop, s) {
			stop = append(stop, s)
		}
	}
	return stop
}

func trimSpaces(text string) string { return strings.TrimRight(text, " ") }

// leastAnswering is the least probability that a model of conversations gives the beginning of an assistant's turn
// after a turn of a user: see docs/decisions/chat-asks-the-model.md.
const leastAnswering = 1e-6

// Converses reports whether the model has learned conversations in the words of a template: whether it expects the
// assistant's turn after a greeting of the user.
func (m *Model) Converses(t documents.Template) (bool, error) {
	greeted := []documents.Turn{{Role: User, Text: "Hello!"}}
	asked := trimSpaces(t.Conversation(greeted, Assistant))
	opening := trimSpaces(t.Conversation(nil, Assistant))
	all := m.document(asked)
	if opening == "" || len(all) > m.Config.Seq {
		return false, nil
	}
	first, known := 1, 0 // the first token of the opening, and the bytes of text before it
	for ; first < len(all) && known < len(asked)-len(opening); first++ {
		known += len(m.Tokenizer.Decode(nil, []uint32{uint32(all[first])}))
	}
	s, err := m.NewSession(inference.Options{Workers: m.threads})
	if err != nil {
		return false, err
	}
	logits, err := s.Prefill(all[:first])
	surprise := 0.0 // in nats
	for _, token := range all[first:] {
		if err != nil {
			return false, err
		}
		surprise -= logProbability(logits[:m.Tokenizer.Vocab()], token)
		logits, err = s.Decode(token)
	}
	return math.Exp(-surprise) >= leastAnswering, err
}

// logProbability is the logarithm of the probability of a token.
func logProbability(logits []float32, token int32) float64 {
	top := float64(slices.Max(logits))
	sum := 0.0
	for _, l := range logits {
		sum += math.Exp(float64(l) - top)
	}
	return float64(logits[token]) - top - math.Log(sum)
}
