package plot

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func svgOf(t *testing.T, f Figure) string {
	t.Helper()
	b, err := SVG(f, "a <title>", "what & why")
	if err != nil {
		t.Fatal(err)
	}
	if err := xml.Unmarshal(b, new(struct{})); err != nil {
		t.Fatalf("the SVG is no XML: %v\n%s", err, b)
	}
	return string(b)
}

// path are the corners of the last line that has a colour; the first is in the legend.
func path(t *testing.T, svg, color string) (all []Point) {
	t.Helper()
	m := regexp.MustCompile(`(?i)<path d="M([^"]*)" style="[^"]*stroke:`+color).FindAllStringSubmatch(svg, -1)
	if m == nil {
		t.Fatalf("no line of colour %s:\n%s", color, svg)
	}
	for corner := range strings.SplitSeq(m[len(m)-1][1], "L") {
		var p Point
		if _, err := fmt.Sscanf(corner, "%g,%g", &p.X, &p.Y); err != nil {
			t.Fatalf("%q: %v", corner, err)
		}
		all = append(all, p)
	}
	return all
}

// Points lie where their numbers say: here on a straight line, and twice as far apart where the numbers are.
func TestLinesAreWhereTheyShouldBe(t *testing.T) {
	svg := svgOf(t, Lines{
		X: Axis{Label: "steps"}, Y: Axis{Label: "loss in bits per token", Min: 0, Max: 10},
		Series: []Series{{Name: "run", Line: []Point{{0, 8}, {100, 6}, {300, 2}}}},
	})
	p := path(t, svg, Palette[0])
	if len(p) != 3 {
		t.Fatalf("corners %v, want three", p)
	}
	for name, got := range map[string][2]float64{
		"to the right": {p[1].X - p[0].X, p[2].X - p[1].X}, "down": {p[0].Y - p[1].Y, p[1].Y - p[2].Y},
	} {
		if got[0] <= 0 || math.Abs(got[1]-2*got[0]) > 0.05 {
			t.Errorf("%s: %v, want a distance and twice the distance", name, got)
		}
	}
	for _, text := range []string{">steps<", ">loss in bits per token<", ">run<", ">100<", ">10<",
		"<title>a &lt;title&gt;</title>", "<desc>what &amp; why</desc>"} {
		if !strings.Contains(svg, text) {
			t.Errorf("the SVG lacks %s", text)
		}
	}
}

// A name is text, whatever it holds.
func TestNamesAreEscaped(t *testing.T) {
	svg := svgOf(t, Lines{Series: []Series{{Name: `<script>alert("1")</script>`, Line: []Point{{0, 1}, {1, 2}}}}})
	if strings.Contains(svg, "<script") || !strings.Contains(svg, "&lt;script&gt;") {
		t.Errorf("the name is not escaped:\n%s", svg)
	}
}

// The legend of many names takes several lines, and the figure is so much higher.
func TestLegendTakesLines(t *testing.T) {
	name := func(n int) (f Lines) {
		for i := range n {
			f.Series = append(f.Series, Series{Name: "v77-75M-1a2b3c4d", Color: i, Line: []Point{{0, 1}, {1, float64(i)}}})
		}
		return f
	}
	_, one := name(1).size()
	_, two := name(2).size()
	_, six := name(6).size()
	if one != two || six != one+2*legendLine {
		t.Errorf("heights %v, %v, %v: want two names in a line and six in three", one, two, six)
	}
}

// What a long line shows are means; what is shown of losses begins after the first steps.
func TestAveragedAndFalling(t *testing.T) {
	var all []Point
	for i := range 4 * DrawnPoints {
		all = append(all, Point{X: float64(i), Y: float64(i % 4)})
	}
	short := Averaged(all)
	if len(short) != DrawnPoints || short[0] != (Point{1.5, 1.5}) {
		t.Errorf("%d points, the first %v: want %d, and the mean of four", len(short), short[0], DrawnPoints)
	}
	for _, n := range []int{3, 2*DrawnPoints - 1} {
		if few := Averaged(all[:n]); len(few) != n {
			t.Errorf("%d of %d points", len(few), n)
		}
	}
	if two := AveragedTo(all, 2); len(two) != 2 || int(two[1].X) != 3*DrawnPoints-1 {
		t.Errorf("%v: want the means of both halves", two)
	}
	losses := []Point{{0, 16}}
	for i := 1; i < 100; i++ {
		losses = append(losses, Point{float64(i), 4})
	}
	f := Lines{Series: []Series{{Line: losses, Dots: []Point{{50, 3}}}}}.Falling()
	if f.Y.Max != 4 || f.Y.Min != 2.9 || f.X.Min != 0 || f.X.Max < 99 {
		t.Errorf("the axes show %+v, %+v", f.X, f.Y)
	}
}

func colors(t *testing.T, f Figure) (seen map[string]int, width int) {
	t.Helper()
	b, err := PNG(f)
	if err != nil {
		t.Fatal(err)
	}
	picture, err := png.Decode(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	seen = map[string]int{}
	for y := range picture.Bounds().Dy() {
		for x := range picture.Bounds().Dx() {
			r, g, b, _ := picture.At(x, y).RGBA()
			seen[fmt.Sprintf("#%02x%02x%02x", r>>8, g>>8, b>>8)]++
		}
	}
	return seen, picture.Bounds().Dx()
}

// Bars are as long as their values: the second part is three times the first one.
func TestBars(t *testing.T) {
	f := Bars{Labels: []string{"steps"}, Panels: []Panel{{X: Axis{Label: "seconds"}, Parts: []Part{
		{Name: "processor", Values: []float64{1}}, {Color: 1, Values: []float64{3}},
		{Color: 2, Values: []float64{math.NaN()}},
	}, Texts: []string{"4 s"}}}}
	seen, width := colors(t, f)
	legend := 6 * 14 * dpi / 72 * dpi / 72 // the sample of the first part
	if first, second := seen[Palette[0]]-legend, seen[Palette[1]]; math.Abs(float64(second)/float64(first)-3) > 0.2 {
		t.Errorf("%d and %d pixels of the parts, want 1 : 3", first, second)
	}
	if seen[Palette[2]] != 0 {
		t.Error("what is not a number has a bar")
	}
	if want := int(Column.Points() / 72 * dpi); width < want-1 || width > want+1 {
		t.Errorf("%d pixels wide, want %d", width, want)
	}
	if svg := svgOf(t, f); !strings.Contains(svg, ">steps<") || !strings.Contains(svg, ">4 s<") ||
		!strings.Contains(svg, ">processor<") {
		t.Errorf("texts are missing:\n%s", svg)
	}
}

// A bar with an error has a line around its end, of twice the error, between two caps; the axis has room for the line.
func TestErrorsOfBars(t *testing.T) {
	f := Bars{Labels: []string{"a", "b"}, Panels: []Panel{{Parts: []Part{{Values: []float64{4, 2}}},
		Errors: []float64{1, math.NaN()}}}}
	svg := svgOf(t, f)
	bar := pairs(t, svg, `<path d="M([0-9.]*),[0-9.]*L[0-9.]*,[0-9.]*L([0-9.]*),[^"]*" style="fill:#0072B2`)
	line := pairs(t, svg, `<path d="M([0-9.]*),[0-9.]*L([0-9.]*),[^L"]*" `+
		`style="fill:none;stroke:#000000;stroke-width:0.75`)
	if len(bar) != 2 || len(line) != 3 {
		t.Fatalf("%d bars and %d lines of errors, want 2 and 3", len(bar), len(line))
	}
	longest := max(bar[0][1]-bar[0][0], bar[1][1]-bar[1][0])
	if long := line[0][1] - line[0][0]; math.Abs(long/longest-0.5) > 0.01 {
		t.Errorf("a line of %g for a bar of %g, want half", long, longest)
	}
	if width := Column.Points(); line[0][1] >= width {
		t.Errorf("the line ends at %g of %g", line[0][1], width)
	}
}

// pairs are the two numbers of each place that a pattern finds in a picture.
func pairs(t *testing.T, svg, pattern string) (all [][2]float64) {
	t.Helper()
	for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(svg, -1) {
		var pair [2]float64
		if _, err := fmt.Sscan(m[1]+" "+m[2], &pair[0], &pair[1]); err != nil {
			t.Fatal(err)
		}
		all = append(all, pair)
	}
	return all
}

// The first bar is on top, beside its label, and its text stands at its end.
func TestOrderOfBars(t *testing.T) {
	svg := svgOf(t, Bars{Labels: []string{"first", "second"}, Panels: []Panel{{
		Parts: []Part{{Values: []float64{5, 1}}}, Texts: []string{"long", "short"},
	}}})
	place := func(text string) Point {
		at := pairs(t, svg, `<text x="([^"]*)" y="([^"]*)"[^>]*>`+text+`<`)
		if len(at) == 0 {
			t.Fatalf("no text %s", text)
		}
		return Point{X: at[0][0], Y: at[0][1]}
	}
	first, second, long, short := place("first"), place("second"), place("long"), place("short")
	if first.Y >= second.Y || long.Y >= short.Y || long.X <= short.X { // y grows downwards
		t.Errorf("labels at %v, %v; texts at %v, %v", first, second, long, short)
	}
	// A bar is drawn as a path, whose y grows upwards.
	ends := pairs(t, svg, `<path d="[^"]*L([0-9.]*),([0-9.]*)L[^"]*" style="fill:#0072B2`)
	if len(ends) != 2 {
		t.Fatalf("%d bars", len(ends))
	}
	if (ends[0][0] > ends[1][0]) != (ends[0][1] > ends[1][1]) {
		t.Errorf("bars end at %v: the longer one is to be on top", ends)
	}
}

// Values have their colours on the scale, and their numbers where there is room.
func TestHeatMaps(t *testing.T) {
	f := HeatMaps{Rows: "layer", Columns: "head", Scale: Axis{Label: "IPMR in %", Min: 0, Max: 90}, Maps: []HeatMap{
		{Title: "step 10", Values: [][]float64{{0, 30}, {90, math.NaN()}}},
	}}
	seen, _ := colors(t, f)
	for _, color := range []string{"#f7fbff", "#9cc9e6", "#062f5c", "#c8c8c8"} {
		if seen[color] < 1000 {
			t.Errorf("%d pixels of colour %s", seen[color], color)
		}
	}
	svg := svgOf(t, f)
	for _, text := range []string{">layer<", ">head<", ">IPMR in %<", ">step 10<", ">30<", ">90<"} {
		if !strings.Contains(svg, text) {
			t.Errorf("the SVG lacks %s", text)
		}
	}
	// Maps of a large model still stand beside each other, each cell large enough to be seen.
	large := HeatMap{Values: make([][]float64, 24)}
	for i := range large.Values {
		large.Values[i] = make([]float64, 16)
	}
	l := HeatMaps{Maps: slices.Repeat([]HeatMap{large}, 8)}.layout()
	if l.perLine != 4 || l.cell.X < 4.5 || l.width != Page {
		t.Errorf("eight maps of 24 × 16: %+v", l)
	}
}

// The scale can be read in gray: each shade is darker than the one before.
func TestScaleDarkens(t *testing.T) {
	f := HeatMaps{Scale: Axis{Max: 100}}
	before := math.Inf(1)
	for v := range 101 {
		r, g, b, _ := f.colorOf(float64(v)).RGBA()
		if lightness := 0.2126*float64(r) + 0.7152*float64(g) + 0.0722*float64(b); lightness >= before {
			t.Fatalf("the colour of %d is not darker than the one before", v)
		} else {
			before = lightness
		}
	}
}

// Equal figures have equal bytes, and a file has the format of its name.
func TestWrite(t *testing.T) {
	dir := t.TempDir()
	f := Stack{Bars{Title: "two", Labels: []string{"a"}, Panels: []Panel{{Parts: []Part{{Values: []float64{1}}}}}},
		Lines{Series: []Series{{Name: "b", Dashed: true, Color: Gray, Line: []Point{{0, 1}, {1, 2}}}}}}
	for _, ending := range []string{".png", ".svg"} {
		var both [2][]byte
		for i := range both {
			path := filepath.Join(dir, fmt.Sprint(i)+ending)
			if err := Write(path, f, "t"); err != nil {
				t.Fatal(err)
			}
			both[i], _ = os.ReadFile(path)
		}
		if len(both[0]) == 0 || !bytes.Equal(both[0], both[1]) {
			t.Errorf("%s: two files of a figure differ", ending)
		}
	}
	if err := Write(filepath.Join(dir, "a.webp"), f, "t"); !errors.As(err, new(FormatError)) {
		t.Errorf("an unknown format: %v", err)
	}
}
