// The products of Muon on Hopper's warpgroup matrix units: out = alpha A B + beta add of bfloat16 with sums in float32.
//
// A block owns 128 x 128 of out: two consumer warpgroups of 64 x 128, and a producer warp, one thread of which feeds a
// ring of stages through the copy engine. A has k along its rows in memory; B too, or across them: then its tile is 64
// rows of k of twice 64 columns, and the matrix unit transposes it.
//
// What limits such a kernel is reading from L2. So the four blocks of a cluster own 256 x 256: each loads half of its
// tile of A, for both blocks of its rows, and half of its tile of B, for both blocks of its columns. Two blocks run on
// a multiprocessor: while one begins or stores its sums, the other multiplies.
#include "bf16_product.cuh"
#include "hopper.cuh"

constexpr int kBf16WgmmaStages = 3, kBf16WgmmaThreads = 288, kBf16Cluster = 4;
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

// The place of a block in its cluster's 2 x 2.
struct Place {
  int down, across;
  DEVICE_MEMBER Place() : down(cluster_rank() / 2), across(cluster_rank() % 2) {}
};

// The ring of stages in a block's shared memory.
struct Bf16Ring {
  uint32_t data, full, empty;
  int stage = 0, parity = 0;
  DEVICE_MEMBER explicit Bf16Ring(uint32_t memory)
      : data((memory + 1023) / 1024 * 1024), full(data + kBf16WgmmaStages * kStageBytes),
        empty(full + 8 * kBf16WgmmaStages) {}
  // A stage is empty when both warpgroups of the three blocks that read what this one loads have arrived.
  DEVICE_MEMBER void init() const {
    for (int i = 0; i < kBf16WgmmaStages; i++) {
      barrier_init(full + 8 * i, 1);
      barrier_init(empty + 8 * i, 2 * 3);
    }
    barrier_init_fence();
  }
  DEVICE_MEMBER uint32_t a() const { return data + stage * kStageBytes; }
  DEVICE_MEMBER uint32_t b() const { return a() + kOperandBytes; }
  DEVICE_MEMBER void wait_full() const { barrier_wait(full + 8 * stage, parity); }
  // Waits until the stage is free everywhere. Returns the barrier that its bytes complete.
  DEVICE_MEMBER uint32_t fill() const {
    barrier_wait(empty + 8 * stage, parity ^ 1);
    barrier_arrive_expect(full + 8 * stage, kStageBytes);
    return full + 8 * stage;
  }
  // Returns a stage to the blocks that fill it.
  DEVICE_MEMBER void release(int at, const Place& place) const {
    int rank = 2 * place.down + place.across;
    barrier_arrive_at(empty + 8 * at, rank);
    barrier_arrive_at(empty + 8 * at, rank ^ 1);
    barrier_arrive_at(empty + 8 * at, rank ^ 2);
  }
  DEVICE_MEMBER void advance() {
    if (++stage == kBf16WgmmaStages) stage = 0, parity ^= 1;
  }
};

template <bool kAcross> DEVICE void produce(const TensorMap* map_a, const TensorMap* map_b, Bf16Ring ring,
    const Place& place, int row0, int column0, int steps) {
  constexpr int kHalf = kOperandBytes / 2;  // 64 rows in shared memory
  uint16_t row_of_blocks = 3 << 2 * place.down, column_of_blocks = 5 << place.across;
  int own_row = row0 + 64 * place.across, own_column = column0 + 64 * place.down;
  for (int step = 0; step < steps; step++, ring.advance()) {
    int k = step * kBf16Depth;
    uint32_t barrier = ring.fill();
    copy_3d_multicast(ring.a() + kHalf * place.across, map_a, barrier, 2 * k, own_row, blockIdx.z, row_of_blocks);
    copy_3d_multicast(ring.b() + kHalf * place.down, map_b, barrier, kAcross ? 2 * own_column : 2 * k,
        kAcross ? k : own_column, blockIdx.z, column_of_blocks);
  }
}

template <bool kAcross, bool kSymmetric>
DEVICE void consume(
    const Bf16Product& p, Bf16Ring ring, const Place& place, int group, int row0, int column0, int steps) {
  bool first = threadIdx.x % 128 == 0;
  if (kSymmetric && column0 > row0) {  // a block of a cluster on the diagonal that leaves its tile to another
    if (!first) return;
    for (int step = 0; step < steps; step++, ring.advance()) ring.wait_full(), ring.release(ring.stage, place);
    return;
  }
  float sums[64] = {};
  int previous = 0;
  for (int step = 0; step < steps; step++, ring.advance()) {
    uint32_t a = ring.a() + group * kOperandBytes / 2, b = ring.b();
    ring.wait_full();
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < kBf16Depth / 16; k++) {
      uint64_t tile_b = kAcross ? swizzled_tile_across(b + 2048 * k) : swizzled_tile(b + 32 * k);
      wgmma_bf16<kAcross>(sums, swizzled_tile(a + 32 * k), tile_b, step + k);
    }
    wgmma_commit();
    if (step > 0) {  // the products of the stage before are done: it is free
      wgmma_wait<1>();
      if (first) ring.release(previous, place);
    }
    previous = ring.stage;
  }
  wait_for_sums(sums);
  int row = row0 + 64 * group + threadIdx.x % 128 / 32 * 16;
  bool mirrored = kSymmetric && column0 < row0;
  if (p.add) store_sums<true>(p, sums, row, column0, mirrored);
  else store_sums<false>(p, sums, row, column0, mirrored);
}

template <bool kAcross, bool kSymmetric>
DEVICE void multiply(const TensorMap* map_a, const TensorMap* map_b, const Bf16Product& p) {
  extern __shared__ char memory[];
  Place place;
  int cluster_column = blockIdx.x / kBf16Cluster, cluster_row = blockIdx.y;
  int row0 = (2 * cluster_row + place.down) * kBf16Tile, column0 = (2 * cluster_column + place.across) * kBf16Tile;
  if (kSymmetric && column0 > row0) clear_padding(p, row0, column0);
  if (kSymmetric && cluster_column > cluster_row) return;
  Bf16Ring ring(shared_address(memory));
  if (threadIdx.x == 0) ring.init();
  cluster_sync();
  int steps = ceil_div(p.k, kBf16Depth);
  int group = warp_uniform(threadIdx.x / 128);
  if (group < 2) consume<kAcross, kSymmetric>(p, ring, place, group, row0, column0, steps);
  else if (threadIdx.x % 32 == 0) produce<kAcross>(map_a, map_b, ring, place, row0, column0, steps);
  cluster_sync();  // a block must not leave while others still signal its barriers
}

KERNEL(optimizer float shared(kBf16WgmmaShared), kBf16WgmmaThreads, 2)
void bf16_wgmma_symmetric(const __grid_constant__ TensorMap map_a, const __grid_constant__ TensorMap map_b,
    const __grid_constant__ Bf16Product product) {
  multiply<false, true>(&map_a, &map_b, product);
}
KERNEL(optimizer float shared(kBf16WgmmaShared), kBf16WgmmaThreads, 2)
void bf16_wgmma(const __grid_constant__ TensorMap map_a, const __grid_constant__ TensorMap map_b,
    const __grid_constant__ Bf16Product product) {
  multiply<true, false>(&map_a, &map_b, product);
}
