// Softmax over all keys, forward, on Hopper's warpgroup matrix units. See attention_softmax.cu, which has the same for
// other matrix units.
#include "attention_softmax.cuh"
#include "wgmma_f16.cuh"

template <int k> struct Constant {
  static constexpr int value = k;
};

constexpr int kHalfTile = 64 * 64 * 2;  // bytes
constexpr int kSoftmaxShared = 1024 + 7 * kHalfTile + 24;

// A block's shared memory: its queries, and three stages of keys and values.
struct SoftmaxRing {
  uint32_t queries;
  __device__ __forceinline__ explicit SoftmaxRing(uint32_t memory) : queries((memory + 1023) / 1024 * 1024) {}
  DEVICE_MEMBER uint32_t keys(int i) const { return queries + (1 + 2 * (i % 3)) * kHalfTile; }
  DEVICE_MEMBER uint32_t values(int i) const { return keys(i) + kHalfTile; }
  DEVICE_MEMBER uint32_t full(int i) const { return queries + 7 * kHalfTile + 8 * (i % 3); }
  DEVICE_MEMBER void wait(int i) const { barrier_wait(full(i), i / 3 % 2); }
  // Starts the products of queries with half of the i-th tile of keys.
  DEVICE_MEMBER void multiply(float (&products)[16], int i, int half) const {
    if (half == 1) wait(i);
    wgmma_fence();
    multiply_rows(products, described(queries), described(keys(i)) + half * 256);
    wgmma_commit();
  }
};

// A lane's queries, rows g and g + 8 of a warp's 16, as they pass over keys.
struct SoftmaxRows {
  float all[32] = {}, tile[32] = {};  // sums of weights * values: of earlier tiles, and of this one
  float total[2] = {}, reference[2] = {kNever, kNever}, most[2];  // most: q·k, scaled, of any key
  int first[2], row, latest;  // latest: from that key on, all queries of the warp may read it
  SoftmaxBest best;

  // queries: the block's, in shared memory.
  DEVICE_MEMBER SoftmaxRows(const Head& h, int row0, uint32_t queries) : row(row0 + (int)threadIdx.x % 32 / 4) {
    int last = h.a.seq - 1;
    latest = h.first(min(row0 + 15, last));
#pragma unroll
    for (int r = 0; r < 2; r++) {
      first[r] = h.first(min(row + 8 * r, last));
      most[r] = 0;
#pragma unroll
      for (int i = 0; i < 2; i++) {  // a lane's quarter of a row
        Int4 eight = load_shared(queries + (row + 8 * r) % 64 * 128 + (threadIdx.x % 4 * 2 + i) * 16);
        uint32_t two[4] = {(uint32_t)eight.x, (uint32_t)eight.y, (uint32_t)eight.z, (uint32_t)eight.w};
#pragma unroll
        for (int j = 0; j < 4; j++) most[r] += __builtin_fabsf(low_f16(two[j])) + __builtin_fabsf(high_f16(two[j]));
      }
#pragma unroll
      for (int mask = 1; mask < 4; mask *= 2) most[r] += shuffle_xor(most[r], mask);
      most[r] *= 2 * h.a.scale * h.a.query_unit;
    }
  }
  // Turns products of halved integers into scores of keys from `from` on, and those into weights: 2^(score * log2 e -
  // reference). A row's reference follows its best score, so that weights fit float16. Returns what sums are multiplied
  // by for that, nearly always 1.
  DEVICE_MEMBER bool weigh(float (&x)[16], int from, float slope, float factor, float (&change)[2]) {
    constexpr float kRoom = 15.5f, kUsual = 8;  // powers of two: of the largest weight, and of one after a change
    int key = from + 2 * ((int)threadIdx.x % 4);
    float top[2];
#pragma unroll
    for (int r = 0; r < 2; r++) {
      float base = -slope * (float)(row + 8 * r - key);
#pragma unroll
      for (int c = 0; c < 4; c++)
#pragma unroll
        for (int e = 0; e < 2; e++) {
          float& s = x[4 * c + 2 * r + e];
          s = __builtin_fmaf(s, factor, __builtin_fmaf(slope, (float)(8 * c + e), base));
        }
    }
    if (from + 31 > row - (int)threadIdx.x % 32 / 4 || from < latest) {
#pragma unroll
      for (int j = 0; j < 16; j++) {
        int u = key + j / 4 * 8 + j % 2, r = j / 2 % 2;
        x[j] = ((u > row + 8 * r) | (u < first[r])) ? kNever : x[j];
      }
    }
#pragma unroll
    for (int r = 0; r < 2; r++) {
      top[r] = x[2 * r];
#pragma unroll
      for (int j = 1; j < 8; j++) top[r] = max(top[r], x[j / 2 * 4 + 2 * r + j % 2]);
    }
    best.add(top, from);
    bool changed =
        ballot(top[0] * kLog2E > reference[0] + kRoom || top[1] * kLog2E > reference[1] + kRoom) != 0;
    if (changed) {
#pragma unroll
      for (int r = 0; r < 2; r++) {
        float score = max(top[r], shuffle_xor(top[r], 1));
        score = max(score, shuffle_xor(score, 2));
        float next = max(reference[r], __builtin_fmaf(score, kLog2E, -kUsual));
        change[r] = exp2_fast(reference[r] - next);
        reference[r] = next, total[r] *= change[r];
      }
    }
#pragma unroll
    for (int r = 0; r < 2; r++) {
      float sum = 0;
#pragma unroll
      for (int c = 0; c < 4; c++) {
        float &u = x[4 * c + 2 * r], &v = x[4 * c + 2 * r + 1];
        u = exp2_fast(__builtin_fmaf(u, kLog2E, -reference[r]));
        v = exp2_fast(__builtin_fmaf(v, kLog2E, -reference[r]));
        sum += u + v;
      }
      total[r] += sum;
    }
    return changed;
  }
  DEVICE_MEMBER static void scale(float (&sums)[32], const float (&change)[2]) {
#pragma unroll
    for (int j = 0; j < 32; j++) sums[j] *= change[j / 2 % 2];
  }
  // The first key that the warp needs.
  DEVICE_MEMBER int needed(int seq, float slope) const {
    int least = 0x7fffffff;
#pragma unroll
    for (int r = 0; r < 2; r++) {
      int from = max(first_needed(row + 8 * r, slope, most[r], reference[r], total[r]), first[r]);
      if (row + 8 * r < seq) least = min(least, from);
    }
    return warp_min(least);
  }
};

// A block has 64 queries, a warp 16; they pass over tiles of 64 keys, half a tile at a time, from their own to the
// first, until no warp needs what is left. Products with the next keys are under way while scores become weights. Grid:
// x queries / 64, the last queries first, y heads.
KERNEL(attention float shared(kSoftmaxShared), 128, 3)
void attend_softmax_wgmma(const __grid_constant__ Attention a, const HalfTile* queries, const HalfTile* keys,
    const HalfTile* values, uint32_t* out, int* popcounts, int* pointers, uint32_t* unsure, int bits,
    long plane_words) {
  extern __shared__ char memory[];
  SoftmaxRing ring(shared_address(memory));
  Head h(a, blockIdx.y);
  int tile = gridDim.x - 1 - blockIdx.x, row0 = 64 * tile + threadIdx.x / 32 * 16;
  int count = tile - h.first(64 * tile) / 64 + 1, copied = 0;
  long tile0 = (long)blockIdx.y * gridDim.x;
  auto copy = [&](int i) {
    long from = tile0 + tile - i;
    if (threadIdx.x > 0) return;
    barrier_arrive_expect(ring.full(i), (i == 0 ? 3 : 2) * kHalfTile);
    copy_bytes(ring.keys(i), keys + from, ring.full(i), kHalfTile);
    copy_bytes(ring.values(i), values + from, ring.full(i), kHalfTile);
    if (i == 0) copy_bytes(ring.queries, queries + from, ring.full(i), kHalfTile);
  };
  if (threadIdx.x == 0) {
#pragma unroll
    for (int i = 0; i < 3; i++) barrier_init(ring.full(i), 1);
    barrier_init_fence();
  }
  for (; copied < min(count, 3); copied++) copy(copied);
  block_sync();
  float slope = (float)h.slope, factor = 4 * a.scale * a.query_unit;
  ring.wait(0);
  SoftmaxRows rows(h, row0, ring.queries);
  auto step = [&](int i, auto half, float (&x)[16], float (&next)[16]) __attribute__((always_inline)) {
    constexpr int kHalf = decltype(half)::value;
    constexpr bool kFirst = kHalf == 1;  // the half with the later keys
    float change[2];
    bool changed = rows.weigh(x, 64 * (tile - i) + 32 * kHalf, slope, factor, change);
    fence_sums(x);  // the compiler computes them before it waits
    wgmma_wait<0>();
    fence_sums(rows.tile);
    if (kFirst) {
#pragma unroll
      for (int j = 0; j < 32; j++) rows.all[j] += rows.tile[j];
      block_sync();  // the tile before is done with
      if (i > 0 && copied < count) copy(copied++);
    }
    if (changed) {
      rows.scale(rows.all, change);
      if (!kFirst) rows.scale(rows.tile, change);
    }
    fence_sums(rows.tile);
    ring.multiply(next, kFirst ? i : min(i + 1, count - 1), kFirst ? 0 : 1);
    SplitRows weights(x);
    wgmma_fence();
    weights.multiply<!kFirst>(rows.tile, described(ring.values(i)) + kHalf * 256);
    wgmma_commit();
    wgmma_wait<1>();
    fence_sums(next);
  };
  float x0[16], x1[16];
  ring.multiply(x1, 0, 1);
  wgmma_wait<0>();
  fence_sums(x1);
  int i = 0;
  for (int needed = 0; i < count && block_any(64 * (tile - i) + 63 >= needed); i++) {
    step(i, Constant<1>(), x1, x0);
    step(i, Constant<0>(), x0, x1);
    needed = rows.needed(a.seq, slope);
  }
  wgmma_wait<0>();
  fence_sums(rows.tile);
#pragma unroll
  for (int j = 0; j < 32; j++) rows.all[j] += rows.tile[j];
  for (i++; i < copied; i++) ring.wait(i);  // copies end before the block does
  finish<32>(h, rows.best, rows.all, rows.total, row0, out, popcounts, pointers, unsure, bits, plane_words);
}
