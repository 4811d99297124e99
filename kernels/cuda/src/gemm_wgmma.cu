// Binary matrix product C = A Bᵀ on Hopper's warpgroup matrix units (wgmma).
//
// A is [m, k] in one or more bit planes, B is [n, k] in one plane. Rows are packed bits; a pipeline stage holds 128
// bytes (1,024 bits) of each row. The matrix unit counts c_p = popcount(A_p & B). Several planes are joined by Horner's
// rule, C = Σ_p 2^p c_p: the accumulators are doubled between planes. Every dot product s that the model needs is an
// integer linear form of C and of the rows' weighted popcounts P. The form's factors are in Product (in Go:
// linearForm):
//
//     s = product * C + row_weight * P_m + column_weight * P_n + bias
//
// Matrices of signed bytes go through the same pipeline, 128 bytes of a row a stage, to the matrix unit for bytes.
// Where both sides have several planes, this is faster than the products of all pairs of planes.
//
// A block computes tiles of 128 x 256. It has one producer warpgroup and two consumer warpgroups. The producer's first
// thread copies stages of A and of B to two rings in shared memory with bulk tensor copies. Each consumer accumulates
// 64 x 256 in registers. The two blocks of a cluster work on tiles of the same columns: each block loads half of B's
// stage and multicasts it to both, because filling shared memory from L2 is what limits such a kernel. Where k is a
// single stage, B's stage is loaded once and stays for all planes of A. Blocks are persistent and walk over the tiles.
//
// An epilogue waits for no memory. What it needs of the rows is loaded into registers before the products. What it
// needs of the columns (popcounts, thresholds) comes through a third ring.
//
// The columns of a tile are permuted in shared memory. The matrix unit gives each thread columns 8 j + 2 t + {0, 1} of
// its operand. B's tensor map (in Go: columnMap) orders B's rows so that these are kRun neighbouring columns of C. An
// epilogue then stores 8 or 16 bytes a thread, or 64 packed bits, without exchanging data between lanes.
#include "hopper.cuh"
#include "levels.cuh"

constexpr int kTileRows = 128, kTileColumns = 256, kStageBytesOfRow = 128, kStagesA = 5, kStagesB = 4,
              kStagesColumns = 4;
constexpr int kBytesA = kTileRows * kStageBytesOfRow, kBytesB = kTileColumns * kStageBytesOfRow;
constexpr int kBytesColumns = 16 * kTileColumns;  // most that an epilogue wants to have of a tile's columns
constexpr int kThreads = 384;
constexpr int kDynamicShared =
    kStagesA * kBytesA + kStagesB * kBytesB + kStagesColumns * kBytesColumns + 1024;  // 1024: to align it

struct Product {
  int m, n;
  int planes;        // of A, the first in memory the least significant
  int negative_top;  // 1: the top plane weighs -2^(planes-1) (two's complement)
  int blocks;        // of 1,024 bits along k
  int splits;        // of the blocks, each a piece of work of its own; more than 1 only where the epilogue adds
  int product, row_weight, column_weight, bias;
  const int* row_popcounts;     // [m]
  const int* column_popcounts;  // [n]
};

// ---- Which tile is whose, and where a pipeline stands ----

struct Tiles {
  int columns, per_split, total, next, stride;  // in units of one cluster's work
  int blocks, blocks_per_split;
  int row, column, first_block, last_block;  // of the piece at hand
  bool b_stays;                              // one stage of B serves all planes
  __device__ __forceinline__ Tiles(const Product& p) {
    int size = cluster_size();
    columns = ceil_div(p.n, kTileColumns);
    per_split = columns * ceil_div(p.m, kTileRows * size);
    total = per_split * p.splits;
    next = blockIdx.x / size;
    stride = gridDim.x / size;
    blocks = p.blocks;
    blocks_per_split = ceil_div(p.blocks, p.splits);
    b_stays = blocks_per_split == 1;
  }
  __device__ __forceinline__ bool take() {
    if (next >= total) return false;
    int tile = next % per_split;
    row = (tile / columns * cluster_size() + cluster_rank()) * kTileRows;
    column = tile % columns * kTileColumns;
    first_block = next / per_split * blocks_per_split;
    last_block = min(blocks, first_block + blocks_per_split);
    next += stride;
    return true;
  }
};

template <int kStages> struct Stage {
  int index = 0, parity = 0;
  __device__ __forceinline__ void advance() {
    if (++index == kStages) index = 0, parity ^= 1;
  }
};

template <int kStages, int kBytes> struct Ring {
  uint32_t data, full, empty;
  __device__ __forceinline__ uint32_t at(const Stage<kStages>& s) const { return data + s.index * kBytes; }
  __device__ __forceinline__ uint32_t full_at(const Stage<kStages>& s) const { return full + 8 * s.index; }
  __device__ __forceinline__ uint32_t empty_at(int index) const { return empty + 8 * index; }
  // Waits until a stage is free, and announces how many bytes will be copied to it. Returns the barrier that these
  // bytes complete.
  __device__ __forceinline__ uint32_t fill(const Stage<kStages>& s, int bytes = kBytes) const {
    barrier_wait(empty_at(s.index), s.parity ^ 1);
    barrier_arrive_expect(full_at(s), bytes);
    return full_at(s);
  }
  // Initializes the barriers. A stage is empty when that many readers have arrived.
  __device__ __forceinline__ void init(int readers) const {
    for (int i = 0; i < kStages; i++) {
      barrier_init(full + 8 * i, 1);
      barrier_init(empty + 8 * i, readers);
    }
  }
};

struct Rings {
  Ring<kStagesA, kBytesA> a;
  Ring<kStagesB, kBytesB> b;
  Ring<kStagesColumns, kBytesColumns> columns;
};

struct Stages {
  Stage<kStagesA> a;
  Stage<kStagesB> b;
  Stage<kStagesColumns> columns;
};

// ---- Producer ----

// Copies half of B's stage. The box of the permuted tensor map is (128 bytes, 2, 4, ...).
template <int kRun>
DEVICE void load_half_b(const TensorMap* map, uint32_t target, uint32_t barrier, int k, int column, int half) {
  int run = kRun == 64 ? 16 * half : 0;
  int group = kRun == 64 ? column / 256 : (column + 128 * half) / (4 * kRun);
  target += half * (kBytesB / 2);
  if (cluster_size() == 1) copy_5d(target, map, barrier, k, 0, 0, run, group);
  else copy_5d_multicast(target, map, barrier, k, 0, 0, run, group, 3);
}

template <class Epilogue> DEVICE void produce(
    const TensorMap* map_a, const TensorMap* map_b, const Product& p, const Rings& rings, const Epilogue& epilogue) {
  constexpr int kRun = Epilogue::kRun;
  Stages stages;
  Tiles tiles(p);
  while (tiles.take()) {
    if constexpr (Epilogue::kColumnBytes > 0) {
      int bytes = Epilogue::kColumnBytes * epilogue.columns_of_tile(p.n - tiles.column);
      copy_bytes(rings.columns.at(stages.columns),
          (const char*)epilogue.columns(p) + Epilogue::kColumnBytes * tiles.column,
          rings.columns.fill(stages.columns, bytes), bytes);
      stages.columns.advance();
    }
    for (int plane = p.planes - 1; plane >= 0; plane--) {
      for (int block = tiles.first_block; block < tiles.last_block; block++) {
        int k = block * kStageBytesOfRow;
        if (!tiles.b_stays || plane == p.planes - 1) {
          uint32_t full = rings.b.fill(stages.b), to = rings.b.at(stages.b);
          if (cluster_size() == 1) {
            load_half_b<kRun>(map_b, to, full, k, tiles.column, 0);
            load_half_b<kRun>(map_b, to, full, k, tiles.column, 1);
          } else {
            load_half_b<kRun>(map_b, to, full, k, tiles.column, cluster_rank());
          }
          stages.b.advance();
        }
        copy_3d(rings.a.at(stages.a), map_a, rings.a.fill(stages.a), k, tiles.row, plane);
        stages.a.advance();
      }
    }
  }
}

// ---- Consumers ----

// A unit multiplies 32 bytes of each row, a quarter of a stage, at a time.
struct Binary {
  // kBase + c as the float c. Sums of bits are below 2^22: the float 12,582,912 + c has c in its low bits, which is
  // faster than the conversion instruction.
  static constexpr int kBase = 0x4b400000;
  static DEVICE_MEMBER float to_float(int based) { return as_float(based) - 12582912.0f; }
  static DEVICE_MEMBER void multiply(int (&acc)[128], uint64_t a, uint64_t b, int accumulate) {
    wgmma_and_popc(acc, a, b, accumulate);
  }
};
struct Bytes {
  static constexpr int kBase = 0;
  static DEVICE_MEMBER float to_float(int c) { return (float)c; }
  static DEVICE_MEMBER void multiply(int (&acc)[128], uint64_t a, uint64_t b, int accumulate) {
    wgmma_int8(acc, a, b, accumulate);
  }
};

// One thread of a warpgroup returns a stage to every block that copies into it.
DEVICE void release_a(const Rings& rings, int index) {
  if (threadIdx.x % 128 == 0) barrier_arrive_at(rings.a.empty_at(index), cluster_rank());
}
DEVICE void release_b(const Rings& rings, int index) {
  if (threadIdx.x % 128 == 0) {
    barrier_arrive_at(rings.b.empty_at(index), 0);
    if (cluster_size() == 2) barrier_arrive_at(rings.b.empty_at(index), 1);
  }
}

// Where the warpgroups take no turns, the first one starts two stages ahead of the second and stays ahead. So the
// epilogue of each runs while the other multiplies.
struct HeadStart {
  int left;
  __device__ __forceinline__ HeadStart(bool given, int group) : left(0) {
    if (!given) return;
    if (group == 0) left = 2;
    else named_sync(3, 256);
  }
  __device__ __forceinline__ void count() {
    if (left > 0 && --left == 0) named_arrive(3, 256);
  }
  __device__ __forceinline__ void end() {
    if (left > 0) named_arrive(3, 256);
    left = 0;
  }
};

// C over all planes, from the top plane down. When it returns, all products are in the registers.
template <class Unit> DEVICE void multiply(int (&acc)[128], const Product& p, const Tiles& tiles, const Rings& rings,
    Stages& stages, int row_half, HeadStart& start) {
  int blocks = tiles.last_block - tiles.first_block;
  int scale = p.negative_top ? -2 : 2;
  for (int plane = 0; plane < p.planes; plane++) {
    if (plane > 0) {
#pragma unroll
      for (int i = 0; i < 128; i++) acc[i] *= scale;
      scale = 2;
    }
    warpgroup_fence_operand(acc);
    int previous_a = -1, previous_b = -1;
    int block = 0;
    do {  // not a for: ptxas pipelines the products only when it sees that at least one block runs
      if (!tiles.b_stays || plane == 0) barrier_wait(rings.b.full_at(stages.b), stages.b.parity);
      barrier_wait(rings.a.full_at(stages.a), stages.a.parity);
      uint64_t a = swizzled_tile(rings.a.at(stages.a) + row_half * (kBytesA / 2));
      uint64_t b = swizzled_tile(rings.b.at(stages.b));
      wgmma_fence();
      Unit::multiply(acc, a, b, plane + block > 0);
      Unit::multiply(acc, a + 2, b + 2, 1);
      Unit::multiply(acc, a + 4, b + 4, 1);
      Unit::multiply(acc, a + 6, b + 6, 1);
      wgmma_commit();
      start.count();
      wgmma_wait<1>();
      if (previous_a >= 0) release_a(rings, previous_a), release_b(rings, previous_b);
      previous_a = stages.a.index, previous_b = stages.b.index;
      stages.a.advance();
      if (!tiles.b_stays) stages.b.advance();
    } while (++block < blocks);
    wgmma_wait<0>();
    warpgroup_fence_operand(acc);
    release_a(rings, previous_a);
    if (!tiles.b_stays || plane == p.planes - 1) release_b(rings, previous_b);
  }
  if (tiles.b_stays) stages.b.advance();
}

// The warpgroups take turns at the matrix unit, so that the epilogue of one runs while the other multiplies. A turn
// lasts a whole tile. This pays only while the ring holds the stages of two tiles, for the stages of a tile are
// returned during the next turn.
struct Turns {
  bool taken;
  int group;
  __device__ __forceinline__ Turns(const Product& p, const Tiles& tiles, int group)
      : taken(2 * p.planes * tiles.blocks_per_split <= kStagesB), group(group) {
    if (taken && group == 1) named_arrive(1, 256);
  }
  __device__ __forceinline__ void begin() const {
    if (taken) named_sync(1 + group, 256);
  }
  __device__ __forceinline__ void end(bool last) const {
    if (taken && !(last && group == 1)) named_arrive(2 - group, 256);
  }
};

template <class Unit, class Epilogue>
DEVICE void consume(const Product& p, const Rings& rings, const Epilogue& epilogue) {
  int group = warp_uniform(threadIdx.x / 128) - 1;
  int lane = threadIdx.x % 32;
  int row_in_tile = group * 64 + threadIdx.x % 128 / 32 * 16 + lane / 4;
  Stages stages;
  Tiles tiles(p);
  Turns turns(p, tiles, group);
  HeadStart start(!turns.taken, group);
  int acc[128];
  while (tiles.take()) {
    auto rows = epilogue.rows(p, tiles.row + row_in_tile, tiles.column, lane % 4);
    turns.begin();
    multiply<Unit>(acc, p, tiles, rings, stages, group, start);
    start.end();
    turns.end(tiles.next >= tiles.total);
    if constexpr (Epilogue::kColumnBytes > 0) {
      barrier_wait(rings.columns.full_at(stages.columns), stages.columns.parity);
      epilogue.store(acc, p, tiles.row + row_in_tile, tiles.column, lane % 4, rows, rings.columns.at(stages.columns));
      warp_sync();
      if (lane == 0) barrier_arrive(rings.columns.empty_at(stages.columns.index));
      stages.columns.advance();
    } else {
      epilogue.store(acc, p, tiles.row + row_in_tile, tiles.column, lane % 4, rows, tiles.first_block == 0);
    }
  }
}

template <class Unit, class Epilogue>
DEVICE void gemm(const TensorMap* map_a, const TensorMap* map_b, const Product& p, const Epilogue& epilogue) {
  extern __shared__ char memory[];
  __shared__ alignas(8) uint64_t barriers[2 * (kStagesA + kStagesB + kStagesColumns)];
  Rings rings;
  rings.b.data = (shared_address(memory) + 1023) & ~1023u;  // the swizzle's atom
  rings.a.data = rings.b.data + kStagesB * kBytesB;
  rings.b.full = shared_address(barriers);
  rings.b.empty = rings.b.full + 8 * kStagesB;
  rings.a.full = rings.b.empty + 8 * kStagesB;
  rings.a.empty = rings.a.full + 8 * kStagesA;
  rings.columns.data = rings.a.data + kStagesA * kBytesA;
  rings.columns.full = rings.a.empty + 8 * kStagesA;
  rings.columns.empty = rings.columns.full + 8 * kStagesColumns;
  if (threadIdx.x == 0) {
    rings.a.init(2);
    rings.b.init(2 * cluster_size());
    rings.columns.init(8);  // warps
    barrier_init_fence();
  }
  cluster_sync();
  if (warp_uniform(threadIdx.x / 128) == 0) {
    give_registers<40>();
    if (threadIdx.x == 0) produce(map_a, map_b, p, rings, epilogue);
  } else {
    take_registers<232>();
    consume<Unit>(p, rings, epilogue);
  }
  cluster_sync();  // a block must not leave while its neighbour still signals or fills its shared memory
}

// ---- Epilogues ----
//
// An epilogue turns a thread's accumulators into its part of the output. Its members:
//
//   kRun            neighbouring columns of C that a thread has: see columnMap in Go
//   kColumnBytes    bytes that it needs of each column, up to 16; 0: none
//   rows(...)       loads what it needs of rows `row` and `row + 8`, before the products
//   columns(p)      where what it needs of the columns lies in global memory; only where kColumnBytes > 0
//   columns_of_tile(left)  of how many columns the producer copies it
//   store(acc, p, row, column, t, rows, last)   writes quarter t of every group of 4 kRun columns of both rows
//
// The last argument of store is the address of the columns' data in shared memory where kColumnBytes > 0. Otherwise it
// says whether this is the first split of k: the first split adds the terms of the popcounts.

// What is added to every sum of row `row` and of row `row + 8`.
struct RowTerms {
  int term[2];
};
DEVICE RowTerms row_terms(const Product& p, int row, int factor, int base) {
  RowTerms r;
#pragma unroll
  for (int h = 0; h < 2; h++) r.term[h] = row + 8 * h < p.m ? base + factor * p.row_popcounts[row + 8 * h] : 0;
  return r;
}

// The index of the accumulator of column i of kRun neighbouring columns of C, in one of the thread's two rows. The
// columns start at 4 * kRun * group + kRun * t; accumulators come in pairs, 4 apart.
template <int kRun> DEVICE int accumulator(int group, int half, int i) {
  return 4 * (group * (kRun / 2) + i / 2) + 2 * half + i % 2;
}

template <int kCount> DEVICE void load_ints(int (&to)[kCount], const int* from, int valid) {
#pragma unroll
  for (int i = 0; i < kCount; i += 4) {
    if (i + 4 <= valid) {
      Int4 v = *(const Int4*)(from + i);
      to[i] = v.x, to[i + 1] = v.y, to[i + 2] = v.z, to[i + 3] = v.w;
    } else {
#pragma unroll
      for (int j = i; j < i + 4; j++) to[j] = j < valid ? from[j] : 0;
    }
  }
}
template <int kCount> DEVICE void load_floats(float (&to)[kCount], const float* from, int valid) {
  int bits[kCount];
  load_ints(bits, (const int*)from, valid);
#pragma unroll
  for (int i = 0; i < kCount; i++) to[i] = as_float(bits[i]);
}
DEVICE void store_four(int* to, int a, int b, int c, int d, int valid) {
  if (valid >= 4) {
    *(Int4*)to = Int4{a, b, c, d};
    return;
  }
  if (valid > 0) to[0] = a;
  if (valid > 1) to[1] = b;
  if (valid > 2) to[2] = c;
}

// Writes residual + u in float32, or u where residual is null, with u = alpha_n * (row_scale_m * scale * s) - theta_n,
// each operation rounded to float32. A null row_scale counts as 1.
template <class Unit> struct StoreFloat32 {
  static constexpr int kRun = 4, kColumnBytes = 16;
  const Float4* terms;  // see pack.cu: channel_terms
  const float* row_scale;
  float scale;
  const float* residual;  // may be `out`
  float* out;
  long stride;

  struct Rows {
    RowTerms terms;
    float scales[2];
  };
  DEVICE_MEMBER Rows rows(const Product& p, int row, int, int) const {
    Rows r{row_terms(p, row, p.row_weight, Unit::kBase), {scale, scale}};
#pragma unroll
    for (int h = 0; h < 2; h++)
      if (row_scale && row + 8 * h < p.m) r.scales[h] = row_scale[row + 8 * h] * scale;
    return r;
  }
  DEVICE_MEMBER const void* columns(const Product&) const { return terms; }
  DEVICE_MEMBER int columns_of_tile(int) const { return kTileColumns; }

  // Writes columns first0 + 16 g ... first0 + 16 g + 3 of both rows, kBatch groups g at a time. All loads of a batch
  // come before its stores: the compiler must not reorder them, because out may be residual.
  template <bool kWhole, int kBatch> DEVICE_MEMBER void store_groups(
      int (&acc)[128], const Product& p, int row, int first0, int t, const Rows& r, uint32_t columns) const {
#pragma unroll
    for (int g0 = 0; g0 < 16; g0 += kBatch) {
      float add[kBatch][2][4] = {};
#pragma unroll
      for (int b = 0; b < kBatch; b++) {
        int first = first0 + 16 * (g0 + b), valid = kWhole ? 4 : p.n - first;
#pragma unroll
        for (int h = 0; h < 2; h++)
          if (residual && (kWhole || row + 8 * h < p.m))
            load_floats(add[b][h], residual + (row + 8 * h) * stride + first, valid);
      }
#pragma unroll
      for (int b = 0; b < kBatch; b++) {
        int first = first0 + 16 * (g0 + b), valid = kWhole ? 4 : p.n - first, u[2][4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
          Int4 of = load_shared(columns + 16 * (16 * (g0 + b) + 4 * i + t));
#pragma unroll
          for (int h = 0; h < 2; h++) {
            float s = Unit::to_float(p.product * acc[accumulator<4>(g0 + b, h, i)] + of.z + r.terms.term[h]);
            float y = as_float(of.x) * (r.scales[h] * s) - as_float(of.y);
            u[h][i] = as_int(residual ? add[b][h][i] + y : y);
          }
        }
#pragma unroll
        for (int h = 0; h < 2; h++)
          if (kWhole || row + 8 * h < p.m)
            store_four((int*)out + (row + 8 * h) * stride + first, u[h][0], u[h][1], u[h][2], u[h][3], valid);
      }
    }
  }

  __device__ __forceinline__ void store(
      int (&acc)[128], const Product& p, int row, int column, int t, const Rows& r, uint32_t columns) const {
    if (warp_uniform(row / 128 * 128 + 128 <= p.m && column + kTileColumns <= p.n))
      store_groups<true, 4>(acc, p, row, column + 4 * t, t, r, columns);
    else store_groups<false, 1>(acc, p, row, column + 4 * t, t, r, columns);
  }
};

// Writes row_scale_m * scale * s in bfloat16, 16 bytes a thread. n and stride must be multiples of 8, and column_weight
// and bias 0.
template <class Unit> struct StoreBFloat16 {
  static constexpr int kRun = 8, kColumnBytes = 0;
  const float* row_scale;
  float scale;
  BFloat* out;
  long stride;

  struct Rows {
    RowTerms terms;
    float scales[2];
  };
  DEVICE_MEMBER Rows rows(const Product& p, int row, int, int) const {
    Rows r{row_terms(p, row, p.row_weight, Unit::kBase), {}};
#pragma unroll
    for (int h = 0; h < 2; h++)
      if (row + 8 * h < p.m) r.scales[h] = row_scale[row + 8 * h] * scale;
    return r;
  }

  __device__ __forceinline__ void store(
      int (&acc)[128], const Product& p, int row, int column, int t, const Rows& r, bool) const {
#pragma unroll
    for (int h = 0; h < 2; h++) {
      if (row + 8 * h >= p.m) continue;
      int term = r.terms.term[h];
      float by = r.scales[h];
      BFloat* to = out + (row + 8 * h) * stride + column + 8 * t;
#pragma unroll
      for (int g = 0; g < 8; g++) {
        int packed[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
          float y[2];
#pragma unroll
          for (int e = 0; e < 2; e++)
            y[e] = by * Unit::to_float(p.product * acc[accumulator<8>(g, h, 2 * i + e)] + term);
          packed[i] = (int)pack_bf16(y[0], y[1]);
        }
        if (column + 32 * g + 8 * t < p.n) *(Int4*)(to + 32 * g) = Int4{packed[0], packed[1], packed[2], packed[3]};
      }
    }
  }
};

// Calls store(row, first, s) for each group of eight neighbouring columns, from `first` on, that the thread has of a
// row, with their sums s. The columns' popcounts must be readable up to a multiple of 8 columns.
template <class Store> DEVICE void store_sums(const int (&acc)[128], const Product& p, int row, int column, int t,
    const RowTerms& r, uint32_t columns, const Store& store) {
#pragma unroll
  for (int g = 0; g < 8; g++) {
    int first = column + 32 * g + 8 * t;
    if (first >= p.n) break;
    Int4 a = load_shared(columns + 128 * g + 32 * t), b = load_shared(columns + 128 * g + 32 * t + 16);
    int popcounts[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
#pragma unroll
    for (int h = 0; h < 2; h++) {
      if (row + 8 * h >= p.m) continue;
      uint32_t s[8];
#pragma unroll
      for (int i = 0; i < 8; i++)
        s[i] = (uint32_t)(p.product * acc[accumulator<8>(g, h, i)] + p.column_weight * popcounts[i] + r.term[h]);
      store(row + 8 * h, first, s);
    }
  }
}
// The lower halves of eight sums.
DEVICE Int4 lower_halves(const uint32_t (&s)[8]) {
  int packed[4];
#pragma unroll
  for (int i = 0; i < 4; i++) packed[i] = (int)__nvvm_prmt(s[2 * i], s[2 * i + 1], 0x5410);
  return Int4{packed[0], packed[1], packed[2], packed[3]};
}

// Writes s as int16, 16 bytes a thread; s must fit. out's rows must be writable up to a multiple of 8 columns.
struct StoreInt16 {
  static constexpr int kRun = 8, kColumnBytes = 4;
  uint16_t* out;
  long stride;  // in elements, a multiple of 8

  DEVICE_MEMBER RowTerms rows(const Product& p, int row, int, int) const {
    return row_terms(p, row, p.row_weight, p.bias);
  }
  DEVICE_MEMBER const void* columns(const Product& p) const { return p.column_popcounts; }
  DEVICE_MEMBER int columns_of_tile(int left) const { return min(kTileColumns, ceil_div(left, 4) * 4); }

  __device__ __forceinline__ void store(
      int (&acc)[128], const Product& p, int row, int column, int t, const RowTerms& r, uint32_t columns) const {
    store_sums(acc, p, row, column, t, r, columns, [&](int row, int first, const uint32_t (&s)[8]) {
      *(Int4*)(out + row * stride + first) = lower_halves(s);
    });
  }
};

// Writes s in 24 bits, which s must fit: the lower 16 bits to one matrix and the upper 8 to another, 16 and 8 bytes a
// thread. Four threads write whole sectors of both. Rows must be writable up to a multiple of 8 columns.
struct StoreInt24 {
  static constexpr int kRun = 8, kColumnBytes = 4;
  uint16_t* low;
  char* high;
  long stride;  // in elements, a multiple of 8

  DEVICE_MEMBER RowTerms rows(const Product& p, int row, int, int) const {
    return row_terms(p, row, p.row_weight, p.bias);
  }
  DEVICE_MEMBER const void* columns(const Product& p) const { return p.column_popcounts; }
  DEVICE_MEMBER int columns_of_tile(int left) const { return min(kTileColumns, ceil_div(left, 4) * 4); }

  __device__ __forceinline__ void store(
      int (&acc)[128], const Product& p, int row, int column, int t, const RowTerms& r, uint32_t columns) const {
    store_sums(acc, p, row, column, t, r, columns, [&](int row, int first, const uint32_t (&s)[8]) {
      uint32_t upper[2];
#pragma unroll
      for (int i = 0; i < 2; i++)
        upper[i] = __nvvm_prmt(__nvvm_prmt(s[4 * i], s[4 * i + 1], 0x0062),
            __nvvm_prmt(s[4 * i + 2], s[4 * i + 3], 0x0062), 0x5410);
      *(Int4*)(low + row * stride + first) = lower_halves(s);
      *(Int2*)(high + row * stride + first) = Int2{(int)upper[0], (int)upper[1]};
    });
  }
};

// Adds s to int32 in memory. Sums of integers do not depend on the order, so k may be split.
struct AddInt32 {
  static constexpr int kRun = 4, kColumnBytes = 0;
  int* out;
  long stride;

  template <bool kWhole> DEVICE_MEMBER void add_groups(
      int (&acc)[128], const Product& p, int row, int first0, const int (&terms)[2], bool first_split) const {
#pragma unroll
    for (int g = 0; g < 16; g++) {
      int first = first0 + 16 * g, valid = kWhole ? 4 : p.n - first;
      int popcounts[4] = {0, 0, 0, 0};
      if (first_split && p.column_weight) load_ints(popcounts, p.column_popcounts + first, valid);
#pragma unroll
      for (int h = 0; h < 2; h++) {
        int* to = out + (row + 8 * h) * stride + first;
#pragma unroll
        for (int i = 0; i < 4; i++) {
          int s = p.product * acc[accumulator<4>(g, h, i)] + p.column_weight * popcounts[i] + terms[h];
          if (kWhole || (row + 8 * h < p.m && i < valid)) add_to(to + i, s);
        }
      }
    }
  }

  DEVICE_MEMBER RowTerms rows(const Product& p, int row, int, int) const {
    return row_terms(p, row, p.row_weight, p.bias);
  }

  __device__ __forceinline__ void store(
      int (&acc)[128], const Product& p, int row, int column, int t, const RowTerms& r, bool first_split) const {
    int terms[2] = {first_split ? r.term[0] : 0, first_split ? r.term[1] : 0};
    if (warp_uniform(row / 128 * 128 + 128 <= p.m && column + kTileColumns <= p.n))
      add_groups<true>(acc, p, row, column + 4 * t, terms, first_split);
    else add_groups<false>(acc, p, row, column + 4 * t, terms, first_split);
  }
};

// Writes packed bits: u >= 0 to sign and, unless mask is null, |u| <= 1 to mask, that of the
// straight-through estimator (STE). Both are decided in integers by thresholds of the column, in quarters of s (in Go:
// thresholds, with the derivation). A quarter lets one centre serve both tests exactly. At k = 1,024 this epilogue, not
// the matrix unit, bounds the kernel: it takes five instructions an output.
struct StoreBits {
  static constexpr int kRun = 64, kColumnBytes = 8;
  static constexpr int kBase = 0x4b200000;  // the float 10,485,760: adding an integer to its bits adds it to its value
  const Float4* thresholds;  // [n up to 256 multiple] centre and radius, in the order of the accumulators
  const uint64_t* negative;  // [n / 64] bit 1: alpha is negative, so the sign is inverted
  uint64_t *sign, *mask;     // [m, stride] and [m, mask_stride]
  int* sign_popcounts;       // [m], added to; null when not wanted
  long stride, mask_stride;  // in words of 64 bits

  struct Rows {
    RowTerms terms;
    uint64_t flip;  // of this thread's columns
  };
  DEVICE_MEMBER Rows rows(const Product& p, int row, int column, int t) const {
    Rows r{row_terms(p, row, 4 * p.row_weight, kBase), 0};
    if (column + 64 * t < p.n) r.flip = negative[column / 64 + t];
    return r;
  }
  DEVICE_MEMBER const void* columns(const Product&) const { return thresholds; }
  DEVICE_MEMBER int columns_of_tile(int) const {
    return kTileColumns;
  }  // in the order of the accumulators, those left are all over it

  __device__ __forceinline__ void store(
      int (&acc)[128], const Product& p, int row, int column, int t, const Rows& r, uint32_t columns) const {
    int quarter = 4 * p.product;
    const int (&terms)[2] = r.terms.term;
    uint32_t below[2][2], outside[2][2];  // [row half][word], bits in reverse
#pragma unroll
    for (int w = 0; w < 2; w++) {
      below[0][w] = below[1][w] = outside[0][w] = outside[1][w] = 0;
#pragma unroll
      for (int b = 15; b >= 0; b--) {
        Int4 threshold = load_shared(columns + 64 * (16 * w + b) + 16 * t);
        float centre[2] = {as_float(threshold.x), as_float(threshold.z)},
              radius[2] = {as_float(threshold.y), as_float(threshold.w)};
#pragma unroll
        for (int e = 1; e >= 0; e--) {
#pragma unroll
          for (int h = 0; h < 2; h++) {
            float distance = as_float(quarter * acc[4 * (16 * w + b) + 2 * h + e] + terms[h]) - centre[e];
            float inside = radius[e] - __builtin_fabsf(distance);
            below[h][w] = __builtin_elementwise_fshl(below[h][w], (uint32_t)as_int(distance), 1u);
            outside[h][w] = __builtin_elementwise_fshl(outside[h][w], (uint32_t)as_int(inside), 1u);
          }
        }
      }
      // Without this the compiler moves the tests into the conditional stores, and keeps all thresholds in registers
      // until there.
      asm volatile("" : "+r"(below[0][w]), "+r"(below[1][w]), "+r"(outside[0][w]), "+r"(outside[1][w]));
    }
    int first = column + 64 * t;
    if (first >= p.n) first = -1;
    uint64_t valid = first < 0 ? 0 : p.n - first >= 64 ? ~0ull : (1ull << (p.n - first)) - 1;
    uint64_t flip = r.flip;
#pragma unroll
    for (int h = 0; h < 2; h++) {
      uint64_t word = (~((uint64_t)below[h][1] << 32 | below[h][0]) ^ flip) & valid;
      if (first >= 0 && row + 8 * h < p.m) {
        sign[(row + 8 * h) * stride + first / 64] = word;
        if (mask)
          mask[(row + 8 * h) * mask_stride + first / 64] = ~((uint64_t)outside[h][1] << 32 | outside[h][0]) & valid;
      }
      if (sign_popcounts) {
        int count = __builtin_popcountll(word);
        count += shuffle_xor(count, 1);
        count += shuffle_xor(count, 2);
        if (t == 0 && row + 8 * h < p.m) add_to(sign_popcounts + row + 8 * h, count);
      }
    }
  }
};

// ---- Epilogues that quantize, to levels of up to 4 bits ----
//
// They compute u as every device does, which a channel's alpha and theta and what it adds to its sums (pack.cu:
// channel_terms) are for. A thread has eight neighbouring columns of each group of 32. Their levels become a word of
// eight nibbles, which is turned into a byte of each plane. Four threads exchange these, so that each gets a word of a
// plane.

// From eight nibbles the bytes of four planes: bit n of byte b is bit b of the nibble of column n. The nibbles are in
// the order of nibble_column, which saves half of the exchanges.
DEVICE constexpr int nibble_column(int place) { return (place >> 1 & 1) + 2 * (place >> 2) + 4 * (place & 1); }
DEVICE uint32_t planes_of_nibbles(uint32_t x) {
  uint32_t t = (x >> 14 ^ x) & 0x0000cccc;
  x ^= t ^ t << 14;
  t = (x >> 7 ^ x) & 0x00aa00aa;
  return x ^ t ^ t << 7;
}

// Calls use(h, g, u, level) for each group g of 32 columns and each row half h, with u of the thread's eight columns.
// use writes their levels, each plus 0x4b400000.
template <class Use> DEVICE void quantize_columns(const int (&acc)[128], const Product& p, const Levels& to, float unit,
    int row, int column, const RowTerms& terms, uint32_t columns, int t, const Use& use) {
  uint32_t planes[2][8];  // words of this thread's plane
#pragma unroll
  for (int g = 0; g < 8; g++) {
    float u[2][8];
#pragma unroll
    for (int i = 0; i < 8; i++) {
      Int4 of = load_shared(columns + 16 * (32 * g + 4 * i + t));
#pragma unroll
      for (int h = 0; h < 2; h++) {
        float s = as_float(p.product * acc[accumulator<8>(g, h, i)] + of.z + terms.term[h]) - 12582912.0f;
        u[h][i] = as_float(of.x) * (unit * s) - as_float(of.y);
      }
    }
#pragma unroll
    for (int h = 0; h < 2; h++) {
      uint32_t level[8], packed = 0;
      use(h, g, u[h], level);
#pragma unroll
      for (int place = 7; place >= 0; place--) packed = packed * 16 + level[nibble_column(place)];
      planes[h][g] = transpose_bytes(planes_of_nibbles(packed - 0x4b400000u * 0x11111111u), t);
    }
  }
#pragma unroll
  for (int h = 0; h < 2; h++) {
    bool inside = row + 8 * h < p.m;
    uint32_t* out = to.data + t * to.plane_words + (long)(row + 8 * h) * to.words + column / 32;
    int count = 0;
#pragma unroll
    for (int g = 0; g < 8; g += 4) {
      if (inside && t < to.bits && column / 32 + g < to.words)  // rows are whole multiples of four words
        *(Int4*)(out + g) =
            Int4{(int)planes[h][g], (int)planes[h][g + 1], (int)planes[h][g + 2], (int)planes[h][g + 3]};
#pragma unroll
      for (int i = g; i < g + 4; i++) count += popcount(planes[h][i]);
    }
    count <<= t;
    count += shuffle_xor(count, 1);
    count += shuffle_xor(count, 2);
    if (t == 0 && inside) add_to(to.popcounts + row + 8 * h, count);
  }
}

// Writes the levels of relu(u)² and, unless factors is null, its derivative in bfloat16. n is a multiple of 8 then, and
// rows of factors are aligned to 16 bytes. See levels.cuh.
struct StoreSquares {
  static constexpr int kRun = 8, kColumnBytes = 16;
  const Float4* terms;  // see channel_terms
  Levels to;
  float unit;
  BFloat* factors;
  long factor_stride;

  DEVICE_MEMBER RowTerms rows(const Product& p, int row, int, int) const {
    return row_terms(p, row, p.row_weight, Binary::kBase);
  }
  DEVICE_MEMBER const void* columns(const Product&) const { return terms; }
  DEVICE_MEMBER int columns_of_tile(int) const { return kTileColumns; }

  __device__ __forceinline__ void store(
      int (&acc)[128], const Product& p, int row, int column, int t, const RowTerms& r, uint32_t columns) const {
    float top = (float)((1 << to.bits) - 1);
    BFloat* first = factors + row * factor_stride + column + 8 * t;
    int left = factors ? p.n - column - 8 * t : 0;
    quantize_columns(acc, p, to, unit, row, column, r, columns, t,
        [&](int h, int g, const float (&u)[8], uint32_t (&level)[8]) {
          int factor[4];
#pragma unroll
          for (int i = 0; i < 8; i++) level[i] = (uint32_t)rounded_square(u[i], top);
#pragma unroll
          for (int i = 0; i < 4; i++)
            factor[i] = (int)pack_bf16(squared_factor(u[2 * i]), squared_factor(u[2 * i + 1]));
          if (32 * g < left && row + 8 * h < p.m)
            *(Int4*)(first + 8 * h * factor_stride + 32 * g) = Int4{factor[0], factor[1], factor[2], factor[3]};
        });
  }
};

// Writes the mid-rise levels of u and, unless mask is null, whether |u| <= 2.5.
struct StoreMidRise {
  static constexpr int kRun = 8, kColumnBytes = 16;
  const Float4* terms;  // see channel_terms
  Levels to;
  float unit;
  uint32_t* mask;
  long mask_words;  // of a row

  DEVICE_MEMBER RowTerms rows(const Product& p, int row, int, int) const {
    return row_terms(p, row, p.row_weight, Binary::kBase);
  }
  DEVICE_MEMBER const void* columns(const Product&) const { return terms; }
  DEVICE_MEMBER int columns_of_tile(int) const { return kTileColumns; }

  __device__ __forceinline__ void store(
      int (&acc)[128], const Product& p, int row, int column, int t, const RowTerms& r, uint32_t columns) const {
    MidRise levels(to.bits);
    uint32_t inside[2] = {};  // a byte of each of four groups
    quantize_columns(acc, p, to, unit, row, column, r, columns, t,
        [&](int h, int g, const float (&u)[8], uint32_t (&level)[8]) {
#pragma unroll
          for (int i = 0; i < 8; i++) {
            level[i] = (uint32_t)levels.level(u[i]) + 0x4b400000u;
            inside[h] |= __builtin_fabsf(u[i]) <= 2.5f ? 1u << (8 * (g % 4) + i) : 0;
          }
          if (g % 4 == 3) {
            uint32_t word = transpose_bytes(inside[h], t);  // of group g - 3 + t
            int at = column + 32 * (g - 3 + t);
            if (mask && row + 8 * h < p.m && at < p.n) mask[(row + 8 * h) * mask_words + at / 32] = word;
            inside[h] = 0;
          }
        });
  }
};

#define GEMM_KERNEL(category, name, Unit, Epilogue)                                           \
  KERNEL(category shared(kDynamicShared), kThreads, 1)                                        \
  void name(const __grid_constant__ TensorMap map_a, const __grid_constant__ TensorMap map_b, \
      const __grid_constant__ Product product, const __grid_constant__ Epilogue epilogue) {   \
    gemm<Unit>(&map_a, &map_b, product, epilogue);                                            \
  }

using StoreSumsFloat32 = StoreFloat32<Binary>;
using StoreSumsBFloat16 = StoreBFloat16<Binary>;
using StoreByteSumsFloat32 = StoreFloat32<Bytes>;
using StoreByteSumsBFloat16 = StoreBFloat16<Bytes>;
GEMM_KERNEL(binary_products, gemm_wgmma_float32, Binary, StoreSumsFloat32)
GEMM_KERNEL(binary_products, gemm_wgmma_bfloat16, Binary, StoreSumsBFloat16)
GEMM_KERNEL(byte_products, gemm_wgmma_bytes_float32, Bytes, StoreByteSumsFloat32)
GEMM_KERNEL(byte_products, gemm_wgmma_bytes_bfloat16, Bytes, StoreByteSumsBFloat16)
GEMM_KERNEL(binary_products, gemm_wgmma_int16, Binary, StoreInt16)
GEMM_KERNEL(binary_products, gemm_wgmma_int24, Binary, StoreInt24)
GEMM_KERNEL(byte_products, gemm_wgmma_bytes_int24, Bytes, StoreInt24)
GEMM_KERNEL(binary_products, gemm_wgmma_add, Binary, AddInt32)
GEMM_KERNEL(byte_products, gemm_wgmma_bytes_add, Bytes, AddInt32)
GEMM_KERNEL(binary_products, gemm_wgmma_bits, Binary, StoreBits)
GEMM_KERNEL(binary_products, gemm_wgmma_squares, Binary, StoreSquares)
GEMM_KERNEL(binary_products, gemm_wgmma_mid_rise, Binary, StoreMidRise)
