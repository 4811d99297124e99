// The backward pass of attention over all keys on Hopper's warpgroup matrix units: softmax, and the straight-through
// gradient of a pointer. For heads of 64 channels, queries and values of up to 8 planes, and gradients in bfloat16;
// with Gumbel noise sequences are a multiple of 4.
//
// What w, do, d, p and ds are says attention_dense.cu, which has the same of signs for other matrix units.
//
// No seq x seq matrix is kept of softmax: dense_queries_wgmma and dense_keys_wgmma both compute scores and d again. The
// noise of a pointer takes longer than that, so its weights w are kept in 24 bits, of as many heads at a time as
// working memory is given for.
//
// All are products of float16 matrices with sums in float32. The integers behind queries, keys and values are float16,
// halved. A row of do becomes float16 after division by a power of two, which keeps all of its bits but those below
// 2^-24 of the row's maximum. Weights w, p and ds are split into two float16, which keep 21 bits.
//
// Scores fall with distance, so keys far enough away together weigh less than 2^-24 of a query's best key, whatever
// their noise. They are left out. Weights that are kept tell more: dk and dv leave out tiles of which no weight changes
// a sum of weights in float32. Every sum is taken by one warp in a fixed order.
//
// Four keys share a block of random numbers. Keys have such rows in a tile that all four belong to one lane.
#include "attention_tile.cuh"
#include "wgmma_f16.cuh"

constexpr int kDenseRows = 64;  // queries or keys of a tile
constexpr int kDenseTile = 2 * 64 * kDenseRows, kDenseHalf = kDenseTile / 2, kDensePair = 2 * kDenseTile;
constexpr int kQueryStart = 16, kQueryEnds = 16 * kDenseRows, kQueryRange = 16;  // bytes of the structs below
constexpr int kWeightsHigh = 2 * kDenseRows * kDenseRows, kWeights = 3 * kDenseRows * kDenseRows;  // of a pair of tiles
constexpr int kLastKey = 0x7fffffff;

// What a query needs before its scores are computed.
struct alignas(16) QueryStart {
  float shift;      // -log2 of w's scale: w = 2^(score * log2 e / tau + shift)
  float reference;  // d of the best key, where do and values are scaled as in their tiles
  int exponent;     // do is 2^exponent times its row in the tile
  int first;        // the first key that counts
};
// What keys need of a query when its scores are known: p = 2^(score * log2 e + shift), or w 2^shift where weights are
// kept, and the mean of d, scaled as the reference is.
struct alignas(8) QueryEnd {
  float shift, mean;
};
// The same of the queries of a tile.
struct alignas(16) QueryEnds {
  QueryEnd rows[kDenseRows];
  int first[kDenseRows];          // the first key that counts; where weights are kept `back` of each warp's 16 queries
  uint32_t pointers[kDenseRows];  // the key that the query points at, and 127 + exponent of do in the lowest byte
};
constexpr int kFirst = 8 * kDenseRows, kPointers = 12 * kDenseRows;  // their places in bytes
// Which keys the queries of a tile count, and the size of their do.
struct alignas(16) QueryRange {
  int first, last;    // the smallest and the largest first key that counts
  int exponent;       // the largest of do
  uint32_t back = 0;  // where weights are kept: how many tiles back any of them counts
  // A warp finds it, from the starts of 64 queries.
  DEVICE_MEMBER explicit QueryRange(const QueryStart* starts) {
    QueryStart x = starts[threadIdx.x % 32], y = starts[threadIdx.x % 32 + 32];
    first = warp_min(min(x.first, y.first));
    last = warp_max(max(x.first == kLastKey ? 0 : x.first, y.first == kLastKey ? 0 : y.first));
    exponent = warp_max(max(x.exponent, y.exponent));
  }
};

// Working memory, for each head ceil(seq / 64) tiles of 64 rows: queries with their do behind them, keys with their
// values, in the rows of key_row. Tiles are 64 x 64 float16 in the order of the matrix unit's swizzle: piece i of eight
// channels of row r is the piece i ^ r % 8 of the row. Rows beyond the sequence are zero.
struct DenseTiles {
  char *queries, *keys;
  QueryStart* starts;
  QueryEnds* ends;
  QueryRange* ranges;
  // How many items of work blocks have taken, of the kernel for queries and of that for keys. Each launch has its own.
  int* taken;
  int turn, heads;  // heads take turns: a launch is for `heads` of them from `turn` on
  // Of pointers, the weights of a launch's heads, for each ceil(seq / 64) (ceil(seq / 64) + 1) / 2 pairs of tiles: of
  // tile t of queries those with tiles 0 ... t of keys.
  char* weights;
};

static_assert(
    sizeof(QueryStart) == kQueryStart && sizeof(QueryEnds) == kQueryEnds && sizeof(QueryRange) == kQueryRange);

// The row in which key 4 m + 2 i + j of 16 lies: 8 i + 2 m + j. As columns lane t of four has rows 2 t, 2 t + 1, 2 t +
// 8 and 2 t + 9.
DEVICE int key_row(int key) { return (key & ~15) + key / 2 % 2 * 8 + key / 4 % 4 * 2 + key % 2; }

DEVICE float power_of_two(int exponent) { return as_float((exponent + 127) << 23); }  // from -126 to 127
// Over eight lanes.
DEVICE int sum_of_eight(int x) {
#pragma unroll
  for (int mask = 1; mask < 8; mask *= 2) x += shuffle_xor(x, mask);
  return x;
}

// Where the weights of a pair of tiles begin. turn: of the head, in this launch. The 64 x 64 weights are float32
// without the lowest byte: the upper 16 bits of all, and then the third bytes. Both lie in matrices of 8 x 8 16-bit
// values, of 8 queries and 8 rows of keys; third bytes of rows r and r + 8 are a value.
DEVICE long weights_of(int turn, int per_head, int queries, int keys) {
  return ((long)turn * (per_head * (per_head + 1) / 2) + queries * (queries + 1) / 2 + keys) * kWeights;
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

// How many keys back a query counts, if its scores are at most `bound` without distance and its best score is `top`:
// the others together weigh less than Σ exp((bound - slope * distance) / tau) = exp((bound - slope * n) / tau) / (1 -
// exp(-slope / tau)).
DEVICE int counted_back(double bound, double top, float slope, float tau) {
  if (slope == 0) return kLastKey;
  float rest = (float)(bound - top) + (24 + log2_fast((tau + slope) / slope)) * tau * (1 / kLog2E);
  return (int)min(rest / slope + 2, 1e9f);
}

// Writes the tiles and what queries need before their scores. Eight lanes take a row, each eight channels. Neighbouring
// blocks have different heads of the same tokens: together they read whole rows. Grid: x heads, y rows / 32, z
// sequences.
template <bool kPointer>
DEVICE void write_tiles(const Attention& a, const BFloat* dout, const int* pointers, const DenseTiles& to) {
  Head h(a, blockIdx.z * a.heads + blockIdx.x);
  int row = blockIdx.y * 32 + threadIdx.x / 8, lane = threadIdx.x % 8, byte = h.head * 8 + lane;
  int tiles = ceil_div(a.seq, kDenseRows);
  long own = (long)h.index * tiles * kDenseRows + row;
  auto place = [&](int row) { return own / 64 * kDensePair + row % 64 * 128 + 16 * (lane ^ row % 8); };
  long at = place(row), at_key = place(key_row(row));
  if (lane == 0 && own < 2 * ceil_div(a.batch * a.heads, to.heads)) to.taken[own] = 0;
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
  float shift = (float)(-top * (double)kLog2E), tau = 1;
  if (kPointer) {
    Words4 random = TileNoise(a).words(h.block(t) + (uint32_t)(u / 4));
    uint32_t word = u % 4 < 2 ? random.w[u % 2] : random.w[2 + u % 2];
    tau = (float)a.scalars->tau, shift = (shift + log2_exponential(word)) / tau;
    bound += (double)kMostNoise, top += (double)gumbel_fast(word);
  }
  if (lane == 0) {
    int back = finite ? counted_back(bound, top, (float)h.slope, tau) : kLastKey;
    to.starts[own] = inside ? QueryStart{shift, reference, exponent, max(h.first(t), t - back)}
                            : QueryStart{kNever, 0, -126, kLastKey};
    to.ends[own / 64].pointers[row % 64] = inside ? (uint32_t)u << 8 | (uint32_t)(exponent + 127) : ~0u;
  }
  const Int4 none = {};
  *(Int4*)(to.queries + at) = inside ? q.halves(a.query_planes) : none;
  *(Int4*)(to.keys + at_key) = inside ? k.halves(1) : none;
  *(Int4*)(to.keys + at_key + kDenseTile) = inside ? v.halves(a.value_planes) : none;
  *(Int4*)(to.queries + at + kDenseTile) =
      inside ? Int4{(int)scaled[0], (int)scaled[1], (int)scaled[2], (int)scaled[3]} : none;
}

KERNEL(attention float, 256, 5)
void dense_tiles(const __grid_constant__ Attention a, const BFloat* dout, const int* pointers,
    const __grid_constant__ DenseTiles to) {
  write_tiles<false>(a, dout, pointers, to);
}
KERNEL(attention float, 256, 4)
void dense_tiles_pointer(const __grid_constant__ Attention a, const BFloat* dout, const int* pointers,
    const __grid_constant__ DenseTiles to) {
  write_tiles<true>(a, dout, pointers, to);
}

// ---- Passes over tiles ----
//
// Blocks stay: each takes items of work, a head's next kDenseGroups tiles, until there are none. A warpgroup has one of
// these tiles as its own, and passes over the pairs of tiles that it needs of those that a warp of the block, the
// producer, brings into a ring. The producer is ahead by a ring, which may be in the next items. Warpgroups wait for
// nothing but full stages, so that one computes while another one begins or ends an item.

constexpr int kDenseGroups = 2, kDenseThreads = 128 * (kDenseGroups + 1), kDensePass = 32;
constexpr int kDenseOwn = kDensePair + 1024;  // 1,024: room for QueryEnds, or for the starts of an own tile's queries
constexpr int kDenseShared = 1024 + (kDenseGroups + 8) * (kDenseOwn + 16) + kDenseGroups * kDensePass;
constexpr int kKeptShared = 225 * 1024;  // where weights are kept
constexpr int kDenseRegisters = 504;     // of one thread in each warpgroup, together

// What a warpgroup does for an item.
struct alignas(16) DensePass {
  int head, tile;           // head: -1 if there is no item left
  int length, skip, count;  // of `length` pairs that the ring brings it skips some, and passes over the next `count`
  int hidden, most;         // see DenseQueries and DenseKeys
  int turn;                 // of the head, among those of the launch
};
static_assert(sizeof(DensePass) == kDensePass);

// A block's shared memory: each warpgroup's own pair of tiles, the stages of the ring, two barriers for each of these,
// what warpgroups do, and the gradients of their values, where queries point at these. Stage n is that of the n-th pair
// that the block loads. kKept: weights come with pairs, for each warpgroup.
template <bool kKept> struct DenseRing {
  static constexpr int kStages = kKept ? 3 : 8, kBuffers = kDenseGroups + kStages;
  static constexpr int kStage = kDenseOwn + (kKept ? kDenseGroups * kWeights : 0);
  uint32_t base, barriers, passes;
  __device__ __forceinline__ explicit DenseRing(uint32_t memory)
      : base((memory + 1023) / 1024 * 1024), barriers(base + kDenseGroups * kDenseOwn + kStages * kStage),
        passes(barriers + 16 * kBuffers) {
    static_assert(1024 + kDenseGroups * kDenseOwn + kStages * kStage + 16 * kBuffers +
                      kDenseGroups * (kDensePass + (kKept ? kDensePair : 0)) <=
                  (kKept ? kKeptShared : kDenseShared));
  }
  DEVICE_MEMBER uint32_t own(int group) const { return base + group * kDenseOwn; }
  DEVICE_MEMBER uint32_t stage(uint32_t n) const { return own(kDenseGroups) + n % kStages * kStage; }
  DEVICE_MEMBER uint32_t ends(uint32_t n) const { return stage(n) + kDensePair; }
  DEVICE_MEMBER static uint32_t weights(uint32_t stage, int group) { return stage + kDenseOwn + group * kWeights; }
  DEVICE_MEMBER uint32_t own_full(int group) const { return barriers + 16 * group; }
  DEVICE_MEMBER uint32_t full(uint32_t n) const { return own_full(kDenseGroups + n % kStages); }
  DEVICE_MEMBER static uint32_t empty(uint32_t full) { return full + 8; }
  DEVICE_MEMBER uint32_t pass(int group) const { return passes + kDensePass * group; }
  DEVICE_MEMBER uint32_t reads(int group) const { return passes + kDensePass * kDenseGroups + kDensePair * group; }
  // A half of the first or the second tile of a stage, described.
  DEVICE_MEMBER uint32_t half_tile(uint32_t n, int half, int second) const {
    return described(stage(n)) + (second * kDenseTile + half * kDenseHalf) / 16;
  }
  DEVICE_MEMBER void init() const {
#pragma unroll
    for (int i = 0; i < kBuffers; i++) {
      barrier_init(own_full(i), 1);
      barrier_init(empty(own_full(i)), i < kDenseGroups ? 4 : 4 * kDenseGroups);  // warps
    }
    barrier_init_fence();
  }
  DEVICE_MEMBER void wait(uint32_t n) const { barrier_wait(full(n), n / kStages % 2); }
  DEVICE_MEMBER void wait_empty(uint32_t n) const { barrier_wait(empty(full(n)), n / kStages % 2 ^ 1); }
  // The warp is done with what this barrier announced.
  DEVICE_MEMBER static void release(uint32_t full) {
    warp_sync();
    if (threadIdx.x % 32 == 0) barrier_arrive(empty(full));
  }
};

// The warp that loads. Long items come first: slopes fall from head to head.
template <class Rows>
DEVICE void produce(const Attention& a, const DenseTiles& tiles, const typename Rows::Ring& ring) {
  int lane = threadIdx.x % 32, per_head = ceil_div(a.seq, kDenseRows), groups = ceil_div(per_head, kDenseGroups);
  int items = groups * tiles.heads, coming = 0;
  uint32_t n = 0;
  int* taken = tiles.taken + Rows::kKernel;
  if (lane == 0) coming = take(taken);
  for (int k = 0;; k++) {
    int item = shuffle(coming, 0), place = item % groups, turn = item / groups, of_all = tiles.turn + turn;
    int head = of_all % a.batch * a.heads + a.heads - 1 - of_all / a.batch;
    bool done = item >= items;
    DensePass passes[kDenseGroups] = {};
    int from = done ? 0 : Rows::plan(tiles, head, place, per_head, passes);
    if (lane == 0 && !done) coming = take(taken);
    for (DensePass& p : passes) p.turn = turn;
    long tile0 = (long)head * per_head;
#pragma unroll
    for (int g = 0; g < kDenseGroups; g++) {
      uint32_t full = ring.own_full(g);
      barrier_wait(ring.empty(full), k % 2 ^ 1);
      if (lane == 0) {
        const DensePass& p = passes[g];
        store_shared(ring.pass(g), Int4{done ? -1 : head, p.tile, p.length, p.skip});
        store_shared(ring.pass(g) + 16, Int4{p.count, p.hidden, p.most, turn});
        if (done) barrier_arrive(full);
        else Rows::load_own(tiles, tile0 + p.tile, ring.own(g), full);
      }
    }
    if (done) break;
    for (int i = 0; i < passes[0].length; i++, n++) {
      ring.wait_empty(n);
      if (lane == 0) Rows::load(tiles, passes, per_head, from + i * Rows::kDirection, ring.stage(n), ring.full(n));
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
  rows.fence();  // zero before a product starts
  rows.start(n, 0, x0, d0);
  wgmma_wait<0>();
  fence_sums(x0), fence_sums(d0);
  for (int i = 0; i < count; i++, n++) {
    step(rows, i, n, n, 0, x0, d0, x1, d1);
    step(rows, i, n, i + 1 < count ? n + 1 : n, 1, x1, d1, x0, d0);
  }
  wgmma_wait<0>();
  rows.fence();
  rows.ring.release(rows.ring.full(n - 1));
}

// Passes over pairs that others need.
template <class Ring> DEVICE void skip(const Ring& ring, uint32_t n, int count) {
  for (int i = 0; i < count; i++) ring.wait(n + i), ring.release(ring.full(n + i));
}
template <class Rows> DEVICE void consume(
    const Attention& a, const DenseTiles& tiles, const typename Rows::Ring& ring, int group, BFloat* dqkv) {
  uint32_t n = 0;
  for (int k = 0;; k++) {
    barrier_wait(ring.own_full(group), k % 2);
    Int4 x = load_shared(ring.pass(group)), y = load_shared(ring.pass(group) + 16);
    DensePass pass{x.x, x.y, warp_uniform(x.z), warp_uniform(x.w), warp_uniform(y.x), y.y, y.z, y.w};
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
  typename Rows::Ring ring(shared_address(memory));
  if (threadIdx.x == 0) ring.init();
  block_sync();
  int group = warp_uniform(threadIdx.x / 128);
  if (group == kDenseGroups) {
    give_registers<kDenseRegisters - kDenseGroups * Rows::kRegisters>();
    if (threadIdx.x / 32 == 4 * kDenseGroups) produce<Rows>(a, tiles, ring);
  } else {
    take_registers<Rows::kRegisters>();
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

// A lane has the rows `row` and row + 8 of its warpgroup's own tile: queries row and row + 8, or keys row and row + 2
// (see key_row). Own tiles are held in registers.
template <bool kPointer, int kApart, bool kKept> struct DenseRows {
  using Ring = DenseRing<kKept>;
  static constexpr int kRegisters = kKept ? 208 : 232;  // of a thread
  const Attention& a;
  const DenseTiles& tiles;
  Ring ring;
  DensePass pass;
  Head h;
  TileNoise noise;
  int tile, row;
  float inverse_tau, slope, sharpness;
  float sums[32] = {};
  HeldTile own, other_own;

  __device__ __forceinline__ DenseRows(
      const Attention& a, const DenseTiles& tiles, const Ring& ring, const DensePass& pass, int group)
      : a(a), tiles(tiles), ring(ring), pass(pass), h(a, pass.head), noise(a), tile(pass.tile),
        inverse_tau(kPointer ? 1 / (float)a.scalars->tau : 1.0f), slope((float)h.slope * kLog2E * inverse_tau),
        sharpness(4 * a.query_unit * a.scale * kLog2E * inverse_tau) {
    int lane_group = threadIdx.x % 32 / 4;
    row = 64 * tile + threadIdx.x % 128 / 32 * 16 +
          (kApart == 8 ? lane_group : lane_group / 2 * 4 + lane_group % 2);
    uint32_t from = ring.own(group);
    fence_operand(from);  // else 32 addresses would be kept from item to item
    if (!kKept) own.load(from);
    other_own.load(from + kDenseTile);
  }
  // The first of two neighbouring columns of a lane in half a tile.
  DEVICE_MEMBER static int column() { return 2 * (threadIdx.x % 4); }

  // Starts the products of the own tiles with a half of pair n. Scores behind weights that are kept are not needed.
  DEVICE_MEMBER void start(uint32_t n, int half, float (&scores)[16], float (&d)[16]) const {
    if (half == 0) ring.wait(n);
    wgmma_fence();
    if (!kKept) multiply_rows(scores, own, ring.half_tile(n, half, 0));
    multiply_rows(d, other_own, ring.half_tile(n, half, 1));
    wgmma_commit();
  }

  // Writes the two rows, unless they lie beyond the sequence: gradients of part 0 queries, 1 keys, 2 values. Four lanes
  // have two of each eight channels; they exchange them, so that a lane writes pieces of eight.
  DEVICE_MEMBER void write(BFloat* dqkv, int part, const float (&x)[32], const float (&factor)[2]) const {
    int lane = threadIdx.x % 4;
#pragma unroll
    for (int r = 0; r < 2; r++) {
      int t = row + kApart * r;
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
template <bool kPointer> struct DenseQueries : DenseRows<kPointer, 8, false> {
  using Rows = DenseRows<kPointer, 8, false>;
  using Rows::a, Rows::tiles, Rows::ring, Rows::pass, Rows::h, Rows::tile, Rows::row, Rows::slope, Rows::sharpness,
      Rows::sums, Rows::column;
  static constexpr int kKernel = 0, kDirection = -1;  // pairs come from the last to the first
  int first[2], exponent[2];                          // of do
  float shift[2], reference[2], sum[2] = {}, mean[2] = {}, other_sums[32] = {};
  long block;    // the first row's first block of random numbers
  int back = 0;  // how many tiles back a weight changes a sum of weights

  __device__ __forceinline__ DenseQueries(
      const Attention& a, const DenseTiles& tiles, const typename Rows::Ring& ring, const DensePass& pass, int group)
      : Rows(a, tiles, ring, pass, group) {
#pragma unroll
    for (int r = 0; r < 2; r++) {
      Int4 s = load_shared(ring.own(group) + kDensePair + (row % 64 + 8 * r) * kQueryStart);
      shift[r] = as_float(s.x) + (float)(8 - a.value_planes), reference[r] = as_float(s.y);
      exponent[r] = s.z, first[r] = s.w;
    }
    block = (long)h.block(row);
    if (kPointer) fence_operand(block);  // else it would be computed for every tile
    ring.release(ring.own_full(group));
  }
  DEVICE_MEMBER void fence() { fence_sums(sums), fence_sums(other_sums); }
  // Finds what warpgroups do, and the first tile that comes. Keys will find the ranges that it writes. The last
  // queries' items are the longest.
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
  DEVICE_MEMBER static void load(const DenseTiles& tiles, const DensePass (&passes)[kDenseGroups], int per_head,
      int tile, uint32_t to, uint32_t full) {
    long at = (long)passes[0].head * per_head + tile;
    barrier_arrive_expect(full, kDensePair);
    copy_bytes(to, tiles.keys + at * kDensePair, full, kDensePair);
  }
  // The distance from a lane's first key in half a tile to that of its column j. See key_row.
  DEVICE_MEMBER static int offset(int j) { return j / 8 * 16 + j / 4 % 2 * 2 + j % 2; }
  // Scores of later keys, and of those before the first, become kNever.
  DEVICE_MEMBER void hide(int from, float (&w)[16]) const {
#pragma unroll
    for (int j = 0; j < 16; j++) {
      int u = from + offset(j), r = j / 2 % 2;
      w[j] = ((u > row + 8 * r) | (u < first[r])) ? kNever : w[j];
    }
  }
  // The exponents of the weights of noise, of keys from `from` on. score: any.
  DEVICE_MEMBER void noise_of(int from, float score, float (&exponents)[16]) const {
    Words4 random[2][2];
#pragma unroll
    for (int r = 0; r < 2; r++)
#pragma unroll
      for (int m = 0; m < 2; m++)
        random[r][m] = this->noise.words((uint64_t)block + (uint32_t)(2 * a.seq * r + from / 4 + 4 * m));
    keep_order(score);  // else ptxas would compute one block of random numbers after the other
#pragma unroll
    for (int r = 0; r < 2; r++)
#pragma unroll
      for (int m = 0; m < 2; m++)
#pragma unroll
        for (int k = 0; k < 4; k++)
          exponents[8 * m + 4 * (k / 2) + 2 * r + k % 2] = log2_exponential(random[r][m].w[k]);
  }
  DEVICE_MEMBER void weigh(int i, uint32_t, int half, float (&w)[16]) {
    int from = 64 * (tile - i) + 32 * half + 2 * column();
    if (i == 0 || 64 * (tile - i) < pass.hidden) hide(from, w);
    float exponents[16], before[2] = {sum[0], sum[1]};
    if (kPointer) noise_of(from, w[0], exponents);
#pragma unroll
    for (int r = 0; r < 2; r++) {
      float base = __builtin_fmaf(-slope, (float)(row + 8 * r - from), shift[r]);
#pragma unroll
      for (int j = 2 * r; j < 16; j += j % 2 ? 3 : 1) {
        w[j] = __builtin_fmaf(w[j], sharpness, __builtin_fmaf(slope, (float)offset(j), base));
        if (kPointer) w[j] = __builtin_fmaf(exponents[j], -this->inverse_tau, w[j]);
        w[j] = exp2_fast(w[j]);
        sum[r] += w[j];
      }
    }
    if (!kPointer) return;
    if (sum[0] != before[0] || sum[1] != before[1]) back = i;
    keep(i, half, w);
  }
  // Writes the weights of a half.
  DEVICE_MEMBER void keep(int i, int half, const float (&w)[16]) const {
    int lane = threadIdx.x % 32, eight = threadIdx.x % 128 / 32 * 2, per_head = ceil_div(a.seq, kDenseRows);
    char* to = tiles.weights + weights_of(pass.turn, per_head, tile, tile - i) + 4 * lane;
#pragma unroll
    for (int r = 0; r < 2; r++) {
      char *high = to + (eight + r) * 1024 + half * 512, *low = to + kWeightsHigh + (eight + r) * 512 + half * 256;
#pragma unroll
      for (int m = 0; m < 2; m++) {
        uint32_t x[4];  // of the rows 2 t, 2 t + 1, 2 t + 8 and 2 t + 9 of 16
#pragma unroll
        for (int k = 0; k < 4; k++) x[k] = (uint32_t)as_int(w[8 * m + 4 * (k / 2) + 2 * r + k % 2]);
        *(uint32_t*)(high + 256 * m) = pack_u16(x[0], x[1], 1);
        *(uint32_t*)(high + 256 * m + 128) = pack_u16(x[2], x[3], 1);
        uint32_t first = (uint32_t)__nvvm_prmt(x[0], x[2], 0x0051), second = (uint32_t)__nvvm_prmt(x[1], x[3], 0x0051);
        *(uint32_t*)(low + 128 * m) = pack_u16(first, second, 0);
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
      factor[r] = 4 * a.value_unit * a.scale * this->inverse_tau / sum[r] * power_of_two(exponent[r]);
      float p = shift[r] - log2_fast(sum[r]) + (float)exponent[r] - slope * (float)(t % 64);
      QueryEnds& ends = tiles.ends[(long)h.index * ceil_div(a.seq, kDenseRows) + tile];
      if (column() == 0) {
        if (kPointer) p = (float)exponent[r] - log2_fast(sum[r]);
        ends.rows[t % 64] = t < a.seq ? QueryEnd{p, reference[r] + mean[r]} : QueryEnd{kNever, 0};
        if (!kPointer) ends.first[t % 64] = first[r];
      }
    }
    if (kPointer) {
      back = warp_max(back);
      long at = (long)h.index * ceil_div(a.seq, kDenseRows) + tile;
      if (threadIdx.x % 32 == 0) tiles.ends[at].first[threadIdx.x % 128 / 32] = back;
      if (threadIdx.x % 32 == 0) max_to(&tiles.ranges[at].back, (uint32_t)back);
    }
#pragma unroll
    for (int j = 0; j < 32; j++) sums[j] -= mean[j / 2 % 2] * other_sums[j];
    this->write(dqkv, 0, sums, factor);
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
  dense_block<DenseQueries<false>>(a, tiles, memory, dqkv);
}
KERNEL(attention float shared(kDenseShared), kDenseThreads, 1)
void dense_queries_wgmma_pointer(
    const __grid_constant__ Attention a, const __grid_constant__ DenseTiles tiles, BFloat* dqkv) {
  extern __shared__ char memory[];
  dense_block<DenseQueries<true>>(a, tiles, memory, dqkv);
}

// A tile of keys. sums are dk and, of softmax, read is dv, both in float16's range: p is scaled by 2^15, and ds by as
// much as float16 holds, for |d - mean| is less than 2^(7 + planes). most is the largest exponent of the queries' do;
// from tile `hidden` on queries do not read all of these keys.
//
// dv of pointers is added up in shared memory, a query after the other: few queries of a tile point at a key of the
// warp's.
template <bool kPointer> struct DenseKeys : DenseRows<kPointer, 2, kPointer> {
  using Rows = DenseRows<kPointer, 2, kPointer>;
  using Rows::a, Rows::tiles, Rows::ring, Rows::pass, Rows::h, Rows::tile, Rows::row, Rows::slope, Rows::sharpness,
      Rows::sums, Rows::column;
  static constexpr int kKernel = 1, kDirection = 1;
  int group;
  float narrow;  // what d - mean is multiplied by, so that ds fits float16
  float means[8];  // of a lane's columns
  float read[32] = {};
  uint32_t reads;  // the place of a lane's two channels of dv, 2 lane and 2 lane + 1, of the warp's first key

  __device__ __forceinline__ DenseKeys(
      const Attention& a, const DenseTiles& tiles, const typename Rows::Ring& ring, const DensePass& pass, int group)
      : Rows(a, tiles, ring, pass, group), group(group), narrow(power_of_two(-5 - a.value_planes)),
        reads(ring.reads(group) + threadIdx.x % 128 / 32 * 4096 + threadIdx.x % 32 * 8) {
    ring.release(ring.own_full(group));
    if (!kPointer) return;
#pragma unroll
    for (int u = 0; u < 16; u++) store_shared(reads + 256 * u, Float2{});
  }
  DEVICE_MEMBER void fence() {
    fence_sums(sums);
    if (!kPointer) fence_sums(read);
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
        if (kPointer ? i - (int)ranges[i].back <= tile : ranges[i].first < 64 * tile + 64) last = i;
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
  DEVICE_MEMBER static void load(const DenseTiles& tiles, const DensePass (&passes)[kDenseGroups], int per_head,
      int tile, uint32_t to, uint32_t full) {
    long at = (long)passes[0].head * per_head + tile;
    int first = kPointer ? tile - (int)tiles.ranges[at].back : 0, bytes = kDensePair + kQueryEnds;
    bool kept[kDenseGroups];
#pragma unroll
    for (int g = 0; g < kDenseGroups; g++) {
      int own = passes[g].tile;
      kept[g] = kPointer && own <= tile && tile < own + passes[g].count && first <= own;
      bytes += kept[g] ? kWeights : 0;
    }
    barrier_arrive_expect(full, bytes);
    copy_bytes(to, tiles.queries + at * kDensePair, full, kDensePair);
    copy_bytes(to + kDensePair, tiles.ends + at, full, kQueryEnds);
#pragma unroll
    for (int g = 0; g < kDenseGroups; g++)
      if (kept[g])
        copy_bytes(Rows::Ring::weights(to, g),
            tiles.weights + weights_of(passes[g].turn, per_head, tile, passes[g].tile), full, kWeights);
  }
  // Adds do of the queries of stage n that point at the warp's 16 keys, in their order.
  DEVICE_MEMBER void add_reads(uint32_t n) const {
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int part = 0; part < 2; part++) {
      uint32_t pointer = load_shared_word(ring.ends(n) + kPointers + 4 * (32 * part + lane));
      bool mine = pointer >> 12 == 4 * (uint32_t)tile + threadIdx.x % 128 / 32;
      for (uint32_t open = ballot(mine); open; open &= open - 1) {
        int t = __builtin_ctz(open), one = shuffle((int)pointer, t);
        uint32_t to = reads + 256 * (one >> 8 & 15), at = ring.stage(n) + kDenseTile + 128 * (32 * part + t);
        uint32_t two = load_shared_word(at + 16 * (lane / 4 ^ t % 8) + 4 * (lane % 4));
        float scale = as_float((one & 255) << 23);
        Float2 sum = load_shared_two(to);
        store_shared(to, Float2{__builtin_fmaf(scale, low_f16(two), sum.x),
                             __builtin_fmaf(scale, high_f16(two), sum.y)});
      }
    }
  }
  // Scores of earlier queries, and of those that begin to read later, become kNever.
  DEVICE_MEMBER void hide(int i, uint32_t n, int half, float (&p)[16]) const {
#pragma unroll
    for (int c = 0; c < 8; c++) {
      int query = 32 * half + c / 2 * 8 + column() + c % 2, t = 64 * (tile + i) + query;
      int first = (int)load_shared_word(ring.ends(n) + kFirst + 4 * query);
#pragma unroll
      for (int r = 0; r < 2; r++) {
        float& x = p[c / 2 * 4 + 2 * r + c % 2];
        x = ((row + 2 * r > t) | (row + 2 * r < first)) ? kNever : x;
      }
    }
  }
  DEVICE_MEMBER void weigh(int i, uint32_t n, int half, float (&p)[16]) {
    if constexpr (kPointer) {
      if (half == 0) add_reads(n);
      take_weights(i, n, half, p);
    } else {
      if (i == 0 || tile + i >= pass.hidden) hide(i, n, half, p);
    }
    float base[2];
#pragma unroll
    for (int r = 0; r < 2; r++)
      base[r] = __builtin_fmaf(slope, (float)(row + 2 * r - 64 * (tile + i)), (float)(15 - pass.most));
#pragma unroll
    for (int c = 0; c < 4; c++) {
      Int4 two = load_shared(ring.ends(n) + (int)sizeof(QueryEnd) * (32 * half + 8 * c + column()));
      means[2 * c] = -narrow * as_float(two.y), means[2 * c + 1] = -narrow * as_float(two.w);
#pragma unroll
      for (int e = 0; e < 2; e++) {
        float shift = as_float(e ? two.z : two.x), factor = exp2_fast(shift + (float)(15 - pass.most));
#pragma unroll
        for (int r = 0; r < 2; r++) {
          float& x = p[4 * c + 2 * r + e];
          x = kPointer ? x * factor : exp2_fast(__builtin_fmaf(x, sharpness, shift + base[r]));
        }
      }
    }
  }
  // Loads the weights of half a tile. Where none counts, they were not loaded: they are zero.
  DEVICE_MEMBER void take_weights(int i, uint32_t n, int half, float (&w)[16]) const {
    int lane = threadIdx.x % 32, warp = threadIdx.x % 128 / 32;
    uint32_t from = Rows::Ring::weights(ring.stage(n), group), high[4][2], low[4];
#pragma unroll
    for (int c = 0; c < 4; c += 2) {
      uint32_t four[4];
      int matrix = (4 * half + c + lane / 16) * 8 + 2 * warp + lane / 8 % 2;
      load_matrices<true>(four, from + 128 * matrix + lane % 8 * 16);
      high[c][0] = four[0], high[c][1] = four[1], high[c + 1][0] = four[2], high[c + 1][1] = four[3];
    }
    load_matrices<true>(low, from + kWeightsHigh + ((4 * half + lane / 8) * 4 + warp) * 128 + lane % 8 * 16);
    Int4 back = load_shared(ring.ends(n) + kFirst);
    bool kept = i <= max(max(back.x, back.y), max(back.z, back.w));
#pragma unroll
    for (int j = 0; j < 16; j++) {  // the lowest byte is as the third
      int c = j / 4, r = j / 2 % 2, e = j % 2, third = 4 + 2 * e + r;
      w[j] = as_float(__nvvm_prmt(high[c][r], low[c], (2 * e + 1) << 12 | 2 * e << 8 | third << 4 | third));
      w[j] = kept ? w[j] : 0.0f;
    }
  }
  DEVICE_MEMBER void multiply(uint32_t n, int half, const float (&p)[16], float (&d)[16]) {
#pragma unroll
    for (int j = 0; j < 16; j++) d[j] = p[j] * __builtin_fmaf(d[j], narrow, means[j / 4 * 2 + j % 2]);
    SplitRows weights(p), slopes(d);
    wgmma_fence();
    if (!kPointer) weights.template multiply<true>(read, ring.half_tile(n, half, 1));
    slopes.template multiply<true>(sums, ring.half_tile(n, half, 0));
  }
  DEVICE_MEMBER void finish(BFloat* dqkv) {
    float unit =
        4 * a.query_unit * a.value_unit * a.scale * this->inverse_tau * power_of_two(a.value_planes - 10);
    float factor[2] = {power_of_two(pass.most), power_of_two(pass.most)};
#pragma unroll
    for (int j = 0; j < 32; j++) sums[j] *= unit, read[j] *= 0x1p-15f;
    this->write(dqkv, 1, sums, factor);
    if (!kPointer) this->write(dqkv, 2, read, factor);
    else write_reads(dqkv);
  }
  // Writes dv of the warp's keys: of a pointer's.
  DEVICE_MEMBER void write_reads(BFloat* dqkv) const {
    int lane = threadIdx.x % 32, first = 64 * tile + threadIdx.x % 128 / 32 * 16;
    for (int u = 0; u < 16 && first + u < a.seq; u++) {
      Float2 sum = load_shared_two(reads + 256 * u);
      BFloat* to = dqkv + ((h.row0 + first + u) * 3 + 2) * a.heads * 64 + h.head * 64;
      *(uint32_t*)(to + 2 * lane) = pack_bf16(sum.x, sum.y);
    }
  }
};

// Computes dk and dv. A warpgroup has 64 keys, a warp 16; they pass over tiles of 64 queries in the queries' order.
// Grid: as many blocks as fit.
KERNEL(attention float shared(kDenseShared), kDenseThreads, 1)
void dense_keys_wgmma(const __grid_constant__ Attention a, const __grid_constant__ DenseTiles tiles, BFloat* dqkv) {
  extern __shared__ char memory[];
  dense_block<DenseKeys<false>>(a, tiles, memory, dqkv);
}
KERNEL(attention float shared(kKeptShared), kDenseThreads, 1)
void dense_keys_wgmma_pointer(
    const __grid_constant__ Attention a, const __grid_constant__ DenseTiles tiles, BFloat* dqkv) {
  extern __shared__ char memory[];
  dense_block<DenseKeys<true>>(a, tiles, memory, dqkv);
}
