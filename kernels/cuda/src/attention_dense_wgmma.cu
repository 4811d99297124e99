// The backward pass of softmax attention on Hopper's warpgroup matrix units, for heads of 64 channels, queries and
// values of up to 8 planes, and gradients in bfloat16.
//
// Let w = exp(score - top), do the gradient of a query's attention output, and d_u = do·v_u:
//
//	p_u = w_u / Σ w    ds_u = p_u (d_u - Σ p d) / sqrt(dim)    dq = Σ_u ds_u k_u    dk_u = Σ_t ds_tu q_t
//	dv_u = Σ_t p_tu do_t
//
// No seq x seq matrix is kept: dense_queries_wgmma and dense_keys_wgmma both compute scores and d again. All are
// products of float16 matrices with sums in float32. The integers behind queries, keys and values are float16, halved.
// A row of do becomes float16 after division by a power of two, which keeps all of its bits but those below 2^-24 of
// the row's maximum. Weights w, p and ds are split into two float16, which keep 21 bits.
//
// Scores fall with distance, so keys far enough away together weigh less than 2^-24 of a query's best key. They are
// left out. Every sum is taken by one warp in a fixed order.
#include "attention_tile.cuh"
#include "wgmma_f16.cuh"

constexpr int kDenseRows = 64;  // queries or keys of a tile
constexpr int kDenseTile = 2 * 64 * kDenseRows, kDenseHalf = kDenseTile / 2, kDensePair = 2 * kDenseTile;
constexpr int kQueryStart = 16, kQueryEnds = 12 * kDenseRows, kQueryRange = 16;  // bytes of the structs below
constexpr int kLastKey = 0x7fffffff;

// What a query needs before its scores are computed.
struct alignas(16) QueryStart {
  float shift;      // -log2 of w's scale: w = 2^(score * log2 e + shift)
  float reference;  // d of the best key, where do and values are scaled as in their tiles
  int exponent;     // do is 2^exponent times its row in the tile
  int first;        // the first key that counts
};
// And after: p = 2^(score * log2 e + shift) and the mean of d, of the same scale.
struct alignas(8) QueryEnd {
  float shift, mean;
};
// Of the queries of a tile.
struct alignas(16) QueryEnds {
  QueryEnd rows[kDenseRows];
  int first[kDenseRows];  // the first key that counts
};
// Of the queries of a tile.
struct alignas(16) QueryRange {
  int first, last;  // the smallest and the largest first key that counts
  int exponent;     // the largest
  // A warp finds it, from the starts of 64 queries.
  DEVICE_MEMBER explicit QueryRange(const QueryStart* starts) {
    QueryStart x = starts[threadIdx.x % 32], y = starts[threadIdx.x % 32 + 32];
    first = warp_min(min(x.first, y.first));
    last = warp_max(max(x.first == kLastKey ? 0 : x.first, y.first == kLastKey ? 0 : y.first));
    exponent = warp_max(max(x.exponent, y.exponent));
  }
};

// Working memory, for each head ceil(seq / 64) tiles of 64 rows: queries with their do behind them, keys with their
// values. Tiles are 64 x 64 float16 in the order of the matrix unit's swizzle: piece i of eight channels of row r is
// the piece i ^ r % 8 of the row. Rows beyond the sequence are zero.
struct DenseTiles {
  char *queries, *keys;
  QueryStart* starts;
  QueryEnds* ends;
  QueryRange* ranges;
  int* taken;  // how many items of work blocks have taken, of the kernel for queries and of that for keys
};

static_assert(
    sizeof(QueryStart) == kQueryStart && sizeof(QueryEnds) == kQueryEnds && sizeof(QueryRange) == kQueryRange);

DEVICE float power_of_two(int exponent) { return as_float((exponent + 127) << 23); }  // from -126 to 127
// Over eight lanes.
DEVICE int sum_of_eight(int x) {
#pragma unroll
  for (int mask = 1; mask < 8; mask *= 2) x += shuffle_xor(x, mask);
  return x;
}

// ---- Tiles ----

// A byte of each plane: eight channels.
struct EightChannels {
  uint32_t planes[8];
  DEVICE_MEMBER EightChannels(const uint32_t* plane, long plane_words, int count, int byte) {
#pragma unroll
    for (int p = 0; p < 8; p++) {
      if (p >= count) break;
      planes[p] = load_byte((const char*)(plane + p * plane_words) + byte);
    }
  }
  DEVICE_MEMBER Int4 halves(int count) const { return halved_integers(planes, count); }
  // Σ_b 2^b times the number of bits in which plane b differs from a byte, over `count` planes.
  DEVICE_MEMBER int differ(uint32_t byte, int count) const {
    int sum = 0;
#pragma unroll
    for (int p = 0; p < 8; p++) {
      if (p >= count) break;
      sum += popcount(planes[p] ^ byte) << p;
    }
    return sum;
  }
  DEVICE_MEMBER uint32_t top(int count) const {
    uint32_t byte = 0;
#pragma unroll
    for (int p = 0; p < 8; p++) byte = p < count ? planes[p] : byte;
    return byte;
  }
};

// How many keys back a query reads, if its scores are at most `bound` without distance and its best score is `top`: the
// others together weigh less than Σ exp(bound - slope * distance) = exp(bound - slope * n) / (1 - exp(-slope)).
DEVICE int reach(double bound, double top, float slope) {
  if (slope == 0) return kLastKey;
  float rest = (float)(bound - top) + (24 + log2_fast((1 + slope) / slope)) * (1 / kLog2E);
  return (int)min(rest / slope + 2, 1e9f);
}

// Writes the tiles and what queries need before their scores. Eight lanes take a row, each eight channels. Neighbouring
// blocks have different heads of the same tokens: together they read whole rows. Grid: x heads, y rows / 32, z
// sequences.
KERNEL(attention float, 256, 5)
void dense_tiles(const __grid_constant__ Attention a, const BFloat* dout, const int* pointers,
    const __grid_constant__ DenseTiles to) {
  Head h(a, blockIdx.z * a.heads + blockIdx.x);
  int row = blockIdx.y * 32 + threadIdx.x / 8, lane = threadIdx.x % 8, byte = h.head * 8 + lane;
  int tiles = ceil_div(a.seq, kDenseRows);
  long own = (long)h.index * tiles * kDenseRows + row;
  long at = own / 64 * kDensePair + row % 64 * 128 + 16 * (lane ^ row % 8);
  if (own == 0 && lane == 0) to.taken[0] = to.taken[1] = 0;
  bool inside = row < a.seq;
  int t = min(row, a.seq - 1), u = pointers[h.query(t)];
  auto grad = load_eight(dout + ((h.row0 + t) * a.heads + h.head) * 64 + 8 * lane);
  EightChannels q(h.queries + wide_product(t, a.words), a.query_plane_words, a.query_planes, byte);
  EightChannels v(h.values + wide_product(t, a.value_words), a.value_plane_words, a.value_planes, byte);
  EightChannels k(h.keys + wide_product(t, a.words), 0, 1, byte);
  EightChannels best(h.values + wide_product(u, a.value_words), a.value_plane_words, a.value_planes, byte);
  uint32_t best_key = load_byte((const char*)(h.keys + wide_product(u, a.words)) + byte);
  int most = 0;
#pragma unroll
  for (int i = 0; i < 4; i++) most = max(most, max((int)(grad.words[i] & 0x7fff), (int)(grad.words[i] >> 16 & 0x7fff)));
#pragma unroll
  for (int mask = 1; mask < 8; mask *= 2) most = max(most, shuffle_xor(most, mask));
  bool finite = most < 0x7f80;
  int exponent = finite ? min(max((most >> 7) - 127, -126), 126) : 0;
  float scale = power_of_two(-exponent), reference = 0;
  Int4 values = best.halves(a.value_planes);
  uint32_t halves[4] = {(uint32_t)values.x, (uint32_t)values.y, (uint32_t)values.z, (uint32_t)values.w}, scaled[4];
#pragma unroll
  for (int i = 0; i < 4; i++) {
    float x = scale * value(grad, 2 * i), y = scale * value(grad, 2 * i + 1);
    scaled[i] = pack_f16(x, y);
    reference = __builtin_fmaf(x, low_f16(halves[i]), __builtin_fmaf(y, high_f16(halves[i]), reference));
  }
#pragma unroll
  for (int mask = 1; mask < 8; mask *= 2) reference += shuffle_xor(reference, mask);
  double bound = a.products[sum_of_eight(q.differ(q.top(a.query_planes), a.query_planes - 1))];
  double top = h.score(a.products, sum_of_eight(q.differ(best_key, a.query_planes)), t - u);
  if (lane == 0) {
    int back = finite ? reach(bound, top, (float)h.slope) : kLastKey;
    to.starts[own] = inside ? QueryStart{(float)(-top * (double)kLog2E), reference, exponent, max(h.first(t), t - back)}
                            : QueryStart{kNever, 0, -126, kLastKey};
  }
  const Int4 none = {};
  *(Int4*)(to.queries + at) = inside ? q.halves(a.query_planes) : none;
  *(Int4*)(to.keys + at) = inside ? k.halves(1) : none;
  *(Int4*)(to.keys + at + kDenseTile) = inside ? v.halves(a.value_planes) : none;
  *(Int4*)(to.queries + at + kDenseTile) =
      inside ? Int4{(int)scaled[0], (int)scaled[1], (int)scaled[2], (int)scaled[3]} : none;
}

// ---- Passes over tiles ----
//
// Blocks stay: each takes items of work, a head's next kDenseGroups tiles, until there are none. A warpgroup has one of
// these tiles as its own, and passes over the pairs of tiles that it needs of those that a warp of the block, the
// producer, brings into a ring. The producer is ahead by a ring, which may be in the next items. Warpgroups wait for
// nothing but full stages, so that one computes while another one begins or ends an item.

constexpr int kDenseGroups = 2, kDenseStages = 8, kDenseThreads = 128 * (kDenseGroups + 1);
constexpr int kDenseStage = kDensePair + 1024;  // 1,024: room for QueryEnds, or for the starts of an own tile's queries
constexpr int kDenseBuffers = kDenseGroups + kDenseStages;
constexpr int kDensePass = 32;
constexpr int kDenseShared = 1024 + kDenseBuffers * (kDenseStage + 16) + kDenseGroups * kDensePass;

// What a warpgroup does for an item.
struct alignas(16) DensePass {
  int head, tile;           // head: -1 if there is no item left
  int length, skip, count;  // of `length` pairs that the ring brings it skips some, and passes over the next `count`
  int hidden, most;         // see DenseQueries and DenseKeys
};
static_assert(sizeof(DensePass) == kDensePass);

// A block's shared memory: each warpgroup's own pair of tiles, the stages of the ring, two barriers for each of these,
// and what warpgroups do. Stage n is that of the n-th pair that the block loads.
struct DenseRing {
  uint32_t base, barriers, passes;
  __device__ __forceinline__ explicit DenseRing(uint32_t memory)
      : base((memory + 1023) / 1024 * 1024), barriers(base + kDenseBuffers * kDenseStage),
        passes(barriers + 16 * kDenseBuffers) {}
  DEVICE_MEMBER uint32_t own(int group) const { return base + group * kDenseStage; }
  DEVICE_MEMBER uint32_t stage(uint32_t n) const { return own(kDenseGroups + n % kDenseStages); }
  DEVICE_MEMBER uint32_t ends(uint32_t n) const { return stage(n) + kDensePair; }
  DEVICE_MEMBER uint32_t own_full(int group) const { return barriers + 16 * group; }
  DEVICE_MEMBER uint32_t full(uint32_t n) const { return own_full(kDenseGroups + n % kDenseStages); }
  DEVICE_MEMBER static uint32_t empty(uint32_t full) { return full + 8; }
  DEVICE_MEMBER uint32_t pass(int group) const { return passes + kDensePass * group; }
  // A half of the first or the second tile of a stage, described.
  DEVICE_MEMBER uint32_t half_tile(uint32_t n, int half, int second) const {
    return described(stage(n)) + (second * kDenseTile + half * kDenseHalf) / 16;
  }
  DEVICE_MEMBER void init() const {
#pragma unroll
    for (int i = 0; i < kDenseBuffers; i++) {
      barrier_init(own_full(i), 1);
      barrier_init(empty(own_full(i)), i < kDenseGroups ? 4 : 4 * kDenseGroups);  // warps
    }
    barrier_init_fence();
  }
  DEVICE_MEMBER void wait(uint32_t n) const { barrier_wait(full(n), n / kDenseStages % 2); }
  // The warp is done with what this barrier announced.
  DEVICE_MEMBER static void release(uint32_t full) {
    warp_sync();
    if (threadIdx.x % 32 == 0) barrier_arrive(empty(full));
  }
};

// The warp that loads. Long items come first: slopes fall from head to head.
template <class Rows> DEVICE void produce(const Attention& a, const DenseTiles& tiles, const DenseRing& ring) {
  int lane = threadIdx.x % 32, per_head = ceil_div(a.seq, kDenseRows), groups = ceil_div(per_head, kDenseGroups);
  int items = groups * a.batch * a.heads, coming = 0;
  uint32_t n = 0;
  int* taken = tiles.taken + Rows::kKernel;
  if (lane == 0) coming = take(taken);
  for (int k = 0;; k++) {
    int item = shuffle(coming, 0), place = item % groups, sequence = item / groups % a.batch;
    int head = sequence * a.heads + a.heads - 1 - item / groups / a.batch;
    bool done = item >= items;
    DensePass passes[kDenseGroups] = {};
    int from = done ? 0 : Rows::plan(tiles, head, place, per_head, passes);
    if (lane == 0 && !done) coming = take(taken);
    long tile0 = (long)head * per_head;
#pragma unroll
    for (int g = 0; g < kDenseGroups; g++) {
      uint32_t full = ring.own_full(g);
      barrier_wait(ring.empty(full), k % 2 ^ 1);
      if (lane == 0) {
        const DensePass& p = passes[g];
        store_shared(ring.pass(g), Int4{done ? -1 : head, p.tile, p.length, p.skip});
        store_shared(ring.pass(g) + 16, Int4{p.count, p.hidden, p.most, 0});
        if (done) barrier_arrive(full);
        else Rows::load_own(tiles, tile0 + p.tile, ring.own(g), full);
      }
    }
    if (done) break;
    for (int i = 0; i < passes[0].length; i++, n++) {
      barrier_wait(ring.empty(ring.full(n)), n / kDenseStages % 2 ^ 1);
      if (lane == 0) Rows::load(tiles, tile0 + from + i * Rows::kDirection, ring.stage(n), ring.full(n));
    }
  }
}

// What a warpgroup does with half a pair of tiles. The products of the next half run under its arithmetic, and its own
// products under the arithmetic of the next half. i counts the pairs of this pass, n those of the block.
template <class Rows> DEVICE void step(Rows& rows, int i, uint32_t n, uint32_t next, int half, float (&scores)[16],
    float (&d)[16], float (&next_scores)[16], float (&next_d)[16]) {
  rows.weigh(i, n, half, scores);
  keep_order(scores[0]);
  wgmma_wait<0>();  // for the products of the half before
  rows.start(next, 1 - half, next_scores, next_d);
  keep_order(scores[1]);
  if (half == 0 && i > 0) rows.ring.release(rows.ring.full(n - 1));
  rows.multiply(n, half, scores, d);
  wgmma_commit();
  wgmma_wait<1>();  // for the next half's scores: its own products go on
  fence_sums(next_scores), fence_sums(next_d);
}
// n: the stage of the first pair.
template <class Rows> DEVICE void pass_over_tiles(Rows& rows, uint32_t n) {
  float x0[16], d0[16], x1[16], d1[16];
  int count = rows.pass.count;
  fence_sums(rows.sums), fence_sums(rows.other_sums);  // zero before a product starts
  rows.start(n, 0, x0, d0);
  wgmma_wait<0>();
  fence_sums(x0), fence_sums(d0);
  for (int i = 0; i < count; i++, n++) {
    step(rows, i, n, n, 0, x0, d0, x1, d1);
    step(rows, i, n, i + 1 < count ? n + 1 : n, 1, x1, d1, x0, d0);
  }
  wgmma_wait<0>();
  fence_sums(rows.sums), fence_sums(rows.other_sums);
  rows.ring.release(rows.ring.full(n - 1));
}

// Passes over pairs that others need.
DEVICE void skip(const DenseRing& ring, uint32_t n, int count) {
  for (int i = 0; i < count; i++) ring.wait(n + i), ring.release(ring.full(n + i));
}
template <class Rows>
DEVICE void consume(const Attention& a, const DenseTiles& tiles, const DenseRing& ring, int group, BFloat* dqkv) {
  uint32_t n = 0;
  for (int k = 0;; k++) {
    barrier_wait(ring.own_full(group), k % 2);
    Int4 x = load_shared(ring.pass(group)), y = load_shared(ring.pass(group) + 16);
    DensePass pass{x.x, x.y, warp_uniform(x.z), warp_uniform(x.w), warp_uniform(y.x), y.y, y.z};
    if (warp_uniform(pass.head) < 0) return;
    Rows rows(a, tiles, ring, pass, group);
    skip(ring, n, pass.skip);
    if (pass.count > 0) pass_over_tiles(rows, n + pass.skip);
    skip(ring, n + pass.skip + pass.count, pass.length - pass.skip - pass.count);
    if (pass.count > 0) rows.finish(dqkv);
    n += pass.length;
  }
}
template <class Rows>
DEVICE void dense_block(const Attention& a, const DenseTiles& tiles, const void* memory, BFloat* dqkv) {
  DenseRing ring(shared_address(memory));
  if (threadIdx.x == 0) ring.init();
  block_sync();
  int group = warp_uniform(threadIdx.x / 128);
  if (group == kDenseGroups) {
    give_registers<40>();
    if (threadIdx.x / 32 == 4 * kDenseGroups) produce<Rows>(a, tiles, ring);
  } else {
    take_registers<232>();
    consume<Rows>(a, tiles, ring, group, dqkv);
  }
}

// Word k of lane t becomes word t of lane k, among four lanes.
DEVICE void transpose_words(uint32_t (&x)[4], int lane) {
#pragma unroll
  for (int mask = 1; mask < 4; mask *= 2)
#pragma unroll
    for (int i = 0; i < 4; i++) {
      if (i & mask) continue;
      uint32_t low = x[i], high = x[i + mask];
      uint32_t other = (uint32_t)shuffle_xor((int)(lane & mask ? low : high), mask);
      x[i] = lane & mask ? other : low, x[i + mask] = lane & mask ? high : other;
    }
}

// A lane's rows of its warpgroup's own tile are `row` and row + 8. Own tiles are held in registers.
struct DenseRows {
  const Attention& a;
  const DenseTiles& tiles;
  DenseRing ring;
  DensePass pass;
  Head h;
  int tile, row;
  float slope, sharpness;
  float sums[32] = {}, other_sums[32] = {};
  HeldTile own, other_own;

  __device__ __forceinline__ DenseRows(
      const Attention& a, const DenseTiles& tiles, const DenseRing& ring, const DensePass& pass, int group)
      : a(a), tiles(tiles), ring(ring), pass(pass), h(a, pass.head), tile(pass.tile),
        row(64 * tile + threadIdx.x % 128 / 32 * 16 + threadIdx.x % 32 / 4), slope((float)h.slope * kLog2E),
        sharpness(4 * a.query_unit * a.scale * kLog2E) {
    uint32_t from = ring.own(group);
    fence_operand(from);  // else 32 addresses would be kept from item to item
    own.load(from), other_own.load(from + kDenseTile);
  }
  // The first of two neighbouring columns of a lane in half a tile.
  DEVICE_MEMBER static int column() { return 2 * (threadIdx.x % 4); }

  // Starts the products of the own tiles with a half of pair n.
  DEVICE_MEMBER void start(uint32_t n, int half, float (&scores)[16], float (&d)[16]) const {
    if (half == 0) ring.wait(n);
    wgmma_fence();
    multiply_rows(scores, own, ring.half_tile(n, half, 0));
    multiply_rows(d, other_own, ring.half_tile(n, half, 1));
    wgmma_commit();
  }

  // Writes the two rows, unless they lie beyond the sequence: gradients of part 0 queries, 1 keys, 2 values. Four lanes
  // have two of each eight channels; they exchange them, so that a lane writes pieces of eight.
  DEVICE_MEMBER void write(BFloat* dqkv, int part, const float (&x)[32], const float (&factor)[2]) const {
    int lane = threadIdx.x % 4;
#pragma unroll
    for (int r = 0; r < 2; r++) {
      int t = row + 8 * r;
      BFloat* to = dqkv + ((h.row0 + t) * 3 + part) * a.heads * 64 + h.head * 64 + 8 * lane;
#pragma unroll
      for (int half = 0; half < 2; half++) {
        uint32_t words[4];
#pragma unroll
        for (int c = 0; c < 4; c++) {
          const float* two = x + 4 * (4 * half + c) + 2 * r;
          words[c] = pack_bf16(factor[r] * two[0], factor[r] * two[1]);
        }
        transpose_words(words, lane);
        if (t < a.seq)
          *(Int4*)(to + 32 * half) = Int4{(int)words[0], (int)words[1], (int)words[2], (int)words[3]};
      }
    }
  }
};

// A tile of queries. sums are Σ w e k and other_sums Σ w k. Weights are scaled by 2^(8 - planes), so that less of w e
// is below float16's normal numbers: |e| is less than 2^(7 + planes). hidden is the largest first key of the queries.
struct DenseQueries : DenseRows {
  static constexpr int kKernel = 0, kDirection = -1;  // pairs come from the last to the first
  int first[2], exponent[2];                          // of do
  float shift[2], reference[2], sum[2] = {}, mean[2] = {};

  __device__ __forceinline__ DenseQueries(
      const Attention& a, const DenseTiles& tiles, const DenseRing& ring, const DensePass& pass, int group)
      : DenseRows(a, tiles, ring, pass, group) {
#pragma unroll
    for (int r = 0; r < 2; r++) {
      Int4 s = load_shared(ring.own(group) + kDensePair + (row % 64 + 8 * r) * kQueryStart);
      shift[r] = as_float(s.x) + (float)(8 - a.value_planes), reference[r] = as_float(s.y);
      exponent[r] = s.z, first[r] = s.w;
    }
    ring.release(ring.own_full(group));
  }
  // Finds what warpgroups do, and the first tile that comes. The last queries' items are the longest.
  DEVICE_MEMBER static int plan(
      const DenseTiles& tiles, int head, int place, int per_head, DensePass (&passes)[kDenseGroups]) {
    int from = (ceil_div(per_head, kDenseGroups) - 1 - place) * kDenseGroups;
    int top = min(from + kDenseGroups, per_head) - 1, lowest = top;
#pragma unroll
    for (int g = 0; g < kDenseGroups; g++) {
      int tile = min(from + g, top);
      long at = (long)head * per_head + tile;
      QueryRange range(tiles.starts + at * kDenseRows);
      if (threadIdx.x % 32 == 0) tiles.ranges[at] = range;
      int first = range.first / kDenseRows;
      passes[g] = {head, tile, 0, top - tile, from + g > top ? 0 : tile - first + 1, range.last, 0};
      lowest = min(lowest, first);
    }
#pragma unroll
    for (int g = 0; g < kDenseGroups; g++) passes[g].length = top - lowest + 1;
    return top;
  }
  DEVICE_MEMBER static void load_own(const DenseTiles& tiles, long at, uint32_t to, uint32_t full) {
    barrier_arrive_expect(full, kDensePair + kDenseRows * kQueryStart);
    copy_bytes(to, tiles.queries + at * kDensePair, full, kDensePair);
    copy_bytes(to + kDensePair, tiles.starts + at * kDenseRows, full, kDenseRows * kQueryStart);
  }
  DEVICE_MEMBER static void load(const DenseTiles& tiles, long at, uint32_t to, uint32_t full) {
    barrier_arrive_expect(full, kDensePair);
    copy_bytes(to, tiles.keys + at * kDensePair, full, kDensePair);
  }
  // Scores of later keys, and of those before the first, become kNever.
  DEVICE_MEMBER void hide(int from, float (&w)[16]) const {
#pragma unroll
    for (int j = 0; j < 16; j++) {
      int u = from + j / 4 * 8 + j % 2, r = j / 2 % 2;
      w[j] = ((u > row + 8 * r) | (u < first[r])) ? kNever : w[j];
    }
  }
  DEVICE_MEMBER void weigh(int i, uint32_t, int half, float (&w)[16]) {
    int from = 64 * (tile - i) + 32 * half + column();
    if (i == 0 || 64 * (tile - i) < pass.hidden) hide(from, w);
#pragma unroll
    for (int r = 0; r < 2; r++) {
      float base = __builtin_fmaf(-slope, (float)(row + 8 * r - from), shift[r]);
#pragma unroll
      for (int j = 2 * r; j < 16; j += j % 2 ? 3 : 1) {
        w[j] = exp2_fast(__builtin_fmaf(w[j], sharpness, __builtin_fmaf(slope, (float)(j / 4 * 8 + j % 2), base)));
        sum[r] += w[j];
      }
    }
  }
  DEVICE_MEMBER void multiply(uint32_t n, int half, const float (&w)[16], float (&d)[16]) {
#pragma unroll
    for (int j = 0; j < 16; j++) {
      int r = j / 2 % 2;
      d[j] = w[j] * (d[j] - reference[r]);
      mean[r] += d[j];
    }
    SplitRows slopes(d), weights(w);
    wgmma_fence();
    slopes.multiply<true>(sums, ring.half_tile(n, half, 0));
    weights.multiply<true>(other_sums, ring.half_tile(n, half, 0));
  }
  // Writes dq and what keys need of the queries.
  DEVICE_MEMBER void finish(BFloat* dqkv) {
    float factor[2];
#pragma unroll
    for (int r = 0; r < 2; r++) {
#pragma unroll
      for (int mask = 1; mask < 4; mask *= 2)
        sum[r] += shuffle_xor(sum[r], mask), mean[r] += shuffle_xor(mean[r], mask);
      mean[r] /= sum[r];
      int t = row + 8 * r;
      factor[r] = 4 * a.value_unit * a.scale / sum[r] * power_of_two(exponent[r]);
      float p = shift[r] - log2_fast(sum[r]) + (float)exponent[r] - slope * (float)(t % 64);
      QueryEnds& ends = tiles.ends[(long)h.index * ceil_div(a.seq, kDenseRows) + tile];
      if (column() == 0) {
        ends.rows[t % 64] = t < a.seq ? QueryEnd{p, reference[r] + mean[r]} : QueryEnd{kNever, 0};
        ends.first[t % 64] = first[r];
      }
    }
#pragma unroll
    for (int j = 0; j < 32; j++) sums[j] -= mean[j / 2 % 2] * other_sums[j];
    write(dqkv, 0, sums, factor);
  }
};

// Computes dq and what keys need of queries, and of tiles of them. A warpgroup has 64 queries, a warp 16; they pass
// over tiles of 64 keys, from their own to the first. The mean m of e_u = d_u - d_best is known only at the end, so two
// sums over keys are kept: dq = factor * (Σ w e k - m Σ w k). In a query with one strong key nearly everything large
// cancels exactly. Grid: as many blocks as fit.
KERNEL(attention float shared(kDenseShared), kDenseThreads, 1)
void dense_queries_wgmma(
    const __grid_constant__ Attention a, const __grid_constant__ DenseTiles tiles, BFloat* dqkv) {
  extern __shared__ char memory[];
  dense_block<DenseQueries>(a, tiles, memory, dqkv);
}

// A tile of keys. sums are dv and other_sums dk, both in float16's range: p is scaled by 2^15, and ds by as much as
// float16 holds, for |d - mean| is less than 2^(7 + planes). most is the largest exponent of the queries' do; from tile
// `hidden` on queries do not read all of these keys.
struct DenseKeys : DenseRows {
  static constexpr int kKernel = 1, kDirection = 1;
  float narrow;
  float means[8];  // of a lane's columns

  __device__ __forceinline__ DenseKeys(
      const Attention& a, const DenseTiles& tiles, const DenseRing& ring, const DensePass& pass, int group)
      : DenseRows(a, tiles, ring, pass, group), narrow(power_of_two(-5 - a.value_planes)) {
    ring.release(ring.own_full(group));
  }
  // See DenseQueries. The first keys' items are the longest.
  DEVICE_MEMBER static int plan(
      const DenseTiles& tiles, int head, int place, int per_head, DensePass (&passes)[kDenseGroups]) {
    const QueryRange* ranges = tiles.ranges + (long)head * per_head;
    int first = place * kDenseGroups, end = first, lane = threadIdx.x % 32;
#pragma unroll
    for (int g = 0; g < kDenseGroups; g++) {
      int tile = min(first + g, per_head - 1), last = tile, hidden = kLastKey, most = -126;
      for (int i = tile + lane; i < per_head; i += 32) {
        if (ranges[i].first < 64 * tile + 64) last = i;
        if (ranges[i].last > 64 * tile) hidden = min(hidden, i);
      }
      last = warp_max(last);
      for (int i = tile + lane; i <= last; i += 32) most = max(most, ranges[i].exponent);
      passes[g] = {head, tile, 0, g, first + g < per_head ? last - tile + 1 : 0, warp_min(hidden), warp_max(most)};
      end = max(end, last);
    }
#pragma unroll
    for (int g = 0; g < kDenseGroups; g++) {
      passes[g].length = end - first + 1;
      if (passes[g].count == 0) passes[g].skip = 0;
    }
    return first;
  }
  DEVICE_MEMBER static void load_own(const DenseTiles& tiles, long at, uint32_t to, uint32_t full) {
    barrier_arrive_expect(full, kDensePair);
    copy_bytes(to, tiles.keys + at * kDensePair, full, kDensePair);
  }
  DEVICE_MEMBER static void load(const DenseTiles& tiles, long at, uint32_t to, uint32_t full) {
    barrier_arrive_expect(full, kDensePair + kQueryEnds);
    copy_bytes(to, tiles.queries + at * kDensePair, full, kDensePair);
    copy_bytes(to + kDensePair, tiles.ends + at, full, kQueryEnds);
  }
  // Scores of earlier queries, and of those that begin to read later, become kNever.
  DEVICE_MEMBER void hide(int i, uint32_t n, int half, float (&p)[16]) const {
#pragma unroll
    for (int c = 0; c < 8; c++) {
      int column = 32 * half + c / 2 * 8 + this->column() + c % 2, t = 64 * (tile + i) + column;
      int first = (int)load_shared_word(ring.ends(n) + kDenseRows * (int)sizeof(QueryEnd) + 4 * column);
#pragma unroll
      for (int r = 0; r < 2; r++) {
        float& x = p[c / 2 * 4 + 2 * r + c % 2];
        x = ((row + 8 * r > t) | (row + 8 * r < first)) ? kNever : x;
      }
    }
  }
  DEVICE_MEMBER void weigh(int i, uint32_t n, int half, float (&p)[16]) {
    if (i == 0 || tile + i >= pass.hidden) hide(i, n, half, p);
    float base[2];
#pragma unroll
    for (int r = 0; r < 2; r++)
      base[r] = __builtin_fmaf(slope, (float)(row + 8 * r - 64 * (tile + i)), (float)(15 - pass.most));
#pragma unroll
    for (int c = 0; c < 4; c++) {
      Int4 two = load_shared(ring.ends(n) + (int)sizeof(QueryEnd) * (32 * half + 8 * c + column()));
      means[2 * c] = -narrow * as_float(two.y), means[2 * c + 1] = -narrow * as_float(two.w);
#pragma unroll
      for (int r = 0; r < 2; r++) {
        float &x = p[4 * c + 2 * r], &y = p[4 * c + 2 * r + 1];
        x = exp2_fast(__builtin_fmaf(x, sharpness, as_float(two.x) + base[r]));
        y = exp2_fast(__builtin_fmaf(y, sharpness, as_float(two.z) + base[r]));
      }
    }
  }
  DEVICE_MEMBER void multiply(uint32_t n, int half, const float (&p)[16], float (&d)[16]) {
#pragma unroll
    for (int j = 0; j < 16; j++) d[j] = p[j] * __builtin_fmaf(d[j], narrow, means[j / 4 * 2 + j % 2]);
    SplitRows weights(p), slopes(d);
    wgmma_fence();
    weights.multiply<true>(sums, ring.half_tile(n, half, 1));
    slopes.multiply<true>(other_sums, ring.half_tile(n, half, 0));
  }
  DEVICE_MEMBER void finish(BFloat* dqkv) {
    float unit = 4 * a.query_unit * a.value_unit * a.scale * power_of_two(a.value_planes - 10);
#pragma unroll
    for (int j = 0; j < 32; j++) sums[j] *= 0x1p-15f, other_sums[j] *= unit;
    float factor[2] = {power_of_two(pass.most), power_of_two(pass.most)};
    write(dqkv, 1, other_sums, factor);
    write(dqkv, 2, sums, factor);
  }
};

// Computes dk and dv. A warpgroup has 64 keys, a warp 16; they pass over tiles of 64 queries in the queries' order.
// Grid: as many blocks as fit.
KERNEL(attention float shared(kDenseShared), kDenseThreads, 1)
void dense_keys_wgmma(const __grid_constant__ Attention a, const __grid_constant__ DenseTiles tiles, BFloat* dqkv) {
  extern __shared__ char memory[];
  dense_block<DenseKeys>(a, tiles, memory, dqkv);
}
