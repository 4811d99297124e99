// Package devicetest is the test that every kernels.Device must pass. It runs each operation on random odd shapes, over
// memory that was poisoned before, and compares with plain Go written to be read: integers, signs and pointers bit for
// bit, floats to tolerances relative to sums of the same numbers in float64.
//
// It measures no speed and knows no model.
package devicetest

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"bitnet1/kernels"
)

// Run tests the device that open returns. A test that needs a device of its own calls open again. open registers the
// closing of the device.
func Run(t *testing.T, open func(t testing.TB) kernels.Device) {
	d := open(t)
	for _, test := range []struct {
		name string
		run  func(b *bench)
	}{
		{"Memory", testMemory}, {"Reader", testReader}, {"BFloats", testBFloats},
		{"BFloatGradients", testBFloatGradients}, {"Sums", testSums}, {"FixedSums", testFixedSums},
		{"OddFixedSums", testOddFixedSums}, {"Quantize", testQuantize},
		{"Embed", testEmbed},
		{"Normalize", testNormalize}, {"NormalizeBackward", testNormalizeBackward},
		{"LinearQuantize", testLinearQuantize}, {"OutputThresholds", testOutputThresholds},
		{"LinearAdd", testLinearAdd}, {"LinearBackward", testLinearBackward},
		{"WideSums", testWideSums},
		{"RoundingThresholds", testRoundingThresholds}, {"RoundingMean", testRoundingMean},
		{"RoundingOfTheLMHead", testRoundingOfTheLMHead},
		{"SpecialSums", testSpecialSums}, {"SpecialWeights", testSpecialWeights},
		{"SpecialNormalize", testSpecialNormalize},
		{"SpecialNormalizeBackward", testSpecialNormalizeBackward}, {"SpecialLinears", testSpecialLinears},
		{"SpecialBackward", testSpecialBackward},
		{"SpecialLosses", testSpecialLosses}, {"SpecialAdamW", testSpecialAdamW},
		{"SpecialAttention", testSpecialAttention},
		{"Attend", testAttend}, {"FarKeys", testFarKeys}, {"AttendBackward", testAttendBackward},
		{"DenseGradients", testDenseGradients},
		{"EqualKeys", testEqualKeys}, {"UnusedScale", testUnusedScale}, {"CancelledOutput", testCancelledOutput},
		{"CrossEntropy", testCrossEntropy}, {"AdamW", testAdamW}, {"Muon", testMuon},
		{"MomentumAlone", testMomentumAlone},
		{"SpecialMuon", testSpecialMuon},
		{"Capture", testCapture},
		{"Determinism", testDeterminism},
	} {
		t.Run(test.name, func(t *testing.T) {
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			test.run(&bench{t: t, d: d, r: rand.New(rand.NewPCG(seed, 0))})
			if err := d.Sync(); err != nil {
				t.Fatal(err)
			}
		})
	}
	for name, test := range map[string]func(b *bench){ // of a failure, which sticks
		"Failure": testFailure, "SumsThatOverflow": testSumsThatOverflow,
	} {
		t.Run(name, func(t *testing.T) { test(&bench{t: t, d: open(t), r: rand.New(rand.NewPCG(1, 2))}) })
	}
	t.Run("Refusals", func(t *testing.T) { testRefusals(t, open) })
}

// passes lets all of a gradient pass.
var passes = kernels.Derivative{}

// bench is where a test puts a device's operations to work.
type bench struct {
	t *testing.T
	d kernels.Device
	r *rand.Rand
}

func (b *bench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// size is a random size up to most, often at an edge of the words and tiles that kernels work in.
func (b *bench) size(most int) int {
	n := 1 + b.r.IntN(most)
	if b.r.IntN(2) == 0 {
		edges := []int{1, 4, 32, 64, 128, 256}
		n = edges[b.r.IntN(len(edges))]*(1+b.r.IntN(3)) + b.r.IntN(3) - 1
	}
	return min(max(n, 1), most)
}

func (b *bench) normals(n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(b.r.NormFloat64())
	}
	return x
}

func (b *bench) scaled(n int, factor float64) []float32 {
	x := b.normals(n)
	for i := range x {
		x[i] *= float32(factor)
	}
	return x
}

// floats uploads values.
func (b *bench) floats(values []float32) kernels.Floats {
	b.t.Helper()
	x, err := b.d.NewFloats(len(values))
	b.must(err)
	b.d.Upload(x, values)
	return x
}

// poisoned is memory for n floats that are NaN.
func (b *bench) poisoned(n int) kernels.Floats {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(math.NaN())
	}
	return b.floats(x)
}

func (b *bench) download(x kernels.Floats) []float32 {
	b.t.Helper()
	values := make([]float32, x.Len())
	b.must(b.d.Download(values, x))
	return values
}

func (b *bench) ints(values []int32) kernels.Ints {
	b.t.Helper()
	x, err := b.d.NewInts(len(values))
	b.must(err)
	b.d.UploadInts(x, values)
	return x
}

// signs is a matrix of random ±1. It also serves as memory to be overwritten.
func (b *bench) signs(rows, cols int) kernels.Planes {
	b.t.Helper()
	return b.signsOf(b.normals(rows*cols), rows, cols)
}

// signsOf is the matrix of the signs of values.
func (b *bench) signsOf(values []float32, rows, cols int) kernels.Planes {
	b.t.Helper()
	p, err := b.d.NewPlanes(rows, cols, kernels.Sign())
	b.must(err)
	b.d.Quantize(kernels.Linear{In: cols, Out: rows, Weight: b.floats(values), Quantized: p})
	return p
}

// planes is zeroed memory.
func (b *bench) planes(rows, cols int, q kernels.Quantization) kernels.Planes {
	b.t.Helper()
	p, err := b.d.NewPlanes(rows, cols, q)
	b.must(err)
	return p
}

// activation is a matrix of random values of so many bits, 16 for floats.
func (b *bench) activation(rows, cols, bits int) kernels.Activation {
	b.t.Helper()
	return b.activationOf(rows, cols, kernels.MidRise(bits))
}

// activationOf is a matrix of random values, as floats, mid-rise levels or unsigned levels.
func (b *bench) activationOf(rows, cols int, q kernels.Quantization) kernels.Activation {
	b.t.Helper()
	x := b.floats(b.normals(rows * cols))
	if q == kernels.Unquantized() {
		return kernels.Activation{Floats: x}
	}
	a := kernels.Activation{Planes: b.planes(rows, cols, q)}
	if !q.PlusMinus() {
		const in = 9
		l := b.newLinear(in, cols, 1)
		b.d.LinearQuantize([]kernels.Planes{a.Planes}, kernels.Derivative{}, b.activation(rows, in, 16), l.Linear,
			kernels.KShift{})
		return a
	}
	gain := make([]float32, cols)
	for i := range gain {
		gain[i] = 1 + float32(b.r.IntN(3))
	}
	b.d.Normalize(a, x, kernels.RMSNorm{Gain: b.floats(gain), Eps: 1e-5})
	return a
}

// inputOf is a quantization of so many bits, of those that a linear reads.
func (b *bench) inputOf(bits int) kernels.Quantization {
	if bits > 1 && bits < 16 && b.r.IntN(2) == 0 {
		return kernels.Unsigned(bits)
	}
	return kernels.MidRise(bits)
}

// weightOf is a quantization of weights, signs half of the time.
func (b *bench) weightOf() kernels.Quantization {
	if b.r.IntN(2) == 0 {
		return kernels.Sign()
	}
	return kernels.Normal(2 + b.r.IntN(7))
}

// integers downloads p and returns Σ_b 2^b p_b of every entry.
func (b *bench) integers(p kernels.Planes) []int {
	b.t.Helper()
	rows, cols, q := p.Rows(), p.Cols(), p.Quantization()
	perPlane := (cols + 63) / 64
	words := make([]uint64, rows*q.Planes()*perPlane)
	b.must(b.d.DownloadPlanes(words, p))
	list := make([]int, rows*cols)
	for r := range rows {
		for k := range q.Planes() {
			row := words[(r*q.Planes()+k)*perPlane:][:perPlane]
			for c := range cols {
				bit := int(row[c/64] >> (c % 64) & 1)
				if q.PlusMinus() {
					bit = 2*bit - 1
				}
				list[r*cols+c] += bit << k
			}
			if last := cols % 64; last != 0 && row[perPlane-1]>>last != 0 {
				b.t.Fatalf("%d × %d planes: padding of row %d is not zero", rows, cols, r)
			}
		}
	}
	return list
}

// values returns a's values.
func (b *bench) values(a kernels.Activation) []float64 {
	if a.Floats != nil {
		return wide(b.download(a.Floats))
	}
	list := b.integers(a.Planes)
	x := make([]float64, len(list))
	for i, v := range list {
		x[i] = float64(a.Planes.Quantization().Unit()) * float64(v)
	}
	return x
}

func wide(x []float32) []float64 {
	y := make([]float64, len(x))
	for i, v := range x {
		y[i] = float64(v)
	}
	return y
}

// same compares exactly.
func same[T comparable](t testing.TB, what string, got, want []T, cols int) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d values, want %d", what, len(got), len(want))
	}
	wrong := 0
	for i, v := range got {
		if v != want[i] {
			if wrong++; wrong <= 3 {
				t.Errorf("%s: row %d, column %d is %v, want %v", what, i/cols, i%cols, v, want[i])
			}
		}
	}
	if wrong > 3 {
		t.Errorf("%s: %d of %d values differ", what, wrong, len(want))
	}
}

// near compares got with want. size is the sum of the magnitudes of the terms of want, and the error allowed is
// tolerance * size.
func near(t testing.TB, what string, got []float32, want, size []float64, tolerance float64, cols int) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d values, want %d", what, len(got), len(want))
	}
	wrong, worst := 0, 0.0
	for i, v := range got {
		e := math.Abs(float64(v) - want[i])
		if !(e <= tolerance*size[i]+1e-30) {
			if wrong++; wrong <= 3 {
				t.Errorf("%s: row %d, column %d is %v, want %v: error %.2g of the terms' size", what, i/cols, i%cols, v,
					want[i], e/size[i])
			}
			worst = max(worst, e/size[i])
		}
	}
	if wrong > 3 {
		t.Errorf("%s: %d of %d values differ, by up to %.2g of their terms' size", what, wrong, len(want), worst)
	}
}

// norms compares ‖got - want‖ with tolerance * ‖want‖.
func norms(t testing.TB, what string, got []float32, want []float64, tolerance float64) {
	t.Helper()
	var difference, norm float64
	for i, w := range want {
		e := float64(got[i]) - w
		difference += e * e
		norm += w * w
	}
	if !(math.Sqrt(difference) <= tolerance*math.Sqrt(norm)+1e-30) {
		t.Errorf("%s: off by %.2g of the norm %.3g, allowed %.2g", what, math.Sqrt(difference/norm), math.Sqrt(norm),
			tolerance)
	}
}

// linear is a Linear and the values behind it, for the oracles.
type linear struct {
	kernels.Linear
	levels       []int     // Out × In, the integers behind Quantized
	effective    []float64 // Out × In
	alpha, theta []float32
}

// newLinear makes a linear of signs with scales as training has them. mix < 1 blends its weights.
func (b *bench) newLinear(in, out int, mix float64) linear {
	b.t.Helper()
	return b.newLinearOf(in, out, mix, kernels.Sign())
}

// newLinearOf is newLinear with another quantization of the weights.
func (b *bench) newLinearOf(in, out int, mix float64, q kernels.Quantization) linear {
	b.t.Helper()
	l := linear{alpha: b.scaled(out, 1/math.Sqrt(float64(in))), theta: b.normals(out)}
	weight := b.normals(out * in)
	l.Linear = kernels.Linear{In: in, Out: out, ID: uint16(b.r.IntN(1 << 16)), Weight: b.floats(weight),
		Quantized: b.planes(out, in, q), Alpha: b.floats(l.alpha), Theta: b.floats(l.theta)}
	if mix < 1 {
		l.Mixed = b.poisoned(out * in)
	}
	b.d.SetScalars(kernels.Scalars{Mix: mix})
	b.d.Quantize(l.Linear)
	l.levels = weightLevels(weight, in, q)
	l.effective = make([]float64, out*in)
	for i, n := range l.levels {
		l.effective[i] = float64(q.Unit() * float32(n))
	}
	if l.Mixed != nil {
		l.effective = wide(b.download(l.Mixed))
	}
	return l
}

// weightLevels are the integers behind quantized weights, in rows of `in`.
func weightLevels(weight []float32, in int, q kernels.Quantization) []int {
	levels := make([]int, len(weight))
	for i, w := range weight {
		if q == kernels.Sign() {
			levels[i] = signOf(float64(w))
			continue
		}
		var sum float64
		for _, v := range weight[i/in*in:][:in] {
			sum += float64(v) * float64(v)
		}
		levels[i] = q.Integer(float64(w) / math.Sqrt(max(sum/float64(in), 1e-24)))
	}
	return levels
}

// unpleasant gives some channels scales that are zero, negative, tiny or huge, or thresholds that equal sums that
// occur.
func (b *bench) unpleasant(l *linear) {
	for i := range l.alpha {
		switch b.r.IntN(12) {
		case 0:
			l.alpha[i], l.theta[i] = 1.0/64, float32(b.r.IntN(65)-32)/32
		case 1:
			l.alpha[i] = 0
		case 2:
			l.alpha[i] *= 1e-5
		case 3:
			l.alpha[i] *= 1e5
		case 4:
			l.theta[i] *= 1e3
		case 5:
			l.theta[i] = 0
		case 6:
			l.alpha[i], l.theta[i] = -1.0/32, 1
		}
	}
	b.d.Upload(l.Alpha, l.alpha)
	b.d.Upload(l.Theta, l.theta)
}

func (l linear) String() string {
	kind := ""
	if l.Mixed != nil {
		kind = ", mixed"
	}
	return fmt.Sprintf("%d to %d channels of %v%s", l.In, l.Out, l.Quantized.Quantization(), kind)
}

// sources lists the rows whose product reaches channel o of row n.
func sources(n, o int, s keyShift) []int {
	if o < s.From || o >= s.To {
		return []int{n}
	}
	var list []int
	if s.Self {
		list = append(list, n)
	}
	if n%s.Seq-s.Offset >= s.start(n) {
		list = append(list, n-s.Offset)
	}
	return list
}
