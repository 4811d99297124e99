package seal

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"bitnet1/shared/data/dataset"
	"bitnet1/shared/data/glob"
)

// ParseShare reads a part of a mixture as people write it: "fineweb/*=80".
func ParseShare(s string) (dataset.Share, error) {
	i := strings.LastIndexByte(s, '=')
	if i < 0 {
		return dataset.Share{}, fmt.Errorf("share %q: write a pattern of sources, = and a weight, e.g. fineweb/*=80", s)
	}
	weight, err := strconv.ParseFloat(strings.TrimSpace(s[i+1:]), 64)
	share := dataset.Share{Sources: strings.TrimSpace(s[:i]), Weight: weight}
	if err != nil || validateShare(share) != nil {
		return dataset.Share{},
			fmt.Errorf("share %q: write a pattern of sources, = and a positive weight, e.g. fineweb/*=80", s)
	}
	return share, nil
}

// validateShare reports a share that is of no part of a mixture.
func validateShare(s dataset.Share) error {
	if _, err := glob.Match(s.Sources, ""); err != nil || s.Sources == "" || !(s.Weight > 0 && s.Weight < 1e9) {
		return fmt.Errorf("share %q with weight %v", s.Sources, s.Weight)
	}
	return nil
}

// mixture brings the shares of the sources' tokens to the wanted weights. Nothing is repeated: of every part but one
// documents are left out, those whose turn comes last in an order that the seed decides.
func (s *sealer) mixture() error {
	if len(s.options.Mixture) == 0 {
		return nil
	}
	s.shares = slices.Clone(s.options.Mixture)
	part, err := s.assign()
	if err != nil {
		return err
	}
	available, tokens := make([]float64, len(s.shares)), make([]int64, len(s.entries))
	for i, e := range s.entries {
		_, t, err := s.batches[e.batch].Document(int(e.document))
		if err != nil {
			return err
		}
		tokens[i] = int64(t.Len())
		available[part[e.source]] += float64(tokens[i])
	}
	total, sum := 0.0, 0.0
	for _, share := range s.shares {
		sum += share.Weight
	}
	for k, share := range s.shares {
		if possible := available[k] / (share.Weight / sum); k == 0 || possible < total {
			total = possible
		}
	}
	if total == 0 {
		return NoDatasetError{fmt.Sprintf("a part of the mixture has no tokens: %+v", s.shares)}
	}
	turn := dataset.NewPermutation(len(s.entries), dataset.SplitMix64(s.options.Seed^domainMixture))
	keep := make([]bool, len(s.entries))
	for k := range s.entries {
		i := turn.At(k)
		share := &s.shares[part[s.entries[i].source]]
		// A document that would go beyond the target is taken if that brings the part closer to it.
		target := total * share.Weight / sum
		if keep[i] = float64(share.Tokens)+float64(tokens[i])/2 <= target; !keep[i] {
			share.Left++
			continue
		}
		share.Documents++
		share.Tokens += tokens[i]
	}
	return s.retain(keep, tokens)
}

// assign finds the part of the mixture that each source belongs to: the first whose pattern matches.
func (s *sealer) assign() ([]int, error) {
	part := make([]int, len(s.sources))
	for i, source := range s.sources {
		part[i] = slices.IndexFunc(s.shares, func(share dataset.Share) bool {
			ok, _ := glob.Match(share.Sources, source.Name) // checked when the options were
			return ok
		})
		if part[i] < 0 {
			return nil, NoDatasetError{fmt.Sprintf("source %s is in no part of the mixture: add a pattern for it",
				source.Name)}
		}
	}
	for k, share := range s.shares {
		if !slices.Contains(part, k) {
			return nil, NoDatasetError{fmt.Sprintf("no source matches %s in the mixture, or none that has documents",
				share.Sources)}
		}
	}
	return part, nil
}

// retain keeps some of the entries.
func (s *sealer) retain(keep []bool, tokens []int64) error {
	var kept []entry
	for i, e := range s.entries {
		if keep[i] {
			kept = append(kept, e)
			continue
		}
		d, _, err := s.batches[e.batch].Document(int(e.document))
		if err != nil {
			return err
		}
		drop(&s.sources[e.source], d.Bytes, tokens[i])
	}
	if s.entries = kept; len(kept) == 0 {
		return NoDatasetError{fmt.Sprintf("the mixture leaves no documents: %+v", s.shares)}
	}
	return nil
}
