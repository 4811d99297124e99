package index

import (
	"math"
	"testing"
)

// However many samples there are, few points are kept, in order, with the lowest and the highest sample.
func TestSeriesIsBounded(t *testing.T) {
	for _, n := range []int32{1, 2, limit - 1, limit, limit + 1, 10000, 1 << 17} {
		var s series
		sum := 0.0
		for i := range n {
			y := float32(10 + math.Sin(float64(i)))
			if i == n/3 {
				y = 99
			}
			if i == n/2 {
				y = -5
			}
			sum += float64(y)
			s.add(10*(i+1), float64(i+1)*4096, y)
		}
		if len(s.points) > limit || n >= limit && len(s.points) < limit/2 {
			t.Errorf("%d samples are kept in %d points", n, len(s.points))
		}
		low, high := float32(math.Inf(1)), float32(math.Inf(-1))
		for i, p := range s.points {
			low, high = min(low, p.Low), max(high, p.High)
			if i > 0 && p.Step <= s.points[i-1].Step || p.Mean < p.Low-1e-4 || p.Mean > p.High+1e-4 {
				t.Fatalf("%d samples: point %d is %+v", n, i, p)
			}
		}
		last := s.points[len(s.points)-1]
		if low != -5 && n > 1 || high != 99 && n > 2 || last.Step != 10*n || last.At != float64(n)*4096 {
			t.Errorf("%d samples: from %v to %v, the last point is %+v", n, low, high, last)
		}
		mean := 0.0
		for i, p := range s.points {
			samples := s.each
			if i == len(s.points)-1 {
				samples = s.last
			}
			mean += float64(p.Mean) * float64(samples) / float64(n)
		}
		if math.Abs(mean-sum/float64(n)) > 1e-3 {
			t.Errorf("%d samples: their mean is %v, want %v", n, mean, sum/float64(n))
		}
	}
}

// A reader that asks again and again for what is new has, in the end, what one has that asks once.
func TestSeriesAfter(t *testing.T) {
	for _, every := range []int32{1, 3, 7, 100, 900} {
		var s series
		var have []Point
		done := int32(0)
		for i := int32(1); i <= 3*limit; i++ {
			s.add(i, float64(i), float32(i))
			if i%every > 0 && i < 3*limit {
				continue
			}
			for len(have) > 0 && have[len(have)-1].Step > done {
				have = have[:len(have)-1]
			}
			var points []Point
			points, done = s.after(done, math.MaxInt)
			have = append(have, points...)
		}
		for i, p := range have {
			if i > 0 && p.Step <= have[i-1].Step {
				t.Fatalf("every %d: point %d is at step %d after %d", every, i, p.Step, have[i-1].Step)
			}
		}
		if last := have[len(have)-1]; last.Step != 3*limit || last.High != 3*limit || have[0].Low != 1 {
			t.Errorf("every %d: from %+v to %+v", every, have[0], last)
		}
	}
	var s series
	for i := range int32(1000) {
		s.add(i+1, 0, float32(i))
	}
	for _, n := range []int{1, 2, 50, 999} {
		points, _ := s.after(0, n)
		if len(points) > max(n, 2) || len(points) < n/2 || points[0].Low != 0 || points[len(points)-1].High != 999 {
			t.Errorf("at most %d points: %d from %+v", n, len(points), points[0])
		}
	}
	if points, done := s.after(1000, 50); len(points) != 0 || done != 1000 {
		t.Errorf("nothing is new: %v, %d", points, done)
	}
}

// A point that still takes samples is sent again.
func TestSeriesAfterHalfAPoint(t *testing.T) {
	var s series
	for i := range int32(limit + 1) {
		s.add(i+1, 0, float32(i))
	}
	points, done := s.after(0, limit)
	if done != limit || points[len(points)-1].Step != limit+1 {
		t.Errorf("done up to step %d, the last point is at %d", done, points[len(points)-1].Step)
	}
	s.add(limit+2, 0, 7777)
	if points, _ = s.after(done, limit); len(points) != 1 || points[0].High != 7777 || points[0].Low != limit {
		t.Errorf("%+v", points)
	}
}

func TestSeriesAt(t *testing.T) {
	var s series
	s.add(10, 100, 0)
	s.add(20, 300, 0)
	for step, want := range map[int32]float64{0: 0, 5: 50, 10: 100, 15: 200, 20: 300, 21: math.NaN()} {
		if got := s.at(step); got != want && !(math.IsNaN(got) && math.IsNaN(want)) {
			t.Errorf("at step %d: %v, want %v", step, got, want)
		}
	}
}
