//go:build cuda

package cuda

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os/exec"
	"testing"
)

// open returns device 0, or skips the test where there is none. A device belongs to its goroutine, so these tests have no subtests.
func open(t testing.TB) *Device {
	t.Helper()
	d, err := Open(0)
	if errors.Is(err, ErrNoDevice) {
		t.Skip(err)
	}
	must(t, err)
	t.Cleanup(func() { must(t, d.Close()) })
	return d
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func random(t testing.TB) *rand.Rand {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

func (h *hostBits) upload(t testing.TB, d *Device) *Bits {
	t.Helper()
	b, err := d.NewBits(h.rows, h.columns, h.planes, h.signed)
	must(t, err)
	t.Cleanup(func() { must(t, d.FreeBits(b)) })
	must(t, d.WriteBits(b, h.words))
	return b
}

func alloc(t testing.TB, d *Device, size int) Buffer {
	t.Helper()
	b, err := d.Alloc(size)
	must(t, err)
	t.Cleanup(func() { must(t, d.Free(b)) })
	return b
}

// poisoned returns memory in which every byte is 0xcd, so that what a kernel leaves unwritten shows.
func poisoned(t testing.TB, d *Device, size int) Buffer {
	b := alloc(t, d, size)
	must(t, d.fill(b, 0xcd))
	return b
}

const poison int32 = -0x32323233

func uploadFloats(t testing.TB, d *Device, x []float32) Buffer {
	b := alloc(t, d, 4*roundUp(len(x), 8))
	must(t, Write(d, b, x))
	return b
}

func read[T Number](t testing.TB, d *Device, b Buffer, n int) []T {
	t.Helper()
	out := make([]T, n)
	must(t, Read(d, out, b))
	return out
}

func TestPTXBelongsToSources(t *testing.T) {
	if out, err := exec.Command("./compile.sh", "--check").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func TestOpenRefusesUnknownIndex(t *testing.T) {
	n, err := Count()
	if errors.Is(err, ErrNoDevice) {
		t.Skip(err)
	}
	must(t, err)
	for _, index := range []int{-1, n} {
		if _, err := Open(index); err == nil {
			t.Errorf("device %d of %d opened", index, n)
		}
	}
}

type shape struct{ m, n, k, planes int }

func (s shape) String() string { return fmt.Sprintf("%dx%dx%d/%d", s.m, s.n, s.k, s.planes) }

// shapes to multiply: edges of tiles, words and stages, then whatever comes.
func shapes(r *rand.Rand) []shape {
	list := []shape{{1, 1, 1, 1}, {128, 256, 1024, 1}, {129, 257, 1025, 2}, {127, 255, 1023, 1}, {300, 520, 128, 4},
		{256, 256, 4096, 1}, {513, 100, 5000, 3}, {64, 1000, 64, 8}, {1000, 64, 2048, 4}}
	for range 8 {
		list = append(list, shape{1 + r.IntN(700), 1 + r.IntN(900), 1 + r.IntN(6000), 1 + r.IntN(8)})
	}
	return append(list, shape{3000, 2500, 700, 1}) // more tiles than multiprocessors: blocks take several
}

func TestMultiplyInt32(t *testing.T) {
	d, r := open(t), random(t)
	for _, s := range shapes(r) {
		for _, signed := range []bool{false, true} {
			a, b := randomBits(r, s.m, s.k, s.planes, signed), randomBits(r, s.n, s.k, 1, false)
			da, db := a.upload(t, d), b.upload(t, d)
			want := products(a, b)
			stride := roundUp(s.n, 4) + 4*r.IntN(3)
			for name, multiply := range map[string]func(Buffer, int, *Bits, *Bits) error{"mma": d.MultiplySimple, "wgmma": d.MultiplyInt32} {
				if name == "wgmma" && d.major != 9 {
					continue
				}
				out := poisoned(t, d, 4*s.m*stride)
				must(t, multiply(out, stride, da, db))
				got := read[int32](t, d, out, s.m*stride)
				compareInts(t, fmt.Sprintf("%s %v signed=%v", name, s, signed), got, want, s.m, s.n, stride)
			}
		}
	}
}

func compareInts(t *testing.T, name string, got, want []int32, rows, columns, stride int) {
	t.Helper()
	wrong := 0
	for i := range rows {
		for j := range stride {
			expected := poison
			if j < columns {
				expected = want[i*columns+j]
			}
			if got[i*stride+j] != expected {
				if wrong++; wrong <= 3 {
					t.Errorf("%s: row %d, column %d of %d x %d: %d, want %d", name, i, j, rows, columns, got[i*stride+j], expected)
				}
			}
		}
	}
	if wrong > 3 {
		t.Errorf("%s: %d of %d entries differ", name, wrong, rows*columns)
	}
}

func TestPopcountsAndSigns(t *testing.T) {
	d, r := open(t), random(t)
	for range 6 {
		rows, columns := 1+r.IntN(300), 1+r.IntN(3000)
		a := randomBits(r, rows, columns, 1+r.IntN(8), r.IntN(2) == 0)
		da := a.upload(t, d)
		for i, got := range read[int32](t, d, da.popcounts, rows) {
			if int(got) != a.popcount(i) {
				t.Fatalf("%v: popcount of row %d: %d, want %d", da, i, got, a.popcount(i))
			}
		}
		x := make([]float32, rows*(columns+3))
		for i := range x {
			x[i] = float32(r.NormFloat64())
			if r.IntN(20) == 0 {
				x[i] = float32(math.Copysign(0, float64(x[i]))) // sign(±0) is +1
			}
		}
		out, err := d.NewBits(rows, columns, 1, false)
		must(t, err)
		must(t, d.fill(out.data, 0xcd))
		must(t, d.PackSigns(out, uploadFloats(t, d, x), columns+3))
		got, err := d.ReadBits(out)
		must(t, err)
		h := &hostBits{rows, columns, 1, false, got}
		counts := read[int32](t, d, out.popcounts, rows)
		for i := range rows {
			for j := range columns {
				if bit := h.row(0, i)[j/64]>>(j%64)&1 == 1; bit != (x[i*(columns+3)+j] >= 0) {
					t.Fatalf("%d x %d: bit of %v at %d, %d is %v", rows, columns, x[i*(columns+3)+j], i, j, bit)
				}
			}
			if h.popcount(i) != int(counts[i]) {
				t.Fatalf("popcount of row %d: %d, want %d", i, counts[i], h.popcount(i))
			}
		}
		must(t, d.FreeBits(out))
	}
}

func TestMultiplyAffine(t *testing.T) {
	d, r := open(t), random(t)
	if d.major != 9 {
		t.Skip("needs compute capability 9.0")
	}
	for _, s := range shapes(r) {
		for variant := range 4 {
			half, full := variant&1 == 1, variant&2 == 2
			a, b := randomBits(r, s.m, s.k, s.planes, !full), randomBits(r, s.n, s.k, 1, false)
			checkAffine(t, d, r, a, b, half, full)
		}
	}
}

// checkAffine compares with the same formula in float64; full: with all factors, terms and a residual that is added in place.
func checkAffine(t *testing.T, d *Device, r *rand.Rand, a, b *hostBits, half, full bool) {
	stride := roundUp(b.rows, 8) + 8*r.IntN(2)
	alpha, theta, scale, rest := make([]float32, b.rows), make([]float32, b.rows), make([]float32, a.rows), make([]float32, a.rows*stride)
	for i := range alpha {
		alpha[i], theta[i] = float32(r.NormFloat64()), float32(10*r.NormFloat64())
	}
	for i := range scale {
		scale[i] = float32(r.NormFloat64())
	}
	for i := range rest {
		rest[i] = math.Float32frombits(math.Float32bits(float32(r.NormFloat64())) &^ 0xffff) // exact in bfloat16
	}
	affine, residual := Affine{Scale: 0.25}, Buffer{}
	element, epsilon := 4, math.Exp2(-22)
	if half {
		element, epsilon = 2, math.Exp2(-8)
	}
	out := poisoned(t, d, element*a.rows*stride)
	if full {
		affine.Alpha, affine.Theta, affine.RowScale = uploadFloats(t, d, alpha), uploadFloats(t, d, theta), uploadFloats(t, d, scale)
		residual = out
		if half {
			must(t, Write(d, out, toBFloat16(rest)))
		} else {
			must(t, Write(d, out, rest))
		}
	}
	must(t, d.MultiplyAffine(out, residual, stride, half, a.upload(t, d), b.upload(t, d), affine))
	var got []float32
	if half {
		got = fromBFloat16(read[uint16](t, d, out, a.rows*stride))
	} else {
		got = read[float32](t, d, out, a.rows*stride)
	}
	for i := range a.rows {
		for j := range b.rows {
			s := 0.25 * float64(dot(a, i, b, j))
			want, size := s, math.Abs(s)
			if full {
				s *= float64(alpha[j]) * float64(scale[i])
				want = s - float64(theta[j]) + float64(rest[i*stride+j])
				size = math.Abs(s) + math.Abs(float64(theta[j])) + math.Abs(float64(rest[i*stride+j]))
			}
			if e := math.Abs(float64(got[i*stride+j]) - want); !(e <= epsilon*size) {
				t.Fatalf("%d x %d x %d/%d, half=%v, full=%v: row %d, column %d: %v, want %v: error %.2g of the terms' size",
					a.rows, b.rows, a.columns, a.planes, half, full, i, j, got[i*stride+j], want, e/size)
			}
		}
	}
}

func toBFloat16(x []float32) []uint16 {
	out := make([]uint16, len(x))
	for i, v := range x {
		out[i] = uint16(math.Float32bits(v) >> 16)
	}
	return out
}

func fromBFloat16(x []uint16) []float32 {
	out := make([]float32, len(x))
	for i, v := range x {
		out[i] = math.Float32frombits(uint32(v) << 16)
	}
	return out
}

func TestMultiplyBits(t *testing.T) {
	d, r := open(t), random(t)
	if d.major != 9 {
		t.Skip("needs compute capability 9.0")
	}
	for _, s := range shapes(r) {
		if s.k*(1<<s.planes-1) > largestThreshold {
			s.planes = 1
		}
		a, b := randomBits(r, s.m, s.k, s.planes, false), randomBits(r, s.n, s.k, 1, false)
		checkBits(t, d, r, a, b)
	}
}

func checkBits(t *testing.T, d *Device, r *rand.Rand, a, b *hostBits) {
	alpha, theta := channels(r, b.rows, a.columns)
	scale := float32(2.5 / float64(int(1)<<a.planes))
	da, db := a.upload(t, d), b.upload(t, d)
	thresholds, err := d.NewThresholds(b.rows)
	must(t, err)
	defer d.FreeThresholds(thresholds)
	must(t, d.SetThresholds(thresholds, uploadFloats(t, d, alpha), uploadFloats(t, d, theta), scale, da, db))
	var out [2]*Bits
	for i := range out {
		out[i], err = d.NewBits(a.rows, b.rows, 1, false)
		must(t, err)
		defer d.FreeBits(out[i])
	}
	must(t, d.MultiplyBits(out[0], out[1], da, db, thresholds))
	var got [2]*hostBits
	for i := range out {
		words, err := d.ReadBits(out[i])
		must(t, err)
		got[i] = &hostBits{a.rows, b.rows, 1, false, words}
	}
	counts := read[int32](t, d, out[0].popcounts, a.rows)
	for i := range a.rows {
		for j := range b.rows {
			s := int32(dot(a, i, b, j))
			sign, clip := outputBits(s, alpha[j], theta[j], scale)
			for k, want := range []bool{sign, clip} {
				if bit := got[k].row(0, i)[j/64]>>(j%64)&1 == 1; bit != want {
					t.Fatalf("%v x %d: row %d, channel %d, s = %d, alpha %v, theta %v, scale %v: bit %d is %v", da, b.rows, i, j, s, alpha[j], theta[j], scale, k, bit)
				}
			}
		}
		if got[0].popcount(i) != int(counts[i]) {
			t.Fatalf("popcount of row %d: %d, want %d (padding must stay zero)", i, counts[i], got[0].popcount(i))
		}
	}
}

// channels draws alpha and theta as training has them, and every unpleasant kind: zero, negative, tiny, huge, thresholds that fall on
// an attainable sum.
func channels(r *rand.Rand, n, k int) (alpha, theta []float32) {
	alpha, theta = make([]float32, n), make([]float32, n)
	for i := range alpha {
		alpha[i], theta[i] = float32(r.NormFloat64()/math.Sqrt(float64(k))), float32(r.NormFloat64())
		switch r.IntN(10) {
		case 0:
			alpha[i], theta[i] = 1.0/64, float32(r.IntN(65)-32)/32
		case 1:
			alpha[i] = 0
		case 2:
			alpha[i] *= 1e-6
		case 3:
			alpha[i] *= 1e6
		case 4:
			theta[i] *= 1e4
		case 5:
			theta[i] = 0
		case 6:
			alpha[i], theta[i] = -1.0/32, 1
		}
	}
	return alpha, theta
}
