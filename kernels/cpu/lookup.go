package cpu

import (
	"encoding/binary"
	"unsafe"
)

// Products of small integers with signs are computed by looking up: four integers q0..q3 of a row make a table of the 16
// sums that four signs can choose, and a nibble of packed signs picks one. A shuffle instruction looks up 16 columns or
// more at once, so it does the work of 64 multiplications. Activations times weights, gradients times weights and
// gradients times activations all have this form.
//
// Entries are non-negative bytes: with bits b instead of signs s = 2b - 1,
//
//	entry(b) = Σ_i |q_i| [b_i = (q_i > 0)],   Σ_i q_i s_i = 2 entry(b) - Σ_i |q_i|
//
// so a few of them add up in a byte before they must be widened.

const (
	panelCols  = 64   // columns of signs that lie together
	lookupRows = 4    // rows of integers that read them together
	groupStep  = 4    // signs are padded to this many groups of 8 rows
	blockDepth = 1024 // integers of a row whose tables stay in the first cache; 16-bit sums hold them
)

// signPanels are the signs of a matrix of depth × cols, for the product of integer rows of that depth: a byte holds one
// column of 8 rows, 64 columns lie together, then come the next 8 rows.
type signPanels struct {
	cols   int
	groups int // of 8 rows, padded to groupStep
	bytes  []byte
}

func newSignPanels(depth, cols int, buffer func(n int) []byte) signPanels {
	s := signPanels{cols: cols, groups: (depth + 8*groupStep - 1) / (8 * groupStep) * groupStep}
	s.bytes = buffer(s.panels() * s.groups * panelCols)
	return s
}

func (s signPanels) panels() int { return (s.cols + panelCols - 1) / panelCols }

// panel is groups from..to-1 of panel p.
func (s signPanels) panel(p, from, to int) []byte {
	at := p * s.groups * panelCols
	return s.bytes[at+from*panelCols : at+to*panelCols]
}

// alongColumns arranges w for products over w's columns: column o of the panels is row o of w.
func (d *Device) alongColumns(slot int, w *planes) signPanels {
	s := newSignPanels(w.cols, w.rows, func(n int) []byte { return d.shared.bytes(slot, n) })
	d.parallel(s.panels(), func(p int, _ *scratch) {
		dst := s.panel(p, 0, s.groups)
		n := min(panelCols, w.rows-p*panelCols)
		if n < panelCols {
			clear(dst)
		}
		src := wordBytes(w.words[p*panelCols*w.stride:][:n*w.stride])
		c := 0
		for ; c+8 <= n; c += 8 {
			d.transposeBytes(dst[c:], panelCols, src[c*8*w.stride:], 8*w.stride, s.groups)
		}
		for ; c < n; c++ {
			for g := range s.groups {
				dst[g*panelCols+c] = src[c*8*w.stride+g]
			}
		}
	})
	return s
}

// wordBytes is x as bytes, the least significant of a word first: the package is for little-endian machines.
func wordBytes(x []uint64) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(x))), 8*len(x))
}

// transposeBytesGo turns 8 rows of n bytes into n rows of 8.
func transposeBytesGo(dst []byte, dstStride int, src []byte, srcStride, n int) {
	for i := range 8 {
		for c, b := range src[i*srcStride:][:n] {
			dst[c*dstStride+i] = b
		}
	}
}

// alongRows arranges plane b of w for products over w's rows: column k of the panels is column k of w.
func (d *Device) alongRows(slot int, w *planes, b int) signPanels {
	s := newSignPanels(w.rows, w.cols, func(n int) []byte { return d.shared.bytes(slot, n) })
	stride := w.bits * w.stride
	d.parallel(s.panels(), func(p int, _ *scratch) {
		dst, whole := s.panel(p, 0, s.groups), w.rows/8
		if whole > 0 {
			d.transposeBits(dst, w.words[b*w.stride+p:], stride, whole)
		}
		if whole < s.groups {
			var words [8]uint64 // the last rows, and none
			for i := range w.rows - 8*whole {
				words[i] = w.words[(8*whole+i)*stride+b*w.stride+p]
			}
			transposeBitsGo(dst[whole*panelCols:], words[:], 1, 1)
			clear(dst[min(whole+1, s.groups)*panelCols:])
		}
	})
	return s
}

// transposeBitsGo writes to dst[64*g+c] bit c of the eight words of group g; words are stride apart.
func transposeBitsGo(dst []byte, src []uint64, stride, groups int) {
	for g := range groups {
		to := dst[g*panelCols:][:panelCols]
		for i := range 8 {
			var x uint64 // byte i of the words, an 8 × 8 matrix of bits
			for j := range 8 {
				x |= src[(8*g+j)*stride] >> (8 * i) & 0xff << (8 * j)
			}
			t := (x ^ x>>7) & 0x00aa00aa00aa00aa
			x ^= t ^ t<<7
			t = (x ^ x>>14) & 0x0000cccc0000cccc
			x ^= t ^ t<<14
			t = (x ^ x>>28) & 0x00000000f0f0f0f0
			x ^= t ^ t<<28
			binary.LittleEndian.PutUint64(to[8*i:], x)
		}
	}
}

// integers is a matrix of small integers, each Σ_i 16^i digit_i.
type integers interface {
	// bounds are the largest absolute values of the digits; at most 31, so that the sums of four fit a byte.
	bounds() []int
	// fill writes a digit of a row's values from.. to dst; 0 beyond the last value.
	fill(dst []int8, row, from, digit int)
	// tables makes the tables of the values that fill would write to line, and returns the sum of their absolute values.
	tables(d *Device, dst []byte, line []int8, row, from, digit int) int32
}

// levels are the integers behind planes, Σ_b 2^b s_b: four planes make a digit.
type levels struct{ *planes }

func (x levels) bounds() []int {
	if x.bits > 4 {
		return []int{15, 1<<(x.bits-4) - 1}
	}
	return []int{1<<x.bits - 1}
}

func (x levels) fill(dst []int8, row, from, digit int) {
	first, last := digit*4, min(digit*4+4, x.bits)
	words := x.row(row)
	top := uint64(1<<(last-first) - 1)
	to := asBytes(dst)
	for i := 0; i < len(to); i += 8 {
		at := from + i
		sum := spread1 * (128 - top) // level + 128 in every byte
		for b := first; b < last; b++ {
			sum += spread8[byte(words[b*x.stride+at>>6]>>(at&63))] << (b - first + 1)
		}
		binary.LittleEndian.PutUint64(to[i:], sum^spread1*128)
	}
	if beyond := from + len(dst) - x.cols; beyond > 0 {
		clear(dst[max(0, len(dst)-beyond):])
	}
}

func (x levels) tables(d *Device, dst []byte, line []int8, row, from, digit int) int32 {
	whole := 0 // values whose tables are known beforehand
	if x.bits == 1 {
		whole = max(0, min(x.cols-from, len(line))&^31)
		words := x.row(row)
		for i := 0; i < whole; i += 8 {
			*(*[32]byte)(dst[4*i:]) = signTables[byte(words[(from+i)>>6]>>((from+i)&63))]
		}
		if whole == len(line) {
			return int32(whole)
		}
	}
	x.fill(line[whole:], row, from+whole, digit)
	return int32(whole) + d.makeTables(dst[4*whole:], line[whole:])
}

// signTables[b] are the tables of the eight signs of a byte.
var signTables = func() (t [256][32]byte) {
	var q [8]int8
	for b := range t {
		for i := range q {
			q[i] = int8(b>>i&1)*2 - 1
		}
		makeTablesGo(t[b][:], q[:])
	}
	return t
}()

const spread1 = 0x0101010101010101

// spread8[b] has bit i of b in byte i.
var spread8 = func() (t [256]uint64) {
	for b := range t {
		for i := range 8 {
			t[b] |= uint64(b>>i&1) << (8 * i)
		}
	}
	return t
}()

// small are integers kept as they are, |value| <= bound <= 127, rows of stride values that end in zeros.
type small struct {
	values []int8
	stride int // a multiple of 32
	bound  int
}

func (q small) row(r int) []int8 { return q.values[r*q.stride:][:q.stride] }

func (q small) bounds() []int {
	if q.bound > 31 {
		return []int{8, (q.bound + 8) / 16}
	}
	return []int{q.bound}
}

func (q small) fill(dst []int8, row, from, digit int) {
	src := q.values[row*q.stride+from:][:len(dst)]
	if q.bound <= 31 {
		copy(dst, src)
		return
	}
	for i, v := range src {
		low := (v+8)&15 - 8 // v + 8 may wrap, which the mask does not see
		if digit == 0 {
			dst[i] = low
		} else {
			dst[i] = int8((int(v) - int(low)) / 16)
		}
	}
}

func (q small) tables(d *Device, dst []byte, line []int8, row, from, digit int) int32 {
	if q.bound <= 31 {
		return d.makeTables(dst, q.row(row)[from:][:len(line)])
	}
	q.fill(line, row, from, digit)
	return d.makeTables(dst, line)
}

// groupsPerFlush is how many groups of 8 integers, two entries each, may be added up in a byte.
func groupsPerFlush(bound int) int {
	switch {
	case bound <= 7:
		return 4
	case bound <= 15:
		return 2
	}
	return 1
}

// lookupProducts computes Σ_b 2^b Σ_j q[r][j] s_b[j][c] for rows r0..r1-1 and all columns c, over the planes s_b, and hands
// row after row to emit: the product is 2*sums[c] - offset.
func (d *Device) lookupProducts(q integers, s []signPanels, r0, r1 int, k *scratch, emit func(row int, sums []int32, offset int32)) {
	var (
		width  = s[0].panels() * panelCols
		bounds = q.bounds()
		total  = k.int32s(0, lookupRows*width)
		part   = total // of one digit and plane
		tables = k.bytes(0, lookupRows*4*blockDepth)
		line   = k.int8s(0, blockDepth)
	)
	simple := len(bounds) == 1 && len(s) == 1
	if !simple {
		part = k.int32s(1, len(s)*lookupRows*width)
	}
	for r := r0; r < r1; r += lookupRows {
		var offsets [lookupRows]int32
		clear(total)
		for digit, bound := range bounds {
			if !simple {
				clear(part)
			}
			for g := 0; g < s[0].groups; g += blockDepth / 8 {
				end := min(g+blockDepth/8, s[0].groups)
				depth := 8 * (end - g)
				for i := range lookupRows {
					to := tables[i*4*depth:][:4*depth]
					if r+i >= r1 {
						clear(to)
						continue
					}
					offsets[i] += q.tables(d, to, line[:depth], r+i, 8*g, digit) << (4 * digit)
				}
				for b := range s {
					for p := range s[b].panels() {
						d.lookup(part[b*lookupRows*width+p*panelCols:], width, tables, s[b].panel(p, g, end), groupsPerFlush(bound))
					}
				}
			}
			if simple {
				break
			}
			for b := range s {
				for i, v := range part[b*lookupRows*width:][:len(total)] {
					total[i] += v << (b + 4*digit)
				}
			}
		}
		for i := range min(lookupRows, r1-r) {
			emit(r+i, total[i*width:][:s[0].cols], offsets[i]*(1<<len(s)-1))
		}
	}
}

// makeTablesGo writes the 16 entries of every four integers of q to dst and returns the sum of the absolute values.
func makeTablesGo(dst []byte, q []int8) (sum int32) {
	for i := 0; i < len(q); i += 4 {
		entries := dst[4*i:][:16]
		var first int8 // of no bits: the absolute values of what is negative
		for _, v := range q[i : i+4] {
			first += max(-v, 0)
			sum += int32(max(v, -v))
		}
		entries[0] = byte(first)
		for n := range 4 {
			v := byte(q[i+n])
			for b := range 1 << n {
				entries[1<<n+b] = entries[b] + v
			}
		}
	}
	return sum
}

// lookupGo adds to 4 × 64 sums, rows stride apart, the entries that the panel's nibbles pick from the tables of 4 rows. At
// most flush groups of entries add up to a byte.
func lookupGo(sums []int32, stride int, tables, panel []byte, flush int) {
	size := len(panel) / panelCols * 32
	for r := range lookupRows {
		row, entries := sums[r*stride:][:panelCols], tables[r*size:][:size]
		for g := 0; g < len(panel)/panelCols; g++ {
			low, high := entries[32*g:][:16], entries[32*g+16:][:16]
			for c, b := range panel[g*panelCols:][:panelCols] {
				row[c] += int32(low[b&15]) + int32(high[b>>4])
			}
		}
	}
}
