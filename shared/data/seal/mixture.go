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

// validateShare reports a share without a valid pattern or weight.
func validateShare(s dataset.Share) error {
	if _, err := glob.Match(s.Sources, ""); err != nil || s.Sources == "" || !(s.Weight > 0 && s.Weight < 1e9) {
		return fmt.Errorf("share %q with weight %v", s.Sources, s.Weight)
	}
	return nil
}

// mixture leaves out documents until the sources have their shares of the tokens. No document is repeated. All
// documents of one part stay; the other parts lose the documents that come last in an order which depends on the seed.
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
		// The last document of a part is taken if it brings the part closer to its target.
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
			ok, _ := glob.Match(share.Sources, source.Name) // Options.Validate has checked the pattern
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
