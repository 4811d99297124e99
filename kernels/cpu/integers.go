package cpu

// integers is a matrix of small integers, the left side of a product by lookup. An integer is Σ_i 16^i digit_i.
type integers interface {
	// bounds returns the largest absolute value of every digit. It is at most 31, so that the sum of four fits a byte.
	bounds() []int
	// fill writes one digit of a row's values, from value from on, to dst. Beyond the last value it writes 0.
	fill(d *Device, dst []int8, row, from, digit int)
	// tables does what makeTables does with the len(line) values that fill would write to line. It may overwrite line.
	tables(d *Device, dst []byte, line []int8, row, from, digit int) int32
}

// levels are the integers Σ_b 2^b p_b of planes, whose bits mean ±1 or {0,1}. Four planes make a digit.
type levels struct{ *planes }

func (x levels) bounds() []int {
	if x.bits > 4 {
		return []int{15, 1<<(x.bits-4) - 1}
	}
	return []int{1<<x.bits - 1}
}

func (x levels) fill(d *Device, dst []int8, row, from, digit int) {
	first, last := digit*4, min(digit*4+4, x.bits)
	lowest, weight := int8(0), int8(1)
	if x.quantization.PlusMinus() {
		lowest, weight = 1-1<<(last-first), 2
	}
	d.expandBits(dst, x.row(row)[first*x.stride:], x.stride, last-first, from, lowest, weight)
	if beyond := from + len(dst) - x.cols; beyond > 0 {
		clear(dst[max(0, len(dst)-beyond):])
	}
}

// expandBitsGo writes lowest + weight * Σ_b 2^b of the bits of planes, from bit at on, a multiple of 32. The planes are
// stride words apart. len(dst) is a multiple of 32.
func expandBitsGo(dst []int8, words []uint64, stride, planes, at int, lowest, weight int8) {
	to := asBytes(dst)
	for i := 0; i < len(to); i += 8 {
		index := uint64(0) // of eight values
		for b := range planes {
			index |= spread8[byte(words[b*stride+(at+i)>>6]>>((at+i)&63))] << b
		}
		for j := range 8 {
			dst[i+j] = lowest + weight*int8(index>>(8*j))
		}
	}
}

func (x levels) tables(d *Device, dst []byte, line []int8, row, from, digit int) int32 {
	whole := 0 // values whose tables are in signTables
	if x.bits == 1 {
		whole = max(0, min(x.cols-from, len(line))&^31)
		words := x.row(row)
		for i := 0; i < whole; i += 8 {
			*(*[tableSize]byte)(dst[tableAt(i):]) = signTables[byte(words[(from+i)>>6]>>((from+i)&63))]
		}
		if whole == len(line) {
			return int32(whole)
		}
	}
	x.fill(d, line[whole:], row, from+whole, digit)
	return int32(whole) + d.makeTables(dst[tableAt(whole):], line[whole:])
}

// signTables[b] are the tables of eight integers ±1, the signs in byte b.
var signTables = func() (t [256][tableSize]byte) {
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

// int8Matrix has integers of at most 127. Rows are stride values long, the last of which are zeros.
type int8Matrix struct {
	values []int8
	stride int // a multiple of 32
	bound  int // of the absolute values
}

func (q int8Matrix) row(r int) []int8 { return q.values[r*q.stride:][:q.stride] }

func (q int8Matrix) bounds() []int {
	if q.bound > 31 {
		return []int{8, (q.bound + 8) / 16}
	}
	return []int{q.bound}
}

func (q int8Matrix) fill(_ *Device, dst []int8, row, from, digit int) {
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

func (q int8Matrix) tables(d *Device, dst []byte, line []int8, row, from, digit int) int32 {
	if q.bound <= 31 {
		return d.makeTables(dst, q.values[row*q.stride+from:][:len(line)])
	}
	q.fill(d, line, row, from, digit)
	return d.makeTables(dst, line)
}
