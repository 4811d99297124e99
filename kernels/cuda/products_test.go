//go:build cuda

package cuda

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"bitnet1/kernels"

	"gorgonia.org/cu"
)

// Products of floats are sums in float64, for every size, wherever the operands begin and whichever way they lie.
func TestFloatProducts(t *testing.T) {
	d := open(t, Options{})
	for _, s := range []struct{ m, n, k int }{
		{1, 1, 1}, {64, 64, 16}, {65, 63, 17}, {130, 70, 33}, {68, 132, 100}, {200, 3, 260}, {5, 129, 48},
	} {
		for way := range 8 {
			a, b := newSide(t, d, s.m, s.k, way&1 != 0, way/4), newSide(t, d, s.n, s.k, way&2 != 0, way/4)
			checkFloatProduct(t, d, fmt.Sprintf("%d × %d × %d, way %d", s.m, s.n, s.k, way), a, b, s.m, s.n, s.k)
		}
	}
}

// side is an operand and a copy of its values, rows × k.
type side struct {
	operand
	values []float32
}

// newSide puts normal values into memory, by rows or by columns, behind `skip` others.
func newSide(t *testing.T, d *Device, rows, k int, byColumns bool, skip int) side {
	t.Helper()
	r, values := rand.New(rand.NewPCG(uint64(rows), uint64(k))), make([]float32, rows*k)
	buffer := make([]float32, skip+rows*k)
	for i := range values {
		values[i] = float32(r.NormFloat64())
		if byColumns {
			buffer[skip+i%k*rows+i/k] = values[i]
		} else {
			buffer[skip+i] = values[i]
		}
	}
	x := newFloats(t, d, len(buffer))
	d.Upload(x, buffer)
	at := float32s(x, len(buffer)) + cu.DevicePtr(4*skip)
	if byColumns {
		return side{columnMajor(at, rows), values}
	}
	return side{rowMajor(at, k), values}
}

// checkFloatProduct compares both kernels' outputs, which lie in rows that are longer than n, with sums on the host.
func checkFloatProduct(t *testing.T, d *Device, what string, a, b side, m, n, k int) {
	t.Helper()
	const untouched = 7
	stride := n + 3
	single, double := make([]float32, m*stride), make([]float32, 2*m*stride)
	for i := range single {
		single[i] = untouched
		setFloat64(double[2*i:], untouched)
	}
	out, sums := newFloats(t, d, len(single)), newFloats(t, d, len(double))
	d.Upload(out, single)
	d.Upload(sums, double)
	d.run("product", nil, func() error {
		if err := d.multiplyDense(float32s(out, len(single)), stride, a.operand, b.operand, m, n, k); err != nil {
			return err
		}
		return d.multiplyDenseAdd(float32s(sums, len(double)), stride, a.operand, b.operand, m, n, k)
	})
	download(t, d, single, out)
	download(t, d, double, sums)
	for i := range single {
		var sum, size float64
		if i%stride < n {
			sum, size = dot(a.values[i/stride*k:][:k], b.values[i%stride*k:][:k])
		}
		wantSingle := sum
		if i%stride >= n {
			wantSingle = untouched
		}
		gotSingle, gotDouble := float64(single[i]), float64At(double[2*i:])
		if !(math.Abs(gotSingle-wantSingle) <= 1e-7*math.Abs(wantSingle)+1e-13*size) {
			t.Fatalf("%s: row %d, column %d is %g, want %g", what, i/stride, i%stride, gotSingle, wantSingle)
		}
		if want := untouched + sum; !(math.Abs(gotDouble-want) <= 1e-13*(untouched+size)) {
			t.Fatalf("%s: row %d, column %d of what is added to is %g, want %g", what, i/stride, i%stride, gotDouble,
				want)
		}
	}
}

// dot returns Σ x y and Σ |x y|.
func dot(x, y []float32) (sum, size float64) {
	for i, v := range x {
		term := float64(v) * float64(y[i])
		sum += term
		size += math.Abs(term)
	}
	return sum, size
}

// A float64 of the device in two entries of a buffer of float32.
func setFloat64(to []float32, x float64) {
	bits := math.Float64bits(x)
	to[0], to[1] = math.Float32frombits(uint32(bits)), math.Float32frombits(uint32(bits>>32))
}

func float64At(from []float32) float64 {
	return math.Float64frombits(uint64(math.Float32bits(from[1]))<<32 | uint64(math.Float32bits(from[0])))
}

func newFloats(t *testing.T, d *Device, n int) kernels.Floats {
	t.Helper()
	x, err := d.NewFloats(n)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func download(t *testing.T, d *Device, to []float32, from kernels.Floats) {
	t.Helper()
	if err := d.Download(to, from); err != nil {
		t.Fatal(err)
	}
}
