package dataset

// AppendTargets appends the T tokens of sequence i to tokens and what follows each of them to targets, -1 where nothing
// is to be predicted. Both are what a model's passes take.
func (s *Split) AppendTargets(i int, tokens, targets []int32) (_, _ []int32, err error) {
	t := s.manifest.SequenceLength
	at := len(tokens)
	all, valid, err := s.Sequence(i, tokens[at:])
	if err != nil {
		return nil, nil, err
	}
	from := len(targets)
	targets = append(targets, all[1:]...)
	for k := from + valid; k < len(targets); k++ {
		targets[k] = -1
	}
	return append(tokens[:at], all[:t]...), targets, nil
}
