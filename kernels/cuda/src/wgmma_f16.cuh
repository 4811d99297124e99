// Warpgroup products of float16 matrices in tiles of 64 rows of 64 channels, with sums in float32. See wgmma in the PTX
// ISA.
#pragma once
#include "hopper.cuh"

#define SUMS_8(c, d, i) \
  c(d[i]), c(d[i + 1]), c(d[i + 2]), c(d[i + 3]), c(d[i + 4]), c(d[i + 5]), c(d[i + 6]), c(d[i + 7])
#define SUMS_16(c, d) SUMS_8(c, d, 0), SUMS_8(c, d, 8)
#define SUMS_32(c, d) SUMS_16(c, d), SUMS_8(c, d, 16), SUMS_8(c, d, 24)
#define SUM_NAMES_16 "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15}, "
#define SUM_NAMES_32                                                                                            \
  "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, " \
  "%23, %24, %25, %26, %27, %28, %29, %30, %31}, "

// Sums of a warpgroup: lane 4 g + t of warp n has row 16 n + g + 8 (i / 2 % 2), column 8 (i / 4) + 2 t + i % 2 in d[i].

// d (64 x 32) = A Bᵀ, or d += A Bᵀ, over 16 channels of both. The first has no sums as its input: else the compiler
// would wait for whatever had these registers before.
DEVICE void wgmma_f16(float (&d)[16], uint64_t a, uint64_t b) {
  asm volatile(
      "{ .reg .pred accumulate; setp.ne.b32 accumulate, %18, 0;\n\t"
      "wgmma.mma_async.sync.aligned.m64n32k16.f32.f16.f16 " SUM_NAMES_16 "%16, %17, accumulate, 1, 1, 0, 0; }"
      : SUMS_16("=f", d)
      : "l"(a), "l"(b), "r"(0));
}
DEVICE void wgmma_f16_add(float (&d)[16], uint64_t a, uint64_t b) {
  asm volatile(
      "{ .reg .pred accumulate; setp.ne.b32 accumulate, %18, 0;\n\t"
      "wgmma.mma_async.sync.aligned.m64n32k16.f32.f16.f16 " SUM_NAMES_16 "%16, %17, accumulate, 1, 1, 0, 0; }"
      : SUMS_16("+f", d)
      : "l"(a), "l"(b), "r"(1));
}
// The same for 16 columns of A in registers.
DEVICE void wgmma_f16(float (&d)[16], const uint32_t (&a)[4], uint64_t b) {
  asm volatile(
      "{ .reg .pred accumulate; setp.ne.b32 accumulate, %21, 0;\n\t"
      "wgmma.mma_async.sync.aligned.m64n32k16.f32.f16.f16 " SUM_NAMES_16
      "{%16, %17, %18, %19}, %20, accumulate, 1, 1, 0; }"
      : SUMS_16("=f", d)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(0));
}
DEVICE void wgmma_f16_add(float (&d)[16], const uint32_t (&a)[4], uint64_t b) {
  asm volatile(
      "{ .reg .pred accumulate; setp.ne.b32 accumulate, %21, 0;\n\t"
      "wgmma.mma_async.sync.aligned.m64n32k16.f32.f16.f16 " SUM_NAMES_16
      "{%16, %17, %18, %19}, %20, accumulate, 1, 1, 0; }"
      : SUMS_16("+f", d)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(1));
}
// d (64 x 64) = A B, or d += A B, over 16 columns of A. B has as many rows of 64 channels.
DEVICE void wgmma_f16(float (&d)[32], const uint32_t (&a)[4], uint64_t b) {
  asm volatile(
      "{ .reg .pred accumulate; setp.ne.b32 accumulate, %37, 0;\n\t"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 " SUM_NAMES_32
      "{%32, %33, %34, %35}, %36, accumulate, 1, 1, 1; }"
      : SUMS_32("=f", d)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(0));
}
DEVICE void wgmma_f16_add(float (&d)[32], const uint32_t (&a)[4], uint64_t b) {
  asm volatile(
      "{ .reg .pred accumulate; setp.ne.b32 accumulate, %37, 0;\n\t"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 " SUM_NAMES_32
      "{%32, %33, %34, %35}, %36, accumulate, 1, 1, 1; }"
      : SUMS_32("+f", d)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(1));
}
// Tells the compiler that sums change here.
DEVICE void fence_sums(float (&d)[16]) { asm volatile("" : SUMS_16("+f", d)::"memory"); }
DEVICE void fence_sums(float (&d)[32]) { asm volatile("" : SUMS_32("+f", d)::"memory"); }

// Ends a basic block: arithmetic above stays above, and what is below stays below. ptxas moves both across everything
// else, so that products would not run under the arithmetic that is meant to hide them. What is branched around is a
// loop until bit 6 of the clock is clear, for ptxas leaves out a branch around less. x is less than 2^127, so that
// nothing waits; where x is infinite, a loop lasts about 64 cycles.
DEVICE void keep_order(float x) {
  asm volatile(
      "{ .reg .pred never, set;\n\t"
      ".reg .b32 clock;\n\t"
      "setp.gt.f32 never, %0, 0f7f000000;\n\t"
      "@!never bra done;\n"
      "again:\n\t"
      "mov.u32 clock, %%clock;\n\t"
      "and.b32 clock, clock, 64;\n\t"
      "setp.ne.u32 set, clock, 0;\n\t"
      "@set bra again;\n"
      "done:\n\t}" ::"f"(x)
      : "memory");
}

// A place in shared memory, a multiple of 1,024, as the matrix unit's description of it has it. One more is 16 bytes
// further on: 8 channels; 8 more are a row.
DEVICE uint32_t described(uint32_t address) { return (uint32_t)swizzled_tile(address); }
DEVICE uint64_t description(uint32_t low) { return low | swizzled_tile(0) >> 32 << 32; }

// Starts d = A Bᵀ for a tile A and half a tile B, both described.
DEVICE void multiply_rows(float (&d)[16], uint32_t a, uint32_t b) {
  wgmma_f16(d, description(a), description(b));
#pragma unroll
  for (int c = 1; c < 4; c++) wgmma_f16_add(d, description(a + 2 * c), description(b + 2 * c));
}

// A tile as the left side of products, in registers: the matrix unit does not read it from shared memory each time.
struct HeldTile {
  uint32_t columns[4][4];  // of 16 channels
  DEVICE_MEMBER void load(uint32_t tile) {
    int lane = threadIdx.x % 32, row = threadIdx.x % 128 / 32 * 16 + lane / 4;
#pragma unroll
    for (int j = 0; j < 16; j++) {
      int piece = j / 4 * 2 + j / 2 % 2, r = row + 8 * (j % 2);
      columns[j / 4][j % 4] = load_shared_word(tile + 128 * r + 16 * (piece ^ r % 8) + 4 * (lane % 4));
    }
  }
};
// Starts d = A Bᵀ for half a tile B, described.
DEVICE void multiply_rows(float (&d)[16], const HeldTile& a, uint32_t b) {
  wgmma_f16(d, a.columns[0], description(b));
#pragma unroll
  for (int c = 1; c < 4; c++) wgmma_f16_add(d, a.columns[c], description(b + 2 * c));
}

// A 64 x 32 matrix as the left side of a product, split into two float16.
struct SplitRows {
  uint32_t high[2][4], low[2][4];
  DEVICE_MEMBER explicit SplitRows(const float (&x)[16]) {
#pragma unroll
    for (int i = 0; i < 8; i++) {
      float u = cut(x[2 * i]), v = cut(x[2 * i + 1]);
      high[i / 4][i % 4] = pack_f16(u, v);
      low[i / 4][i % 4] = pack_f16(x[2 * i] - u, x[2 * i + 1] - v);
    }
  }
  // The first 11 significant bits.
  DEVICE_MEMBER static float cut(float x) { return as_float(as_int(x) & 0xffffe000); }
  // Starts d = this B, or d += this B, for half a tile B, described.
  template <bool kAdd> DEVICE_MEMBER void multiply(float (&d)[32], uint32_t b) const {
    if constexpr (kAdd) wgmma_f16_add(d, high[0], description(b));
    else wgmma_f16(d, high[0], description(b));
    wgmma_f16_add(d, low[0], description(b));
    wgmma_f16_add(d, high[1], description(b + 128));
    wgmma_f16_add(d, low[1], description(b + 128));
  }
};
