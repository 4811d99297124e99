package main

import (
	"fmt"
	"io"
	"strings"

	"bitnet1/shared/plot"
	"bitnet1/shared/run/results"
)

// bars are a panel of horizontal bars for each plotted column of a table, a bar for each row. The first axes columns of
// a row are its label.
func bars(t table, axes int, plotted []string) plot.Figure {
	var f plot.Bars
	for _, row := range t.rows {
		var parts []string
		for k := range axes {
			parts = append(parts, fmt.Sprintf("%s %v", t.columns[k].Name, row[k]))
		}
		f.Labels = append(f.Labels, strings.Join(parts, ", "))
	}
	for _, name := range plotted {
		at, _ := findColumn(t.columns, name)
		f.Panels = append(f.Panels, panel(t, at))
	}
	return f
}

// panel is column at of all rows, with standard errors; a row without a number has no bar.
func panel(t table, at int) plot.Panel {
	p := plot.Panel{X: plot.Axis{Label: t.columns[at].Name}}
	values, errors, largest := make([]float64, len(t.rows)), make([]float64, len(t.rows)), 0.0
	for i, row := range t.rows {
		values[i], errors[i] = number(row[at]), errorOf(row[at])
		if values[i] > largest { // false of NaN
			largest = values[i]
		}
	}
	scale, unit := 1.0, ""
	switch {
	case isPercent(t.columns[at]):
		scale, unit, p.X.Max = 100, "%", 100
	case isSize(t.columns[at]):
		bytes, of := results.SizeUnit(largest)
		scale, unit = 1/bytes, of
	}
	if unit != "" {
		p.X.Label += " (" + unit + ")"
	}
	for i := range values {
		values[i] *= scale
		errors[i] *= scale
	}
	p.Parts, p.Errors = []plot.Part{{Values: values}}, errors
	return p
}

// pngOf writes a figure as PNG.
func pngOf(f plot.Figure) func(io.Writer) error {
	return func(w io.Writer) error {
		b, err := plot.PNG(f)
		if err == nil {
			_, err = w.Write(b)
		}
		return err
	}
}
