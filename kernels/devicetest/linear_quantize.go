package devicetest

import (
	"fmt"
	"math"
	"slices"

	"bitnet1/kernels"
)

// outputs are what a linear's outputs are quantized to: the number of channels and the quantization of each part.
type outputs []struct {
	channels int
	q        kernels.Quantization
}

func (o outputs) String() string {
	s := ""
	for _, p := range o {
		s += fmt.Sprintf(" %d %v", p.channels, p.q)
	}
	return s
}

// outputs divides channels into up to most parts, at any channel, each with one of the quantizations that choose
// returns.
func (b *bench) outputs(channels, most int, choose func() kernels.Quantization) (list outputs) {
	for n := 1 + b.r.IntN(most); channels > 0; n-- {
		part := outputs{{channels, choose()}}
		if n > 1 {
			part[0].channels = 1 + b.r.IntN(channels)
		}
		channels -= part[0].channels
		list = append(list, part...)
	}
	return list
}

// planesFor is zeroed memory for outputs.
func (b *bench) planesFor(list outputs, rows int) []kernels.Planes {
	b.t.Helper()
	planes := make([]kernels.Planes, len(list))
	for i, o := range list {
		planes[i] = b.planes(rows, o.channels, o.q)
	}
	return planes
}

// integersOf are the integers of all channels, rows × channels.
func (b *bench) integersOf(list []kernels.Planes) []int {
	b.t.Helper()
	rows := list[0].Rows()
	all, parts := []int(nil), make([][]int, len(list))
	for i, p := range list {
		parts[i] = b.integers(p)
	}
	for r := range rows {
		for i, p := range list {
			all = append(all, parts[i][r*p.Cols():][:p.Cols()]...)
		}
	}
	return all
}

func testLinearQuantize(b *bench) {
	levels := func() kernels.Quantization { return kernels.MidRise(1 + b.r.IntN(8)) }
	squares := func() kernels.Quantization { return kernels.Unsigned(2 + b.r.IntN(7)) }
	for i, c := range b.shapes() {
		for _, mix := range []float64{1, 0.5} {
			if mix < 1 && c.rows*c.in*c.out > 1<<22 {
				continue
			}
			l, shift := b.newLinearOf(c.in, c.out, mix, b.weightOf()), keyShift{}
			if i%2 == 1 {
				shift = b.shift(c.rows, c.out, i%4 == 1)
			}
			b.unpleasant(&l)
			input := b.inputOf(c.bits)
			x := b.activationOf(c.rows, c.in, input)
			u := b.preactivations(l, x, c.rows, shift)
			for _, list := range []outputs{
				{{c.out, kernels.Sign()}}, b.outputs(c.out, 4, levels), b.outputs(c.out, 2, squares),
			} {
				b.quantizes(fmt.Sprintf("%d rows of %v, %v, shift %+v", c.rows, input, l, shift), list, l, x, u, shift)
			}
		}
	}
}

// Outputs beside what decides: thresholds between levels, the ends of masks and of the squared ReLU's derivative, and
// special values. Scales of 0 make outputs what thresholds theta say.
func testOutputThresholds(b *bench) {
	for bits := 1; bits <= 8; bits++ {
		for _, q := range []kernels.Quantization{kernels.MidRise(bits), kernels.Unsigned(bits)} {
			u := append(specials(), 2, 2.5, math.Float32frombits(0x3fffffff), math.Float32frombits(0x40000001))
			for i := range q.Largest() {
				middle := float64(i+1-(q.Largest()+1)/2) * q.Step()
				if !q.PlusMinus() {
					middle = math.Sqrt((float64(i) + 0.5) * q.Step())
				}
				for around := -2; around <= 2; around++ {
					u = append(u, math.Float32frombits(math.Float32bits(float32(middle))+uint32(around)))
				}
			}
			l := b.newLinear(1, len(u), 1)
			for i, v := range u {
				l.alpha[i], l.theta[i] = 0, -v
			}
			b.d.Upload(l.Alpha, l.alpha)
			b.d.Upload(l.Theta, l.theta)
			x := b.activation(1, 1, 1)
			b.quantizes("outputs beside thresholds", outputs{{len(u), q}}, l, x, b.preactivations(l, x, 1, keyShift{}),
				keyShift{})
		}
	}
}

// preactivations are a linear's outputs u, rows × channels, and what another order of sums may change of each.
type preactivations struct {
	u     []float32
	slack []float64
}

func (b *bench) preactivations(l linear, x kernels.Activation, rows int, shift keyShift) preactivations {
	p := preactivations{make([]float32, rows*l.Out), make([]float64, rows*l.Out)}
	if x.Planes == nil || l.Mixed != nil {
		values := b.values(x)
		for i := range p.u {
			p.u[i], p.slack[i] = l.output(values, i/l.Out, i%l.Out, shift)
		}
		return p
	}
	integers, unit := b.integers(x.Planes), x.Planes.Quantization().Unit()*l.Quantized.Quantization().Unit()
	for i := range p.u {
		var y float32
		r, o := i/l.Out, i%l.Out
		for _, from := range sources(r, o, shift) {
			n := 0
			for k, v := range integers[from*l.In:][:l.In] {
				n += v * l.levels[o*l.In+k]
			}
			y += unit * float32(n)
		}
		p.u[i] = float32(l.alpha[o]*y) - l.theta[o]
	}
	return p
}

// quantizes runs LinearQuantize into memory of other contents and compares all of it. Where slack allows several
// values, each of them will do.
func (b *bench) quantizes(what string, list outputs, l linear, x kernels.Activation, p preactivations, shift keyShift) {
	b.t.Helper()
	rows := len(p.u) / l.Out
	out, alone, derivative := b.planesFor(list, rows), b.planesFor(list, rows), kernels.Derivative{}
	squared := !list[0].q.PlusMinus()
	if squared {
		derivative.Factors = b.poisoned(rows * l.Out)
	} else {
		derivative.Mask = b.signs(rows, l.Out)
	}
	other := kernels.Activation{Floats: b.floats(b.normals(rows * l.In))}
	b.d.LinearQuantize(out, kernels.Derivative{}, other, l.Linear, kernels.KShift{})
	b.d.LinearQuantize(out, derivative, x, l.Linear, shift.KShift)
	b.d.LinearQuantize(alone, kernels.Derivative{}, x, l.Linear, shift.KShift)
	what += fmt.Sprintf(" to%v", list)
	got := b.integersOf(out)
	same(b.t, what+": without the derivative", b.integersOf(alone), got, l.Out)
	quantizations := make([]kernels.Quantization, 0, l.Out)
	for _, o := range list {
		quantizations = append(quantizations, slices.Repeat([]kernels.Quantization{o.q}, o.channels)...)
	}
	allowed(b, what+": integers", got, p, l.Out, func(u float32, channel int) int {
		return level(quantizations[channel], u)
	})
	if squared {
		factors := b.download(derivative.Factors)
		allowed(b, what+": factors", factors, p, l.Out, func(u float32, _ int) float32 { return factor(u) })
		rounded := b.poisonedBFloats(rows * l.Out)
		b.d.LinearQuantize(out, kernels.Derivative{Factors: rounded}, x, l.Linear, shift.KShift)
		same(b.t, what+": factors in bfloat16", b.download(rounded), bfloatsOf(factors), l.Out)
		return
	}
	allowed(b, what+": mask", b.integers(derivative.Mask), p, l.Out, func(u float32, channel int) int {
		if math.Abs(float64(u)) <= quantizations[channel].PassLimit() {
			return 1
		}
		return -1
	})
}

// level is the integer of an output.
func level(q kernels.Quantization, u float32) int {
	if q.PlusMinus() {
		return q.Integer(float64(u))
	}
	if !(u > 0) {
		return 0
	}
	return q.Integer(float64(min(float32(u*u), 4)))
}

// factor is the derivative of min(relu(u)², 4).
func factor(u float32) float32 {
	if u > 0 && u <= 2 {
		return 2 * u
	}
	return 0
}

// turns are where the f of allowed turns from rising to falling: a mask is 1 around 0, a factor is largest at 2.
var turns = [2]float32{0, 2}

// allowed compares what was made of outputs with f of them. Where an output may be another by its slack, any value
// between those of f is right.
func allowed[T int | float32](b *bench, what string, got []T, p preactivations, cols int,
	f func(u float32, channel int) T) {
	b.t.Helper()
	wrong := 0
	for i, v := range got {
		u, slack, c := p.u[i], float32(p.slack[i]), i%cols
		want := f(u, c)
		lower, higher := f(u-slack, c), f(u+slack, c)
		least, most := min(want, lower, higher), max(want, lower, higher)
		for _, turn := range turns {
			if u-slack <= turn && turn <= u+slack {
				least, most = min(least, f(turn, c)), max(most, f(turn, c))
			}
		}
		if v == want || slack > 0 && least <= v && v <= most {
			continue
		}
		if wrong++; wrong <= 3 {
			b.t.Errorf("%s: row %d, channel %d, u = %v: %v, want %v", what, i/cols, c, u, v, want)
		}
	}
	if wrong > 3 {
		b.t.Errorf("%s: %d of %d outputs are wrong", what, wrong, len(got))
	}
}
