package devicetest

import (
	"math"
	"math/big"

	"bitnet1/kernels"
)

// fixedSums makes sums that are 0.
func (b *bench) fixedSums(n, fraction int) kernels.FixedSums {
	b.t.Helper()
	all, err := b.d.NewLongs(n + 1)
	b.must(err)
	return kernels.FixedSums{Sums: all.Slice(0, n), Overflow: all.Slice(n, n+1), Fraction: fraction}
}

// testFixedSums compares with sums of any precision, and adds the same terms in another order and from other memory.
func testFixedSums(b *bench) {
	const terms = 9
	for _, n := range []int{1, 37, 5000, 300001} {
		for _, fraction := range []int{0, 20, 40} {
			sums := b.fixedSums(n, fraction)
			var x [terms][]float32
			for k := range x {
				x[k] = b.normals(n)
				for i := range x[k] {
					x[k][i] *= float32(math.Ldexp(sums.Limit(), -4-b.r.IntN(60)))
				}
				if limit := float32(sums.Limit()); k == 0 { // as near as can be, and a tie
					x[k][0] = math.Nextafter32(limit, 0)
					x[k][n-1] = -float32(1.5 * sums.Unit())
				}
			}
			want := make([]float32, n)
			for i := range want {
				sum := new(big.Int)
				for k := range x {
					whole := math.RoundToEven(math.Ldexp(float64(x[k][i]), fraction))
					sum.Add(sum, big.NewInt(int64(whole)))
				}
				f, _ := new(big.Float).SetInt(sum).Float32()
				want[i] = float32(math.Ldexp(float64(f), -fraction))
			}
			for _, first := range []int{0, 4} {
				b.d.SetFixed(sums, b.floats(x[first])) // what the sums were is gone
				for k := 1; k < terms; k++ {
					b.d.AddFixed(sums, b.floats(x[(first+k)%terms]))
				}
				got := b.poisoned(n)
				b.d.ReadFixed(got, sums)
				same(b.t, "fixed sums", b.download(got), want, n)
			}
		}
	}
}

// testOddFixedSums: what is no number, or too large, is counted and makes all of the sums NaN. Other sums stay.
func testOddFixedSums(b *bench) {
	const n = 70000
	for i, odd := range []float64{math.NaN(), math.Inf(1), math.Inf(-1), 1 << 15, -1 << 15} {
		add := b.d.AddFixed
		if i%2 == 1 {
			add = b.d.SetFixed
		}
		all, err := b.d.NewLongs(2*n + 2)
		b.must(err)
		sums := func(k int) kernels.FixedSums {
			return kernels.FixedSums{Sums: all.Slice(k*n, k*n+n), Overflow: all.Slice(2*n+k, 2*n+k+1), Fraction: 40}
		}
		ones := make([]float32, n)
		for i := range ones {
			ones[i] = 1
		}
		b.d.SetFixed(sums(1), b.floats(ones))
		at := b.r.IntN(n)
		ones[at] = float32(odd)
		add(sums(0), b.floats(ones))
		ones[at] = 1
		b.d.SetFixed(sums(0), b.floats(ones)) // Overflow counts on
		x := b.floats(make([]float32, 2*n))
		b.d.ReadFixed(x.Slice(0, n), sums(0))
		b.d.ReadFixed(x.Slice(n, 2*n), sums(1))
		got := b.download(x)
		for i, v := range got[:n] {
			if v == v {
				b.t.Fatalf("sum %d of terms of which one was %v is %v, want NaN", i, odd, v)
			}
		}
		for i, v := range got[n:] {
			if v != 1 {
				b.t.Fatalf("sum %d beside sums of which a term was %v is %v, want 1", i, odd, v)
			}
		}
	}
}
