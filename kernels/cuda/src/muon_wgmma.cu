// The products of Muon on Hopper's warpgroup matrix units: out = alpha A B + beta add of bfloat16 with sums in float32.
//
// A block owns 128 x 128 of out: one producer warpgroup, whose first thread feeds a ring of stages through the copy
// engine, and two consumer warpgroups of 64 x 128. A has k along its rows in memory; B too, or across them: then its
// tile is 64 rows of k of twice 64 columns, and the matrix unit transposes it.
#include "bf16_product.cuh"
#include "hopper.cuh"

constexpr int kBf16WgmmaStages = 6, kBf16WgmmaThreads = 384;
constexpr int kOperandBytes = 2 * kBf16Tile * kBf16Depth, kStageBytes = 2 * kOperandBytes;
// Stages, their barriers, and room to begin at a multiple of 1,024.
constexpr int kBf16WgmmaShared = kBf16WgmmaStages * (kStageBytes + 16) + 1024;

#define FLOATS_8(d, i)                                                                                        \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), \
      "+f"(d[i + 7])
#define FLOATS_64(d)                                                                                                   \
  FLOATS_8(d, 0), FLOATS_8(d, 8), FLOATS_8(d, 16), FLOATS_8(d, 24), FLOATS_8(d, 32), FLOATS_8(d, 40), FLOATS_8(d, 48), \
      FLOATS_8(d, 56)

// d (64 x 128) = A B (+ d when accumulate), over 16 of k. Thread t of the warpgroup holds row 16 (t / 32) + t % 32 / 4
// + 8 (i / 2 % 2), column 8 (i / 4) + 2 (t % 4) + i % 2 in d[i]. kAcross: k lies across the rows of B in shared memory.
template <bool kAcross> DEVICE void wgmma_bf16(float (&d)[64], uint64_t a, uint64_t b, int accumulate) {
  asm volatile(
      "{ .reg .pred accumulate; setp.ne.b32 accumulate, %66, 0;\n\t"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
      "%64, %65, accumulate, 1, 1, 0, %67; }"
      : FLOATS_64(d)
      : "l"(a), "l"(b), "r"(accumulate), "n"((int)kAcross));
}
// Tells the compiler that the sums change here.
DEVICE void wait_for_sums(float (&d)[64]) {
  wgmma_wait<0>();
  asm volatile("" : FLOATS_64(d)::"memory");
}

// Describes 64 rows of k of 128-byte rows that hold 64 columns each, with the next 64 columns `kOperandBytes / 2`
// further on.
DEVICE uint64_t swizzled_tile_across(uint32_t address) {
  return (uint64_t)((address & 0x3ffff) >> 4) | (uint64_t)(kOperandBytes / 2 >> 4) << 16 | (uint64_t)(1024 >> 4) << 32 |
         (uint64_t)1 << 62;
}

// A word in memory, or 0 where it is not there. Behind branches, each load would wait for the one before.
DEVICE uint32_t load_word_or_zero(const BFloat* from, bool there) {
  uint32_t word;
  asm volatile(
      "{ .reg .pred there; setp.ne.b32 there, %2, 0; mov.b32 %0, 0;\n\t"
      "@there ld.global.b32 %0, [%1]; }"
      : "=&r"(word)
      : "l"(from), "r"((int)there));
  return word;
}
// Transposes 8 x 8 values, of which a lane has two neighbours of row lane / 4.
DEVICE uint32_t transpose_eight(uint32_t word) {
  uint32_t transposed;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(transposed) : "r"(word));
  return transposed;
}

// Stores the sums of a warp, 16 rows from `row` on of 128 columns from `column` on. mirrored: and their places on the
// other side of the diagonal.
template <bool kAdds>
DEVICE void store_sums(const Bf16Product& p, const float (&sums)[64], int row, int column, bool mirrored) {
  int lane = threadIdx.x % 32;
  BFloat* out = p.out + blockIdx.z * p.size_out;
  const BFloat* add = p.add + blockIdx.z * p.size_out;
#pragma unroll
  for (int h = 0; h < 2; h++) {
    int own_row = row + 8 * h + lane / 4, own_column = column + 2 * (lane % 4);
    long at = (long)own_row * p.stride_out + own_column;
    bool inside = own_row < p.m;
    uint32_t words[16];
    if constexpr (kAdds) {
#pragma unroll
      for (int j = 0; j < 16; j++)
        words[j] = load_word_or_zero(add + at + 8 * j, inside && own_column + 8 * j < p.stride_out);
    }
#pragma unroll
    for (int j = 0; j < 16; j++) {
      float x = p.alpha * sums[4 * j + 2 * h], y = p.alpha * sums[4 * j + 2 * h + 1];
      if constexpr (kAdds) x += p.beta * low_bf16(words[j]), y += p.beta * high_bf16(words[j]);
      words[j] = pack_bf16(x, y);
      if (inside && own_column + 8 * j < p.stride_out) *(uint32_t*)(out + at + 8 * j) = words[j];
    }
    if (!mirrored) continue;
    int to = row + 8 * h + 2 * (lane % 4);
#pragma unroll
    for (int j = 0; j < 16; j++) {
      uint32_t word = transpose_eight(words[j]);
      if (to < p.m) *(uint32_t*)(out + (long)(column + 8 * j + lane / 4) * p.stride_out + to) = word;
    }
  }
}

template <bool kAcross, bool kSymmetric>
DEVICE void multiply(const TensorMap* map_a, const TensorMap* map_b, const Bf16Product& p) {
  extern __shared__ char memory[];
  int row0 = blockIdx.y * kBf16Tile, column0 = blockIdx.x * kBf16Tile;
  if (kSymmetric && column0 > row0) {
    clear_padding(p, row0, column0);
    return;
  }
  uint32_t data = (shared_address(memory) + 1023) / 1024 * 1024, full = data + kBf16WgmmaStages * kStageBytes,
           empty = full + 8 * kBf16WgmmaStages;
  if (threadIdx.x == 0) {
    for (int i = 0; i < kBf16WgmmaStages; i++) {
      barrier_init(full + 8 * i, 1);
      barrier_init(empty + 8 * i, 2);
    }
    barrier_init_fence();
  }
  block_sync();
  int steps = ceil_div(p.k, kBf16Depth), group = warp_uniform(threadIdx.x / 128);
  if (group == 0) {
    give_registers<40>();
    if (threadIdx.x > 0) return;
    for (int step = 0; step < steps; step++) {
      int stage = step % kBf16WgmmaStages, k = step * kBf16Depth;
      uint32_t to = data + stage * kStageBytes, barrier = full + 8 * stage;
      barrier_wait(empty + 8 * stage, step / kBf16WgmmaStages % 2 ^ 1);
      barrier_arrive_expect(barrier, kStageBytes);
      copy_3d(to, map_a, barrier, 2 * k, row0, blockIdx.z);
      to += kOperandBytes;
      if constexpr (kAcross) {
        copy_3d(to, map_b, barrier, 2 * column0, k, blockIdx.z);
        copy_3d(to + kOperandBytes / 2, map_b, barrier, 2 * (column0 + 64), k, blockIdx.z);
      } else {
        copy_3d(to, map_b, barrier, 2 * k, column0, blockIdx.z);
      }
    }
    return;
  }
  take_registers<232>();
  float sums[64] = {};
  for (int step = 0; step < steps; step++) {
    int stage = step % kBf16WgmmaStages;
    uint32_t a = data + stage * kStageBytes + (group - 1) * kOperandBytes / 2,
             b = data + stage * kStageBytes + kOperandBytes;
    barrier_wait(full + 8 * stage, step / kBf16WgmmaStages % 2);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < kBf16Depth / 16; k++) {
      uint64_t tile_b = kAcross ? swizzled_tile_across(b + 2048 * k) : swizzled_tile(b + 32 * k);
      wgmma_bf16<kAcross>(sums, swizzled_tile(a + 32 * k), tile_b, step + k);
    }
    wgmma_commit();
    if (step > 0) {  // the products of the stage before are done: it is free
      wgmma_wait<1>();
      if (threadIdx.x % 128 == 0) barrier_arrive(empty + 8 * ((step - 1) % kBf16WgmmaStages));
    }
  }
  wait_for_sums(sums);
  int row = row0 + 64 * (group - 1) + threadIdx.x % 128 / 32 * 16;
  bool mirrored = kSymmetric && column0 < row0;
  if (p.add) store_sums<true>(p, sums, row, column0, mirrored);
  else store_sums<false>(p, sums, row, column0, mirrored);
}

KERNEL(optimizer float shared(kBf16WgmmaShared), kBf16WgmmaThreads, 1)
void bf16_wgmma_symmetric(const __grid_constant__ TensorMap map_a, const __grid_constant__ TensorMap map_b,
    const __grid_constant__ Bf16Product product) {
  multiply<false, true>(&map_a, &map_b, product);
}
KERNEL(optimizer float shared(kBf16WgmmaShared), kBf16WgmmaThreads, 1)
void bf16_wgmma(const __grid_constant__ TensorMap map_a, const __grid_constant__ TensorMap map_b,
    const __grid_constant__ Bf16Product product) {
  multiply<true, false>(&map_a, &map_b, product);
}
