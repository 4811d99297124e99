package main

import (
	"image/color"
	"math"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// newPicture is an empty picture with a grid and the names of its axes, units included.
func newPicture(x, y string) *plot.Plot {
	p := plot.New()
	p.X.Label.Text, p.Y.Label.Text = x, y
	p.X.Label.Padding, p.Y.Label.Padding = vg.Points(2), vg.Points(4)
	p.X.Tick.Marker, p.Y.Tick.Marker = ticks{}, ticks{}
	for _, style := range []*draw.TextStyle{
		&p.X.Label.TextStyle, &p.Y.Label.TextStyle, &p.X.Tick.Label, &p.Y.Tick.Label, &p.Legend.TextStyle,
	} {
		style.Font.Typeface, style.Font.Variant = "Liberation", "Sans"
	}
	p.Legend.Top = true
	p.Legend.Padding, p.Legend.XOffs, p.Legend.YOffs = vg.Points(2), -vg.Points(6), -vg.Points(4)
	grid := plotter.NewGrid()
	grid.Vertical.Color, grid.Horizontal.Color = color.Gray{Y: 225}, color.Gray{Y: 225}
	p.Add(grid)
	return p
}

// nameStyle is that of a name above a point.
func nameStyle(c color.Color) draw.TextStyle {
	return draw.TextStyle{Color: c, Font: font.Font{Typeface: "Liberation", Variant: "Sans", Size: 10},
		XAlign: draw.XCenter, Handler: plot.DefaultTextHandler}
}

// colorOf is the i-th of eight colours that differ for the colour-blind, too (Okabe and Ito, 2008).
func colorOf(i int) color.Color {
	return []color.RGBA{
		{R: 0x00, G: 0x72, B: 0xb2, A: 0xff}, {R: 0xe6, G: 0x9f, B: 0x00, A: 0xff}, {R: 0xd5, G: 0x5e, B: 0x00, A: 0xff},
		{R: 0x00, G: 0x9e, B: 0x73, A: 0xff}, {R: 0xcc, G: 0x79, B: 0xa7, A: 0xff}, {R: 0x56, G: 0xb4, B: 0xe9, A: 0xff},
		{R: 0x00, G: 0x00, B: 0x00, A: 0xff}, {R: 0xb0, G: 0xa0, B: 0x20, A: 0xff},
	}[i%8]
}

// ticks are four to ten round numbers on an axis.
type ticks struct{}

func (ticks) Ticks(low, high float64) (all []plot.Tick) {
	if high <= low { // gonum makes such axes wider before it asks
		return nil
	}
	step := math.Pow(10, math.Floor(math.Log10((high-low)/4)))
	for _, more := range []float64{5, 2} {
		if (high-low)/(more*step) >= 4 {
			step *= more
			break
		}
	}
	decimals := max(0, int(-math.Floor(math.Log10(step))))
	for n := math.Ceil(low / step); n*step <= high; n++ {
		all = append(all, plot.Tick{Value: n * step, Label: strconv.FormatFloat(n*step, 'f', decimals, 64)})
	}
	return all
}
