package model

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// Frozen says for each of c.Parameters whether patterns freeze it. A pattern is a glob (path.Match) of parameter names.
// A pattern that begins with ! lets the parameters that it matches train again. The last pattern that matches counts.
// Layers may also be counted from the end: blocks.-1.up.weight is the last layer's. A pattern without a match is an
// error.
func (c Config) Frozen(patterns []string) ([]bool, error) {
	list := c.Parameters()
	frozen := make([]bool, len(list))
	for _, pattern := range patterns {
		glob, thaws := strings.CutPrefix(pattern, "!")
		found := false
		for i, p := range list {
			matches, err := path.Match(glob, p.Name)
			if err != nil {
				return nil, fmt.Errorf("freeze pattern %q: %w", pattern, err)
			}
			if backwards, _ := path.Match(glob, c.fromEnd(p.Name)); matches || backwards {
				frozen[i], found = !thaws, true
			}
		}
		if !found {
			return nil, fmt.Errorf("freeze pattern %q matches no parameter: "+
				"names are such as codebook.weight, norm_out and blocks.%d.attn.q.alpha", pattern, c.Layers-1)
		}
	}
	if !slices.Contains(frozen, false) {
		return nil, fmt.Errorf("freeze patterns %q leave nothing to train", patterns)
	}
	return frozen, nil
}

// fromEnd is a parameter's name with its layer counted from the end.
func (c Config) fromEnd(name string) string {
	var layer int
	if _, err := fmt.Sscanf(name, "blocks.%d.", &layer); err != nil {
		return name
	}
	_, rest, _ := strings.Cut(strings.TrimPrefix(name, "blocks."), ".")
	return fmt.Sprintf("blocks.%d.%s", layer-c.Layers, rest)
}

// span is a part of the store's arrays.
type span struct{ from, to int }

// trained lists the spans of from..to that are not frozen, as few and as long as possible.
func (s *store) trained(from, to int) []span {
	order := make([]int, len(s.list))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return s.at[a] - s.at[b] })
	var spans []span
	for _, i := range order {
		begin, end := max(s.at[i], from), min(s.at[i]+s.list[i].Size(), to)
		switch last := len(spans) - 1; {
		case begin >= end || s.frozen[i]:
		case last >= 0 && spans[last].to == begin:
			spans[last].to = end
		default:
			spans = append(spans, span{begin, end})
		}
	}
	return spans
}

// lowest is the lowest layer whose gradients are needed for anything that trains; -1 where the embedding trains.
func (m *Model) lowest() int {
	if m.store.trains("codebook.weight", 1) {
		return -1
	}
	for l := range m.layers {
		for i, p := range m.store.list {
			if strings.HasPrefix(p.Name, fmt.Sprintf("blocks.%d.", l)) && !m.store.frozen[i] {
				return l
			}
		}
	}
	return len(m.layers)
}
