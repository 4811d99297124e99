package main

import (
	"fmt"
	"log"
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// declared are the constants in memory, by name, and what they hold.
var declared = map[string]struct {
	Mem
	values string
}{}

// data returns the constant of the given name. The first call for a name declares it with n values of size bytes.
func data(name string, n, size int, value func(i int) Constant) Mem {
	values := ""
	for i := range n {
		values += fmt.Sprintf(" %v", value(i))
	}
	if m, ok := declared[name]; ok {
		if m.values != values {
			log.Fatalf("two constants have the name %s: one holds%s, the other%s", name, m.values, values)
		}
		return m.Mem
	}
	m := GLOBL(name, RODATA|NOPTR)
	for i := range n {
		DATA(size*i, value(i))
	}
	declared[name] = struct {
		Mem
		values string
	}{m, values}
	return m
}

// Constants of a YMM register: 32 bytes, 8 words of 32 bits, 4 of 64 bits.

func bytes32(name string, f func(i int) byte) Mem {
	return data(name, 32, 1, func(i int) Constant { return U8(f(i)) })
}

func words8(name string, f func(i int) uint32) Mem {
	return data(name, 8, 4, func(i int) Constant { return U32(f(i)) })
}

func quads4(name string, f func(i int) uint64) Mem {
	return data(name, 4, 8, func(i int) Constant { return U64(f(i)) })
}

// quads8 is a constant of a ZMM register: w again and again.
func quads8(name string, w ...uint64) Mem {
	return data(name, 8, 8, func(i int) Constant { return U64(w[i%len(w)]) })
}

func all[T any](v T) func(int) T { return func(int) T { return v } }

// Constants of several loops.

func sign() Mem      { return words8("sign", all[uint32](1<<31)) }
func magnitude() Mem { return words8("magnitude", all[uint32](1<<31-1)) }
func above1() Mem    { return words8("above1", all(math.Float32bits(1)+1)) }
func bitOf() Mem     { return words8("bits", func(i int) uint32 { return 1 << i }) }
func nibbles() Mem   { return bytes32("nibbles", all[byte](0x0f)) }
func one64() Mem     { return quads4("one64", all(math.Float64bits(1))) }

func magnitude16() Mem { return quads8("magnitude16", 0x7fffffff7fffffff) }

// nibbleCounts are the numbers of set bits of a nibble.
func nibbleCounts() Mem {
	return bytes32("nibbleCounts", func(i int) byte {
		n := i % 16
		return byte(n&1 + n>>1&1 + n>>2&1 + n>>3)
	})
}

// Parameters.

func pointer(name string) GPVirtual { return Load(Param(name), GP64()).(GPVirtual) }

// argument is where a parameter lies.
func argument(name string) Mem {
	m, err := Param(name).Resolve()
	if err != nil {
		panic(err)
	}
	return m.Addr
}

// broadcast loads a 32-bit parameter to all lanes.
func broadcast(name string) VecVirtual {
	v := YMM()
	VBROADCASTSS(argument(name), v)
	return v
}

// broadcast64 loads a 64-bit parameter to all lanes.
func broadcast64(name string) VecVirtual {
	v := YMM()
	VBROADCASTSD(argument(name), v)
	return v
}

func wideBroadcast(name string) VecVirtual {
	v := ZMM()
	VBROADCASTSS(argument(name), v)
	return v
}

// Registers.

func constant(m Mem) VecVirtual {
	v := YMM()
	VMOVDQU(m, v)
	return v
}

func wideConstant(m Mem) VecVirtual {
	v := ZMM()
	VMOVDQU64(m, v)
	return v
}

func wideZero() VecVirtual {
	v := ZMM()
	VPXORD(v, v, v)
	return v
}

// maskOf returns a mask register with the given bits.
func maskOf(bits uint32) OpmaskVirtual {
	k, v := K(), GP32()
	MOVL(U32(bits), v)
	KMOVD(v, k)
	return k
}

// zeros64 are sums of eight values in float64.
func zeros64() (low, high VecVirtual) {
	low, high = YMM(), YMM()
	VXORPD(low, low, low)
	VXORPD(high, high, high)
	return low, high
}

// Loops.

func end() {
	VZEROUPPER()
	RET()
}

// loop repeats body, which computes so many values, until n are done. i is the number of the first value.
func loop(n GPVirtual, values int, body func(i GPVirtual)) {
	i := GP64()
	XORQ(i, i)
	Label("loop")
	body(i)
	ADDQ(Imm(uint64(values)), i)
	CMPQ(i, n)
	JLT(LabelRef("loop"))
}

// matrixLoop repeats loop for every row of src and dst, whose values are of 2^shift bytes. The strides are parameters.
func matrixLoop(dst GPVirtual, dstShift uint64, src GPVirtual, srcShift uint64, n GPVirtual, values int,
	body func(i GPVirtual)) {
	dstStride, srcStride, rows := pointer("dstStride"), pointer("srcStride"), pointer("rows")
	SHLQ(Imm(dstShift), dstStride)
	SHLQ(Imm(srcShift), srcStride)
	Label("row")
	loop(n, values, body)
	ADDQ(dstStride, dst)
	ADDQ(srcStride, src)
	DECQ(rows)
	JNZ(LabelRef("row"))
}

func at4(base, i GPVirtual, disp int) Mem { return Mem{Base: base, Index: i, Scale: 4, Disp: disp} }
func at2(base, i GPVirtual) Mem           { return Mem{Base: base, Index: i, Scale: 2} }

// bitsToLanes sets the lanes whose bit is set in byte i of words. lanes is bitOf.
func bitsToLanes(words, i GPVirtual, lanes VecVirtual) VecVirtual {
	v := YMM()
	VPBROADCASTB(Mem{Base: words, Index: i, Scale: 1}, v)
	VPAND(lanes, v, v)
	VPCMPEQD(lanes, v, v)
	return v
}

// Reductions.

// addDoubles adds the lower four lanes of p to low, and the others to high.
func addDoubles(p, low, high VecVirtual) {
	half, d := XMM(), YMM()
	VEXTRACTF128(Imm(1), p, half)
	VCVTPS2PD(p.AsX(), d)
	VADDPD(d, low, low)
	e := YMM()
	VCVTPS2PD(half, e)
	VADDPD(e, high, high)
}

// returnSum returns the sum of eight lanes: of lanes i and i+4, then of i and i+2, then of the last two.
func returnSum(low, high VecVirtual) {
	VADDPD(high, low, low)
	half := XMM()
	VEXTRACTF128(Imm(1), low, half)
	VADDPD(half, low.AsX(), half)
	other := XMM()
	VPERMILPD(Imm(1), half, other)
	VADDSD(other, half, half)
	Store(half, ReturnIndex(0))
}

// returnMost returns the greatest of eight lanes, as the instruction most compares them.
func returnMost(top VecVirtual, most func(ops ...Op)) {
	half, other := XMM(), XMM()
	VEXTRACTF128(Imm(1), top, half)
	most(top.AsX(), half, half)
	VPSHUFD(Imm(0x0e), half, other)
	most(other, half, half)
	VPSHUFD(Imm(0x01), half, other)
	most(other, half, half)
	Store(half, ReturnIndex(0))
}
