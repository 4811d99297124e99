package plot

import (
	"image/color"
	"math"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Bars draws panels of horizontal bars beside each other, a bar for each label, the first on top. The bars of a panel
// are stacked of parts; a legend below names them.
type Bars struct {
	Title  string // above; may have several lines
	Labels []string
	Panels []Panel
}

// Panel is one column of bars.
type Panel struct {
	X      Axis
	Parts  []Part
	Errors []float64 // of each bar, to both sides of its end; NaN where it has none; may be nil
	Texts  []string  // at the end of each bar; may be nil
}

// Part is a part of each bar.
type Part struct {
	Name   string // in the legend; a part without a name is not in it
	Color  int    // of the palette, or Gray
	Values []float64
}

// Sizes of bars: a row's height, a bar's, and that of the axis below.
const (
	rowHeight  = vg.Length(11)
	barHeight  = vg.Length(7)
	axisHeight = vg.Length(32)
)

// panelWidth is the width of each of several panels, without the labels.
const panelWidth = 4.5 * vg.Centimeter

func (b Bars) size() (width, height vg.Length) {
	width = max(Column, min(legendStyle.Width(b.Title)+2*legendMargin, Page))
	if len(b.Panels) > 1 {
		width = max(width, b.labelWidth()+panelWidth*vg.Length(len(b.Panels)))
	}
	rows := rowHeight * vg.Length(max(1, len(b.Labels)))
	return width, b.titleHeight() + axisHeight + rows + b.legend().height(width)
}

func (b Bars) labelWidth() (widest vg.Length) {
	for _, l := range b.Labels {
		widest = max(widest, legendStyle.Width(l))
	}
	return widest
}

func (b Bars) titleHeight() vg.Length {
	if b.Title == "" {
		return 0
	}
	return legendStyle.Height(b.Title) + 4
}

func (b Bars) legend() (all legend) {
	seen := map[string]bool{}
	for _, panel := range b.Panels {
		for _, part := range panel.Parts {
			if part.Name == "" || seen[part.Name] {
				continue
			}
			seen[part.Name] = true
			all = append(all, entry{part.Name, func(c draw.Canvas, from, to vg.Point) {
				fill(c, colorOf(part.Color), from.X, from.Y-3, to.X, to.Y+3)
			}})
		}
	}
	return all
}

func (b Bars) draw(c draw.Canvas) error {
	c = b.legend().draw(c)
	title := textStyle(smallSize, color.Black, draw.XLeft, draw.YTop)
	c.FillText(title, vg.Point{X: c.Min.X + legendMargin, Y: c.Max.Y - 2}, b.Title)
	c = draw.Crop(c, 0, 0, 0, -b.titleHeight())
	panels := make([][]*plot.Plot, 1)
	room := (c.Size().X-b.labelWidth())/vg.Length(len(b.Panels)) - 24
	for i, panel := range b.Panels {
		p, err := panel.plot(len(b.Labels), room)
		if err != nil {
			return err
		}
		labels := make([]string, len(b.Labels))
		for k, l := range b.Labels {
			if i == 0 {
				labels[len(labels)-1-k] = l
			}
		}
		p.NominalY(labels...)
		p.Y.Tick.Length, p.Y.LineStyle.Width, p.Y.Padding = 0, 0, 3
		p.Y.Min, p.Y.Max = -0.5, float64(len(labels))-0.5
		panels[0] = append(panels[0], p)
	}
	tiles := draw.Tiles{Rows: 1, Cols: len(b.Panels), PadX: 12, PadTop: 2, PadBottom: 2, PadLeft: 2, PadRight: 10}
	for i, part := range plot.Align(panels, tiles, c)[0] {
		panels[0][i].Draw(part)
	}
	return nil
}

// plot draws the bars of a panel, which is about as wide as room; a value that is not a number has none.
func (p Panel) plot(rows int, room vg.Length) (*plot.Plot, error) {
	all := newPlot(p.X, Axis{})
	all.X.Min, all.X.Tick.Marker = 0, ticks{room}
	var below *plotter.BarChart
	ends := make([]float64, rows)
	for _, part := range p.Parts {
		values := make(plotter.Values, rows)
		for i, v := range part.Values {
			if !math.IsNaN(v) {
				values[rows-1-i] = v
				ends[i] += v
			}
		}
		chart, err := plotter.NewBarChart(values, barHeight)
		if err != nil {
			return nil, err
		}
		chart.Horizontal, chart.LineStyle.Width, chart.Color = true, 0, colorOf(part.Color)
		if below != nil {
			chart.StackOn(below)
		}
		below = chart
		all.Add(chart)
	}
	if err := p.addErrors(all, ends); err != nil {
		return nil, err
	}
	all.X.Min = 0
	if err := p.addTexts(all, ends, room); err != nil {
		return nil, err
	}
	p.X.limit(&all.X)
	return all, nil
}

// addErrors draws error bars at the ends of bars.
func (p Panel) addErrors(all *plot.Plot, ends []float64) error {
	var at struct {
		plotter.XYs
		plotter.XErrors
	}
	for i, e := range p.Errors {
		if math.IsNaN(e) {
			continue
		}
		at.XYs = append(at.XYs, plotter.XY{X: ends[i], Y: float64(len(ends) - 1 - i)})
		at.XErrors = append(at.XErrors, struct{ Low, High float64 }{-e, e})
	}
	if len(at.XYs) == 0 {
		return nil
	}
	errors, err := plotter.NewXErrorBars(at)
	if err != nil {
		return err
	}
	errors.LineStyle.Width, errors.CapWidth = 0.75, barHeight/2
	all.Add(errors)
	return nil
}

// addTexts writes the texts behind the bars, whose axis then reaches further.
func (p Panel) addTexts(all *plot.Plot, ends []float64, room vg.Length) error {
	if len(p.Texts) == 0 {
		return nil
	}
	labels := plotter.XYLabels{XYs: make(plotter.XYs, len(ends)), Labels: p.Texts}
	for i, end := range ends {
		labels.XYs[i] = plotter.XY{X: end, Y: float64(len(ends) - 1 - i)}
		wide := min(legendStyle.Width(p.Texts[i])+6, 0.9*room)
		all.X.Max = max(all.X.Max, end*float64(room/(room-wide)))
	}
	texts, err := plotter.NewLabels(labels)
	if err != nil {
		return err
	}
	for i := range texts.TextStyle {
		texts.TextStyle[i] = textStyle(smallSize, color.Black, draw.XLeft, draw.YCenter)
	}
	texts.Offset = vg.Point{X: 3, Y: 1}
	reach := all.X.Max
	all.Add(texts)
	all.X.Max = reach
	return nil
}

// fill fills a rectangle.
func fill(c draw.Canvas, with color.Color, left, bottom, right, top vg.Length) {
	c.FillPolygon(with, []vg.Point{{X: left, Y: bottom}, {X: right, Y: bottom}, {X: right, Y: top}, {X: left, Y: top}})
}
