package main

import (
	"errors"
	"fmt"
	"image/color"
	"os"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
)

// bar is a horizontal bar of a panel.
type bar struct {
	label          string
	integer, float float64 // milliseconds
	text           string  // at its end
}

// largestKernels are drawn by name.
const largestKernels = 20

var (
	integerColour = color.RGBA{R: 0x2f, G: 0x6d, B: 0xa3, A: 0xff}
	floatColour   = color.RGBA{R: 0xd9, G: 0x82, B: 0x2b, A: 0xff}
)

// drawProfile draws the categories of a step, and its largest kernels, as bars of milliseconds.
func drawProfile(path string, m measurement) error {
	s := m.summarize()
	var kernels, categories []bar
	for _, o := range m.operations[:min(len(m.operations), largestKernels)] {
		b := bar{label: o.Name, integer: milliseconds(m.perStep(o.Time))}
		b.text = fmt.Sprintf("%.1f", b.integer)
		if o.Float {
			b.integer, b.float = 0, b.integer
		}
		kernels = append(kernels, b)
	}
	for _, r := range s.rows {
		text := fmt.Sprintf("%.1f ms, %.1f %%", milliseconds(r.time), 100*r.time.Seconds()/s.sum.Seconds())
		if r.share > 0 {
			text += fmt.Sprintf(", %.0f %% of peak", 100*r.share)
		}
		categories = append(categories, bar{string(r.name), milliseconds(r.time - r.floats), milliseconds(r.floats), text})
	}
	const width, line, frame = 820, 15, 60
	heights := []vg.Length{vg.Length(frame + line*len(categories)), vg.Length(frame + line*len(kernels))}
	canvas := vgimg.New(width, heights[0]+heights[1]+30)
	dc := draw.New(canvas)
	dc.SetColor(color.White)
	dc.Fill(dc.Rectangle.Path())
	titles := []string{
		m.title() + fmt.Sprintf("\nblue: integers, orange: floats (%.0f %% of the sum)",
			100*s.floats.Seconds()/s.sum.Seconds()),
		"the longest, milliseconds of a step",
	}
	top := dc.Max.Y - 6
	for i, bars := range [][]bar{categories, kernels} {
		p, err := panelOf(bars, titles[i])
		if err != nil {
			return fmt.Errorf("drawing the profile: %w", err)
		}
		height := heights[i] + vg.Length(20*(1-i))
		p.Draw(draw.Crop(dc, 6, -14, top-height-dc.Min.Y, top-dc.Max.Y))
		top -= height
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = vgimg.PngCanvas{Canvas: canvas}.WriteTo(f)
	return errors.Join(err, f.Close())
}

// panelOf draws bars, the first on top.
func panelOf(bars []bar, title string) (*plot.Plot, error) {
	p := plot.New()
	p.Title.Text = title
	p.Title.TextStyle.Font.Size = 10
	names := make([]string, len(bars))
	labels := plotter.XYLabels{XYs: make(plotter.XYs, len(bars)), Labels: make([]string, len(bars))}
	integers, floats, longest := make(plotter.Values, len(bars)), make(plotter.Values, len(bars)), 0.0
	for i, b := range bars {
		at := len(bars) - 1 - i
		integers[at], floats[at] = b.integer, b.float
		names[at], labels.Labels[at] = b.label, " "+b.text
		labels.XYs[at] = plotter.XY{X: b.integer + b.float, Y: float64(at) - 0.25}
		longest = max(longest, b.integer+b.float)
	}
	grid := plotter.NewGrid()
	grid.Horizontal.Width = 0
	p.Add(grid)
	var below *plotter.BarChart
	for _, part := range []struct {
		values plotter.Values
		colour color.Color
	}{{integers, integerColour}, {floats, floatColour}} {
		chart, err := plotter.NewBarChart(part.values, 9)
		if err != nil {
			return nil, err
		}
		chart.Horizontal, chart.LineStyle.Width, chart.Color = true, 0, part.colour
		if below != nil {
			chart.StackOn(below)
		}
		below = chart
		p.Add(chart)
	}
	texts, err := plotter.NewLabels(labels)
	if err != nil {
		return nil, err
	}
	for i := range texts.TextStyle {
		texts.TextStyle[i].Font.Size = 8
	}
	p.Add(texts)
	p.NominalY(names...)
	p.X.Min, p.X.Max = 0, 1.3*longest
	return p, nil
}
