package cpu

// matrix gives its values a piece of a row at a time.
type matrix interface {
	segment(dst []float32, row, col int)
}

// operand is one side of a product, indexed (i, k) with k summed over: m[i][k], or m[k][i] if byK.
type operand struct {
	m   matrix
	byK bool
}

// The tile that stays in registers, and the blocks that stay in the caches.
const (
	tileRows = 4
	tileCols = 8
	blockK   = 256
	blockN   = 128
)

// pack writes values (i0..i0+ni-1, k0..k0+nk-1) in panels of width i's: panel p holds, for each k, its width values.
// Missing i's are zero.
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

// addProduct adds Σ_k a(i,k) b(j,k) to c[(i-i0)*ldc + j] for i in i0..i0+ni-1 and j < n. Every element is summed over k in
// ascending order, in float64, where products of two float32 are exact; so no division of the work changes it, and sums
// that ought to cancel do.
func (d *Device) addProduct(c []float64, ldc int, a, b operand, i0, ni, n, k int, s *scratch) {
	padded := (ni + tileRows - 1) / tileRows * tileRows
	packedA := s.packedA.take(padded * blockK)
	packedB := s.packedB.take(blockN * blockK)
	line := s.packedRow.take(max(blockK, blockN, padded))
	edge := s.edgeTile.take(tileRows * tileCols)
	for k0 := 0; k0 < k; k0 += blockK {
		nk := min(blockK, k-k0)
		a.pack(packedA, tileRows, i0, ni, k0, nk, line)
		for j0 := 0; j0 < n; j0 += blockN {
			nj := min(blockN, n-j0)
			b.pack(packedB, tileCols, j0, nj, k0, nk, line)
			for j := 0; j < nj; j += tileCols {
				panel := packedB[j*nk:][:tileCols*nk]
				for i := 0; i < ni; i += tileRows {
					d.addTile(c[i*ldc+j0+j:], ldc, packedA[i*nk:][:tileRows*nk], panel, nk, min(tileRows, ni-i), min(tileCols, nj-j), edge)
				}
			}
		}
	}
}

// addTile adds one tile of products to rows × cols of c, by way of edge where that is not a whole tile.
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

// tileGo is the tile in plain Go: c[i][j] += Σ_k a[k][i] b[k][j]. As the factors are float32 values, a fused multiply-add gives
// the same.
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

// rowsPerTask divides rows among the workers, in whole tiles.
func (d *Device) rowsPerTask(rows int) int {
	per := (rows + 2*d.workers() - 1) / (2 * d.workers())
	return min(max((per+tileRows-1)/tileRows*tileRows, 16), 256)
}

// product overwrites c, rows × n, with a·bᵀ.
func (d *Device) product(c []float32, a, b operand, rows, n, k int) {
	d.blocks(rows, d.rowsPerTask(rows), func(from, to int, s *scratch) {
		sums := s.productSums.take((to - from) * n)
		clear(sums)
		d.addProduct(sums, n, a, b, from, to-from, n, k, s)
		narrow(c[from*n:to*n], sums)
	})
}
