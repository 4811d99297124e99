package plot

import (
	"bytes"
	"image/png"
	"strings"
	"testing"
)

// A read lies where its query and key are, and is as dark as its weight: of four positions, query 2 reads keys 0 and 1.
func TestReadsAreWhereTheyShouldBe(t *testing.T) {
	a := Attention{Positions: 4, Heads: []HeadReads{{Title: "L0.H0", Reads: []Read{{2, 0, 1}, {2, 1, 0.5}}}}}
	b, err := PNG(a)
	if err != nil {
		t.Fatal(err)
	}
	picture, err := png.Decode(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	w, _ := a.size()
	left, _ := a.margins()
	cell := a.side() / 4
	scale := float64(picture.Bounds().Dx()) / float64(w)
	dark := func(query, key int) uint32 {
		x := float64(left) + float64(cell)*(float64(key)+0.5)
		y := float64(mapTitle) + float64(cell)*(float64(query)+0.5)
		r, _, _, _ := picture.At(int(x*scale), int(y*scale)).RGBA()
		return 0xffff - r
	}
	for query := range 4 {
		for key := range 4 {
			if read := query == 2 && key < 2; (dark(query, key) > 0x1000) != read {
				t.Errorf("query %d, key %d: darkness %x", query, key, dark(query, key))
			}
		}
	}
	if dark(2, 0) <= dark(2, 1) {
		t.Errorf("weight 1 has darkness %x, and a half %x", dark(2, 0), dark(2, 1))
	}
}

// The texts of tokens stand beside a short sequence of one head, and numbers beside all others.
func TestTokensBesideAShortSequence(t *testing.T) {
	tokens := strings.Split("the cat sat", " ")
	one := []HeadReads{{Title: "L0.H0"}}
	short := svgOf(t, Attention{Positions: 3, Heads: one, Tokens: tokens})
	if strings.Count(short, ">cat<") != 2 || strings.Contains(short, ">3<") {
		t.Errorf("tokens are missing beside three positions:\n%s", short)
	}
	long := svgOf(t, Attention{Positions: 500, Heads: one, Tokens: make([]string, 500)})
	if !strings.Contains(long, ">400<") {
		t.Error("numbers are missing beside 500 positions")
	}
	many := make([]HeadReads, 6)
	for i := range many {
		many[i] = HeadReads{Title: "head", Reads: []Read{{499, 499, 1}, {0, 0, 1}}}
	}
	all := svgOf(t, Attention{Positions: 500, Heads: many, PerLine: 3, Tokens: make([]string, 500)})
	titles, last := strings.Count(all, ">head<"), strings.Count(all, ">500<")
	if titles != 6 || last != 5 { // below three squares, left of two
		t.Errorf("six squares have %d titles and %d last positions", titles, last)
	}
}
