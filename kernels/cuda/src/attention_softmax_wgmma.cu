// Softmax over all keys, forward, on Hopper's warpgroup matrix units. See attention_softmax.cu, which has the same for
// other matrix units.
#include "attention_softmax.cuh"
#include "wgmma_f16.cuh"

// Blocks stay: each takes items of work, the next kSoftmaxGroups tiles of a head's queries, until there are none. Each
// warpgroup has one of these tiles, and passes over the tiles of keys and values that a warp, the producer, brings into
// a ring, from the item's last to the first. How many are needed shows only on the way: the producer is two tiles ahead
// of the first warpgroup, and goes to the next item when all are done with this one.
constexpr int kHalfTile = 64 * 64 * 2;  // bytes
constexpr int kLastItem = 0x7fffffff;
constexpr int kSoftmaxGroups = 3, kSoftmaxStages = 8, kSoftmaxThreads = 128 * (kSoftmaxGroups + 1);
constexpr int kSoftmaxBuffers = 2 * kSoftmaxGroups + kSoftmaxStages;
constexpr int kSoftmaxTiles = (2 * kSoftmaxGroups + 2 * kSoftmaxStages) * kHalfTile;
constexpr int kSoftmaxShared = 1024 + kSoftmaxTiles + 32 * kSoftmaxBuffers + 8 * kSoftmaxGroups;

// What a warpgroup is told of an item.
struct alignas(16) SoftmaxPass {
  int head, tile;  // head: -1 if there is no item left. tile: of its queries; negative if there is none
  int top;         // the first tile that comes
  int none;
};
static_assert(sizeof(SoftmaxPass) == 16);

// A block's shared memory: each warpgroup's queries, of this item and the next; stages of keys and values; for each of
// these two barriers and a note, a SoftmaxPass or the item that a stage is of; the tile that each warpgroup is at, and
// how many items it is done with. Stage n is that of the n-th tile that the block loads.
struct SoftmaxRing {
  uint32_t base, barriers, notes, progress;
  __device__ __forceinline__ explicit SoftmaxRing(uint32_t memory)
      : base((memory + 1023) / 1024 * 1024), barriers(base + kSoftmaxTiles), notes(barriers + 16 * kSoftmaxBuffers),
        progress(notes + 16 * kSoftmaxBuffers) {}
  DEVICE_MEMBER static int own(int group, uint32_t item) { return 2 * group + item % 2; }  // a buffer's index
  DEVICE_MEMBER static int stage(uint32_t n) { return 2 * kSoftmaxGroups + n % kSoftmaxStages; }
  DEVICE_MEMBER uint32_t queries(int group, uint32_t item) const { return base + own(group, item) * kHalfTile; }
  DEVICE_MEMBER uint32_t keys(uint32_t n) const {
    return base + (2 * kSoftmaxGroups + n % kSoftmaxStages * 2) * kHalfTile;
  }
  DEVICE_MEMBER uint32_t values(uint32_t n) const { return keys(n) + kHalfTile; }
  DEVICE_MEMBER uint32_t full(int buffer) const { return barriers + 16 * buffer; }
  DEVICE_MEMBER uint32_t empty(int buffer) const { return full(buffer) + 8; }
  DEVICE_MEMBER uint32_t note(int buffer) const { return notes + 16 * buffer; }
  DEVICE_MEMBER uint32_t reached(int group) const { return progress + 8 * group; }
  DEVICE_MEMBER uint32_t done(int group) const { return progress + 8 * group + 4; }

  DEVICE_MEMBER void init() const {
#pragma unroll
    for (int i = 0; i < kSoftmaxBuffers; i++) {
      barrier_init(full(i), 1);
      barrier_init(empty(i), i < 2 * kSoftmaxGroups ? 4 : 4 * kSoftmaxGroups);  // warps
    }
#pragma unroll
    for (int g = 0; g < kSoftmaxGroups; g++) store_shared_word(reached(g), 0), store_shared_word(done(g), 0);
    barrier_init_fence();
  }
  DEVICE_MEMBER void wait(uint32_t n) const { barrier_wait(full(stage(n)), n / kSoftmaxStages % 2); }
  // The warp is done with a buffer.
  DEVICE_MEMBER void release(int buffer) const {
    warp_sync();
    if (threadIdx.x % 32 == 0) barrier_arrive(empty(buffer));
  }
  // A warpgroup tells how far it is, for the producer to poll.
  DEVICE_MEMBER static void tell(uint32_t word, uint32_t value) {
    if (threadIdx.x % 128 == 0) store_shared_word(word, value);
  }
  // A warpgroup needs nothing more for an item, the k-th of the block.
  DEVICE_MEMBER void close(int group, int k) const {
    tell(done(group), k + 1);
    release(own(group, k));
  }
  // Starts the products of queries with half of tile n of keys. The half with the later keys, 1, comes first.
  DEVICE_MEMBER void multiply(float (&products)[16], uint32_t queries, uint32_t n, int half) const {
    if (half == 1) wait(n);
    wgmma_fence();
    multiply_rows(products, described(queries), described(keys(n)) + half * 256);
    wgmma_commit();
  }
};

// A lane's queries, rows g and g + 8 of a warp's 16, as they pass over keys.
struct SoftmaxRows {
  static constexpr float kRoom = 15.5f, kUsual = 8;  // powers of two: of the largest weight, and of one after a change
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
  // Scores of later keys, and of those before the first, become kNever. key: a lane's first.
  DEVICE_MEMBER void hide(int key, float (&x)[16]) const {
#pragma unroll
    for (int j = 0; j < 16; j++) {
      int u = key + j / 4 * 8 + j % 2, r = j / 2 % 2;
      x[j] = ((u > row + 8 * r) | (u < first[r])) ? kNever : x[j];
    }
  }
  // A row's reference follows its best score, so that weights fit float16. top: the best of a lane's keys.
  DEVICE_MEMBER void follow(const float (&top)[2], float (&change)[2]) {
#pragma unroll
    for (int r = 0; r < 2; r++) {
      float score = max(top[r], shuffle_xor(top[r], 1));
      score = max(score, shuffle_xor(score, 2));
      float next = max(reference[r], __builtin_fmaf(score, kLog2E, -kUsual));
      change[r] = exp2_fast(reference[r] - next);
      reference[r] = next, total[r] *= change[r];
    }
  }
  // Turns products of halved integers into scores of keys from `from` on, but for what a row has in common, and those
  // into weights: 2^(score * log2 e - reference). Says whether references changed, which is rare, and then what the
  // sums are to be multiplied by.
  DEVICE_MEMBER bool weigh(float (&x)[16], int from, float slope, float factor, float (&change)[2]) {
    int key = from + 2 * ((int)threadIdx.x % 4);
    float top[2], common[2];
#pragma unroll
    for (int r = 0; r < 2; r++) common[r] = -slope * (float)(row + 8 * r - from);
#pragma unroll
    for (int j = 0; j < 16; j++) x[j] = __builtin_fmaf(x[j], factor, slope * (float)(key - from + j / 4 * 8 + j % 2));
    if (from + 31 > row - (int)threadIdx.x % 32 / 4 || from < latest) hide(key, x);
#pragma unroll
    for (int r = 0; r < 2; r++) {
      top[r] = x[2 * r];
#pragma unroll
      for (int j = 1; j < 8; j++) top[r] = max(top[r], x[j / 2 * 4 + 2 * r + j % 2]);
      top[r] += common[r];
    }
    best.add(top, from);
    bool changed =
        ballot(top[0] * kLog2E > reference[0] + kRoom || top[1] * kLog2E > reference[1] + kRoom) != 0;
    if (changed) follow(top, change);
#pragma unroll
    for (int r = 0; r < 2; r++) {
      float sum = 0, shift = __builtin_fmaf(common[r], kLog2E, -reference[r]);
#pragma unroll
      for (int c = 0; c < 4; c++) {
        float &u = x[4 * c + 2 * r], &v = x[4 * c + 2 * r + 1];
        u = exp2_fast(__builtin_fmaf(u, kLog2E, shift));
        v = exp2_fast(__builtin_fmaf(v, kLog2E, shift));
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
  DEVICE_MEMBER int needed(int seq, const SoftmaxReach& reach) const {
    int least = 0x7fffffff;
#pragma unroll
    for (int r = 0; r < 2; r++) {
      int from = max(reach.first(row + 8 * r, most[r], reference[r], total[r]), first[r]);
      if (row + 8 * r < seq) least = min(least, from);
    }
    return warp_min(least);
  }
};

// What a warpgroup does with half a tile of keys. Products with the next half are under way while scores become
// weights. i counts the tiles of this pass, n those of the block.
template <int kHalf> DEVICE void step(const SoftmaxRing& ring, SoftmaxRows& rows, uint32_t queries, int from, int i,
    uint32_t n, uint32_t next, float slope, float factor, float (&x)[16], float (&next_x)[16]) {
  constexpr bool kFirst = kHalf == 1;  // the half with the later keys
  float change[2];
  bool changed = rows.weigh(x, from + 32 * kHalf, slope, factor, change);
  keep_order(x[0]);
  wgmma_wait<0>();  // for the products of the half before
  fence_sums(rows.tile);
  ring.multiply(next_x, queries, next, kFirst ? 0 : 1);
  keep_order(x[1]);
  if (kFirst) {
#pragma unroll
    for (int j = 0; j < 32; j++) rows.all[j] += rows.tile[j];
    if (i > 0) ring.release(ring.stage(n - 1));
  }
  if (changed) {
    rows.scale(rows.all, change);
    if (!kFirst) rows.scale(rows.tile, change);
  }
  fence_sums(rows.tile);
  SplitRows weights(x);
  wgmma_fence();
  weights.multiply<!kFirst>(rows.tile, described(ring.values(n)) + kHalf * 256);
  wgmma_commit();
  wgmma_wait<1>();
  fence_sums(next_x);
}

// Passes over up to `count` tiles, from n and `tile` on, until no warp of the warpgroup needs what is left. Returns the
// n of what comes then.
DEVICE uint32_t pass_over_keys(const SoftmaxRing& ring, SoftmaxRows& rows, const Head& h, uint32_t queries, int group,
    int tile, uint32_t n, int count) {
  float slope = (float)h.slope, factor = 4 * h.a.scale * h.a.query_unit;
  SoftmaxReach reach(slope);
  float x0[16], x1[16];
  n = (uint32_t)warp_uniform((int)n), queries = (uint32_t)warp_uniform((int)queries);
  ring.multiply(x1, queries, n, 1);
  wgmma_wait<0>();
  fence_sums(x1);
  int i = 0;
  for (int needed = 0; i < count && warp_uniform(group_any(1 + group, 64 * (tile - i) + 63 >= needed)); i++, n++) {
    ring.tell(ring.reached(group), n);
    step<1>(ring, rows, queries, 64 * (tile - i), i, n, n, slope, factor, x1, x0);
    step<0>(ring, rows, queries, 64 * (tile - i), i, n, i + 1 < count ? n + 1 : n, slope, factor, x0, x1);
    needed = rows.needed(h.a.seq, reach);
  }
  wgmma_wait<0>();
  fence_sums(rows.tile);
#pragma unroll
  for (int j = 0; j < 32; j++) rows.all[j] += rows.tile[j];
  ring.release(ring.stage(n - 1));
  return n;
}

DEVICE void consume(const Attention& a, const SoftmaxRing& ring, int group, const SoftmaxOutput& to) {
  uint32_t n = 0;
  for (int k = 0;; k++) {
    int own = ring.own(group, k);
    barrier_wait(ring.full(own), k / 2 % 2);
    Int4 note = load_shared(ring.note(own));
    SoftmaxPass pass{warp_uniform(note.x), warp_uniform(note.y), warp_uniform(note.z)};
    if (pass.head < 0) return;
    if (pass.tile >= 0) {
      Head h(a, pass.head);
      int row0 = 64 * pass.tile + threadIdx.x % 128 / 32 * 16;
      SoftmaxRows rows(h, row0, ring.queries(group, k));
      for (int i = pass.tile; i < pass.top; i++, n++) ring.wait(n), ring.release(ring.stage(n));
      int count = warp_uniform(pass.tile - h.first(64 * pass.tile) / 64 + 1);
      n = pass_over_keys(ring, rows, h, ring.queries(group, k), group, pass.tile, n, count);
      ring.close(group, k);
      finish<32>(h, rows.best, rows.all, rows.total, row0, to);
    } else {
      ring.close(group, k);
    }
    for (;; n++) {  // what others needed
      ring.wait(n);
      if (warp_uniform((int)load_shared_word(ring.note(ring.stage(n)))) != k) break;
      ring.release(ring.stage(n));
    }
  }
}

// Waits until tile n of item k is due, two tiles ahead of the first warpgroup, or at once. False if no warpgroup needs
// it.
DEVICE bool due(const SoftmaxRing& ring, int k, uint32_t n, bool at_once) {
  for (;;) {
    int reached = 0, done = kLastItem;
#pragma unroll
    for (int g = 0; g < kSoftmaxGroups; g++) {
      reached = max(reached, (int)poll_shared_word(ring.reached(g)));
      done = min(done, (int)poll_shared_word(ring.done(g)));
    }
    if (done > k) return false;
    if (at_once || (int)n <= reached + 2) return true;
    sleep_nanoseconds(50);
  }
}

// Tells each warpgroup what it does for item k, and brings its queries: tiles from `from` on, of which -1 and -2 are
// none. tile0: the head's first tile.
DEVICE void load_queries(
    const SoftmaxRing& ring, int k, const HalfTile* queries, long tile0, int head, int from, int top, bool over) {
#pragma unroll
  for (int g = 0; g < kSoftmaxGroups; g++) {
    int own = ring.own(g, k), tile = from + g;
    barrier_wait(ring.empty(own), k / 2 % 2 ^ 1);
    if (threadIdx.x % 32 == 0) {
      store_shared(ring.note(own), Int4{over ? -1 : head, tile, top, 0});
      if (over) {
        barrier_arrive(ring.full(own));
      } else {
        barrier_arrive_expect(ring.full(own), kHalfTile);
        copy_bytes(ring.queries(g, k), queries + tile0 + max(tile, 0), ring.full(own), kHalfTile);
      }
    }
  }
}

// The warp that loads. Long items come first: slopes fall from head to head, and the last queries read most. When no
// item is left, warpgroups are told so, and by a last stage those that wait for the end of their item's tiles.
DEVICE void produce(const Attention& a, const SoftmaxRing& ring, const HalfTile* queries, const HalfTile* keys,
    const HalfTile* values, int* taken) {
  int lane = threadIdx.x % 32, per_head = tiles_of(a), groups = ceil_div(per_head, kSoftmaxGroups);
  int items = groups * a.batch * a.heads, coming = 0;
  uint32_t n = 0;
  if (lane == 0) coming = take(taken);
  for (int k = 0;; k++) {
    int item = shuffle(coming, 0), sequence = item / groups % a.batch;
    int head = sequence * a.heads + a.heads - 1 - item / groups / a.batch;
    int top = per_head - 1 - item % groups * kSoftmaxGroups, from = top - kSoftmaxGroups + 1;
    bool over = item >= items;
    if (lane == 0 && !over) coming = take(taken);
    long tile0 = (long)head * per_head;
    load_queries(ring, k, queries, tile0, head, from, top, over);
    int last = over ? top : Head(a, head).first(64 * max(from, 0)) / 64;
    uint32_t first = n;
    for (int tile = top; tile >= last; tile--, n++) {
      int stage = ring.stage(n);
      barrier_wait(ring.empty(stage), n / kSoftmaxStages % 2 ^ 1);
      if (!over && !due(ring, k, n, n <= first + kSoftmaxGroups)) break;
      if (lane == 0) {
        store_shared_word(ring.note(stage), over ? -1 : k);
        if (over) {
          barrier_arrive(ring.full(stage));
        } else {
          barrier_arrive_expect(ring.full(stage), 2 * kHalfTile);
          copy_bytes(ring.keys(n), keys + tile0 + tile, ring.full(stage), kHalfTile);
          copy_bytes(ring.values(n), values + tile0 + tile, ring.full(stage), kHalfTile);
        }
      }
    }
    if (over) break;
  }
}

// Grid: as many blocks as fit.
KERNEL(attention float shared(kSoftmaxShared), kSoftmaxThreads, 1)
void attend_softmax_wgmma(const __grid_constant__ Attention a, const HalfTile* queries, const HalfTile* keys,
    const HalfTile* values, int* taken, uint32_t* out, int* popcounts, int* pointers, uint32_t* unsure, int bits,
    long plane_words) {
  extern __shared__ char memory[];
  SoftmaxRing ring(shared_address(memory));
  if (threadIdx.x == 0) ring.init();
  block_sync();
  int group = warp_uniform(threadIdx.x / 128);
  if (group == kSoftmaxGroups) {
    give_registers<32>();
    if (threadIdx.x / 32 == 4 * kSoftmaxGroups) produce(a, ring, queries, keys, values, taken);
  } else {
    take_registers<160>();
    consume(a, ring, group, {out, popcounts, pointers, unsure, bits, plane_words});
  }
}
