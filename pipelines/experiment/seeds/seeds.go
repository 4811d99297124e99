// Package seeds says what repetitions of a run with other seeds tell: the mean with its standard error, the median, and
// whether two means differ by more than chance explains. It knows nothing of runs.
package seeds

import (
	"maps"
	"math"
	"slices"

	"gonum.org/v1/gonum/stat"
	"gonum.org/v1/gonum/stat/distuv"
)

// Sample is what was measured with each seed.
type Sample map[uint64]float64

// values are in the order of the seeds, so that their sums are the same every time.
func (s Sample) values() []float64 {
	all := make([]float64, 0, len(s))
	for _, seed := range slices.Sorted(maps.Keys(s)) {
		all = append(all, s[seed])
	}
	return all
}

// Mean is NaN where nothing was measured.
func (s Sample) Mean() float64 { return stat.Mean(s.values(), nil) }

// StandardError is that of the mean: the sample standard deviation over the root of the number of seeds. It is NaN for
// fewer than two seeds, which say nothing of the spread.
func (s Sample) StandardError() float64 {
	if len(s) < 2 {
		return math.NaN()
	}
	return stat.StdErr(stat.StdDev(s.values(), nil), float64(len(s)))
}

// Median is the middle value, or the mean of the two in the middle. It is NaN where nothing was measured.
func (s Sample) Median() float64 {
	all := slices.Sorted(slices.Values(s.values()))
	if len(all) == 0 {
		return math.NaN()
	}
	return (all[(len(all)-1)/2] + all[len(all)/2]) / 2
}

// Difference is by how much one mean is above another.
type Difference struct {
	Mean          float64
	StandardError float64 // NaN where a sample has fewer than two seeds
	Significant   bool    // at the level of confidence
}

// confidence of the two-sided tests: of 20 pairs that do not differ, one is called significant.
const confidence = 0.95

// Compare tells how s differs from other. With the same seeds the test is Student's t of the differences seed by seed,
// because what a seed does to both (the order of the data, the initial parameters) cancels in them. With other seeds it
// is Welch's (B. L. Welch, Biometrika 34, 1947), which does not take the two spreads to be equal.
func (s Sample) Compare(other Sample) Difference {
	d := Difference{Mean: s.Mean() - other.Mean(), StandardError: math.NaN()}
	if len(s) < 2 || len(other) < 2 {
		return d
	}
	var degrees float64
	if s.sameSeeds(other) {
		differences := Sample{}
		for seed, value := range s {
			differences[seed] = value - other[seed]
		}
		d.StandardError, degrees = differences.StandardError(), float64(len(s)-1)
	} else {
		a, b := square(s.StandardError()), square(other.StandardError())
		d.StandardError = math.Sqrt(a + b)
		degrees = square(a+b) / (square(a)/float64(len(s)-1) + square(b)/float64(len(other)-1))
	}
	if d.StandardError == 0 { // of samples without any spread
		d.Significant = d.Mean != 0
		return d
	}
	t := distuv.StudentsT{Sigma: 1, Nu: degrees}
	d.Significant = math.Abs(d.Mean) > t.Quantile((1+confidence)/2)*d.StandardError
	return d
}

func (s Sample) sameSeeds(other Sample) bool {
	return maps.EqualFunc(s, other, func(float64, float64) bool { return true })
}

func square(x float64) float64 { return x * x }
