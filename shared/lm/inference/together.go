package inference

import (
	"errors"
	"fmt"
	"slices"

	"bitnet1/kernels"
)

// DecodeTogether appends tokens[i] to the sequence of sessions[i], sessions of the model that differ from one another,
// and returns the logits that follow each. logits[i] are valid until the next call of sessions[i]. All weights are read
// once for all sessions, so that sixteen sequences cost much less than sixteen calls of Decode; the results are the
// same. The workers are those of the first session, whose memory it takes, too. After an error all sequences are as
// they were.
func (m *Model) DecodeTogether(sessions []*Session, tokens []int32) (logits [][]float32, err error) {
	if len(sessions) != len(tokens) || len(sessions) == 0 {
		return nil, fmt.Errorf("%d tokens of %d sessions: want one token of each, of at least one session", len(tokens),
			len(sessions))
	}
	for i, s := range sessions {
		if s.model != m || slices.Contains(sessions[:i], s) {
			return nil, fmt.Errorf("session %d is one of another model, or is there twice", i)
		}
		if err := s.room(1); err != nil {
			return nil, fmt.Errorf("session %d: %w", i, err)
		}
	}
	before := make([]int, len(sessions))
	for i, s := range sessions {
		before[i] = s.length
	}
	for from := 0; from < len(sessions) && err == nil; from += sessions[0].most {
		to := min(from+sessions[0].most, len(sessions))
		err = sessions[0].decode(sessions[from:to], tokens[from:to])
	}
	for i, s := range sessions {
		logits = append(logits, s.logitsOnHost)
		if err != nil {
			err = errors.Join(err, s.Truncate(min(before[i], s.length)))
		}
	}
	if err != nil {
		return nil, err
	}
	return logits, nil
}

// decode appends a token to each of at most s.most sequences, and computes the logits of each.
func (s *Session) decode(sessions []*Session, tokens []int32) error {
	spans := make([]span, len(sessions))
	for i, other := range sessions {
		spans[i] = span{Session: other, from: i, rows: 1}
	}
	if err := s.forward(spans, tokens); err != nil {
		return err
	}
	return s.eachLogits(0, len(sessions), func(i int, logits kernels.Floats) error {
		return s.dev.Download(sessions[i].logitsOnHost, logits)
	})
}
