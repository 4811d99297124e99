package main

import (
	"fmt"
	"image/color"
	"io"
	"math"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
)

// plotTable draws one panel of horizontal bars for each plotted column, a bar for each row, the first row on top. The
// first axes columns of a row are its label.
func plotTable(w io.Writer, t table, axes int, plotted []string) error {
	labels := make([]string, len(t.rows))
	for i, row := range t.rows {
		var parts []string
		for k := range axes {
			parts = append(parts, fmt.Sprintf("%s %v", t.columns[k].Name, row[k]))
		}
		labels[len(t.rows)-1-i] = strings.Join(parts, ", ")
	}
	panels := make([][]*plot.Plot, 1)
	for i, name := range plotted {
		at, _ := findColumn(t.columns, name)
		p, err := panel(t, at, labels, i == 0)
		if err != nil {
			return err
		}
		panels[0] = append(panels[0], p)
	}
	const bar, frame, width = 14, 60, 300
	canvas := vgimg.New(vg.Length(width*len(plotted)+7*longest(labels)), vg.Length(frame+bar*len(t.rows)))
	dc := draw.New(canvas)
	dc.SetColor(color.White)
	dc.Fill(dc.Rectangle.Path())
	tiles := draw.Tiles{Rows: 1, Cols: len(plotted), PadX: 12, PadTop: 4, PadBottom: 4, PadLeft: 4, PadRight: 12}
	for i, c := range plot.Align(panels, tiles, dc)[0] {
		panels[0][i].Draw(c)
	}
	_, err := vgimg.PngCanvas{Canvas: canvas}.WriteTo(w)
	return err
}

// panel draws column at of all rows; a row without a number has no bar.
func panel(t table, at int, labels []string, labelled bool) (*plot.Plot, error) {
	p := plot.New()
	p.Title.Text = t.columns[at].Name
	values := make(plotter.Values, len(t.rows))
	for i, row := range t.rows {
		v := number(row[at])
		if math.IsNaN(v) {
			v = 0
		}
		if isPercent(t.columns[at]) {
			v *= 100
		}
		values[len(t.rows)-1-i] = v
	}
	if isPercent(t.columns[at]) {
		p.Title.Text += " (%)"
		p.X.Max = 100
	}
	bars, err := plotter.NewBarChart(values, 9)
	if err != nil {
		return nil, fmt.Errorf("plotting %s: %w", t.columns[at].Name, err)
	}
	bars.Horizontal = true
	bars.LineStyle.Width = 0
	bars.Color = color.RGBA{R: 0x33, G: 0x66, B: 0x99, A: 0xff}
	p.Add(plotter.NewGrid(), bars)
	p.X.Min = 0
	if !labelled {
		labels = make([]string, len(labels))
	}
	p.NominalY(labels...)
	return p, nil
}

func longest(labels []string) int {
	n := 0
	for _, l := range labels {
		n = max(n, len(l))
	}
	return n
}
