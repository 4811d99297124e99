package cpu

// matrix is a matrix that is read in parts of a row.
type matrix interface {
	// segment writes the values of a row from column col on to dst.
	segment(dst []float32, row, col int)
}

// operand is one side of a product, a sum over k. Its value (i, k) is m[i][k], or m[k][i] if byK.
type operand struct {
	m      matrix
	byK    bool
	packed []float64 // as second operand: all its blocks, or nil
	rows   int       // of packed
}

const (
	tileRows = 4 // the tile of sums that stays in registers
	tileCols = 8
	blockK   = 256 // the block of the second operand that stays in the cache
	blockN   = 128

	packedAtOnce = 1 << 18 // values of a second operand that is packed once for all tasks
)

// pack writes the values (i0..i0+ni-1, k0..k0+nk-1) to dst in panels. Panel p has, for each k, the values of i0 +
// p*width and the width-1 that follow. Values beyond ni are zero.
func (o operand) pack(dst []float64, width, i0, ni, k0, nk int, line []float32) {
	if o.byK {
		panels := (ni + width - 1) / width
		clear(line[ni : panels*width])
		for k := range nk {
			o.m.segment(line[:ni], k0+k, i0)
			for p := range panels {
				widen(dst[(p*nk+k)*width:][:width], line[p*width:])
			}
		}
		return
	}
	if ni%width != 0 {
		clear(dst[ni/width*width*nk:][:width*nk])
	}
	for i := range ni {
		o.m.segment(line[:nk], i0+i, k0)
		panel := dst[i/width*width*nk+i%width:]
		for k, v := range line[:nk] {
			panel[k*width] = float64(v)
		}
	}
}

// addProduct adds Σ_k a(i,k) b(j,k) to c[(i-i0)*ldc + j] for i in i0..i0+ni-1 and j < n. The sums are float64, in which
// products of two float32 are exact, and k ascends. So the sums do not depend on how the work is divided, and terms
// that should cancel do.
func (d *Device) addProduct(c []float64, ldc int, a, b operand, i0, ni, n, k int, s *scratch) {
	padded := (ni + tileRows - 1) / tileRows * tileRows
	packedA := s.packedA.take(padded * blockK)
	block := s.packedB.take(blockN * blockK)
	line := s.packedRow.take(max(blockK, blockN, padded))
	edge := s.edgeTile.take(tileRows * tileCols)
	for k0 := 0; k0 < k; k0 += blockK {
		nk := min(blockK, k-k0)
		a.pack(packedA, tileRows, i0, ni, k0, nk, line)
		for j0 := 0; j0 < n; j0 += blockN {
			nj, packedB := min(blockN, n-j0), block
			if b.packed != nil {
				packedB = b.block(j0, k0)
			} else {
				b.pack(packedB, tileCols, j0, nj, k0, nk, line)
			}
			for j := 0; j < nj; j += 2 * tileCols {
				d.addPanels(c[j0+j:], ldc, packedA, packedB[j*nk:], ni, min(2*tileCols, nj-j), nk, edge)
			}
		}
	}
}

// block is the block of a packed operand that begins with value (j0, k0).
func (o operand) block(j0, k0 int) []float64 {
	i := k0/blockK*((o.rows+blockN-1)/blockN) + j0/blockN
	return o.packed[i*blockN*blockK:][:blockN*blockK]
}

// withBlocks is the operand with memory for all blocks of n × k, and how many these are.
func (o operand) withBlocks(n, k int, memory *buffer[float64]) (operand, int) {
	blocks := (k + blockK - 1) / blockK * ((n + blockN - 1) / blockN)
	o.packed, o.rows = memory.take(blocks*blockN*blockK), n
	return o, blocks
}

// packBlock packs block i of n × k.
func (o operand) packBlock(i, n, k int, s *scratch) {
	columns := (n + blockN - 1) / blockN
	k0, j0 := i/columns*blockK, i%columns*blockN
	line := s.packingRow.take(max(blockK, blockN))
	o.pack(o.block(j0, k0), tileCols, j0, min(blockN, n-j0), k0, min(blockK, k-k0), line)
}

// addPanels adds the products of ni packed rows with up to two panels of nj columns in all. Whole tiles go in pairs.
func (d *Device) addPanels(c []float64, ldc int, a, b []float64, ni, nj, nk int, edge []float64) {
	for i := 0; i < ni; i += tileRows {
		rows, panel := min(tileRows, ni-i), a[i*nk:][:tileRows*nk]
		if rows == tileRows && nj == 2*tileCols {
			d.tilePair(c[i*ldc:], ldc, panel, b[:2*tileCols*nk], nk)
			continue
		}
		for j := 0; j < nj; j += tileCols {
			d.addTile(c[i*ldc+j:], ldc, panel, b[j*nk:][:tileCols*nk], nk, rows, min(tileCols, nj-j), edge)
		}
	}
}

// addTile adds a tile of products to rows × cols of c. If those are less than a tile, the tile is computed in edge.
func (d *Device) addTile(c []float64, ldc int, a, b []float64, k, rows, cols int, edge []float64) {
	if rows == tileRows && cols == tileCols {
		d.tile(c, ldc, a, b, k)
		return
	}
	clear(edge)
	for i := range rows {
		copy(edge[i*tileCols:][:cols], c[i*ldc:])
	}
	d.tile(edge, tileCols, a, b, k)
	for i := range rows {
		copy(c[i*ldc:][:cols], edge[i*tileCols:])
	}
}

// tileGo adds Σ_k a[k][i] b[k][j] to c[i][j]. All factors are float32 values, so a fused multiply-add gives the same
// sums.
func tileGo(c []float64, ldc int, a, b []float64, k int) {
	for i := range tileRows {
		row := c[i*ldc:][:tileCols]
		for j := 0; j < tileCols; j += 4 {
			c0, c1, c2, c3 := row[j], row[j+1], row[j+2], row[j+3]
			for p := range k {
				x := a[p*tileRows+i]
				y := b[p*tileCols+j:][:4]
				c0 += x * y[0]
				c1 += x * y[1]
				c2 += x * y[2]
				c3 += x * y[3]
			}
			row[j], row[j+1], row[j+2], row[j+3] = c0, c1, c2, c3
		}
	}
}

// tilePairGo is tileGo for two tiles side by side. Their panels of b follow one another.
func tilePairGo(c []float64, ldc int, a, b []float64, k int) {
	tileGo(c, ldc, a, b[:k*tileCols], k)
	tileGo(c[tileCols:], ldc, a, b[k*tileCols:], k)
}

// rowsPerTask is the number of rows in a task, in whole tiles, if rows are divided among the workers.
func (d *Device) rowsPerTask(rows int) int {
	per := (rows + 2*d.workers() - 1) / (2 * d.workers())
	return min(max((per+tileRows-1)/tileRows*tileRows, 16), 256)
}

// product overwrites c, rows × n, with a·bᵀ.
func (d *Device) product(c []float32, a, b operand, rows, n, k int) {
	if n*k <= packedAtOnce {
		var blocks int
		b, blocks = b.withBlocks(n, k, &d.shared.packedOperand)
		d.parallel(blocks, func(i int, s *scratch) { b.packBlock(i, n, k, s) })
	}
	d.blocks(rows, d.rowsPerTask(rows), func(from, to int, s *scratch) {
		sums := s.productSums.take((to - from) * n)
		clear(sums)
		d.addProduct(sums, n, a, b, from, to-from, n, k, s)
		narrow(c[from*n:to*n], sums)
	})
}

// ownProduct is product within one task. Where the product is symmetric, it computes what is not above the diagonal.
func (d *Device) ownProduct(c []float32, a, b operand, rows, n, k int, symmetric bool, s *scratch) {
	step := 256
	if n*k <= packedAtOnce {
		step = 32
		var blocks int
		b, blocks = b.withBlocks(n, k, &s.ownOperand)
		for i := range blocks {
			b.packBlock(i, n, k, s)
		}
	}
	for from := 0; from < rows; from += step {
		to, columns := min(from+step, rows), n
		if symmetric {
			columns = to
		}
		sums := s.ownSums.take((to - from) * columns)
		clear(sums)
		d.addProduct(sums, columns, a, b, from, to-from, columns, k, s)
		for i := from; i < to; i++ {
			row := c[i*n:][:columns]
			narrow(row, sums[(i-from)*columns:])
			if symmetric {
				for j, v := range row[:from] {
					c[j*n+i] = v
				}
			}
		}
	}
}
