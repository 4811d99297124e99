#include "textflag.h"

// Set bits of each nibble, for both halves of a register.
DATA nibbles<>+0(SB)/8, $0x0302020102010100
DATA nibbles<>+8(SB)/8, $0x0403030203020201
DATA nibbles<>+16(SB)/8, $0x0302020102010100
DATA nibbles<>+24(SB)/8, $0x0403030203020201
GLOBL nibbles<>(SB), RODATA|NOPTR, $32

DATA low<>+0(SB)/8, $0x0f0f0f0f0f0f0f0f
DATA low<>+8(SB)/8, $0x0f0f0f0f0f0f0f0f
DATA low<>+16(SB)/8, $0x0f0f0f0f0f0f0f0f
DATA low<>+24(SB)/8, $0x0f0f0f0f0f0f0f0f
GLOBL low<>(SB), RODATA|NOPTR, $32

// COUNT adds to acc (four 64-bit sums) the set bits of Y0 AND the 32 bytes at w.
#define COUNT(w, acc) \
	VPAND w, Y0, Y8 \
	VPSRLW $4, Y8, Y9 \
	VPAND Y1, Y8, Y8 \
	VPAND Y1, Y9, Y9 \
	VPSHUFB Y8, Y2, Y8 \
	VPSHUFB Y9, Y2, Y9 \
	VPADDB Y8, Y9, Y8 \
	VPSADBW Y3, Y8, Y8 \
	VPADDQ Y8, acc, acc

// func andCountsAVX2(dst *int32, x, w *uint64, steps, quads int)
// dst[c] = pop(x & row c of w) for 4*quads rows of 32*steps bytes.
TEXT ·andCountsAVX2(SB), NOSPLIT, $0-40
	MOVQ dst+0(FP), DI
	MOVQ x+8(FP), SI
	MOVQ w+16(FP), BX
	MOVQ steps+24(FP), R8
	MOVQ quads+32(FP), CX
	SHLQ $5, R8 // bytes of a row
	VMOVDQU low<>(SB), Y1
	VMOVDQU nibbles<>(SB), Y2
	VPXOR Y3, Y3, Y3

quad:
	LEAQ (BX)(R8*1), R9
	LEAQ (R9)(R8*1), R10
	LEAQ (R10)(R8*1), R11
	VPXOR Y4, Y4, Y4
	VPXOR Y5, Y5, Y5
	VPXOR Y6, Y6, Y6
	VPXOR Y7, Y7, Y7
	XORQ AX, AX

step:
	VMOVDQU (SI)(AX*1), Y0
	COUNT((BX)(AX*1), Y4)
	COUNT((R9)(AX*1), Y5)
	COUNT((R10)(AX*1), Y6)
	COUNT((R11)(AX*1), Y7)
	ADDQ $32, AX
	CMPQ AX, R8
	JLT step

	// Transpose and add: four sums of four to one register of four.
	VPSLLQ $32, Y5, Y5
	VPSLLQ $32, Y7, Y7
	VPOR Y4, Y5, Y4
	VPOR Y6, Y7, Y6
	VPUNPCKLQDQ Y6, Y4, Y8
	VPUNPCKHQDQ Y6, Y4, Y9
	VPADDD Y8, Y9, Y8
	VEXTRACTI128 $1, Y8, X9
	VPADDD X8, X9, X8
	VMOVDQU X8, (DI)
	ADDQ $16, DI
	LEAQ (R11)(R8*1), BX
	DECQ CX
	JNZ quad
	VZEROUPPER
	RET
