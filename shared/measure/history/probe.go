package history

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"

	"bitnet1/shared/run/artifact"
)

// add adds the numbers of a report. Measures that a later version of the stage adds are numbers like all others.
func (p *Probe) add(store *artifact.Store, r report) error {
	path, err := store.Path(r.Ref)
	if err != nil {
		return fmt.Errorf("what the probe of step %d found: %w", p.Step, err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var list struct {
		Heads []map[string]any `json:"heads"`
	}
	var fields map[string]any
	if err := json.Unmarshal(text, &fields); err != nil {
		return fmt.Errorf("%s of step %d: %w", r.Name, p.Step, err)
	}
	if err := json.Unmarshal(text, &list); err != nil {
		return fmt.Errorf("%s of step %d: %w", r.Name, p.Step, err)
	}
	addNumbers(p.Measures, r.key, fields, "step")
	for _, of := range list.Heads {
		layer, head := of["layer"], of["head"]
		l, isNumber := layer.(float64)
		h, alsoNumber := head.(float64)
		if !isNumber || !alsoNumber {
			return fmt.Errorf("%s of step %d: a head without layer and head", r.Name, p.Step)
		}
		known := p.head(int(l), int(h))
		addNumbers(known.Measures, r.key, of, "layer", "head")
		if counts, ok := of["distances"].([]any); ok {
			known.Distances = known.Distances[:0]
			for _, n := range counts {
				number, _ := n.(float64)
				known.Distances = append(known.Distances, number)
			}
		}
	}
	return nil
}

func (p *Probe) head(layer, head int) *Head {
	i := slices.IndexFunc(p.Heads, func(h Head) bool { return h.Layer == layer && h.Head == head })
	if i < 0 {
		i = len(p.Heads)
		p.Heads = append(p.Heads, Head{Layer: layer, Head: head, Measures: map[string]float64{}})
	}
	return &p.Heads[i]
}

func addNumbers(to map[string]float64, report string, from map[string]any, except ...string) {
	for key, v := range from {
		n, ok := v.(float64)
		if !ok || slices.Contains(except, key) {
			continue
		}
		if _, taken := to[key]; taken {
			key = report + "." + key
		}
		to[key] = n
	}
}

// Map is a measure over layers and heads; a head without the measure has NaN. It is nil where no head has it.
func (p Probe) Map(measure string) (values [][]float64) {
	found, cells := false, 0
	for _, h := range p.Heads {
		v, ok := h.Measures[measure]
		found = found || ok
		if h.Layer < 0 || h.Head < 0 || h.Layer >= maxIndex || h.Head >= maxIndex || !ok {
			continue
		}
		if cells += h.Head + 1; cells > maxCells {
			return nil
		}
		for len(values) <= h.Layer {
			values = append(values, nil)
		}
		for len(values[h.Layer]) <= h.Head {
			values[h.Layer] = append(values[h.Layer], math.NaN())
		}
		values[h.Layer][h.Head] = v
	}
	if !found {
		return nil
	}
	return values
}

// Bounds of layers and heads, and of the cells that a map may have: a damaged report may claim any.
const maxIndex, maxCells = 1 << 12, 1 << 20
