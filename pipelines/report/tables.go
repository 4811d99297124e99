package main

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"bitnet1/shared/measure/history"
	"bitnet1/shared/run/overview"
	"bitnet1/shared/run/results"
)

// of ends a table's title with its run, where there are several.
func of(runs []*history.Run, r *history.Run) string {
	if len(runs) == 1 {
		return ""
	}
	return " of " + r.ID
}

// number writes a number with six digits, nothing for one that is not known.
func number(v float64) string {
	if math.IsNaN(v) {
		return ""
	}
	return strconv.FormatFloat(v, 'g', 6, 64)
}

// resultTables are the tables that `pipeline runs` prints, and the last rows of several runs beside each other.
func resultTables(runs []*history.Run) (all []table) {
	if len(runs) > 1 {
		all = append(all, lastRows(runs))
	}
	for _, r := range runs {
		for _, t := range r.Tables {
			if len(t.Rows)+len(t.Others) > 0 {
				shown := resultTable(t, strings.TrimSuffix(sentence(t.Row.Name+"s"), ".")+of(runs, r))
				if len(runs) > 1 { // the first table says what its columns are
					shown.Legend = nil
				}
				all = append(all, shown)
			}
		}
	}
	return all
}

func resultTable(t *results.Table, title string) table {
	columns := t.TextColumns()
	shown := table{Title: title}
	for i, c := range columns {
		if c.Left || i == 0 {
			shown.Left = i + 1
		}
		shown.Head = append(shown.Head, c.Heading)
		for k, cell := range c.Cells {
			if i == 0 {
				shown.Rows = append(shown.Rows, nil)
			}
			shown.Rows[k] = append(shown.Rows[k], cell)
		}
	}
	shown.Legend = legend(append([]results.Column{t.Row}, t.Columns...))
	return shown
}

func legend(columns []results.Column) (all []meaning) {
	for _, c := range columns {
		if m := c.Meaning(); m != "" {
			all = append(all, meaning{c.Name, m})
		}
	}
	return all
}

// lastRows are the last checkpoints of runs beside each other.
func lastRows(runs []*history.Run) table {
	t := table{Title: "Last checkpoint of each run", Head: []string{"run"}, Left: 1}
	var columns []results.Column
	for _, r := range runs {
		if len(r.Tables) == 0 {
			continue
		}
		for _, c := range append([]results.Column{r.Tables[0].Row}, r.Tables[0].Columns...) {
			if !slices.ContainsFunc(columns, func(o results.Column) bool { return o.Key == c.Key }) {
				columns = append(columns, c)
				t.Head = append(t.Head, c.Name)
			}
		}
	}
	for _, r := range runs {
		row := []string{r.ID}
		for _, c := range columns {
			text := "-"
			if len(r.Tables) > 0 && r.Tables[0].Last() != nil {
				last := r.Tables[0].Last()
				if cell, ok := last.Cells[c.Key]; ok {
					text = cell.Text
				} else if c.Key == r.Tables[0].Row.Key {
					text = last.Name
				}
			}
			row = append(row, text)
		}
		t.Rows = append(t.Rows, row)
	}
	t.Legend = legend(columns)
	return t
}

// headTables are the probes' numbers: of the whole model, and of each head.
func headTables(runs []*history.Run) (all []table) {
	for _, r := range runs {
		if len(r.Probes) == 0 {
			continue
		}
		whole := table{Title: "Measures of the whole model" + of(runs, r), Head: []string{"measure"}, Left: 1, Fold: true}
		heads := table{Title: "Measures of each head" + of(runs, r), Head: []string{"step", "layer", "head"}, Fold: true}
		keys, perHead := map[string]bool{}, map[string]bool{}
		for _, p := range r.Probes {
			whole.Head = append(whole.Head, fmt.Sprintf("step %d", p.Step))
			for key := range p.Measures {
				keys[key] = true
			}
			for _, h := range p.Heads {
				for key := range h.Measures {
					perHead[key] = true
				}
			}
		}
		for _, key := range slices.Sorted(maps.Keys(keys)) {
			row := []string{key}
			for _, p := range r.Probes {
				row = append(row, numberOf(p.Measures, key))
			}
			whole.Rows = append(whole.Rows, row)
		}
		names := slices.Sorted(maps.Keys(perHead))
		heads.Head = append(heads.Head, names...)
		for _, p := range r.Probes {
			for _, h := range p.Heads {
				row := []string{strconv.Itoa(p.Step), strconv.Itoa(h.Layer), strconv.Itoa(h.Head)}
				for _, key := range names {
					row = append(row, numberOf(h.Measures, key))
				}
				heads.Rows = append(heads.Rows, row)
			}
		}
		all = append(all, whole, heads)
	}
	return all
}

func numberOf(measures map[string]float64, key string) string {
	if v, ok := measures[key]; ok {
		return number(v)
	}
	return ""
}

func timeTables(runs []*history.Run) (all []table) {
	for _, r := range runs {
		t := table{Title: "Operations" + of(runs, r), Left: 2,
			Head: []string{"stage", "operation", "seconds by the clock", "processor seconds", "text, MB"}}
		for _, o := range operations(r) {
			text := ""
			if o.bytes > 0 {
				text = number(float64(o.bytes) / 1e6)
			}
			t.Rows = append(t.Rows, []string{o.stage, o.step, number(o.wall), number(o.cpu), text})
		}
		if len(t.Rows) > 0 {
			all = append(all, t)
		}
	}
	return all
}

// parameterTables are what defines the runs; of several runs, first that in which they differ.
func parameterTables(runs []*history.Run) (all []table) {
	given := make([]map[string]string, len(runs))
	keys, head := map[string]bool{}, []string{"parameter"}
	for i, r := range runs {
		given[i] = parameters(r)
		head = append(head, r.ID)
		for key := range given[i] {
			keys[key] = true
		}
	}
	rows := func(keys []string) (rows [][]string) {
		for _, key := range keys {
			row := []string{key}
			for i := range runs {
				row = append(row, cmp.Or(given[i][key], "-"))
			}
			rows = append(rows, row)
		}
		return rows
	}
	if len(runs) > 1 {
		if differing := overview.Differing(given); len(differing) > 0 {
			all = append(all, table{Title: "Parameters in which the runs differ", Head: head, Left: len(head),
				Rows: rows(differing)})
		}
	}
	if len(keys) > 0 {
		all = append(all, table{Title: "All parameters", Head: head, Left: len(head), Fold: true,
			Rows: rows(slices.Sorted(maps.Keys(keys)))})
	}
	return all
}

// parameters are what was given, and the defaults of the training and the model as the checkpoint has them.
func parameters(r *history.Run) map[string]string {
	all := map[string]string{}
	for key, v := range r.Training.Recipe {
		all["train."+key] = overview.Text(v)
	}
	for key, v := range r.Training.Model {
		all["model."+key] = overview.Text(v)
	}
	maps.Copy(all, r.Parameters)
	return all
}

func dataTables(runs []*history.Run) (all []table) {
	for _, r := range runs {
		t := table{Title: "Sources" + of(runs, r), Left: 1, Head: []string{"source", "bytes of the file", "rows", "documents",
			"tokens", "bytes of text", "digest"}}
		for _, s := range r.Data.Sources {
			row := []string{s.Name, thousands(s.Size), "", "", "", ""}
			if w := s.Tokens; w != nil {
				row = []string{s.Name, thousands(s.Size), thousands(w.Rows), thousands(w.Documents), thousands(w.Tokens),
					thousands(w.Bytes)}
			}
			t.Rows = append(t.Rows, append(row, shortened(s.Digest)))
		}
		if len(t.Rows) > 0 {
			all = append(all, t)
		}
		m := r.Data.Manifest
		if m == nil {
			continue
		}
		d := table{Title: "Dataset" + of(runs, r), Left: 1, Head: []string{"split", "documents", "sequences", "tokens",
			"bytes of text", "shards"}}
		for _, name := range []string{"training", "validation"} {
			s := m.Splits.Train
			if name == "validation" {
				s = m.Splits.Validation
			}
			d.Rows = append(d.Rows, []string{name, thousands(s.Documents), thousands(s.Sequences), thousands(s.Tokens),
				thousands(s.Bytes), strconv.Itoa(len(s.Shards))})
		}
		d.Legend = []meaning{{"manifest", r.Data.Digest},
			{"tokenizer", fmt.Sprintf("%s, %s tokens", m.Tokenizer.Name, thousands(int64(m.Tokenizer.Vocab)))},
			{"sequences", fmt.Sprintf("of %d tokens", m.SequenceLength)}}
		all = append(all, d)
	}
	return all
}

// shortened are the first digits of a digest.
func shortened(digest string) string { return digest[:min(len(digest), 12)] }

func machineTables(runs []*history.Run) (all []table) {
	t := table{Title: "What the stages computed on", Left: 3, Head: []string{"run", "stage", "device"}}
	for _, r := range runs {
		for _, stage := range slices.Sorted(maps.Keys(r.Machine)) {
			t.Rows = append(t.Rows, []string{r.ID, stage, r.Machine[stage]})
		}
	}
	if len(t.Rows) > 0 {
		all = append(all, t)
	}
	return all
}

// mostLines is how many logged steps of a run the page has.
const mostLines = 1000

func logTables(runs []*history.Run) (all []table) {
	for _, r := range runs {
		steps := r.Training.Steps
		every := max(1, (len(steps)+mostLines-1)/mostLines)
		t := table{Title: fmt.Sprintf("%d logged steps%s", len(steps), of(runs, r)), Fold: true}
		t.Head = []string{"step", "tokens", "seconds", "loss, bits per token", "learning rate", "gamma", "gradient norm",
			"flipped", "tokens of a sequence"}
		if every > 1 {
			t.Title = fmt.Sprintf("Every %d-th of %s", every, t.Title)
		}
		for i, s := range steps {
			if i%every != 0 && i != len(steps)-1 {
				continue
			}
			t.Rows = append(t.Rows, []string{strconv.Itoa(s.Step.Step), thousands(s.Tokens), number(s.Elapsed),
				number(s.TrainBPC), number(s.LearningRate), number(s.Gamma), number(s.GradientNorm), orNothing(s.Flipped),
				orNothing(s.Sequence)})
		}
		if len(t.Rows) > 0 {
			all = append(all, t)
		}
	}
	return all
}

func orNothing(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}

func missingTables(runs []*history.Run) (all []table) {
	t := table{Title: "These parts of the runs could not be read", Left: 2, Head: []string{"run", "what"}}
	for _, r := range runs {
		for _, what := range r.Missing {
			for line := range strings.Lines(what) {
				t.Rows = append(t.Rows, []string{r.ID, strings.TrimSpace(line)})
			}
		}
	}
	if len(t.Rows) > 0 {
		all = append(all, t)
	}
	return all
}
