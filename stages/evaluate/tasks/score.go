package tasks

import (
	"math"
	"unicode/utf8"
)

// Likelihood is the answer to a request.
type Likelihood struct {
	Nats   float64 // log-likelihood of the continuation
	Greedy bool    // each of its tokens is the most probable one; only examples of a single request need it
	Tokens int     // of the continuation
}

// Result is what a model makes of a task.
type Result struct {
	Task     string  `json:"task"`
	Examples int     `json:"examples"`
	Scores   []Score `json:"scores"`
	Sets     []Set   `json:"sets,omitempty"` // where there are several
}

// Set is the result of one of a task's sets.
type Set struct {
	Set      string  `json:"set"`
	Examples int     `json:"examples"`
	Scores   []Score `json:"scores"`
}

// Score is the value of a metric. Of several sets it is their mean, each set counting the same.
type Score struct {
	Metric string   `json:"metric"`
	Value  float64  `json:"value"`
	Error  *float64 `json:"error"`  // standard error over examples; nil for a single one
	Chance float64  `json:"chance"` // the value of a model to which all answers, or all tokens, are equally probable
}

// Score scores the likelihoods of t's requests, those of each example in order, of a model of vocab tokens.
func (t *Task) Score(likelihoods [][]Likelihood, vocab int) Result {
	r := Result{Task: t.Name, Examples: len(t.Examples)}
	for from := 0; from < len(t.Examples); {
		to := from + 1
		for to < len(t.Examples) && t.Examples[to].Set == t.Examples[from].Set {
			to++
		}
		set := Set{Set: t.Examples[from].Set, Examples: to - from}
		for _, metric := range t.Metrics {
			set.Scores = append(set.Scores, score(metric, t.Examples[from:to], likelihoods[from:to], vocab))
		}
		r.Sets = append(r.Sets, set)
		from = to
	}
	if len(r.Sets) == 1 {
		r.Scores, r.Sets = r.Sets[0].Scores, nil
		return r
	}
	for i := range t.Metrics {
		r.Scores = append(r.Scores, meanOfSets(r.Sets, i))
	}
	return r
}

// score is the value of a metric over the examples of a set.
func score(metric string, examples []Example, likelihoods [][]Likelihood, vocab int) Score {
	values, chances := make([]float64, len(examples)), make([]float64, len(examples))
	for i, e := range examples {
		values[i], chances[i] = outcome(metric, e, likelihoods[i], float64(vocab))
	}
	s := Score{Metric: metric, Value: mean(values), Error: standardError(values), Chance: mean(chances)}
	if metric == Perplexity { // outcomes are log-likelihoods; the error is that of exp(-x), to first order
		s.Value, s.Chance = math.Exp(-s.Value), math.Exp(-s.Chance)
		if s.Error != nil {
			*s.Error *= s.Value
		}
	}
	return s
}

// outcome is what an example contributes to a metric, and what it does for a model that knows nothing.
func outcome(metric string, e Example, answers []Likelihood, vocab float64) (value, chance float64) {
	single := len(e.Choices) == 0
	switch {
	case metric == Perplexity:
		return answers[0].Nats, -float64(answers[0].Tokens) * math.Log(vocab)
	case single:
		return truth(answers[0].Greedy), math.Pow(vocab, -float64(answers[0].Tokens))
	}
	best, highest := 0, math.Inf(-1)
	for i, a := range answers { // of equal answers the first counts
		if v := a.Nats / size(metric, e.Choices[i]); v > highest {
			best, highest = i, v
		}
	}
	return truth(best == e.Gold), 1 / float64(len(answers))
}

// size is what the log-likelihood of an answer is divided by.
func size(metric, answer string) float64 {
	switch metric {
	case Normalized:
		return float64(utf8.RuneCountInString(answer))
	case ByBytes:
		return float64(len(answer))
	}
	return 1
}

func truth(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

func mean(x []float64) float64 {
	sum := 0.0
	for _, v := range x {
		sum += v
	}
	return sum / float64(len(x))
}

// standardError is that of the mean of x; nil for a single value.
func standardError(x []float64) *float64 {
	if len(x) < 2 {
		return nil
	}
	m, squares := mean(x), 0.0
	for _, v := range x {
		squares += (v - m) * (v - m)
	}
	n := float64(len(x))
	e := math.Sqrt(squares/(n-1)) / math.Sqrt(n)
	return &e
}

// meanOfSets is the mean of the scores that sets have of metric number i. The sets are independent samples.
func meanOfSets(sets []Set, i int) Score {
	s := Score{Metric: sets[0].Scores[i].Metric}
	var values, chances []float64
	squares, known := 0.0, true
	for _, set := range sets {
		score := set.Scores[i]
		values, chances = append(values, score.Value), append(chances, score.Chance)
		if known = known && score.Error != nil; known {
			squares += *score.Error * *score.Error
		}
	}
	s.Value, s.Chance = mean(values), mean(chances)
	if known {
		e := math.Sqrt(squares) / float64(len(sets))
		s.Error = &e
	}
	return s
}
