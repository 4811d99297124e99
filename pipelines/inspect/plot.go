package main

import (
	"fmt"
	"io"
	"math"
	"math/bits"
	"os"
	"path/filepath"
	"slices"

	"bitnet1/shared/data/dataset"
	"bitnet1/shared/plot"
)

// counts is what the histograms are made of.
type counts struct {
	lengths [40]int // documents of 2^i to 2^(i+1)-1 tokens, their end of text included
	tokens  []int   // by id
}

// count reads all sequences of a split. A document's pieces follow each other, so that it ends where another begins.
func count(m *dataset.Manifest, s *dataset.Split) (*counts, error) {
	c := &counts{tokens: make([]int, m.Tokenizer.Vocab)}
	type document struct {
		source int
		row    int64
	}
	var current document
	var length int64
	finish := func() {
		if length > 0 {
			c.lengths[min(bits.Len64(uint64(length))-1, len(c.lengths)-1)]++
		}
	}
	var buffer []int32
	for i := range s.Len() {
		tokens, valid, err := s.Sequence(i, buffer)
		if err != nil {
			return nil, err
		}
		buffer = tokens
		for _, id := range tokens[1 : valid+1] {
			c.tokens[id]++
		}
		ranges, err := s.Ranges(i)
		if err != nil {
			return nil, err
		}
		for _, r := range ranges {
			if d := (document{r.Source, r.Row}); d != current || length == 0 {
				finish()
				current, length = d, 0
			}
			length = r.Offset + int64(r.Length)
		}
	}
	finish()
	return c, nil
}

// plotAll writes the histograms of a split into a directory.
func plotAll(out io.Writer, m *dataset.Manifest, s *dataset.Split, dir string) error {
	c, err := count(m, s)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name, f := range map[string]plot.Figure{"lengths.png": c.plotLengths(), "tokens.png": c.plotTokens()} {
		path := filepath.Join(dir, name)
		if err := plot.Write(path, f, name); err != nil {
			return err
		}
		fmt.Fprintln(out, path)
	}
	return nil
}

// plotLengths draws how many documents have which length.
func (c *counts) plotLengths() plot.Figure {
	var f plot.Bars
	first := max(slices.IndexFunc(c.lengths[:], func(n int) bool { return n > 0 }), 0)
	last := len(c.lengths) - 1
	for last > first && c.lengths[last] == 0 {
		last--
	}
	part := plot.Part{}
	panel := plot.Panel{X: plot.Axis{Label: "documents"}}
	for i := first; i <= last; i++ {
		part.Values = append(part.Values, float64(c.lengths[i]))
		panel.Texts = append(panel.Texts, fmt.Sprint(c.lengths[i]))
		f.Labels = append(f.Labels, fmt.Sprintf("%d to %d tokens", 1<<i, 1<<(i+1)-1))
	}
	panel.Parts = []plot.Part{part}
	f.Panels = []plot.Panel{panel}
	return f
}

// plotTokens draws how often the most frequent token comes, the next, and so on, both axes in powers of ten.
func (c *counts) plotTokens() plot.Figure {
	sorted := slices.Clone(c.tokens)
	slices.SortFunc(sorted, func(a, b int) int { return b - a })
	var points []plot.Point
	for i, n := range sorted {
		if n == 0 {
			break
		}
		points = append(points, plot.Point{X: math.Log10(float64(i + 1)), Y: math.Log10(float64(n))})
	}
	return plot.Lines{X: plot.Axis{Label: "rank of the token, log10"}, Y: plot.Axis{Label: "occurrences, log10"},
		Series: []plot.Series{{Line: points}}}
}
