package cpu

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"bitnet1/kernels"
	"bitnet1/kernels/number/float16"
)

func random(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 1)) }

func normals(r *rand.Rand, n int) floats {
	x := make(floats, n)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	return x
}

// randomPlanes fills rows with random values and returns the integers behind them, Σ_b 2^b s_b.
func randomPlanes(t *testing.T, d *Device, r *rand.Rand, rows, cols, bits int) (*planes, []int) {
	t.Helper()
	x, err := d.NewPlanes(rows, cols, kernels.MidRise(bits))
	if err != nil {
		t.Fatal(err)
	}
	p, levels := x.(*planes), make([]int, rows*cols)
	for i := range levels {
		row := p.row(i / cols)
		levels[i] = -(1<<bits - 1)
		for b := range bits {
			bit := r.Uint64() & 1
			row[b*p.stride+i%cols>>6] |= bit << (i % cols & 63)
			levels[i] += int(bit) << (b + 1)
		}
	}
	return p, levels
}

func ones(n int) floats {
	x := make(floats, n)
	for i := range x {
		x[i] = 1
	}
	return x
}

// Products of planes are exact integers, for any widths and numbers of planes.
func TestBinaryProductsAreExact(t *testing.T) {
	d, r := New(Options{}), random(1)
	for _, c := range []struct{ rows, in, out, bits int }{
		{1, 1, 1, 1}, {3, 63, 5, 1}, {9, 64, 130, 1}, {5, 65, 7, 2}, {17, 300, 131, 4}, {4, 1024, 9, 8}, {2, 257, 260, 3},
	} {
		x, a := randomPlanes(t, d, r, c.rows, c.in, c.bits)
		w, b := randomPlanes(t, d, r, c.out, c.in, 1)
		got := make(floats, c.rows*c.out)
		d.LinearAdd(got, nil, kernels.Activation{Planes: x},
			kernels.Linear{In: c.in, Out: c.out, Quantized: w, Alpha: ones(c.out), Theta: make(floats, c.out)})
		if err := d.Sync(); err != nil {
			t.Fatal(err)
		}
		for i, g := range got {
			sum := 0
			for k := range c.in {
				sum += a[i/c.out*c.in+k] * b[i%c.out*c.in+k]
			}
			if want := kernels.MidRise(c.bits).Unit() * float32(sum); g != want {
				t.Fatalf("%+v: row %d channel %d is %v, want %v", c, i/c.out, i%c.out, g, want)
			}
		}
	}
}

// A linear on unquantized values must agree with a plain sum, and its gradients with sums over the whole matrix.
func TestLinearBackward(t *testing.T) {
	d, r := New(Options{Workers: 3}), random(2)
	const rows, in, out, seq = 14, 37, 29, 7
	for name, shift := range map[string]kernels.KShift{
		"plain": {},
		"added": {From: 5, To: 20, Offset: 2, Self: true, Seq: seq},
		"alone": {From: 0, To: 29, Offset: 1, Seq: seq},
	} {
		l := kernels.Linear{In: in, Out: out, Weight: normals(r, out*in), Alpha: normals(r, out), Theta: normals(r, out)}
		l.Quantized, _ = d.NewPlanes(out, in, kernels.Sign())
		d.Quantize(l)
		x, dy := normals(r, rows*in), normals(r, rows*out)
		pass, set := randomPlanes(t, d, r, rows, out, 1)
		dx := make(floats, rows*in)
		dl := kernels.LinearGradient{Weight: make(floats, out*in), Alpha: make(floats, out), Theta: make(floats, out)}
		d.LinearBackward(dx, dl, dy, kernels.Derivative{Mask: pass}, kernels.Activation{Floats: x}, l, shift,
			floatGradients)
		if err := d.Sync(); err != nil {
			t.Fatal(err)
		}
		wantX, wantW := make([]float64, rows*in), make([]float64, out*in)
		wantA, wantT := make([]float64, out), make([]float64, out)
		for n := range rows {
			for o := range out {
				if set[n*out+o] < 0 {
					continue
				}
				g := float64(dy[n*out+o])
				wantT[o] -= g
				for _, from := range sources(n, o, shift) {
					for i := range in {
						w := math.Copysign(1, float64(l.Weight.(floats)[o*in+i]))
						a := float64(l.Alpha.(floats)[o])
						wantX[from*in+i] += g * a * w
						wantW[o*in+i] += g * a * float64(x[from*in+i])
						wantA[o] += g * w * float64(x[from*in+i])
					}
				}
			}
		}
		for what, pair := range map[string]struct {
			got  kernels.Floats
			want []float64
		}{"dx": {dx, wantX}, "weight": {dl.Weight, wantW}, "alpha": {dl.Alpha, wantA}, "theta": {dl.Theta, wantT}} {
			for i, g := range pair.got.(floats) {
				if math.Abs(float64(g)-pair.want[i]) > 1e-4 {
					t.Fatalf("%s: %s[%d] is %v, want %v", name, what, i, g, pair.want[i])
				}
			}
		}
	}
}

// sources lists the rows whose input reaches channel o of row n.
func sources(n, o int, s kernels.KShift) []int {
	if o < s.From || o >= s.To {
		return []int{n}
	}
	var list []int
	if s.Self {
		list = append(list, n)
	}
	if n%s.Seq >= s.Offset {
		list = append(list, n-s.Offset)
	}
	return list
}

func TestSignsAndMask(t *testing.T) {
	negativeZero := float32(math.Copysign(0, -1))
	aboveOne := math.Nextafter32(1, 2)
	x := []float32{0, negativeZero, 1, -1, aboveOne, -aboveOne, 1e-45, -1e-45, float32(math.Inf(-1))}
	var signs, mask [1]uint64
	packSignsGo(signs[:], x)
	packMaskGo(mask[:], x, 1)
	for i, want := range []struct{ sign, mask uint64 }{
		{1, 1}, {1, 1}, {1, 1}, {0, 1}, {1, 0}, {0, 0}, {1, 1}, {0, 1}, {0, 0},
	} {
		if s, m := signs[0]>>i&1, mask[0]>>i&1; s != want.sign || m != want.mask {
			t.Errorf("%v: sign %d, mask %d, want %d, %d", x[i], s, m, want.sign, want.mask)
		}
	}
	if signs[0]>>len(x) != 0 || mask[0]>>len(x) != 0 {
		t.Error("padding bits must stay zero")
	}
}

// Levels are the mid-rise levels of the stream: ties to even, clamped at the ends.
func TestQuantize(t *testing.T) {
	d, r := New(Options{}), random(3)
	const width = 70
	for _, bits := range []int{2, 4, 8} {
		p, _ := randomPlanes(t, d, r, 1, width, bits)
		a, got, index := normals(r, width), make([]float32, width), make([]byte, width)
		half, step := halfLevels(kernels.MidRise(bits))
		d.quantize(index, a, ones(width), 2, step, half)
		d.setLevels(p, 0, index)
		p.segment(got, 0, 0)
		for i := range a {
			v := 2 * float64(a[i])
			want := min(max(math.RoundToEven(v/(2.5/half)-0.5)+0.5, -half+0.5), half-0.5) * 2.5 / half
			if float64(got[i]) != want {
				t.Fatalf("%d bits: %v became %v, want %v", bits, v, got[i], want)
			}
		}
	}
}

// Without ALiBi many scores are equal, and the most recent key must come first.
func TestSurvivorsMatchSorting(t *testing.T) {
	d, r := New(Options{}), random(4)
	for _, a := range []kernels.Attention{
		{Kind: kernels.RWSP, Batch: 2, Seq: 50, Heads: 3, HeadDim: 10, Survivors: 4},
		{Kind: kernels.RWSP, Batch: 1, Seq: 90, Heads: 4, HeadDim: 64, Survivors: 4, Alibi: true},
		{Kind: kernels.RWSP, Batch: 1, Seq: 40, Heads: 2, HeadDim: 70, Survivors: 7, Alibi: true},
		{Kind: kernels.RWSP, Batch: 1, Seq: 3, Heads: 2, HeadDim: 32, Survivors: 3},
		{Kind: kernels.RWSP, Batch: 1, Seq: 300, Heads: 2, HeadDim: 16, Survivors: 4},
		{Kind: kernels.RWSP, Batch: 1, Seq: 300, Heads: 4, HeadDim: 32, Survivors: 2, Alibi: true},
	} {
		compareSurvivors(t, d, r, a, 1)
		compareSurvivors(t, d, r, a, 2+r.IntN(7))
	}
}

// compareSurvivors compares the pointers of queries of so many bits with sorted keys.
func compareSurvivors(t *testing.T, d *Device, r *rand.Rand, a kernels.Attention, bits int) {
	t.Helper()
	width := a.Heads * a.HeadDim
	queries, q := randomPlanes(t, d, r, a.Batch*a.Seq, width, bits)
	keys, k := randomPlanes(t, d, r, a.Batch*a.Seq, width, 1)
	values, _ := randomPlanes(t, d, r, a.Batch*a.Seq, width, 1)
	out, _ := d.NewPlanes(a.Batch*a.Seq, width, kernels.Sign())
	pointers := make(ints, a.Batch*a.Heads*a.Seq*a.Survivors)
	d.SetScalars(kernels.Scalars{Gamma: 0.5})
	d.Attend(out, pointers, queries, keys, values, a)
	if err := d.Sync(); err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(pointers); i += a.Survivors {
		at := i / a.Survivors
		want := sortedKeys(a, kernels.MidRise(bits), q, k, at/a.Seq/a.Heads, at/a.Seq%a.Heads, at%a.Seq)
		if got := pointers[i : i+a.Survivors]; !slices.Equal(got, want) {
			t.Fatalf("%+v, %d bits: query %d points to %v, want %v", a, bits, at, got, want)
		}
	}
}

func sortedKeys(a kernels.Attention, levels kernels.Quantization, q, k []int, b, h, t int) []int32 {
	row := func(of []int, u int) []int { return of[((b*a.Seq+u)*a.Heads+h)*a.HeadDim:][:a.HeadDim] }
	score := func(u int32) float64 {
		sum := 0
		for i, n := range row(q, t) {
			sum += n * row(k, int(u))[i]
		}
		s := float64(levels.Unit()) * float64(sum) / math.Sqrt(float64(a.HeadDim))
		if a.Alibi {
			s -= math.Pow(2, -8*float64(h+1)/float64(a.Heads)) * float64(t-int(u))
		}
		return s
	}
	var keys []int32
	for u := int32(t); u >= 0; u-- {
		keys = append(keys, u)
	}
	slices.SortStableFunc(keys, func(x, y int32) int {
		switch sx, sy := score(x), score(y); {
		case sx > sy:
			return -1
		case sx < sy:
			return 1
		}
		return 0
	})
	for len(keys) < a.Survivors {
		keys = append(keys, -1)
	}
	return keys[:a.Survivors]
}

// The gradient of an unquantized Normalize is the derivative that finite differences show.
func TestNormalizeBackward(t *testing.T) {
	d, r := New(Options{}), random(5)
	const rows, width, eps, h = 3, 11, 1e-5, 1e-2
	x, gain, weight := normals(r, rows*width), normals(r, width), normals(r, rows*width)
	value := func() (sum float64) {
		out := make(floats, rows*width)
		d.Normalize(kernels.Activation{Floats: out}, x, kernels.RMSNorm{Gain: gain, Eps: eps})
		for i, v := range out {
			sum += float64(v) * float64(weight[i])
		}
		return sum
	}
	dx, dGain := make(floats, rows*width), make(floats, width)
	d.NormalizeBackward(dx, dGain, weight, x, kernels.RMSNorm{Gain: gain, Eps: eps}, kernels.Unquantized())
	check := func(name string, at, gradient floats) {
		for i := range at {
			v := at[i]
			at[i] = v + h
			up := value()
			at[i] = v - h
			down := value()
			at[i] = v
			if slope := (up - down) / (2 * h); math.Abs(slope-float64(gradient[i])) > 5e-3*(1+math.Abs(slope)) {
				t.Errorf("%s[%d]: gradient %v, finite differences %v", name, i, gradient[i], slope)
			}
		}
	}
	check("x", x, dx)
	check("gain", gain, dGain)
	if err := d.Sync(); err != nil {
		t.Fatal(err)
	}
}

func TestCrossEntropyIgnoresTargets(t *testing.T) {
	d := New(Options{})
	d.SetScalars(kernels.Scalars{GradScale: 0.5})
	head := kernels.Linear{In: 1, Out: 3, Weight: ones(3), Alpha: floats{1, 2, 3}, Theta: make(floats, 3)}
	head.Quantized, _ = d.NewPlanes(3, 1, kernels.Sign())
	d.Quantize(head)
	dl := kernels.LinearGradient{Weight: make(floats, 3), Alpha: make(floats, 3), Theta: make(floats, 3)}
	losses, alone, dx := make(floats, 2), make(floats, 2), ones(2)
	x := kernels.Activation{Floats: ones(2)} // logits 1, 2, 3
	d.CrossEntropy(alone, x, head, ints{-1, 2})
	d.CrossEntropyBackward(losses, dx, dl, x, head, ints{-1, 2}, floatGradients)
	if err := d.Sync(); err != nil {
		t.Fatal(err)
	}
	p := math.Exp(3) / (math.Exp(1) + math.Exp(2) + math.Exp(3))
	if losses[0] != 0 || math.Abs(float64(losses[1])+math.Log(p)) > 1e-6 {
		t.Errorf("losses %v, want 0 and %v", losses, -math.Log(p))
	}
	if alone[0] != losses[0] || alone[1] != losses[1] {
		t.Errorf("losses are %v without gradients and %v with them", alone, losses)
	}
	if dx[0] != 0 || math.Abs(float64(dl.Theta.(floats)[2])+(p-1)/2) > 1e-6 {
		t.Errorf("gradients: dx %v, theta %v", dx, dl.Theta)
	}
}

func TestAdamWRoundsFromMasters(t *testing.T) {
	d := New(Options{})
	d.SetScalars(kernels.Scalars{LearningRate: 1e-5, Correction1: 0.1, Correction2: 0.05})
	a := kernels.Adam{
		Param: ones(1), Master: ones(1), Grad: ones(1), M: make(floats, 1), V: make(floats, 1), Beta1: 0.9, Beta2: 0.95,
	}
	for range 10 { // each update is far below half a unit of float16
		d.AdamW(a)
	}
	master := values(a.Master)[0]
	if math.Abs(float64(master)-(1-1e-4)) > 9e-5 || master == 1 {
		t.Errorf("master is %v: small updates must add up", master)
	}
	if p := values(a.Param)[0]; p != float16.Round(master) {
		t.Errorf("parameter is %v, want %v", p, float16.Round(master))
	}
}

func TestFailureSticks(t *testing.T) {
	d := New(Options{Workers: 2})
	table := kernels.Linear{In: 8, Out: 4}
	table.Quantized, _ = d.NewPlanes(4, 8, kernels.Sign())
	d.Embed(make(floats, 300*8), append(make(ints, 299), 4), table)
	if err := d.Sync(); err == nil || !strings.Contains(err.Error(), "Embed") {
		t.Fatalf("a token outside the table gave %v", err)
	}
	d.Zero(make(floats, 1))
	if d.Sync() == nil {
		t.Error("a later operation hid the failure")
	}
}
