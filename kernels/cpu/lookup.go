package cpu

import "math"

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
	tableSize  = 32   // of 8 integers; the tables of lookupRows rows follow one another
	groupStep  = 4    // signs are padded to this many groups of 8 rows
	blockDepth = 1024 // integers of a row whose tables stay in the first cache; 16-bit sums hold them
	lookupTask = 64   // rows of one task
)

// groupsPerFlush is how many groups of 8 integers, two entries each, may be added up in a byte: a divisor of groups.
func groupsPerFlush(bound, groups int) int {
	n := 16
	for 8*bound*n > math.MaxUint8 || groups%n != 0 {
		n /= 2
	}
	return n
}

// lookupProducts computes Σ_b 2^b Σ_j q[r][j] s_b[j][c] for rows r0..r1-1 and all columns c, over the planes s_b, and hands
// row after row to emit: the product is 2*sums[c] - offset.
func (d *Device) lookupProducts(q integers, s []signPanels, r0, r1 int, k *scratch, emit func(row int, sums []int32, offset int32)) {
	var (
		width  = s[0].panels() * panelCols
		bounds = q.bounds()
		total  = k.lookupTotals.take(lookupRows * width)
		part   = total // of one digit and plane
		tables = k.lookupTables.take(lookupRows * 4 * blockDepth)
		line   = k.lookupDigits.take(blockDepth)
	)
	// The sums of one digit and one plane are the total.
	simple := len(bounds) == 1 && len(s) == 1
	if !simple {
		part = k.lookupSums.take(len(s) * lookupRows * width)
	}
	for r := r0; r < r1; r += lookupRows {
		var offsets [lookupRows]int32
		if !simple {
			clear(total)
		}
		for digit, bound := range bounds {
			for g := 0; g < s[0].groups; g += blockDepth / 8 {
				end := min(g+blockDepth/8, s[0].groups)
				depth := 8 * (end - g)
				for i := range lookupRows {
					if r+i < r1 { // what is made of older tables is not read
						offsets[i] += q.tables(d, tables[i*tableSize:], line[:depth], r+i, 8*g, digit) << (4 * digit)
					}
				}
				for b := range s {
					d.lookup(part[b*lookupRows*width:], width, tables, s[b], g, end, groupsPerFlush(bound, end-g), g > 0)
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

// makeTablesGo writes the 16 entries of every four integers of q to dst, where the tables of a row of lookupRows belong, and
// returns the sum of the absolute values.
func makeTablesGo(dst []byte, q []int8) (sum int32) {
	for i := 0; i < len(q); i += 4 {
		entries := dst[tableAt(i):][:16]
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

// tableAt is where the table of integers i.. of a row begins.
func tableAt(i int) int { return i/8*lookupRows*tableSize + i%8*4 }

// lookupGo writes, or adds, to the sums of 4 rows, stride apart, the entries that the nibbles of groups from..to-1 of all panels
// pick from the rows' tables. Any flush groups of entries add up to a byte.
func lookupGo(sums []int32, stride int, tables []byte, s signPanels, from, to, flush int, add bool) {
	for p := range s.panels() {
		lookupPanel(sums[p*panelCols:], stride, tables, s.panel(p, from, to), add)
	}
}

func lookupPanel(sums []int32, stride int, tables, panel []byte, add bool) {
	for r := range lookupRows {
		row := sums[r*stride:][:panelCols]
		if !add {
			clear(row)
		}
		for g := 0; g < len(panel)/panelCols; g++ {
			entries := tables[(g*lookupRows+r)*tableSize:][:tableSize]
			low, high := entries[:16], entries[16:]
			for c, b := range panel[g*panelCols:][:panelCols] {
				row[c] += int32(low[b&15]) + int32(high[b>>4])
			}
		}
	}
}
