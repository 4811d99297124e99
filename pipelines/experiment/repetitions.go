package main

import (
	"slices"
	"strconv"
	"strings"

	"bitnet1/pipelines/experiment/seeds"
)

// seeded reports whether every cell is run with several seeds.
func (e *experiment) seeded() bool { return e.axes[len(e.axes)-1].key == seedKey }

// summary is the table for people: of cells that are repeated with other seeds, it has the means.
func (e *experiment) summary() (table, error) {
	if !e.seeded() {
		return e.table(), nil
	}
	o := overSeeds{title: e.title(), baseline: e.baseline, labels: e.rowLabels(), columns: []column{seedsColumn}}
	columns := e.columns()
	repetitions := len(e.axes[len(e.axes)-1].values)
	for _, c := range e.cells {
		if c.results != nil {
			_, main := c.results.Best()
			o.mainKey = main.Key
		}
	}
	for repeated := range slices.Chunk(e.cells, repetitions) {
		o.rows = append(o.rows, rowOf(repeated, columns))
	}
	if i := slices.IndexFunc(o.rows, func(r seedRow) bool { return o.named(r, e.baseline) }); i < 0 {
		o.baseline = "" // its cells are still to be run
	}
	o.columns = append(o.columns, columns...)
	if main := o.main().Key; repetitions > 2 && main != "" { // of two, the median is the mean
		i := slices.IndexFunc(o.columns, func(c column) bool { return c.Key == main })
		o.columns = slices.Insert(o.columns, i+1, medianColumn)
	}
	return o.table()
}

// rowLabels are the columns that name a row of the summary.
func (e *experiment) rowLabels() (labels []column) {
	for _, a := range e.axes[:len(e.axes)-1] {
		labels = append(labels, column{Name: a.name()})
	}
	return labels
}

// checkBaseline makes sure that --baseline is one row, before any is run.
func (e *experiment) checkBaseline() error {
	if e.baseline == "" {
		return nil
	}
	o := overSeeds{labels: e.rowLabels()}
	for _, values := range cells(e.axes[:len(e.axes)-1]) {
		o.rows = append(o.rows, seedRow{labels: values})
	}
	_, err := o.find(e.baseline)
	return err
}

// rowOf is what cells that differ in their seed alone have found.
func rowOf(repeated []cell, columns []column) seedRow {
	last := len(repeated[0].values) - 1
	r := seedRow{labels: repeated[0].values[:last], values: map[string]seeds.Sample{}, texts: map[string]string{}}
	texts := map[string][]string{}
	for _, c := range repeated {
		if c.results == nil {
			continue // it failed
		}
		r.seeds++
		seed, _ := strconv.ParseUint(c.values[last], 10, 64) // parseSeeds has checked it
		for i, value := range cellsOf(c.results, columns) {
			key := columns[i].Key
			if n := number(value); n == n {
				if r.values[key] == nil {
					r.values[key] = seeds.Sample{}
				}
				r.values[key][seed] = n
			} else if text := format(value); text != "" && !slices.Contains(texts[key], text) {
				texts[key] = append(texts[key], text)
			}
		}
	}
	for key, all := range texts {
		r.texts[key] = strings.Join(all, ", ")
	}
	return r
}
