package cpu

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"bitnet1/kernels"
)

var floatGradients = kernels.GradBits{Input: kernels.FloatBits, Weight: kernels.FloatBits}

// backwardCase is one LinearBackward of random shape.
type backwardCase struct {
	rows, in, out, streamBits int
	gradBits                  kernels.GradBits
	shift                     kernels.KShift
	masked, mixed             bool
	scalars                   kernels.Scalars
	linear                    kernels.Linear
	x                         *planes
	levels                    []int // behind x
	dy                        floats
	pass                      kernels.Planes
	set                       []int // > 0 where pass is set
}

func randomBackward(t *testing.T, d *Device, r *rand.Rand) *backwardCase {
	seq := 1 + r.IntN(20)
	c := &backwardCase{
		rows: seq * (1 + r.IntN(6)), in: 1 + r.IntN(200), out: 1 + r.IntN(150),
		streamBits: 1 + r.IntN(8), gradBits: kernels.GradBits{Input: 2 + r.IntN(7), Weight: 2 + r.IntN(7)},
		masked: r.IntN(2) == 0, mixed: r.IntN(5) == 0,
		scalars: kernels.Scalars{Seed: r.Uint64(), Step: r.Uint64(), Micro: r.Uint32() >> 16, Mix: 0.3},
	}
	if r.IntN(2) == 0 {
		from := r.IntN(c.out)
		c.shift = kernels.KShift{
			From: from, To: from + 1 + r.IntN(c.out-from), Offset: r.IntN(4), Self: r.IntN(2) == 0, Seq: seq,
		}
	}
	d.SetScalars(c.scalars)
	c.linear = kernels.Linear{In: c.in, Out: c.out, ID: uint16(r.Uint32()),
		Weight: normals(r, c.out*c.in), Alpha: normals(r, c.out), Theta: normals(r, c.out)}
	c.linear.Quantized, _ = d.NewPlanes(c.out, c.in, kernels.Sign())
	if c.mixed {
		c.linear.Mixed = make(floats, c.in*c.out)
	}
	d.Quantize(c.linear)
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
	return fmt.Sprintf("%d rows, %d to %d, stream %d, gradients %v, shift %+v, masked %v, mixed %v",
		c.rows, c.in, c.out, c.streamBits, c.gradBits, c.shift, c.masked, c.mixed)
}

// run does it on d, into poisoned memory where results overwrite.
func (c *backwardCase) run(t *testing.T, d *Device) (dx floats, dl kernels.LinearGradient) {
	t.Helper()
	dx = slices.Repeat(floats{float32(math.NaN())}, c.rows*c.in)
	dl = kernels.LinearGradient{Weight: make(floats, c.out*c.in), Alpha: make(floats, c.out), Theta: make(floats, c.out)}
	d.SetScalars(c.scalars)
	d.LinearBackward(dx, dl, c.dy, kernels.Derivative{Mask: c.pass}, kernels.Activation{Planes: c.x}, c.linear, c.shift,
		c.gradBits)
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

// largestBy gives every value the largest absolute value of its group.
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
	for _, bits := range []kernels.GradBits{{Input: 2, Weight: 2}, {Input: 4, Weight: 8}, {Input: 8, Weight: 4}} {
		c.gradBits = floatGradients
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
		g, alpha := c.plain(), values(c.linear.Alpha)
		v := make([]float32, len(g))
		for i := range g {
			v[i] = g[i] * alpha[i%c.out]
		}
		inRow := largestBy(v, func(i int) int { return i / c.out })
		for i, mean := range x {
			allowed := 6 * 0.5 * float64(inRow[i/c.in*c.out]/largest(bits.Input)) * math.Sqrt(float64(c.out)/steps)
			if math.Abs(mean-float64(wantX[i])) > allowed+1e-4 {
				t.Fatalf("%v: dx %d is %v on average, want %v ± %v", c, i, mean, wantX[i], allowed)
			}
		}
		inChannel := largestBy(g, func(i int) int { return i % c.out })
		for i, mean := range w {
			o := i / c.in
			unit := float64(inChannel[o] * magnitude(alpha[o]) / largest(bits.Weight))
			allowed := 6 * 0.5 * unit * 2.5 * math.Sqrt(float64(c.rows)/steps)
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
		for _, gradBits := range []kernels.GradBits{{Input: 3, Weight: 3}, {Input: 8, Weight: 8}, {Input: 4, Weight: 8}} {
			whole := New(Options{Workers: 2})
			whole.SetScalars(kernels.Scalars{GradScale: 0.1, Step: 3})
			head := kernels.Linear{In: in, Out: out, Weight: normals(r, out*in), Alpha: normals(r, out), Theta: normals(r, out)}
			head.Quantized, _ = whole.NewPlanes(out, in, kernels.Sign())
			whole.Quantize(head)
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
					t.Errorf("stream %d, gradients %v: %d logits at a time give other gradients", streamBits, gradBits, logits)
				}
			}
		}
	}
}
