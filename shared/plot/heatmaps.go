package plot

import (
	"image/color"
	"math"
	"strconv"

	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// HeatMaps draws tables of numbers as colours, from white to dark blue, beside each other and with one scale.
type HeatMaps struct {
	Maps          []HeatMap
	Rows, Columns string // what a row and a column are
	Scale         Axis   // what the numbers are; Min and Max have the lightest and the darkest colour
}

// HeatMap is one table: rows of equally many numbers. What is not a number is gray.
type HeatMap struct {
	Title  string
	Values [][]float64
}

// Sizes of heat maps.
const (
	mapTitle    = vg.Length(12) // height
	mapNumbers  = vg.Length(11) // height of the numbers of columns
	rowNumbers  = vg.Length(20) // width of the numbers of rows
	mapGap      = vg.Length(8)
	scaleWidth  = vg.Length(52)
	leastCell   = vg.Length(9) // of few columns: narrower cells make fewer maps stand in a line
	leastNarrow = vg.Length(4.5)
	largestCell = vg.Length(22) // wide
	highestCell = vg.Length(13)
	lowestMap   = vg.Length(64) // a scale needs this height
)

// layout is how maps are arranged.
type layout struct {
	width, height vg.Length // of the figure
	perLine       int
	cell          vg.Point // size
	rows, columns int
}

func (h HeatMaps) layout() layout {
	l := layout{width: Column}
	for _, m := range h.Maps {
		l.rows = max(l.rows, len(m.Values))
		for _, row := range m.Values {
			l.columns = max(l.columns, len(row))
		}
	}
	l.rows, l.columns = max(l.rows, 1), max(l.columns, 1)
	cell := func(perLine int) vg.Length {
		room := l.width - scaleWidth - vg.Length(perLine)*(rowNumbers+mapGap) - legendLine
		return min(largestCell, room/vg.Length(perLine*l.columns))
	}
	least := leastCell
	if l.columns > 8 {
		least = leastNarrow
	}
	if cell(min(3, len(h.Maps))) < least || len(h.Maps) > 3 {
		l.width = Page
	}
	for l.perLine = max(1, len(h.Maps)); l.perLine > 1 && cell(l.perLine) < least; l.perLine-- {
	}
	lines := (len(h.Maps) + l.perLine - 1) / l.perLine
	l.perLine = (len(h.Maps) + lines - 1) / max(lines, 1) // lines of like lengths
	l.cell = vg.Point{X: cell(max(l.perLine, 1)), Y: 0}
	l.cell.Y = max(min(l.cell.X, highestCell), min(highestCell, lowestMap/vg.Length(l.rows)))
	l.height = vg.Length(max(lines, 1))*l.lineHeight() + legendLine
	return l
}

// lineHeight is the height of a line of maps.
func (l layout) lineHeight() vg.Length { return mapTitle + l.cell.Y*vg.Length(l.rows) + mapNumbers }

func (h HeatMaps) size() (width, height vg.Length) {
	l := h.layout()
	return l.width, l.height
}

func (h HeatMaps) draw(c draw.Canvas) error {
	l := h.layout()
	side := textStyle(textSize, color.Black, draw.XCenter, draw.YTop)
	side.Rotation = math.Pi / 2
	c.FillText(side, vg.Point{X: c.Min.X + 2, Y: (c.Min.Y + c.Max.Y + legendLine) / 2}, h.Rows)
	c.FillText(textStyle(textSize, color.Black, draw.XCenter, draw.YBottom),
		vg.Point{X: (c.Min.X + c.Max.X - scaleWidth) / 2, Y: c.Min.Y + 2}, h.Columns)
	for i, m := range h.Maps {
		h.drawMap(c, l, m, vg.Point{
			X: c.Min.X + legendLine + rowNumbers +
				vg.Length(i%l.perLine)*(rowNumbers+mapGap+l.cell.X*vg.Length(l.columns)),
			Y: c.Max.Y - mapTitle - vg.Length(i/l.perLine)*l.lineHeight(),
		})
	}
	h.drawScale(c)
	return nil
}

// drawMap draws a map whose upper left corner is at a point.
func (h HeatMaps) drawMap(c draw.Canvas, l layout, m HeatMap, at vg.Point) {
	wide := l.cell.X * vg.Length(l.columns)
	title := textStyle(textSize, color.Black, draw.XCenter, draw.YBottom)
	c.FillText(title, vg.Point{X: at.X + wide/2, Y: at.Y + 2}, m.Title)
	for i, row := range m.Values {
		top := at.Y - l.cell.Y*vg.Length(i)
		if each(i, l.rows, l.cell.Y) {
			c.FillText(textStyle(smallSize, color.Black, draw.XRight, draw.YCenter),
				vg.Point{X: at.X - 2, Y: top - l.cell.Y/2}, strconv.Itoa(i))
		}
		for k, v := range row {
			left := at.X + l.cell.X*vg.Length(k)
			fill(c, h.colorOf(v), left, top-l.cell.Y, left+l.cell.X, top)
			if l.cell.X >= 15 && l.cell.Y >= 10 && !math.IsNaN(v) { // room for a number
				c.FillText(textStyle(smallSize, inkOn(h.share(v)), draw.XCenter, draw.YCenter),
					vg.Point{X: left + l.cell.X/2, Y: top - l.cell.Y/2}, strconv.FormatFloat(v, 'f', h.decimals(), 64))
			}
		}
	}
	bottom := at.Y - l.cell.Y*vg.Length(len(m.Values))
	for k := range l.columns {
		if each(k, l.columns, l.cell.X) {
			c.FillText(textStyle(smallSize, color.Black, draw.XCenter, draw.YTop),
				vg.Point{X: at.X + l.cell.X*(vg.Length(k)+0.5), Y: bottom - 2}, strconv.Itoa(k))
		}
	}
	frame := []vg.Point{{X: at.X, Y: bottom}, {X: at.X + wide, Y: bottom}, {X: at.X + wide, Y: at.Y}, at,
		{X: at.X, Y: bottom}}
	c.StrokeLines(draw.LineStyle{Color: color.Gray{Y: 110}, Width: 0.5}, frame)
}

// decimals are those of the numbers in cells.
func (h HeatMaps) decimals() int {
	if h.Scale.Max < 10 {
		return 1
	}
	return 0
}

// each reports whether cell i of n gets a number, where cells have a size: every one, every second, every fourth …
func each(i, n int, size vg.Length) bool {
	step := 1
	for size*vg.Length(step) < 9 && step < n {
		step *= 2
	}
	return i%step == 0
}

// drawScale draws the scale at the right end of a figure.
func (h HeatMaps) drawScale(c draw.Canvas) {
	const width, shades = vg.Length(8), 64
	left := c.Max.X - scaleWidth + 6
	bottom, top := c.Min.Y+legendLine+mapNumbers, c.Max.Y-mapTitle
	top = min(top, bottom+4*vg.Centimeter)
	step := (top - bottom) / shades
	for i := range shades {
		at := bottom + step*vg.Length(i)
		v := h.Scale.Min + (float64(i)+0.5)/shades*(h.Scale.Max-h.Scale.Min)
		fill(c, h.colorOf(v), left, at, left+width, at+step+0.2) // no gaps between shades
	}
	marks := ticks{}.Ticks(h.Scale.Min, h.Scale.Max)
	apart := (top - bottom) / vg.Length(max(len(marks)-1, 1)) // about
	for i, t := range marks {
		if !each(i, len(marks), apart) {
			continue
		}
		y := bottom + vg.Length(h.share(t.Value))*(top-bottom)
		c.StrokeLines(draw.LineStyle{Color: color.Black, Width: 0.5},
			[]vg.Point{{X: left + width, Y: y}, {X: left + width + 2, Y: y}})
		c.FillText(textStyle(smallSize, color.Black, draw.XLeft, draw.YCenter), vg.Point{X: left + width + 4, Y: y}, t.Label)
	}
	label := textStyle(textSize, color.Black, draw.XCenter, draw.YTop)
	label.Rotation = math.Pi / 2
	c.FillText(label, vg.Point{X: c.Max.X - 12, Y: (bottom + top) / 2}, h.Scale.Label)
}

// share is where a value lies on the scale, from 0 to 1.
func (h HeatMaps) share(v float64) float64 {
	if h.Scale.Max <= h.Scale.Min {
		return 0
	}
	return min(1, max(0, (v-h.Scale.Min)/(h.Scale.Max-h.Scale.Min)))
}

// shades are the colours of the scale, whose lightness falls evenly: it can be read in gray, too.
var shades = [...][3]float64{{0xf7, 0xfb, 0xff}, {0x9c, 0xc9, 0xe6}, {0x2b, 0x83, 0xba}, {0x06, 0x2f, 0x5c}}

func (h HeatMaps) colorOf(v float64) color.Color {
	if math.IsNaN(v) {
		return color.Gray{Y: 200}
	}
	at := h.share(v) * float64(len(shades)-1)
	i := min(int(at), len(shades)-2)
	part := at - float64(i)
	channel := func(k int) uint8 { return uint8(math.Round(shades[i][k]*(1-part) + shades[i+1][k]*part)) }
	return color.RGBA{R: channel(0), G: channel(1), B: channel(2), A: 0xff}
}

// inkOn is the colour of text on a colour of the scale.
func inkOn(share float64) color.Color {
	if share > 0.5 {
		return color.White
	}
	return color.Black
}
