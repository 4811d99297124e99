package cpu

import (
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"bitnet1/kernels"
)

// Every instruction set gives the same bits as the Go loops: for whole registers, for fewer values, and for the
// remainder.
func TestInstructionSetsAgree(t *testing.T) {
	sets := instructionSets()
	if len(sets) == 1 {
		t.Skip("this processor runs only the Go loops")
	}
	fields := reflect.TypeFor[instructions]()
	for i := range fields.NumField() {
		if f := fields.Field(i); f.Type.Kind() == reflect.Func && comparisons()[f.Name] == nil {
			t.Errorf("nothing compares %s", f.Name)
		}
	}
	for _, set := range sets[1:] {
		for name, check := range comparisons() {
			t.Run(set.name+"/"+name, func(t *testing.T) {
				r := random(6)
				for _, n := range []int{1, 2, 7, 8, 9, 31, 32, 33, 63, 64, 65, 127, 128, 200, 257, 1024} {
					for range 4 {
						seed := r.Uint64()
						want := check(&sets[0], rand.New(rand.NewPCG(seed, 0)), n)
						got := check(&set, rand.New(rand.NewPCG(seed, 0)), n)
						if !reflect.DeepEqual(got, want) {
							t.Fatalf("n = %d: %s", n, firstDifference(got, want))
						}
					}
				}
			})
		}
	}
}

// Assembly does not check bounds, so its callers do: a slice that is too short for the others is a panic, not a read
// beyond its end. The loops are one of every shape for which callers are generated.
func TestShortSlicesPanic(t *testing.T) {
	const n = 256 // values; enough for whole registers alone
	for _, set := range instructionSets()[1:] {
		for _, c := range []struct {
			name     string
			loop     any
			checked  int   // slices; the others say how many values there are
			integers []int // arguments
		}{
			{"scaleIntegers", set.scaleIntegers, 1, nil},
			{"roundRow", set.roundRow, 3, nil},
			{"adam", set.adam, 3, nil},
			{"mask", set.mask, 2, nil},
			{"signsOfSums", set.signsOfSums, 4, nil},
			{"roundBFloats", set.roundBFloats, 2, []int{n, n, 1, n}},
			{"addBFloatRows", set.addBFloatRows, 3, []int{n, n / 64, 1}},
			{"absMaxProduct", set.absMaxProduct, 1, nil},
			{"maskNormalized", set.maskNormalized, 3, nil},
		} {
			loop := reflect.ValueOf(c.loop)
			call := func(short int) (failure any) {
				defer func() { failure = recover() }()
				loop.Call(arguments(loop.Type(), n, short, c.integers))
				return nil
			}
			if failure := call(-1); failure != nil {
				t.Errorf("%s: %s: %v", set.name, c.name, failure)
			}
			refused := 0
			for i := range loop.Type().NumIn() {
				if call(i) != nil {
					refused++
				}
			}
			if refused < c.checked {
				t.Errorf("%s: %s refuses %d slices that are too short, want %d", set.name, c.name, refused, c.checked)
			}
		}
	}
}

// The same of a caller that is written by hand.
func TestShortBytesPanic(t *testing.T) {
	const groups, stride = 2, 20
	for _, set := range instructionSets()[1:] {
		if set.byteProducts == nil {
			continue
		}
		for short := range 4 {
			var less [4]int
			less[short] = 1
			dst, panel := make([]int32, byteRows*2*byteCols-less[0]), make([]byte, groups*byteGroup*byteCols-less[1])
			q := make([]int8, (byteRows-1)*stride+groups*byteGroup-less[2])
			call := func() (failure any) {
				defer func() { failure = recover() }()
				set.byteProducts(dst, panel, q, stride, groups, 1)
				return nil
			}
			if failure := call(); (failure != nil) != (short < 3) {
				t.Errorf("%s: argument %d too short, of 3: %v", set.name, short, failure)
			}
		}
	}
}

// arguments are those of a loop over n values. Argument short, if it is a slice, is too short.
func arguments(loop reflect.Type, n, short int, integers []int) []reflect.Value {
	list := make([]reflect.Value, loop.NumIn())
	for i := range list {
		switch kind := loop.In(i); kind.Kind() {
		case reflect.Slice:
			length := n
			if kind == reflect.TypeFor[[]uint64]() {
				length = wordsOf(n)
			}
			if i == short {
				length--
			}
			list[i] = reflect.MakeSlice(kind, length, length)
		case reflect.Pointer:
			list[i] = reflect.New(kind.Elem())
		case reflect.Int:
			list[i], integers = reflect.ValueOf(integers[0]), integers[1:]
		default:
			list[i] = reflect.Zero(kind)
		}
	}
	return list
}

func firstDifference(got, want any) string {
	a, b := reflect.ValueOf(got), reflect.ValueOf(want)
	for i := range min(a.Len(), b.Len()) {
		if x, y := a.Index(i).Interface(), b.Index(i).Interface(); !reflect.DeepEqual(x, y) {
			return fmt.Sprintf("value %d of %d is %v, want %v", i, a.Len(), x, y)
		}
	}
	return fmt.Sprintf("%d values, want %d", a.Len(), b.Len())
}

// comparisons run a loop of an instruction set on random input of about n values and return all that it wrote, as bits
// where that is floats.
func comparisons() map[string]func(s *instructions, r *rand.Rand, n int) any {
	return map[string]func(s *instructions, r *rand.Rand, n int) any{
		"countDiffering": func(s *instructions, r *rand.Rand, n int) any { return countedPlanes(s.countDiffering, r, n) },
		"countCommon":    func(s *instructions, r *rand.Rand, n int) any { return countedPlanes(s.countCommon, r, n) },
		"lastBelow": func(s *instructions, r *rand.Rand, n int) any {
			k, q := randomWords(r, n), r.Uint64()
			var found []int
			for below := range 65 {
				found = append(found, s.lastBelow(k, q, below))
			}
			return found
		},
		"lastBelowOfPlanes": func(s *instructions, r *rand.Rand, n int) any {
			k, q := randomWords(r, n), randomWords(r, 1+r.IntN(8))
			var found []int
			for below := range 65 << len(q) {
				found = append(found, s.lastBelowOfPlanes(k, q, below))
			}
			return found
		},
		"countSigns": func(s *instructions, r *rand.Rand, n int) any {
			words, width := 1+r.IntN(9), (n+channelsPerCount-1)/channelsPerCount*channelsPerCount
			xStride := words + r.IntN(3)
			dst := make([]int32, 3*(width+2)+width)
			s.countSigns(dst, width+2, randomWords(r, 4*xStride), xStride, randomWords(r, words*width), words)
			return dst
		},
		"tile": func(s *instructions, r *rand.Rand, n int) any {
			c, a, b := doubles(r, 4*20), doubles(r, n*tileRows), doubles(r, n*tileCols)
			s.tile(c, 20, a, b, n)
			return c
		},
		"byteProducts": func(s *instructions, r *rand.Rand, n int) any {
			multiply := s.byteProducts
			if multiply == nil {
				multiply = byteProductsGo
			}
			groups, stride, bound := (n+7)/8, n+15, 1+r.IntN(127)
			panel, dst := randomBytes(r, groups*byteGroup*byteCols), make([]int32, byteRows*2*byteCols)
			largest := min(255, math.MaxInt16/2/bound)
			for i := range panel {
				panel[i] = byte(int(panel[i]) % (largest + 1))
			}
			multiply(dst, panel, smallIntegers(r, byteRows*stride, bound), stride, groups, math.MaxInt16/2/bound/largest)
			return dst
		},
		"tilePair": func(s *instructions, r *rand.Rand, n int) any {
			c, a, b := doubles(r, 4*20), doubles(r, n*tileRows), doubles(r, 2*n*tileCols)
			s.tilePair(c, 20, a, b, n)
			return c
		},
		"makeTables": func(s *instructions, r *rand.Rand, n int) any {
			q := smallIntegers(r, padded(n), 31)
			dst := make([]byte, tableAt(len(q)))
			return append(dst[:len(dst):len(dst)], byte(s.makeTables(dst, q)))
		},
		"lookup": func(s *instructions, r *rand.Rand, n int) any {
			bound := []int{1, 7, 15, 31}[r.IntN(4)]
			groups := min((n+3)/4*4, blockDepth/8)
			tables := make([]byte, groups*lookupRows*tableSize)
			for i := range lookupRows {
				s.makeTables(tables[i*tableSize:], smallIntegers(r, 8*groups, bound))
			}
			panels := newSignPanels(8*(groups+r.IntN(3)), 1+r.IntN(3*panelCols), new(buffer[byte]))
			copy(panels.bytes, randomBytes(r, len(panels.bytes)))
			width := panels.panels()*panelCols + 6
			sums := make([]int32, lookupRows*width)
			for i := range sums {
				sums[i] = int32(r.Uint32()) >> 4
			}
			from := r.IntN(panels.groups - groups + 1)
			s.lookup(sums, width, tables, panels, from, from+groups, groupsPerFlush(bound, groups), r.IntN(2) == 0)
			return sums
		},
		"packSigns": func(s *instructions, r *rand.Rand, n int) any {
			words := make([]uint64, (n+63)/64+1)
			s.packSigns(words, oddities(r, n))
			return words
		},
		"packMask": func(s *instructions, r *rand.Rand, n int) any {
			words := make([]uint64, (n+63)/64+1)
			s.packMask(words, oddities(r, n), []float32{1, 2.5}[r.IntN(2)])
			return words
		},
		"setBits": func(s *instructions, r *rand.Rand, n int) any {
			planes, stride := 1+r.IntN(8), wordsOf(n)+r.IntN(3)
			index, words := randomBytes(r, n), make([]uint64, planes*stride)
			for i := range index {
				index[i] >>= 8 - planes
			}
			s.setBits(words, stride, planes, index)
			return words
		},
		"expandBits": func(s *instructions, r *rand.Rand, n int) any {
			planes, at, stride := 1+r.IntN(4), 32*r.IntN(5), wordsOf(n)+5
			dst, weight := make([]int8, padded(n)), 1+r.IntN(2)
			s.expandBits(dst, randomWords(r, planes*stride), stride, planes, at, int8(-r.IntN(16)), int8(weight))
			return dst
		},
		"weighLevels": func(s *instructions, r *rand.Rand, n int) any {
			planes, stride := 1+r.IntN(8), wordsOf(n)
			values, dst, at := randomWords(r, 7*planes*stride), make([]float32, n), [fewSurvivors]int{}
			for i := range at {
				at[i] = r.IntN(7) * planes * stride
			}
			s.weighLevels(dst, values, &at, stride, planes, 0, (*[16]float32)(normals(r, 16)), float32(r.Float64()))
			return floatBits(dst)
		},
		"transposeBits": func(s *instructions, r *rand.Rand, n int) any {
			stride := 1 + r.IntN(5)
			dst := make([]byte, n*panelCols)
			s.transposeBits(dst, randomWords(r, 8*n*stride), stride, n)
			return dst
		},
		"transposeBytes": func(s *instructions, r *rand.Rand, n int) any {
			to, from := 8+r.IntN(9), n+r.IntN(9)
			dst := make([]byte, n*to)
			s.transposeBytes(dst, to, randomBytes(r, 8*from), from, n)
			return dst
		},
		"scaleBytes": func(s *instructions, r *rand.Rand, n int) any {
			dst := make([]float32, n)
			s.scaleBytes(dst, smallIntegers(r, n, 127), float32(r.NormFloat64()))
			return floatBits(dst)
		},
		"scaleIntegers": func(s *instructions, r *rand.Rand, n int) any {
			dst := make([]float32, n)
			s.scaleIntegers(dst, randomInts(r, n), int32(r.Uint32())>>4, float32(r.NormFloat64()))
			return floatBits(dst)
		},
		"scaleToBFloats": func(s *instructions, r *rand.Rand, n int) any {
			dst := make([]uint16, n)
			unit := []float32{float32(r.NormFloat64()), float32(math.NaN()), float32(math.Inf(1))}[r.IntN(3)]
			s.scaleToBFloats(dst, randomInts(r, n), int32(r.Uint32())>>4, unit)
			return dst
		},
		"addCounts": func(s *instructions, r *rand.Rand, n int) any {
			sums := randomInts(r, n)
			s.addCounts(sums, randomInts(r, n), int32(r.IntN(8)))
			return sums
		},
		"affineSums": func(s *instructions, r *rand.Rand, n int) any {
			dst := make([]float32, n)
			s.affineSums(dst, randomInts(r, n), oddities(r, n), oddities(r, n), int32(r.Uint32())>>12, 2.5/16)
			return floatBits(dst)
		},
		"signsOfSums": func(s *instructions, r *rand.Rand, n int) any {
			sums, alpha, theta := make([]int32, n), oddities(r, n), oddities(r, n)
			for i := range sums {
				sums[i] = int32(r.IntN(9))
				if r.IntN(3) == 0 {
					theta[i] = alpha[i] * float32(2*sums[i]-8)
				}
			}
			signs, pass := make([]uint64, (n+63)/64), make([]uint64, (n+63)/64)
			s.signsOfSums(signs, pass, sums, alpha, theta, 8, 1)
			return append(signs, pass...)
		},
		"addScaled": func(s *instructions, r *rand.Rand, n int) any {
			dst := normals(r, n)
			sum := s.addScaled(dst, randomInts(r, n), randomWords(r, (n+63)/64), int32(r.Uint32())>>4, float32(r.NormFloat64()))
			return append(floatBits(dst), doubleBits([]float64{sum})...)
		},
		"randomWords": func(s *instructions, r *rand.Rand, n int) any {
			dst := make([]uint32, n&^3+4)
			key, counter := [2]uint32{r.Uint32(), r.Uint32()}, [4]uint32{r.Uint32(), r.Uint32(), r.Uint32(), r.Uint32()}
			counter[0] |= 0xfffffff0 // it wraps around
			s.randomWords(dst, key, counter)
			return dst
		},
		"roundRow": func(s *instructions, r *rand.Rand, n int) any {
			dst := make([]int8, n)
			s.roundRow(dst, oddities(r, n), oddities(r, n), float32(r.NormFloat64()), random16(r, n+1), 7)
			return dst
		},
		"roundColumns": func(s *instructions, r *rand.Rand, n int) any {
			dst := make([]int8, n)
			s.roundColumns(dst, oddities(r, n), oddities(r, n), random16(r, n+1), 127)
			return dst
		},
		"affine": func(s *instructions, r *rand.Rand, n int) any {
			u := normals(r, n)
			s.affine(u, oddities(r, n), oddities(r, n))
			return floatBits(u)
		},
		"squaredReLU": func(s *instructions, r *rand.Rand, n int) any {
			u, index, factors := oddities(r, n), make([]byte, n), make([]float32, n)
			perUnit := float32(int(1)<<(2+r.IntN(7))-1) / 4
			for i := range u {
				switch r.IntN(4) {
				case 0: // beside the middle of two levels
					u[i] = float32(math.Sqrt((float64(r.IntN(int(4*perUnit))) + 0.5) / float64(perUnit)))
				case 1:
					u[i] = 2 + float32(r.IntN(3)-1)/(1<<22)
				}
			}
			s.squaredReLU(index, factors, u, perUnit)
			return append(floatBits(factors), bytesAsWords(index)...)
		},
		"roundBFloats": func(s *instructions, r *rand.Rand, n int) any {
			rows, dstStride, srcStride := r.IntN(5), n+r.IntN(3), n+r.IntN(3)
			x := oddities(r, (rows+1)*srcStride)
			for i := range x {
				if r.IntN(4) == 0 {
					x[i] = math.Float32frombits(r.Uint32())
				}
			}
			dst := make([]uint16, (rows+1)*dstStride)
			s.roundBFloats(dst, dstStride, x, srcStride, rows, n)
			return dst
		},
		"add": func(s *instructions, r *rand.Rand, n int) any {
			dst := make([]float32, n)
			s.add(dst, oddities(r, n), normals(r, n))
			return floatBits(dst)
		},
		"mask": func(s *instructions, r *rand.Rand, n int) any {
			dst := normals(r, n)
			s.mask(dst, oddities(r, n), randomWords(r, (n+63)/64))
			return floatBits(dst)
		},
		"absMax": func(s *instructions, r *rand.Rand, n int) any {
			most := normals(r, n)
			for i := range most {
				most[i] = magnitude(most[i])
			}
			s.absMax(most, oddities(r, n))
			return floatBits(most)
		},
		"absMaxProduct": func(s *instructions, r *rand.Rand, n int) any {
			return floatBits([]float32{s.absMaxProduct(normals(r, n), oddities(r, n))})
		},
		"widenBFloats": func(s *instructions, r *rand.Rand, n int) any {
			rows, dstStride, srcStride := r.IntN(5), n+r.IntN(3), n+r.IntN(3)
			dst := make([]float32, (rows+1)*dstStride)
			s.widenBFloats(dst, dstStride, random16(r, (rows+1)*srcStride), srcStride, rows, n)
			return floatBits(dst)
		},
		"maskBFloats": func(s *instructions, r *rand.Rand, n int) any {
			dst := make([]float32, n)
			s.maskBFloats(dst, random16(r, n), randomWords(r, wordsOf(n)))
			return floatBits(dst)
		},
		"addBFloatRows": func(s *instructions, r *rand.Rand, n int) any {
			sums, most, rows := doubles(r, n), make([]float32, n), r.IntN(5)
			stride, wordStride := n+r.IntN(3), wordsOf(n)+r.IntN(2)
			src := make([]uint16, (rows+1)*stride)
			roundLine(src, oddities(r, len(src)))
			s.addBFloatRows(sums, most, src, stride, randomWords(r, (rows+1)*wordStride), wordStride, rows)
			return append(doubleBits(sums), floatBits(most)...)
		},
		"addRows": func(s *instructions, r *rand.Rand, n int) any {
			sums, most, rows := doubles(r, n), make([]float32, n), r.IntN(5)
			stride, wordStride := n+r.IntN(3), wordsOf(n)+r.IntN(2)
			s.addRows(sums, most, oddities(r, (rows+1)*stride), stride, randomWords(r, (rows+1)*wordStride), wordStride, rows)
			return append(doubleBits(sums), floatBits(most)...)
		},
		"sumSquares": func(s *instructions, r *rand.Rand, n int) any {
			return doubleBits([]float64{s.sumSquares(oddities(r, n))})
		},
		"multiply": func(s *instructions, r *rand.Rand, n int) any {
			dst := make([]float32, n)
			s.multiply(dst, oddities(r, n), normals(r, n))
			return floatBits(dst)
		},
		"scale": func(s *instructions, r *rand.Rand, n int) any {
			x := oddities(r, n)
			s.scale(x, float32(r.NormFloat64()))
			return floatBits(x)
		},
		"maximum": func(s *instructions, r *rand.Rand, n int) any {
			return floatBits([]float32{s.maximum(oddities(r, n)) + 0}) // of two zeros, either
		},
		"exponentials": func(s *instructions, r *rand.Rand, n int) any {
			x := oddities(r, n)
			for i := range x {
				x[i] *= float32(r.IntN(60))
			}
			sum := s.exponentials(x, maximumGo(x))
			return append(floatBits(x), doubleBits([]float64{sum})...)
		},
		"quantize": func(s *instructions, r *rand.Rand, n int) any {
			bits := 2 + r.IntN(7)
			x, gain := oddities(r, n), oddities(r, n)
			half, step := halfLevels(kernels.MidRise(bits))
			for i := range x {
				if r.IntN(3) == 0 {
					gain[i], x[i] = 1, float32(step*float64(r.IntN(2*int(half)+1)-int(half))) // between two levels
				}
			}
			dst := make([]byte, n)
			s.quantize(dst, x, gain, []float64{1, 0, math.NaN()}[r.IntN(3)], step, half)
			return dst
		},
		"nearestLevels": func(s *instructions, r *rand.Rand, n int) any {
			index, x, half := make([]byte, n), doubles(r, n), math.Ldexp(1, r.IntN(8))
			step := 2.5 / half
			for i := range x {
				switch r.IntN(5) {
				case 0: // a tie
					x[i] = step * float64(r.IntN(20)-10)
				case 1:
					x[i] = []float64{math.NaN(), math.Inf(1), math.Inf(-1), 0, 1e300}[r.IntN(5)]
				}
			}
			s.nearestLevels(index, x, r.Float64(), step, half)
			return index
		},
		"products": func(s *instructions, r *rand.Rand, n int) any {
			dst := make([]float64, n)
			s.products(dst, oddities(r, n), oddities(r, n))
			return doubleBits(dst)
		},
		"rotate": func(s *instructions, r *rand.Rand, n int) any {
			block := 1 << r.IntN(9)
			x := doubles(r, n*block)
			s.rotate(x, block)
			return doubleBits(x)
		},
		"maskRotated": func(s *instructions, r *rand.Rand, n int) any {
			v, limit := doubles(r, n), 1.0
			for i := range v {
				switch r.IntN(5) {
				case 0:
					v[i] = math.Copysign(limit, v[i])
				case 1:
					v[i] = math.NaN()
				}
			}
			s.maskRotated(v, oddities(r, n), []float64{1, r.Float64()}[r.IntN(2)], limit)
			return doubleBits(v)
		},
		"narrowScaled": func(s *instructions, r *rand.Rand, n int) any {
			dst := make([]float32, n)
			s.narrowScaled(dst, doubles(r, n), r.Float64())
			return floatBits(dst)
		},
		"maskNormalized": func(s *instructions, r *rand.Rand, n int) any {
			dst := normals(r, n)
			dot := s.maskNormalized(dst, oddities(r, n), oddities(r, n), normals(r, n), r.Float64(), 1)
			return append(floatBits(dst), doubleBits([]float64{dot})...)
		},
		"addNormalized": func(s *instructions, r *rand.Rand, n int) any {
			dx, dGain := normals(r, n), []float64(nil)
			for range n {
				dGain = append(dGain, r.NormFloat64())
			}
			s.addNormalized(dx, dGain, oddities(r, n), oddities(r, n), normals(r, n), r.Float64(), r.NormFloat64())
			return append(floatBits(dx), doubleBits(dGain)...)
		},
		"valueGradient": func(s *instructions, r *rand.Rand, n int) any {
			dv := doubles(r, n)
			dot := s.valueGradient(dv, oddities(r, n), signs(r, n), r.NormFloat64())
			return doubleBits(append(dv, dot))
		},
		"scoreGradient": func(s *instructions, r *rand.Rand, n int) any {
			dq, dk := doubles(r, n), doubles(r, n)
			s.scoreGradient(dq, dk, signs(r, n), signs(r, n), r.NormFloat64())
			return doubleBits(append(dq, dk...))
		},
		"nearest": func(s *instructions, r *rand.Rand, n int) any { return nearestOf(s.nearest, r, n, kernels.Sign()) },
		"nearestOfPlanes": func(s *instructions, r *rand.Rand, n int) any {
			return nearestOf(s.nearestOfPlanes, r, n, kernels.MidRise(1+r.IntN(8)))
		},
		"ranked": func(s *instructions, r *rand.Rand, n int) any {
			g := randomQueries(r, n)
			s.ranked(g)
			return floatBits(slices.Concat(g.dqs, g.dk, g.dv))
		},
		"rankedLevels": func(s *instructions, r *rand.Rand, n int) any {
			g := randomQueries(r, n)
			g.levels = normals(r, len(g.dk))
			s.rankedLevels(g)
			return floatBits(slices.Concat(g.dqs, g.dk, g.dv))
		},
		"rankedQueries": func(s *instructions, r *rand.Rand, n int) any {
			g := randomQueries(r, n)
			g.levels, g.queries, g.q = normals(r, len(g.dk)), normals(r, 5*g.width), nil
			s.rankedQueries(g)
			return floatBits(slices.Concat(g.dqs, g.dk, g.dv))
		},
		"adam": func(s *instructions, r *rand.Rand, n int) any {
			param, m, v := normals(r, n), normals(r, n), normals(r, n)
			for i := range v {
				v[i] *= v[i]
			}
			u := update{
				clip: 0.7, beta1: 0.9, beta2: 0.95, rest1: 0.1, rest2: 0.05, keep: 0.999, rate: 0.01, root: 1.3, eps: 1e-8,
			}
			s.adam(param, oddities(r, n), m, v, &u)
			return floatBits(slices.Concat(param, m, v))
		},
	}
}

// nearestOf returns the best keys of random ones, and their distances.
func nearestOf(nearest func(best, away *[4][4]float64, q, k []uint64, skip, n int, constants *[5][4]float64),
	r *rand.Rand, n int, queries kernels.Quantization) any {
	var near nearSearch
	for i := range near.best {
		for j := range near.best[i] {
			near.best[i][j], near.away[i][j] = math.Inf(-1), -1
		}
	}
	dim := 1 + r.IntN(64)
	near.prepare(dim, queries, reciprocal(dim, queries))
	near.setSlope([]float64{0, 0.25, 0.1}[r.IntN(3)])
	skip := r.IntN(3)
	q, k := make([]uint64, 4*queries.Planes()), make([]uint64, n+skip+r.IntN(3))
	for _, words := range [][]uint64{q, k} {
		for i := range words {
			words[i] = r.Uint64() >> (64 - dim)
		}
	}
	nearest(&near.best, &near.away, q, k, skip, n, &near.constants)
	all := []float64{}
	for i := range near.best {
		all = slices.Concat(all, near.best[i][:], near.away[i][:])
	}
	return doubleBits(all)
}

// randomQueries have heads of up to n channels.
func randomQueries(r *rand.Rand, n int) *rankedQueries {
	const queries, keys = 5, 9
	width := min(n, 192)
	words, stride := wordsOf(width), width+r.IntN(5)
	g := &rankedQueries{
		headGradients: &headGradients{
			width: width, dqStride: stride, doStride: stride,
			dqs: normals(r, queries*stride), dos: normals(r, queries*stride),
			dk: normals(r, keys*width), dv: normals(r, keys*width),
		},
		q: randomWords(r, queries*words), k: randomWords(r, keys*words), v: randomWords(r, keys*words),
		exps: normals(r, queries*fewSurvivors), weights: [4]float32(normals(r, 4)), scale: r.NormFloat64(),
	}
	for i := range g.exps {
		g.exps[i] = max(0, g.exps[i]) + float32(i%4/3)
	}
	for range queries * fewSurvivors {
		g.survivors = append(g.survivors, int32(r.IntN(keys)))
	}
	return g
}

// nan stands for every NaN: which one an operation leaves is open.
const nan = 1<<64 - 1

// floatBits tells -0 from 0.
func floatBits[F ~[]float32](x F) []uint64 {
	bits := make([]uint64, len(x))
	for i, v := range x {
		if bits[i] = uint64(math.Float32bits(v)); v != v {
			bits[i] = nan
		}
	}
	return bits
}

func doubleBits(x []float64) []uint64 {
	bits := make([]uint64, len(x))
	for i, v := range x {
		if bits[i] = math.Float64bits(v); v != v {
			bits[i] = nan
		}
	}
	return bits
}

// oddities are normal values among which are zeros of both signs, ones, subnormal, small and large ones and, in every
// other call, some that are not finite.
func oddities(r *rand.Rand, n int) floats {
	x := normals(r, n)
	if r.IntN(2) == 0 {
		for range 1 + n/50 {
			odd := []float64{math.NaN(), math.Float64frombits(0xfff8 << 48), math.Inf(1), math.Inf(-1)}[r.IntN(4)]
			x[r.IntN(n)] = float32(odd)
		}
		return x
	}
	for i := range x {
		switch r.IntN(8) {
		case 0:
			negativeZero, aboveOne := float32(math.Copysign(0, -1)), math.Nextafter32(1, 2)
			x[i] = []float32{0, negativeZero, 1, -1, aboveOne, 1e-42, -1e-42, 3e18, -3e18}[r.IntN(9)]
		case 1:
			x[i] *= 1e-6
		}
	}
	return x
}

func smallIntegers(r *rand.Rand, n, bound int) []int8 {
	q := make([]int8, n)
	for i := range q {
		q[i] = int8(r.IntN(2*bound+1) - bound)
		if r.IntN(8) == 0 {
			q[i] = int8(bound)
		}
	}
	return q
}

func randomWords(r *rand.Rand, n int) []uint64 {
	words := make([]uint64, n)
	for i := range words {
		words[i] = r.Uint64() | r.Uint64()
	}
	return words
}

func random16(r *rand.Rand, n int) []uint16 {
	x := make([]uint16, n)
	for i := range x {
		x[i] = uint16(r.Uint32())
	}
	return x
}

// countedPlanes counts with n planes of x and w, of whole registers and of others.
func countedPlanes(count func(dst []int32, x []uint64, xPlanes int, w []uint64, wPlanes int), r *rand.Rand, n int) any {
	words, xPlanes, wPlanes := 1+n%20, 1+r.IntN(8), 1+r.IntN(8)
	dst := make([]int32, n)
	count(dst, randomWords(r, xPlanes*words), xPlanes, randomWords(r, n*wPlanes*words), wPlanes)
	return dst
}

func randomInts(r *rand.Rand, n int) []int32 {
	x := make([]int32, n)
	for i := range x {
		x[i] = int32(r.Uint32()) >> (4 + r.IntN(20))
	}
	return x
}

func randomBytes(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// All sums of a lookup are as large as they can be: nothing may overflow.
func TestLookupHoldsTheLargestSums(t *testing.T) {
	for _, set := range instructionSets() {
		for _, bound := range []int{1, 3, 7, 15, 31} {
			q := slices.Repeat([]int8{int8(-bound)}, blockDepth)
			tables := make([]byte, tableAt(blockDepth))
			for i := range lookupRows {
				set.makeTables(tables[i*tableSize:], q)
			}
			sums := make([]int32, lookupRows*panelCols)
			panels := newSignPanels(blockDepth, panelCols, new(buffer[byte]))
			set.lookup(sums, panelCols, tables, panels, 0, panels.groups, groupsPerFlush(bound, blockDepth/8), true)
			for _, n := range sums {
				if n != int32(bound*blockDepth) {
					t.Fatalf("%s: integers of %d sum up to %d, want %d", set.name, bound, n, bound*blockDepth)
				}
			}
		}
	}
}

// The exponential of the loss is near the true one.
func TestExponentials(t *testing.T) {
	x := make([]float32, 4000)
	for i := range x {
		x[i] = float32(-i) / 50
	}
	got := slices.Clone(x)
	exponentialsGo(got, 0)
	for i, v := range x {
		if want := math.Exp(float64(v)); math.Abs(float64(got[i])-want) > 3e-7*want {
			t.Fatalf("exp(%v) is %v, want %v", v, got[i], want)
		}
	}
}

func doubles(r *rand.Rand, n int) []float64 {
	x := make([]float64, n)
	widen(x, normals(r, n))
	return x
}

func signs(r *rand.Rand, n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(r.IntN(2)*2 - 1)
	}
	return x
}

func bytesAsWords(x []byte) []uint64 {
	words := make([]uint64, len(x))
	for i, b := range x {
		words[i] = uint64(b)
	}
	return words
}
