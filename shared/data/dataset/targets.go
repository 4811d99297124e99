package dataset

import "slices"

// AppendTargets appends the T tokens of sequence i to tokens, and their targets to targets: the token that follows, or
// -1 if nothing is to be predicted. A model takes both.
func (s *Split) AppendTargets(i int, tokens, targets []int32) (_, _ []int32, err error) {
	t := s.manifest.SequenceLength
	at := len(tokens)
	tokens = slices.Grow(tokens, t+1) // the last target is read behind the last input
	all, valid, err := s.Sequence(i, tokens[at:])
	if err != nil {
		return nil, nil, err
	}
	from, to := 0, valid
	if c := s.manifest.Counted; len(c) == 2 {
		from, to = c[0], min(c[1], valid)
	}
	first := len(targets)
	targets = append(targets, all[1:]...)
	for k := range all[1:] {
		if k < from || k >= to {
			targets[first+k] = -1
		}
	}
	return append(tokens[:at], all[:t]...), targets, nil
}
