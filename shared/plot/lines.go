package plot

import (
	"math"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Lines draws series over a common horizontal axis, with a legend below.
type Lines struct {
	X, Y   Axis
	Series []Series
}

// Axis is an axis of a figure.
type Axis struct {
	Label    string  // what it is, and its unit
	Min, Max float64 // what is shown; where they are equal, all points
}

// Series is a line, dots, or both.
type Series struct {
	Name   string // in the legend; a series without a name is not in it
	Color  int    // of the palette, or Gray
	Dashed bool
	Line   []Point
	Dots   []Point
	Labels []string // a name above each dot; may be nil
}

// Point is a place in the units of the axes.
type Point struct{ X, Y float64 }

// linesHeight is the height of a figure without its legend.
const linesHeight = 5.6 * vg.Centimeter

func (l Lines) size() (width, height vg.Length) {
	return Column, linesHeight + l.legend().height(Column)
}

func (l Lines) draw(c draw.Canvas) error {
	p := newPlot(l.X, l.Y)
	for _, s := range l.Series {
		for _, part := range []func(*plot.Plot) error{s.addLine, s.addDots, s.addLabels} {
			if err := part(p); err != nil {
				return err
			}
		}
	}
	l.X.limit(&p.X)
	l.Y.limit(&p.Y)
	p.Draw(draw.Crop(l.legend().draw(c), 2, -8, 2, -4)) // room for half a number at the end of an axis
	return nil
}

// newPlot is an empty plot with a grid and the names of its axes.
func newPlot(x, y Axis) *plot.Plot {
	p := plot.New()
	p.BackgroundColor = nil
	p.X.Label.Text, p.Y.Label.Text = x.Label, y.Label
	p.X.Label.Padding, p.Y.Label.Padding = vg.Points(2), vg.Points(3)
	for _, axis := range []*plot.Axis{&p.X, &p.Y} {
		axis.Tick.Marker = ticks{}
		axis.LineStyle.Width, axis.Tick.LineStyle.Width, axis.Tick.Length = 0.5, 0.5, 3
		axis.Padding = 2
		for style, size := range map[*draw.TextStyle]vg.Length{
			&axis.Label.TextStyle: textSize, &axis.Tick.Label: smallSize,
		} {
			style.Font.Typeface, style.Font.Variant, style.Font.Size = "Liberation", "Sans", size
		}
	}
	grid := plotter.NewGrid()
	grid.Vertical, grid.Horizontal = gridStyle, gridStyle
	if y.Label == "" { // rows with names
		grid.Horizontal = draw.LineStyle{}
	}
	p.Add(grid)
	return p
}

// limit sets what an axis shows.
func (a Axis) limit(axis *plot.Axis) {
	if a.Min != a.Max {
		axis.Min, axis.Max = a.Min, a.Max
	}
}

func (s Series) lineStyle() draw.LineStyle {
	style := draw.LineStyle{Color: colorOf(s.Color), Width: 1}
	if s.Dashed {
		style.Dashes = []vg.Length{3, 2}
	}
	return style
}

func (s Series) addLine(p *plot.Plot) error {
	if len(s.Line) == 0 {
		return nil
	}
	line, err := plotter.NewLine(points(s.Line))
	if err != nil {
		return err
	}
	line.LineStyle = s.lineStyle()
	p.Add(line)
	return nil
}

func (s Series) dotStyle() draw.GlyphStyle {
	return draw.GlyphStyle{Color: colorOf(s.Color), Shape: draw.CircleGlyph{}, Radius: 2}
}

func (s Series) addDots(p *plot.Plot) error {
	if len(s.Dots) == 0 {
		return nil
	}
	dots, err := plotter.NewScatter(points(s.Dots))
	if err != nil {
		return err
	}
	dots.GlyphStyle = s.dotStyle()
	p.Add(dots)
	return nil
}

func (s Series) addLabels(p *plot.Plot) error {
	if len(s.Labels) == 0 {
		return nil
	}
	labels, err := plotter.NewLabels(plotter.XYLabels{XYs: points(s.Dots), Labels: s.Labels})
	if err != nil {
		return err
	}
	labels.Offset.Y = vg.Points(4)
	for i := range labels.TextStyle {
		labels.TextStyle[i] = textStyle(smallSize, colorOf(s.Color), draw.XCenter, draw.YBottom)
	}
	p.Add(labels)
	return nil
}

func points(all []Point) plotter.XYs {
	xys := make(plotter.XYs, len(all))
	for i, p := range all {
		xys[i] = plotter.XY(p)
	}
	return xys
}

// legend names the series that have a name.
func (l Lines) legend() (all legend) {
	for _, s := range l.Series {
		if s.Name == "" {
			continue
		}
		all = append(all, entry{s.Name, func(c draw.Canvas, from, to vg.Point) {
			if len(s.Line) > 0 {
				c.StrokeLines(s.lineStyle(), []vg.Point{from, to})
			}
			if len(s.Dots) > 0 {
				c.DrawGlyph(s.dotStyle(), vg.Point{X: (from.X + to.X) / 2, Y: from.Y})
			}
		}})
	}
	return all
}

// ticks are four to nine round numbers on an axis, and fewer, but two at least, where their labels together are wider
// than room. Where room is 0, any labels fit.
type ticks struct{ room vg.Length }

func (t ticks) Ticks(low, high float64) []plot.Tick {
	if high <= low { // gonum makes such axes wider before it asks
		return nil
	}
	const least = 3 // steps between ticks
	n := 3*int(math.Floor(math.Log10((high-low)/least))) + 2
	for n%3 != 0 && (high-low)/roundNumber(n) < least {
		n--
	}
	all := ticksAt(roundNumber(n), low, high)
	for t.room > 0 && widthOf(all) > t.room {
		n++
		fewer := ticksAt(roundNumber(n), low, high)
		if len(fewer) < 2 {
			break
		}
		all = fewer
	}
	return all
}

// roundNumber is the nth of the round numbers … 0.5, 1, 2, 5, 10, 20 …, of which 1 is number 0.
func roundNumber(n int) float64 {
	of := ((n % 3) + 3) % 3
	return []float64{1, 2, 5}[of] * math.Pow(10, float64((n-of)/3))
}

// ticksAt are ticks at the multiples of step.
func ticksAt(step, low, high float64) (all []plot.Tick) {
	decimals := max(0, int(-math.Floor(math.Log10(step))))
	for n := math.Ceil(low / step); n*step <= high; n++ {
		value := n * step
		if value == 0 {
			value = 0 // of -0, which the label of a little less than 0 would be
		}
		all = append(all, plot.Tick{Value: value, Label: strconv.FormatFloat(value, 'f', decimals, 64)})
	}
	return all
}

// widthOf is the width of the labels of ticks, with the space between two of them.
func widthOf(all []plot.Tick) (width vg.Length) {
	const between = 4
	for _, tick := range all {
		width += legendStyle.Width(tick.Label) + between
	}
	return width
}

// DrawnPoints is how many points of a long line are drawn, at least; twice as many at most.
const DrawnPoints = 200

// Averaged makes a long line short: a point is the mean of the points around it.
func Averaged(all []Point) []Point { return AveragedTo(all, DrawnPoints) }

// AveragedTo leaves about as many points as it is told, which must be one or more. Fewer points are less noise.
func AveragedTo(all []Point, points int) (short []Point) {
	size := max(1, len(all)/points)
	for ; len(all) >= size && len(all) > 0; all = all[size:] {
		var mean Point
		for _, p := range all[:size] {
			mean.X += p.X / float64(size)
			mean.Y += p.Y / float64(size)
		}
		short = append(short, mean)
	}
	return short
}

// Falling is the same figure of losses, which shows what follows the first steps: they fall from log2(vocabulary) and
// would press everything else flat. Its horizontal axis begins at 0.
func (l Lines) Falling() Lines {
	lowest, middle := math.Inf(1), math.Inf(-1)
	for _, s := range l.Series {
		for _, p := range append(s.Line[:len(s.Line):len(s.Line)], s.Dots...) {
			lowest, l.X.Max = min(lowest, p.Y), max(l.X.Max, 1.02*p.X)
		}
		if len(s.Line) > 0 {
			middle = max(middle, s.Line[len(s.Line)/20].Y)
		}
	}
	l.Y.Min, l.Y.Max = lowest-0.1, middle
	return l
}

// FromZero is the same figure with axes that begin at 0.
func (l Lines) FromZero() Lines {
	for _, s := range l.Series {
		for _, p := range append(s.Line[:len(s.Line):len(s.Line)], s.Dots...) {
			l.X.Max, l.Y.Max = max(l.X.Max, 1.02*p.X), max(l.Y.Max, 1.05*p.Y)
			l.Y.Min = min(l.Y.Min, p.Y)
		}
	}
	return l
}
