package plot

import (
	"image/color"

	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// legend is drawn below a figure: names, each behind a sample of what it names.
type legend []entry

type entry struct {
	name   string
	sample func(c draw.Canvas, from, to vg.Point)
}

// Sizes in a legend: a line's height, the width of a sample, the space behind a sample, and the space behind a name.
const (
	legendLine  = vg.Length(10)
	sampleWidth = vg.Length(14)
	sampleGap   = vg.Length(3)
	nameGap     = vg.Length(10)
)

var legendStyle = textStyle(smallSize, color.Black, draw.XLeft, draw.YCenter)

func (e entry) width() vg.Length {
	return sampleWidth + sampleGap + legendStyle.Width(e.name) + nameGap
}

// lines are the entries in lines that are no wider than the width, unless an entry alone is.
func (l legend) lines(width vg.Length) (lines []legend) {
	room := vg.Length(0)
	for _, e := range l {
		if e.width()-nameGap > room || len(lines) == 0 {
			lines, room = append(lines, nil), width
		}
		last := len(lines) - 1
		lines[last], room = append(lines[last], e), room-e.width()
	}
	return lines
}

// height is that of the legend below a figure of a width.
func (l legend) height(width vg.Length) vg.Length {
	return legendLine * vg.Length(len(l.lines(width-2*legendMargin)))
}

const legendMargin = vg.Length(4)

// draw draws the legend and returns the canvas above it.
func (l legend) draw(c draw.Canvas) draw.Canvas {
	height := l.height(c.Size().X)
	for i, line := range l.lines(c.Size().X - 2*legendMargin) {
		at := vg.Point{X: c.Min.X + legendMargin, Y: c.Min.Y + height - legendLine*(vg.Length(i)+0.5) + 2}
		for _, e := range line {
			e.sample(c, at, vg.Point{X: at.X + sampleWidth, Y: at.Y})
			c.FillText(legendStyle, vg.Point{X: at.X + sampleWidth + sampleGap, Y: at.Y}, e.name)
			at.X += e.width()
		}
	}
	return draw.Crop(c, 0, 0, height, 0)
}
