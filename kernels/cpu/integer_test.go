package cpu

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"bitnet1/kernels"
	"bitnet1/kernels/philox"
)

// backwardCase is one LinearBackward of random shape.
type backwardCase struct {
	rows, in, out, streamBits, gradBits int
	shift                               kernels.KShift
	masked, mixed                       bool
	scalars                             kernels.Scalars
	linear                              kernels.Linear
	x                                   *planes
	levels                              []int // behind x
	dy                                  floats
	pass                                kernels.Planes
	set                                 []int // > 0 where pass is set
}

func randomBackward(t *testing.T, d *Device, r *rand.Rand) *backwardCase {
	seq := 1 + r.IntN(20)
	c := &backwardCase{
		rows: seq * (1 + r.IntN(6)), in: 1 + r.IntN(200), out: 1 + r.IntN(150),
		streamBits: 1 + r.IntN(8), gradBits: 2 + r.IntN(7), masked: r.IntN(2) == 0, mixed: r.IntN(5) == 0,
		scalars: kernels.Scalars{Seed: r.Uint64(), Step: r.Uint64(), Micro: r.Uint32() >> 16, Mix: 0.3},
	}
	if r.IntN(2) == 0 {
		from := r.IntN(c.out)
		c.shift = kernels.KShift{From: from, To: from + 1 + r.IntN(c.out-from), Offset: r.IntN(4), Self: r.IntN(2) == 0, Seq: seq}
	}
	d.SetScalars(c.scalars)
	c.linear = kernels.Linear{In: c.in, Out: c.out, ID: uint16(r.Uint32()),
		Weight: normals(r, c.out*c.in), Alpha: normals(r, c.out), Theta: normals(r, c.out)}
	c.linear.Signs, _ = d.NewPlanes(c.out, c.in, 1)
	if c.mixed {
		c.linear.Mixed = make(floats, c.in*c.out)
	}
	d.Binarize(c.linear)
	c.x, c.levels = randomPlanes(t, d, r, c.rows, c.in, c.streamBits)
	c.dy = normals(r, c.rows*c.out)
	for o := range c.out { // a channel without gradient
		if r.IntN(20) == 0 {
			for n := range c.rows {
				c.dy[n*c.out+o] = 0
			}
		}
	}
	if c.masked {
		c.pass, c.set = randomPlanes(t, d, r, c.rows, c.out, 1)
	}
	return c
}

func (c *backwardCase) String() string {
	return fmt.Sprintf("%d rows, %d to %d, stream %d, gradients %d, shift %+v, masked %v, mixed %v",
		c.rows, c.in, c.out, c.streamBits, c.gradBits, c.shift, c.masked, c.mixed)
}

// run does it on d, into poisoned memory where results overwrite.
func (c *backwardCase) run(t *testing.T, d *Device) (dx floats, dl kernels.LinearGradient) {
	t.Helper()
	dx = slices.Repeat(floats{float32(math.NaN())}, c.rows*c.in)
	dl = kernels.LinearGradient{Weight: make(floats, c.out*c.in), Alpha: make(floats, c.out), Theta: make(floats, c.out)}
	d.SetScalars(c.scalars)
	d.LinearBackward(dx, dl, c.dy, c.pass, kernels.Activation{Planes: c.x}, c.linear, c.shift, c.gradBits)
	if err := d.Sync(); err != nil {
		t.Fatalf("%v: %v", c, err)
	}
	return dx, dl
}

// plain is the gradient of the plain products.
func (c *backwardCase) plain() []float32 {
	g := make([]float32, c.rows*c.out)
	masked := func(n, o int) float32 {
		if c.masked && c.set[n*c.out+o] < 0 {
			return 0
		}
		return c.dy[n*c.out+o]
	}
	for n := range c.rows {
		for o := range c.out {
			if o < c.shift.From || o >= c.shift.To {
				g[n*c.out+o] = masked(n, o)
				continue
			}
			if c.shift.Self {
				g[n*c.out+o] = masked(n, o)
			}
			if n%c.shift.Seq+c.shift.Offset < c.shift.Seq {
				g[n*c.out+o] += masked(n+c.shift.Offset, o)
			}
		}
	}
	return g
}

// integers rounds as the contract of package kernels says, one value at a time. most[i] is the largest |v| that shares
// value i's scale.
func (c *backwardCase) integers(v, most []float32, half int) (q []int, unit []float32) {
	n := float32(int(1)<<(c.gradBits-1) - 1)
	q, unit = make([]int, len(v)), make([]float32, len(v))
	for i, x := range v {
		row, channel := i/c.out, i%c.out
		var inverse float32
		if most[i] >= 1e-30 {
			inverse = n / most[i]
		}
		unit[i] = most[i] / n
		s := c.scalars
		word := philox.Block(philox.Key(s.Seed^kernels.RoundingSeed), [4]uint32{
			uint32(row*((c.out+3)/4) + channel/4), uint32(c.linear.ID) | s.Micro<<16, uint32(s.Step), uint32(s.Step >> 32)})[channel%4]
		r := float32(word>>(16*half)&0xffff) / 65536
		scaled := float32(x * inverse)
		q[i] = int(min(max(math.Floor(float64(scaled+r)), -float64(n)), float64(n)))
	}
	return q, unit
}

func largestBy(v []float32, group func(i int) int) []float32 {
	most := map[int]float32{}
	for i, x := range v {
		most[group(i)] = max(most[group(i)], float32(math.Abs(float64(x))))
	}
	list := make([]float32, len(v))
	for i := range v {
		list[i] = most[group(i)]
	}
	return list
}

// Integer gradients are what the contract says, on any shape: the integers exactly, and so the floats that are one
// rounding away from them.
func TestIntegerGradientsMatchTheContract(t *testing.T) {
	d, r := New(Options{Workers: 2}), random(11)
	for range 150 {
		c := randomBackward(t, d, r)
		dx, dl := c.run(t, d)
		g, alpha := c.plain(), values(c.linear.Alpha)
		v := make([]float32, len(g))
		for i := range g {
			v[i] = g[i] * alpha[i%c.out]
		}
		forX, unitX := c.integers(v, largestBy(v, func(i int) int { return i / c.out }), 0)
		forW, unitW := c.integers(g, largestBy(g, func(i int) int { return i % c.out }), 1)
		weight := effective(c.linear)
		line := make([]float32, c.in)
		products := make([]int, c.rows*c.in) // Σ_c q sign(W)
		for o := range c.out {
			weight.segment(line, o, 0)
			var alphaSum float64
			for k, w := range line {
				sum := 0
				for n := range c.rows {
					sum += forW[n*c.out+o] * c.levels[n*c.in+k]
					if !c.mixed {
						products[n*c.in+k] += forX[n*c.out+o] * int(w)
					}
				}
				unit := unitW[o] * scale(c.streamBits)
				want := float32(alpha[o]*unit) * float32(sum)
				if got := values(dl.Weight)[o*c.in+k]; got != want {
					t.Fatalf("%v: weight %d of channel %d is %v, want %v", c, k, o, got, want)
				}
				alphaSum += float64(unit) * float64(sum) * float64(w)
			}
			if got := float64(values(dl.Alpha)[o]); math.Abs(got-alphaSum) > 1e-5*(1+math.Abs(alphaSum)) {
				t.Fatalf("%v: alpha %d is %v, want %v", c, o, got, alphaSum)
			}
			var theta float64
			for n := range c.rows {
				if !c.masked || c.set[n*c.out+o] > 0 {
					theta -= float64(c.dy[n*c.out+o])
				}
			}
			if got := float64(values(dl.Theta)[o]); math.Abs(got-theta) > 1e-4 {
				t.Fatalf("%v: theta %d is %v, want %v", c, o, got, theta)
			}
		}
		for i, got := range dx {
			want := unitX[i/c.in*c.out] * float32(products[i])
			if !c.mixed && got != want {
				t.Fatalf("%v: dx %d is %v, want %v", c, i, got, want)
			}
		}
	}
}

func TestIntegerGradientsOnAnyNumberOfWorkers(t *testing.T) {
	one, r := New(Options{Workers: 1}), random(12)
	for range 10 {
		c := randomBackward(t, one, r)
		dx, dl := c.run(t, one)
		for _, workers := range []int{2, 7} {
			dx2, dl2 := c.run(t, New(Options{Workers: workers}))
			if !slices.Equal(dx, dx2) || !slices.Equal(values(dl.Weight), values(dl2.Weight)) ||
				!slices.Equal(values(dl.Alpha), values(dl2.Alpha)) || !slices.Equal(values(dl.Theta), values(dl2.Theta)) {
				t.Errorf("%v: %d workers give other gradients", c, workers)
			}
		}
	}
}

// Over many steps the rounded gradients average to the unrounded ones. One rounding deviates by at most half a unit.
func TestRoundingIsUnbiased(t *testing.T) {
	d, r := New(Options{}), random(13)
	c := randomBackward(t, d, r)
	c.mixed, c.linear.Mixed = false, nil
	for _, bits := range []int{2, 4, 8} {
		c.gradBits = kernels.GradFloat
		wantX, want := c.run(t, d)
		c.gradBits = bits
		const steps = 400
		x, w := make([]float64, len(wantX)), make([]float64, c.out*c.in)
		for step := range steps {
			c.scalars.Step = uint64(step)
			dx, dl := c.run(t, d)
			for i, v := range dx {
				x[i] += float64(v) / steps
			}
			for i, v := range values(dl.Weight) {
				w[i] += float64(v) / steps
			}
		}
		n := float64(int(1)<<(bits-1) - 1)
		g, alpha := c.plain(), values(c.linear.Alpha)
		v := make([]float32, len(g))
		for i := range g {
			v[i] = g[i] * alpha[i%c.out]
		}
		inRow := largestBy(v, func(i int) int { return i / c.out })
		for i, mean := range x {
			allowed := 6 * 0.5 * float64(inRow[i/c.in*c.out]) / n * math.Sqrt(float64(c.out)/steps)
			if math.Abs(mean-float64(wantX[i])) > allowed+1e-4 {
				t.Fatalf("%v: dx %d is %v on average, want %v ± %v", c, i, mean, wantX[i], allowed)
			}
		}
		inChannel := largestBy(g, func(i int) int { return i % c.out })
		for i, mean := range w {
			o := i / c.in
			allowed := 6 * 0.5 * float64(inChannel[o]*magnitude(alpha[o])) / n * 2.5 * math.Sqrt(float64(c.rows)/steps)
			if math.Abs(mean-float64(values(want.Weight)[i])) > allowed+1e-4 {
				t.Fatalf("%v: weight %d is %v on average, want %v ± %v", c, i, mean, values(want.Weight)[i], allowed)
			}
		}
	}
}

// However the head is cut into parts, it gives the same gradients.
func TestHeadInParts(t *testing.T) {
	r := random(14)
	const rows, in, out = 23, 70, 150
	for _, streamBits := range []int{1, 4} {
		for _, gradBits := range []int{3, 8} {
			whole := New(Options{Workers: 2})
			whole.SetScalars(kernels.Scalars{GradScale: 0.1, Step: 3})
			head := kernels.Linear{In: in, Out: out, Weight: normals(r, out*in), Alpha: normals(r, out), Theta: normals(r, out)}
			head.Signs, _ = whole.NewPlanes(out, in, 1)
			whole.Binarize(head)
			for i := range values(head.Alpha) {
				head.Alpha.(floats)[i] *= 0.1
			}
			x, _ := randomPlanes(t, whole, r, rows, in, streamBits)
			targets := make(ints, rows)
			for i := range targets {
				targets[i] = int32(r.IntN(out+1) - 1)
			}
			run := func(d *Device) (all []float32) {
				d.SetScalars(kernels.Scalars{GradScale: 0.1, Step: 3})
				losses, dx := make(floats, rows), make(floats, rows*in)
				dl := kernels.LinearGradient{Weight: make(floats, out*in), Alpha: make(floats, out), Theta: make(floats, out)}
				d.CrossEntropyBackward(losses, dx, dl, kernels.Activation{Planes: x}, head, targets, gradBits)
				if err := d.Sync(); err != nil {
					t.Fatal(err)
				}
				return slices.Concat(losses, dx, values(dl.Weight), values(dl.Alpha))
			}
			want := run(whole)
			for _, logits := range []int{1, 7 * out, 20 * rows} {
				parts := New(Options{Workers: 3})
				parts.logitsAtOnce = logits
				if !slices.Equal(run(parts), want) {
					t.Errorf("stream %d, gradients %d: %d logits at a time give other gradients", streamBits, gradBits, logits)
				}
			}
		}
	}
}
