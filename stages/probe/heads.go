package main

import (
	"context"
	"math/bits"

	"bitnet1/shared/measure"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/stage"
)

// headsFormat is the version of headsReport.
const headsFormat = "bitnet1.heads.v1"

// headsReport is the content of *_heads.json: what each head does, by the measures of others. Weights are those of the
// survivors: a pointer's one key has weight 1, ranks have theirs, and of softmax only the first key is known, which
// then has weight 1. The baselines random_… are expected values of one key that is drawn evenly.
type headsReport struct {
	Format string `json:"format"`
	about
	Attention    string  `json:"attention"`     // kind of attention, in configurations
	Gamma        float64 `json:"gamma"`         // ratio of the weights of successive ranks; 0 where a query reads one key
	Pointers     int64   `json:"pointers"`      // of each head, that its histogram counts
	DistanceBins []int   `json:"distance_bins"` // smallest distance of each bin, in tokens

	patternMeans // of random keys, under names that begin with random_
	// and of what Olsson et al. measure
	RandomPrefix  float64 `json:"random_prefix_matching"`
	RandomCopying float64 `json:"random_copying"`

	Heads []headScores `json:"heads"`
}

// headScores are the measures of one head.
type headScores struct {
	Layer      int     `json:"layer"`
	Head       int     `json:"head"`
	Specialist bool    `json:"specialist"` // as the report on pointers counts them
	Distances  []int64 `json:"distances"`  // pointers to first survivors, by bins of distances
	patterns
	detected
	olsson
}

// writeHeads makes the report on heads. The pointers of the health report and of the induction probe are counted
// already.
func writeHeads(ctx context.Context, job *stage.Job[Params], s *measure.Subject, about about, counts *tally,
	scores *patternScores) (*artifact.Ref, error) {
	c := s.Model.Config()
	r := headsReport{Format: headsFormat, about: about, Attention: c.Attention, patternMeans: scores.random(),
		DistanceBins: distanceBins(s.Seq)}
	if c.AttentionRule().Gamma {
		r.Gamma = s.Settings.Gamma
	}
	short, err := probeCopying(ctx, job, s)
	if err != nil {
		return nil, err
	}
	r.RandomPrefix, r.RandomCopying = short.random()
	r.Pointers = counts.positions
	for i := range c.Layers * c.Heads {
		h := headScores{Layer: i / c.Heads, Head: i % c.Heads, Specialist: isSpecialist(counts.above[i]),
			Distances: binned(counts.distances[i]), olsson: short.of(i)}
		h.patterns, h.detected = scores.of(i)
		r.Heads = append(r.Heads, h)
	}
	ref, err := job.WriteJSON("probe", s.Name("heads"), r)
	return &ref, err
}

// distanceBins are the smallest distances of bins for sequences of seq tokens: 0, 1, 2, 4, 8, …
func distanceBins(seq int) []int {
	bins := []int{0}
	for d := 1; d < seq; d *= 2 {
		bins = append(bins, d)
	}
	return bins
}

// binned adds up a histogram over distances in those bins.
func binned(distances []int64) []int64 {
	bins := make([]int64, len(distanceBins(len(distances))))
	for d, n := range distances {
		bins[bits.Len(uint(d))] += n
	}
	return bins
}
