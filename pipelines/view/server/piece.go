package server

import (
	"math"
	"strconv"

	"bitnet1/pipelines/view/index"
)

// piece is what a page lacks of the curves of a run.
type piece struct {
	Run   int                  `json:"run"`             // its number
	Reset bool                 `json:"reset,omitempty"` // the page forgets what it has of the run
	Lines map[string]linePiece `json:"lines"`           // by key
	Marks pairs                `json:"marks,omitempty"` // all validations, where there are new ones
}

// linePiece goes behind the first Keep points of a line, in place of what follows them.
type linePiece struct {
	Keep int     `json:"keep"`
	Over places  `json:"x"`
	Mean numbers `json:"y"`
	Low  numbers `json:"low,omitempty"`
	High numbers `json:"high,omitempty"`
}

// pieceOf is what have lacks of a curve; changed is false when that is nothing.
func (a asked) pieceOf(number int, c *index.Curve, have *sent) (p piece, changed bool) {
	if have.lines != nil && have.changed == c.Changed && have.restarted == c.Restarted {
		return p, false
	}
	p = piece{Run: number, Lines: map[string]linePiece{}}
	if have.lines == nil || have.restarted != c.Restarted {
		*have, p.Reset = sent{restarted: c.Restarted, lines: map[string]sentLine{}}, true
	}
	have.changed = c.Changed
	for _, key := range a.keys {
		before := have.lines[key]
		line := c.After(key, a.over, before.done, a.points)
		l := linePiece{Keep: before.final, Over: line.Over, Mean: line.Mean}
		if a.bands {
			l.Low, l.High = line.Low, line.High
		}
		p.Lines[key] = l
		have.lines[key] = sentLine{before.final + line.Final, line.Done}
	}
	if marks := c.Validations(a.over); len(marks) != have.marks {
		have.marks, p.Marks = len(marks), marks
	}
	return p, true
}

// size is about how many bytes the piece takes.
func (p piece) size() int {
	n := 60 + 16*len(p.Marks)
	for _, l := range p.Lines {
		each := 14
		if l.Low != nil {
			each += 14
		}
		n += 40 + each*len(l.Mean)
	}
	return n
}

// numbers are values of a curve.
type numbers []float32

// MarshalJSON implements json.Marshaler.
func (n numbers) MarshalJSON() ([]byte, error) {
	b := []byte{'['}
	for i, v := range n {
		b = appendNumber(comma(b, i), float64(v), 5) // no picture shows more digits
	}
	return append(b, ']'), nil
}

// places are where points lie on the axis.
type places []float64

// MarshalJSON implements json.Marshaler.
func (p places) MarshalJSON() ([]byte, error) {
	b := []byte{'['}
	for i, v := range p {
		b = appendNumber(comma(b, i), v, 8)
	}
	return append(b, ']'), nil
}

// pairs are points.
type pairs [][2]float64

// MarshalJSON implements json.Marshaler.
func (p pairs) MarshalJSON() ([]byte, error) {
	b := []byte{'['}
	for i, v := range p {
		b = appendNumber(append(comma(b, i), '['), v[0], 8)
		b = append(appendNumber(append(b, ','), v[1], 5), ']')
	}
	return append(b, ']'), nil
}

func comma(b []byte, i int) []byte {
	if i > 0 {
		return append(b, ',')
	}
	return b
}

// appendNumber writes a number with some digits, a whole one as it is. JSON has no numbers beyond the finite ones.
func appendNumber(b []byte, v float64, digits int) []byte {
	switch {
	case math.IsNaN(v) || math.IsInf(v, 0):
		return append(b, "null"...)
	case v == math.Trunc(v) && math.Abs(v) < 1<<53:
		return strconv.AppendInt(b, int64(v), 10)
	}
	return strconv.AppendFloat(b, v, 'g', digits, 64)
}
