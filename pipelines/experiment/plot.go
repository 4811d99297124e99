package main

import (
	"fmt"
	"io"
	"math"
	"strings"

	"bitnet1/shared/plot"
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

// panel is column at of all rows; a row without a number has no bar.
func panel(t table, at int) plot.Panel {
	p := plot.Panel{X: plot.Axis{Label: t.columns[at].Name}}
	scale := 1.0
	if isPercent(t.columns[at]) {
		scale = 100
		p.X.Label, p.X.Max = p.X.Label+" (%)", 100
	}
	values := make([]float64, len(t.rows))
	for i, row := range t.rows {
		values[i] = math.NaN()
		if v := number(row[at]); !math.IsNaN(v) {
			values[i] = scale * v
		}
	}
	p.Parts = []plot.Part{{Values: values}}
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
