package index

import (
	"math"
	"slices"
	"sort"
)

// Point is a piece of a curve: the samples after the point before it, up to Step.
type Point struct {
	At              float64 // tokens or seconds at Step: see Curve
	Step            int32
	Mean, Low, High float32 // of the samples
}

// series keeps samples as points, in bounded memory: as many samples a point as are needed to stay below limit points.
// What matters to the eye is kept, the lowest and the highest sample of each point.
type series struct {
	points []Point
	each   int // samples a point; a power of two
	last   int // samples of the last point
}

// limit is how many points a series has at most; it has at least half as many once it was full. A picture is that many
// pixels wide.
const limit = 1024

func (s *series) add(step int32, at float64, y float32) {
	if s.each == 0 {
		s.each, s.last = 1, 1
	}
	if len(s.points) == 0 || s.last >= s.each {
		if len(s.points) == limit {
			s.points = halve(s.points)
			s.each *= 2
		}
		s.points, s.last = append(s.points, Point{at, step, y, y, y}), 1
		return
	}
	p := &s.points[len(s.points)-1]
	p.Step, p.At = step, at
	p.Mean = (p.Mean*float32(s.last) + y) / float32(s.last+1)
	p.Low, p.High = min(p.Low, y), max(p.High, y)
	s.last++
}

// halve joins the points in pairs, in place.
func halve(points []Point) []Point {
	for i := range len(points) / 2 {
		points[i] = join(points[2*i], points[2*i+1])
	}
	return points[:len(points)/2]
}

func join(a, b Point) Point {
	return Point{b.At, b.Step, (a.Mean + b.Mean) / 2, min(a.Low, b.Low), max(a.High, b.High)}
}

// after are the points after a step, at most n of them: neighbours are joined where there are more. done is the step up
// to which they will not change any more, because the last
// point may still take samples.
func (s *series) after(step int32, n int) (points []Point, done int32) {
	first := sort.Search(len(s.points), func(i int) bool { return s.points[i].Step > step })
	points, done = slices.Clone(s.points[first:]), step
	if k := len(points); k > 0 && s.last >= s.each {
		done = points[k-1].Step
	} else if k > 1 {
		done = points[k-2].Step
	}
	for len(points) > max(n, 2) {
		odd := points[len(points)&^1:]
		points = append(halve(points[:len(points)&^1]), odd...)
	}
	return points, done
}

// at is the value of At at a step, between the points linearly; NaN beyond them.
func (s *series) at(step int32) float64 {
	i := sort.Search(len(s.points), func(i int) bool { return s.points[i].Step >= step })
	if i == len(s.points) {
		return math.NaN()
	}
	before, p := Point{}, s.points[i]
	if i > 0 {
		before = s.points[i-1]
	}
	if p.Step == before.Step {
		return p.At
	}
	return before.At + (p.At-before.At)*float64(step-before.Step)/float64(p.Step-before.Step)
}
