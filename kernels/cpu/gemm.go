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
	tileCols = 16
	blockK   = 256
	blockN   = 256
)

// pack writes values (i0..i0+ni-1, k0..k0+nk-1) in panels of width i's: panel p holds, for each k, its width values.
// Missing i's are zero.
func (o operand) pack(dst []float32, width, i0, ni, k0, nk int, line []float32) {
	if o.byK {
		panels := (ni + width - 1) / width
		clear(line[ni : panels*width])
		for k := range nk {
			o.m.segment(line[:ni], k0+k, i0)
			for p := range panels {
				copy(dst[(p*nk+k)*width:][:width], line[p*width:])
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
			panel[k*width] = v
		}
	}
}

// addProduct adds Σ_k a(i,k) b(j,k) to c[(i-i0)*ldc + j] for i in i0..i0+ni-1 and j < n. Every element is summed over k in
// ascending order, one rounding per product and per sum, so no division of the work changes it.
func (d *Device) addProduct(c []float32, ldc int, a, b operand, i0, ni, n, k int, s *scratch) {
	padded := (ni + tileRows - 1) / tileRows * tileRows
	packedA := s.floats(0, padded*blockK)
	packedB := s.floats(1, blockN*blockK)
	line := s.floats(2, max(blockK, blockN, padded))
	edge := s.floats(5, tileRows*tileCols)
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
func (d *Device) addTile(c []float32, ldc int, a, b []float32, k, rows, cols int, edge []float32) {
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

// tileGo is the tile in plain Go: c[i][j] += Σ_k a[k][i] b[k][j].
func tileGo(c []float32, ldc int, a, b []float32, k int) {
	for i := range tileRows {
		row := c[i*ldc:][:tileCols]
		for j := 0; j < tileCols; j += 4 {
			c0, c1, c2, c3 := row[j], row[j+1], row[j+2], row[j+3]
			for p := range k {
				x := a[p*tileRows+i]
				y := b[p*tileCols+j:][:4]
				c0 += float32(x * y[0]) // the conversion forbids a fused multiply-add
				c1 += float32(x * y[1])
				c2 += float32(x * y[2])
				c3 += float32(x * y[3])
			}
			row[j], row[j+1], row[j+2], row[j+3] = c0, c1, c2, c3
		}
	}
}

// rowsPerTask divides rows among the workers, in whole tiles.
func (d *Device) rowsPerTask(rows int) int {
	per := (rows + 2*len(d.scratch) - 1) / (2 * len(d.scratch))
	return min(max((per+tileRows-1)/tileRows*tileRows, 16), 256)
}

// product overwrites c, rows × n, with a·bᵀ.
func (d *Device) product(c []float32, a, b operand, rows, n, k int) {
	d.blocks(rows, d.rowsPerTask(rows), func(from, to int, s *scratch) {
		part := c[from*n : to*n]
		clear(part)
		d.addProduct(part, n, a, b, from, to-from, n, k, s)
	})
}
