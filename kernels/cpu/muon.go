package cpu

import (
	"math"
	"slices"

	"bitnet1/kernels"
)

// Muon updates the matrices, each in one task. Where another rank updates a matrix, only its momentum advances.
func (d *Device) Muon(u kernels.Muon) {
	d.run("Muon", kernels.CheckMuon(u), func() {
		clipped := clip(u.SquaredNorm, u.MaxNorm)
		keep := float32(1 - d.scalars.MuonRate*d.scalars.MuonDecay)
		rate := float32(d.scalars.MuonRate * u.RateFactor())
		all := slices.Concat(u.At, u.MomentumAt)
		d.parallel(len(all), func(i int, s *scratch) {
			matrix := func(x kernels.Floats) []float32 { return values(x)[all[i]:][:u.Rows*u.Cols] }
			x := oriented{s.orthogonal.take(u.Rows * u.Cols), u.Rows, u.Cols}
			advance(x, matrix(u.Momentum), matrix(u.Grad), clipped, u.Beta)
			if i >= len(u.At) {
				return
			}
			d.orthogonalize(x, u.Steps, s)
			param := matrix(u.Param)
			for r := range u.Rows {
				at, step := x.row(r)
				for i, p := range param[r*u.Cols:][:u.Cols] {
					param[r*u.Cols+i] = float32(p*keep) - float32(rate*x.values[at+i*step])
				}
			}
		})
	})
}

// oriented is a matrix of rows × cols, kept as its transpose where that has fewer rows.
type oriented struct {
	values     []float32
	rows, cols int
}

// short and long are the numbers of rows and columns as the matrix is kept.
func (x oriented) short() int { return min(x.rows, x.cols) }
func (x oriented) long() int  { return max(x.rows, x.cols) }

// row is where row r of the matrix begins in values, and how far its values are apart.
func (x oriented) row(r int) (at, step int) {
	if x.rows > x.cols {
		return r, x.rows
	}
	return r * x.cols, 1
}

// advance advances a matrix's momentum and writes the update that Muon makes orthogonal to x.
func advance(x oriented, momentum, grad []float32, clip float32, decay float64) {
	beta, rest := float32(decay), float32(1-decay)
	for r := range x.rows {
		at, step := x.row(r)
		row := momentum[r*x.cols:][:x.cols]
		for i, g := range grad[r*x.cols:][:x.cols] {
			g *= clip
			row[i] = float32(beta*row[i]) + float32(rest*g)
			x.values[at+i*step] = float32(beta*row[i]) + float32(rest*g)
		}
	}
}

// orthogonalize makes x nearly orthogonal.
func (d *Device) orthogonalize(x oriented, steps int, s *scratch) {
	d.scale(x.values, float32(1/(math.Sqrt(d.sumSquares(x.values))+1e-7)))
	short, long := x.short(), x.long()
	a, b, c := kernels.NewtonSchulz[0], kernels.NewtonSchulz[1], kernels.NewtonSchulz[2]
	gram, square, next := s.gram.take(short*short), s.gramSquare.take(short*short), s.orthogonalNext.take(len(x.values))
	for range steps {
		xs := dense{data: x.values, cols: long}
		d.ownProduct(gram, operand{m: xs}, operand{m: xs}, short, short, long, true, s)
		as := dense{data: gram, cols: short}
		d.ownProduct(square, operand{m: as}, operand{m: as, byK: true}, short, short, short, true, s)
		for i, v := range gram {
			gram[i] = float32(b*v) + float32(c*square[i])
		}
		d.ownProduct(next, operand{m: as}, operand{m: xs, byK: true}, short, long, short, false, s)
		for i, v := range next {
			x.values[i] = float32(a*x.values[i]) + v
		}
	}
}
