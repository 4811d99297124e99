package devicetest

import (
	"math"
	"slices"

	"bitnet1/kernels"
)

// testMuon compares updates of several matrices with the formulas in float64. A device may multiply in bfloat16: each
// step then rounds to 2^-9, and a step makes small singular values, with what was rounded there, up to 3.4 times as
// large. The reference with bfloat16 in the same places is 0.01 to 0.04 away from itself in float64.
func testMuon(b *bench) {
	for i := range 8 {
		rows, cols, steps := b.size(150), b.size(150), 1+b.r.IntN(5)
		if i == 0 { // more than one block of the largest tiles, each way
			rows, cols, steps = 270+b.r.IntN(50), 400+b.r.IntN(150), 2
		}
		size := rows * cols
		at := []int{size + 3, 0}
		n := 2*size + 3
		param, grad, momentum := b.normals(n), b.scaled(n, 1e-3), b.scaled(n, 1e-3)
		u := kernels.Muon{
			Param: b.floats(param), Grad: b.floats(grad), Momentum: b.floats(momentum), At: at, Rows: rows, Cols: cols,
			Beta: 0.9, Steps: steps,
		}
		clip := 1.0
		if b.r.IntN(2) == 0 {
			u.SquaredNorm, u.MaxNorm = b.floats([]float32{4}), 1
			clip = 1 / (2 + 1e-6)
		}
		b.d.SetScalars(kernels.Scalars{MuonRate: 0.02, MuonDecay: 0.1})
		b.d.Muon(u)
		gotParam, gotMomentum := b.download(u.Param), b.download(u.Momentum)
		for _, from := range at {
			m, w := make([]float64, size), make([]float64, size)
			for i := range size {
				g := clip * float64(grad[from+i])
				m[i] = 0.9*float64(momentum[from+i]) + 0.1*g
				w[i] = 0.9*m[i] + 0.1*g
			}
			b.near("momentum", gotMomentum[from:from+size], m, 1e-6)
			orthogonalize(w, rows, cols, steps)
			rate := 0.02 * math.Sqrt(max(1, float64(rows)/float64(cols)))
			moved := make([]float32, size)
			for i := range moved {
				moved[i] = float32((float64(param[from+i])*(1-0.02*0.1) - float64(gotParam[from+i])) / rate)
			}
			b.near("update", moved, w, 0.06)
		}
		for i := size; i < size+3; i++ {
			if gotParam[i] != param[i] || gotMomentum[i] != momentum[i] {
				b.t.Fatalf("value %d, between the matrices, has changed", i)
			}
		}
	}
}

// testMomentumAlone: the momentum of a matrix that another rank updates is what an update would have made it, and each
// matrix is updated as if it were alone.
func testMomentumAlone(b *bench) {
	const rows, cols = 70, 33
	size := rows * cols
	param, grad, momentum := b.normals(3*size), b.normals(3*size), b.normals(3*size)
	update := func(at, momentumAt []int) (p, m []float32) {
		u := kernels.Muon{
			Param: b.floats(param), Grad: b.floats(grad), Momentum: b.floats(momentum), At: at, MomentumAt: momentumAt,
			Rows: rows, Cols: cols, Beta: 0.9, Steps: 3, SquaredNorm: b.floats([]float32{9}), MaxNorm: 1,
		}
		b.d.SetScalars(kernels.Scalars{MuonRate: 0.02, MuonDecay: 0.1})
		b.d.Muon(u)
		return b.download(u.Param), b.download(u.Momentum)
	}
	whole, moved := update([]int{0, size, 2 * size}, nil)
	for rank := range 3 {
		own := rank * size
		p, m := update([]int{own}, slices.DeleteFunc([]int{0, size, 2 * size}, func(at int) bool { return at == own }))
		same(b.t, "the momentum", m, moved, len(m))
		want := slices.Clone(param)
		copy(want[own:own+size], whole[own:])
		same(b.t, "the parameters", p, want, len(p))
	}
}

// testSpecialMuon: no parameter stays a number where the norm of the gradients is none, so that the step shows it.
func testSpecialMuon(b *bench) {
	u := kernels.Muon{
		Param: b.floats(b.normals(12)), Grad: b.floats(b.normals(12)), Momentum: b.floats(b.normals(12)), At: []int{0},
		Rows: 3, Cols: 4, Beta: 0.9, Steps: 2, SquaredNorm: b.poisoned(1), MaxNorm: 1,
	}
	b.d.SetScalars(kernels.Scalars{MuonRate: 0.02})
	b.d.Muon(u)
	for i, v := range b.download(u.Param) {
		if v == v {
			b.t.Fatalf("parameter %d is %v, want NaN", i, v)
		}
	}
}

// near compares by the norm of the difference.
func (b *bench) near(what string, got []float32, want []float64, tolerance float64) {
	b.t.Helper()
	var difference, norm float64
	for i, w := range want {
		difference += (float64(got[i]) - w) * (float64(got[i]) - w)
		norm += w * w
	}
	if !(difference <= tolerance*tolerance*norm) {
		b.t.Fatalf("%s differs by %.2g of its norm", what, math.Sqrt(difference/norm))
	}
}

// orthogonalize is the iteration, step by step, in place.
func orthogonalize(u []float64, rows, cols, steps int) {
	if rows > cols {
		x := transpose(u, rows, cols)
		orthogonalize(x, cols, rows, steps)
		copy(u, transpose(x, cols, rows))
		return
	}
	var norm float64
	for _, v := range u {
		norm += v * v
	}
	for i := range u {
		u[i] /= math.Sqrt(norm) + 1e-7
	}
	for range steps {
		gram := multiply(u, transpose(u, rows, cols), rows, cols, rows)
		square := multiply(gram, gram, rows, rows, rows)
		for i := range gram {
			gram[i] = -4.7750*gram[i] + 2.0315*square[i]
		}
		for i, v := range multiply(gram, u, rows, rows, cols) {
			u[i] = 3.4445*u[i] + v
		}
	}
}

func transpose(x []float64, rows, cols int) []float64 {
	y := make([]float64, len(x))
	for i := range rows {
		for j := range cols {
			y[j*rows+i] = x[i*cols+j]
		}
	}
	return y
}

// multiply is a·b of n × k and k × m.
func multiply(a, b []float64, n, k, m int) []float64 {
	c := make([]float64, n*m)
	for i := range n {
		for l := range k {
			for j := range m {
				c[i*m+j] += a[i*k+l] * b[l*m+j]
			}
		}
	}
	return c
}
