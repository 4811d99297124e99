package cpu

import "math"

// Products of small integers by signs are looked up. Four integers q0..q3 of a row have 16 sums ±q0 ±q1 ±q2 ±q3: these
// are a table, and four packed signs are an index. One shuffle instruction looks up at least 16 columns, so it does the
// work of 64 multiplications. Activations by weights, gradients by weights, and gradients by activations all are such
// products.
//
// A table has non-negative bytes. With bits b for the signs s = 2b - 1,
//
//	entry(b) = Σ_i |q_i| [b_i = (q_i > 0)]
//	Σ_i q_i s_i = 2 entry(b) - Σ_i |q_i|
//
// so several entries can be added up in a byte before the sum is widened.

const (
	panelCols  = 64   // columns of signs that lie together
	lookupRows = 4    // rows of integers that are multiplied together
	tableSize  = 32   // bytes of the two tables of 8 integers; those of lookupRows rows follow one another
	groupStep  = 4    // signs are padded to multiples of so many groups of 8 rows
	blockDepth = 1024 // integers of a row whose tables stay in the first cache and whose sums fit 16 bits
	lookupTask = 64   // rows of one task
)

// groupsPerFlush is the number of groups of 8 integers, two entries each, that are added up in a byte. It divides
// groups.
func groupsPerFlush(bound, groups int) int {
	n := 16
	for 8*bound*n > math.MaxUint8 || groups%n != 0 {
		n /= 2
	}
	return n
}

// lookupProducts computes Σ_b 2^b Σ_j q[r][j] s_b[j][c] for rows r0..r1-1 and all columns c, over the planes s_b, and
// calls emit with every row: the product is 2*sums[c] - offset.
func (d *Device) lookupProducts(q integers, s []signPanels, r0, r1 int, k *scratch,
	emit func(row int, sums []int32, offset int32)) {
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
					if r+i < r1 { // beyond, old tables give sums that are not read
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
				plane := part[b*lookupRows*width:][:len(total)]
				d.addCounts(total, plane, int32(b+4*digit))
			}
		}
		for i := range min(lookupRows, r1-r) {
			emit(r+i, total[i*width:][:s[0].cols], offsets[i]*(1<<len(s)-1))
		}
	}
}

// makeTablesGo writes the table of every four integers of q to dst, at tableAt, and returns the sum of the absolute
// values of q.
func makeTablesGo(dst []byte, q []int8) (sum int32) {
	for i := 0; i < len(q); i += 4 {
		entries := dst[tableAt(i):][:16]
		var first int8 // entry(0): the absolute values of the negative integers
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

// tableAt is where the table of integers i..i+3 of a row begins.
func tableAt(i int) int { return i/8*lookupRows*tableSize + i%8*4 }

// lookupGo looks up the signs of groups from..to-1 of all panels in the tables of lookupRows rows. It overwrites the
// rows of sums with the sums of the entries or, if add is set, adds to them. The entries of flush groups fit a byte
// when added up.
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
