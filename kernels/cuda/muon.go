//go:build cuda

package cuda

import (
	"fmt"
	"iter"
	"slices"

	"bitnet1/kernels"
	"bitnet1/kernels/cuda/driver"

	"gorgonia.org/cu"
)

// muonAtOnce is how many bytes of matrices are updated together at most. Products of more blocks leave fewer
// multiprocessors idle at their end.
const muonAtOnce = 64 << 20

// Muon updates matrices a few at a time.
func (d *Device) Muon(u kernels.Muon) {
	d.run("Muon", kernels.CheckMuon(u), func() error {
		n := u.Extent()
		m := muon{
			param: float32s(u.Param, n), momentum: float32s(u.Momentum, n), grad: float32s(u.Grad, n),
			squaredNorm: float32s(u.SquaredNorm, 1),
			rows:        int32(u.Rows), cols: int32(u.Cols), stride: int32(roundUp(max(u.Rows, u.Cols), 8)),
			beta: float32(u.Beta), rest: float32(1 - u.Beta), root: float32(u.RateFactor()),
			maxNorm: u.MaxNorm,
		}
		bytes := 2 * min(u.Rows, u.Cols) * int(m.stride)
		together := max(1, muonAtOnce/bytes)
		for at := range evenChunks(u.At, together) {
			if err := d.updateMatrices(m, at, u.Steps); err != nil {
				return err
			}
		}
		for at := range slices.Chunk(u.MomentumAt, together) {
			if err := d.advanceMomentum(&m, at); err != nil {
				return err
			}
		}
		return nil
	})
}

// evenChunks are the fewest chunks of at most n places, none of which is much longer than another.
func evenChunks(at []int, n int) iter.Seq[[]int] {
	return slices.Chunk(at, max(1, ceilDiv(len(at), max(1, ceilDiv(len(at), n)))))
}

// muonGrid is that of kernels which take the values of so many matrices.
func muonGrid(m muon, matrices int) driver.Geometry {
	return grid(ceilDiv(int(m.cols), kMuonSide), ceilDiv(int(m.rows), kMuonSide), matrices)
}

// muonSize is the number of values that a matrix has in x.
func muonSize(m muon) int { return int(min(m.rows, m.cols)) * int(m.stride) }

// advanceMomentum advances the momentum of the matrices that begin at the given places. It writes to m.x what is to be
// made orthogonal, and to m.squares its sums of squares.
func (d *Device) advanceMomentum(m *muon, at []int) (err error) {
	g := muonGrid(*m, len(at))
	if m.at, err = d.table(fmt.Sprintf("matrices at %v", at), func() []float64 {
		list := make([]float64, len(at))
		for i, n := range at {
			list[i] = float64(n)
		}
		return list
	}); err != nil {
		return err
	}
	if m.squares, err = d.scratch("Muon's sums of squares", 8*g.Grid[0]*g.Grid[1]*len(at)); err != nil {
		return err
	}
	if m.x, err = d.scratch("Muon's matrices", 2*muonSize(*m)*len(at)); err != nil {
		return err
	}
	return d.launch(g).muonMomentum(*m)
}

// updateMatrices updates the matrices that begin at the given places.
func (d *Device) updateMatrices(m muon, at []int, steps int) error {
	if err := d.advanceMomentum(&m, at); err != nil {
		return err
	}
	g, size := muonGrid(m, len(at)), muonSize(m)
	height, width, blocks := int(min(m.rows, m.cols)), int(max(m.rows, m.cols)), g.Grid[0]*g.Grid[1]
	if err := d.launch(grid(ceilDiv(size, 4096), len(at))).muonScale(m.x, m.squares, blocks, size); err != nil {
		return err
	}
	x, err := d.newtonSchulz(bf16Matrices{m.x, height, width, len(at)}, steps)
	if err != nil {
		return err
	}
	m.x = x.data
	return d.launch(g).muonUpdate(m, d.memory.scalars)
}

// bf16Matrices are matrices of one shape in bfloat16, one behind the other.
type bf16Matrices struct {
	data                 cu.DevicePtr
	rows, cols, matrices int
}

func (m bf16Matrices) stride() int { return roundUp(m.cols, 8) }
func (m bf16Matrices) size() int   { return m.rows * m.stride() }

// boxes describes m and boxes of 64 rows of 64 columns, which are half a tile, to the copy engine.
func (m bf16Matrices) boxes() (driver.TensorMap, error) {
	row := 2 * m.stride()
	t, err := driver.NewTensorMap(m.data, []int{row, m.rows, m.matrices}, []int{row, 2 * m.size()},
		[]int{2 * kBf16Depth, kBf16Tile / 2, 1})
	if err != nil {
		return driver.TensorMap{}, err
	}
	return *t, nil
}

// tiles is the grid of kernels with a block for each tile of m.
func (m bf16Matrices) tiles() driver.Geometry {
	return grid(ceilDiv(m.cols, kBf16Tile), ceilDiv(m.rows, kBf16Tile), m.matrices)
}

// clusters is the grid of kernels with a cluster for every two by two tiles of m.
func (m bf16Matrices) clusters() driver.Geometry {
	g := grid(kBf16Cluster*ceilDiv(m.cols, 2*kBf16Tile), ceilDiv(m.rows, 2*kBf16Tile), m.matrices)
	g.Cluster = kBf16Cluster
	return g
}

// newtonSchulz makes x nearly orthogonal and returns where it is then.
func (d *Device) newtonSchulz(x bf16Matrices, steps int) (bf16Matrices, error) {
	next, gram := x, bf16Matrices{0, x.rows, x.rows, x.matrices}
	polynomial := gram
	for name, m := range map[string]*bf16Matrices{"next": &next, "gram": &gram, "polynomial": &polynomial} {
		var err error
		if m.data, err = d.scratch("Muon's products: "+name, 2*m.size()*m.matrices); err != nil {
			return x, err
		}
	}
	for range steps {
		if err := d.multiplyTransposed(gram, x, 1, 0); err != nil {
			return x, err
		}
		if err := d.multiplyTransposed(polynomial, gram, kernels.NewtonSchulz[2], kernels.NewtonSchulz[1]); err != nil {
			return x, err
		}
		if err := d.multiplyAdded(next, polynomial, x, kernels.NewtonSchulz[0]); err != nil {
			return x, err
		}
		x, next = next, x
	}
	return x, nil
}

// multiplyTransposed writes alpha a·aᵀ + beta a to out; a is square where beta is not 0.
func (d *Device) multiplyTransposed(out, a bf16Matrices, alpha, beta float32) error {
	p := bf16Products(out, a, a, alpha, beta)
	if beta != 0 {
		p.add = a.data
	}
	if !d.hopper {
		return d.launch(out.tiles()).bf16ProductSymmetric(p)
	}
	boxes, err := a.boxes()
	if err != nil {
		return err
	}
	return d.launch(out.clusters()).bf16WgmmaSymmetric(boxes, boxes, p)
}

// multiplyAdded writes a·b + beta b to out.
func (d *Device) multiplyAdded(out, a, b bf16Matrices, beta float32) error {
	p := bf16Products(out, a, b, 1, beta)
	p.add = b.data
	if !d.hopper {
		return d.launch(out.tiles()).bf16Product(p)
	}
	boxesA, err := a.boxes()
	if err != nil {
		return err
	}
	boxesB, err := b.boxes()
	if err != nil {
		return err
	}
	return d.launch(out.clusters()).bf16Wgmma(boxesA, boxesB, p)
}

func bf16Products(out, a, b bf16Matrices, alpha, beta float32) bf16Product {
	return bf16Product{
		a: a.data, b: b.data, out: out.data, sizeA: int64(a.size()), sizeB: int64(b.size()), sizeOut: int64(out.size()),
		m: int32(out.rows), n: int32(out.cols), k: int32(a.cols),
		strideA: int32(a.stride()), strideB: int32(b.stride()), strideOut: int32(out.stride()), alpha: alpha, beta: beta,
	}
}
