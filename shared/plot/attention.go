package plot

import (
	"image/color"
	"math"
	"strconv"

	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Attention draws which keys the queries of a sequence read: a square for each head, queries from top to bottom and
// keys from left to right, both positions in the sequence. Colours are weights. Where a sequence has more positions
// than a square has cells, a cell shows the largest weight in it.
type Attention struct {
	Positions int // of the sequence
	Heads     []HeadReads
	PerLine   int      // squares in a line
	Tokens    []string // texts of the positions, beside the axes of a single square with room for them; may be nil
}

// HeadReads are the keys that a head's queries read.
type HeadReads struct {
	Title string
	Reads []Read
}

// Read is a key that a query reads.
type Read struct {
	Query, Key int
	Weight     float64 // 0 to 1
}

// Sizes of squares of attention.
const (
	largeSquare   = 10 * vg.Centimeter
	squareGap     = vg.Length(4)
	tokenWidth    = vg.Length(64) // at most, of the texts of tokens
	leastToken    = vg.Length(7)  // height of a token's text
	cellsOfLarge  = 256
	cellsOfSmall  = 64
	cellsOfMany   = 32 // of the squares of more than manySquares heads
	manySquares   = 64
	largestNumber = vg.Length(24) // width of a position's number
)

func (a Attention) perLine() int { return max(1, min(a.PerLine, len(a.Heads))) }

// named reports whether the texts of tokens are drawn.
func (a Attention) named() bool {
	return len(a.Heads) == 1 && len(a.Tokens) == a.Positions && largeSquare/vg.Length(a.Positions) >= leastToken
}

// margins are the room left of and below the squares.
func (a Attention) margins() (left, below vg.Length) {
	if a.named() {
		style, widest := textStyle(smallSize, color.Black, draw.XRight, draw.YCenter), vg.Length(0)
		for _, t := range a.Tokens {
			widest = max(widest, style.Width(shortened(style, t)))
		}
		return legendLine + widest + 6, legendLine + widest + 6
	}
	return legendLine + largestNumber, legendLine + mapNumbers
}

// side is the length of a square's sides.
func (a Attention) side() vg.Length {
	left, _ := a.margins()
	n := vg.Length(a.perLine())
	return min(largeSquare, (Page-scaleWidth-left-(n-1)*squareGap)/n)
}

func (a Attention) lines() int { return (len(a.Heads) + a.perLine() - 1) / a.perLine() }

func (a Attention) size() (width, height vg.Length) {
	_, below := a.margins()
	return Page, below + vg.Length(max(1, a.lines()))*(a.side()+mapTitle)
}

// cells is the number of cells along a side.
func (a Attention) cells() int {
	most := cellsOfLarge
	switch {
	case len(a.Heads) > manySquares:
		most = cellsOfMany
	case len(a.Heads) > 1:
		most = cellsOfSmall
	}
	return max(1, min(a.Positions, most))
}

func (a Attention) draw(c draw.Canvas) error {
	left, below := a.margins()
	side := a.side()
	rotated := textStyle(textSize, color.Black, draw.XCenter, draw.YTop)
	rotated.Rotation = math.Pi / 2
	c.FillText(rotated, vg.Point{X: c.Min.X + 2, Y: (c.Min.Y + c.Max.Y + below) / 2}, "query, position in tokens")
	wide := vg.Length(a.perLine())*(side+squareGap) - squareGap
	c.FillText(textStyle(textSize, color.Black, draw.XCenter, draw.YBottom),
		vg.Point{X: c.Min.X + left + wide/2, Y: c.Min.Y + 2}, "key, position in tokens")
	scale := HeatMaps{Scale: Axis{Label: "weight of the key", Min: 0, Max: 1}}
	for i, h := range a.Heads {
		at := vg.Point{
			X: c.Min.X + left + vg.Length(i%a.perLine())*(side+squareGap),
			Y: c.Max.Y - mapTitle - vg.Length(i/a.perLine())*(side+mapTitle),
		}
		a.drawHead(c, scale, h, at)
		if i%a.perLine() == 0 {
			a.drawPositions(c, at, false)
		}
		if i/a.perLine() == a.lines()-1 {
			a.drawPositions(c, at, true)
		}
	}
	scale.drawScale(c)
	return nil
}

// drawHead draws a square whose upper left corner is at a point.
func (a Attention) drawHead(c draw.Canvas, scale HeatMaps, h HeadReads, at vg.Point) {
	side, n := a.side(), a.cells()
	size := a.textSize()
	c.FillText(textStyle(size, color.Black, draw.XCenter, draw.YBottom), vg.Point{X: at.X + side/2, Y: at.Y + 1}, h.Title)
	cell := side / vg.Length(n)
	weights := make([]float64, n*n)
	for _, r := range h.Reads {
		i := r.Query*n/a.Positions*n + r.Key*n/a.Positions
		weights[i] = max(weights[i], r.Weight)
	}
	for i, w := range weights {
		if w > 0 {
			left, top := at.X+cell*vg.Length(i%n), at.Y-cell*vg.Length(i/n)
			fill(c, scale.colorOf(w), left, top-cell, left+cell, top)
		}
	}
	c.StrokeLines(draw.LineStyle{Color: color.Gray{Y: 110}, Width: 0.5}, []vg.Point{at, {X: at.X + side, Y: at.Y},
		{X: at.X + side, Y: at.Y - side}, {X: at.X, Y: at.Y - side}, at})
}

// textSize is the size of titles: those of many squares are small ones.
func (a Attention) textSize() vg.Length {
	if a.side() < 2*vg.Centimeter {
		return smallSize
	}
	return textSize
}

// drawPositions writes positions, or tokens, beside a square: below it or left of it.
func (a Attention) drawPositions(c draw.Canvas, at vg.Point, below bool) {
	side := a.side()
	style := textStyle(smallSize, color.Black, draw.XRight, draw.YCenter)
	write := func(position float64, text string) {
		along := side * vg.Length(position/float64(a.Positions))
		if below {
			c.FillText(style, vg.Point{X: at.X + along, Y: at.Y - side - 2}, text)
		} else {
			c.FillText(style, vg.Point{X: at.X - 2, Y: at.Y - along}, text)
		}
	}
	if a.named() {
		if below {
			style.Rotation = math.Pi / 2
		}
		for i, t := range a.Tokens {
			write(float64(i)+0.5, shortened(style, t))
		}
		return
	}
	numbers := []int{0, a.Positions}
	if len(a.Heads) == 1 {
		numbers = numbers[:0]
		for _, t := range (ticks{}).Ticks(0, float64(a.Positions)) {
			numbers = append(numbers, int(t.Value))
		}
	}
	for _, n := range numbers {
		if below {
			style.XAlign, style.YAlign = draw.XCenter, draw.YTop
			switch n {
			case 0:
				style.XAlign = draw.XLeft
			case a.Positions:
				style.XAlign = draw.XRight
			}
		}
		write(float64(n), strconv.Itoa(n))
	}
}

// shortened is a text that fits beside an axis.
func shortened(style draw.TextStyle, text string) string {
	r := []rune(text)
	for cut := len(r); cut > 1 && style.Width(text) > tokenWidth; {
		cut--
		text = string(r[:cut]) + "…"
	}
	return text
}
