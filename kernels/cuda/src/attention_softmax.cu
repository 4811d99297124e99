// Softmax over all keys, forward, for heads of 64 channels: queries and values of any number of planes. A warp computes
// tiles of 16 queries and 16 keys with the matrix units. Nothing of the size of seq x seq is kept.
//
// An output is known where float32 tells its level for sure. The others are marked, and settled in float64.
#include "attention_softmax.cuh"
#include "block_sum.cuh"

// Writes the tiles of all heads' values, then those of keys, then those of queries. Rows beyond the sequence are 0. A
// thread writes a piece of four rows: what it loads for them is under way together. Nothing is taken yet of
// attend_softmax_wgmma's items. Grid: x tiles / 2, y heads, z 1 for values alone, or 3.
KERNEL(attention, 256)
void spread_heads(const __grid_constant__ Attention a, HalfTile* to, int* taken) {
  Head h(a, blockIdx.y);
  if (blockIdx.x + blockIdx.y + blockIdx.z + threadIdx.x == 0) *taken = 0;
  int piece = threadIdx.x % 8, first = blockIdx.x * 128 + threadIdx.x / 8, tiles = tiles_of(a);
  bool of_values = blockIdx.z == 0, of_keys = blockIdx.z == 1;
  const uint32_t* data = of_values ? h.values : of_keys ? h.keys : h.queries;
  int planes = of_values ? a.value_planes : of_keys ? 1 : a.query_planes;
  long plane_bytes = 4 * (of_values ? a.value_plane_words : a.query_plane_words);
  long row_bytes = 4 * (of_values ? a.value_words : a.words);
  const char* from = (const char*)data + 8 * h.head + piece;
  uint32_t bits[4][8];
#pragma unroll
  for (int p = 0; p < 8; p++) {
    if (p >= planes) break;
#pragma unroll
    for (int i = 0; i < 4; i++)
      bits[i][p] = load_byte(from + min(first + 32 * i, a.seq - 1) * row_bytes + p * plane_bytes);
  }
  to += ((long)blockIdx.z * gridDim.y + blockIdx.y) * tiles;
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const Int4 none = {};
    int t = first + 32 * i, row = t % 64;
    if (t >= 64 * tiles) break;
    *(Int4*)(to[t / 64].words + row * 32 + (piece ^ row % 8) * 4) =
        t < a.seq ? halved_integers(bits[i], planes) : none;
  }
}

// Where a lane's keys lie in a tile of 16, from 2 t on.
DEVICE int key_of(int i) { return i % 2 + i / 2 * 8; }

// Sets scores to kNever where the key comes after the query, or lies before the query's document. The scores are of
// queries from t on and keys from `from` on. Few tiles have such keys.
template <bool kSeparate> DEVICE void hide_keys(const Head& h, const TileStarts<kSeparate>& starts,
    const float (&distances)[2], int t, int from, float (&score)[2][4]) {
  if (from < t && (!kSeparate || from >= starts.latest)) return;
  int lane = threadIdx.x % 32;
#pragma unroll
  for (int r = 0; r < 2; r++) {
    float most = kSeparate ? (float)(t + lane / 4 + 8 * r - h.first(min(t + lane / 4 + 8 * r, h.a.seq - 1))) : 1e9f;
#pragma unroll
    for (int i = 0; i < 4; i++) {
      float distance = distances[r] - (float)key_of(i);
      if (distance < 0 || distance > most) score[r][i] = kNever;
    }
  }
}

// Copies a tile with the 128 threads of a block.
DEVICE void copy_tile(HalfTile& to, const HalfTile* from) {
#pragma unroll
  for (int i = 0; i < 4; i++) {
    int word = 4 * (threadIdx.x + 128 * i);
    copy_async<16>(shared_address(to.words + word), from->words + word);
  }
}

// Scores in float32: factor * product - slope * distance, where product is that of halved integers, or the number of
// channels that agree. Where the slope is a power of two no step is rounded, so that equal scores are equal.
template <bool kSigns> struct SoftmaxScores {
  float slope, factor, offsets[4];
  __device__ __forceinline__ SoftmaxScores(const Head& h)
      : slope((float)h.slope), factor(kSigns ? 2 * h.a.scale : 4 * h.a.scale * h.a.query_unit) {
#pragma unroll
    for (int i = 0; i < 4; i++) offsets[i] = __builtin_fmaf(slope, (float)key_of(i), kSigns ? -64 * h.a.scale : 0.0f);
  }
  // distances: from a lane's queries back to key 2 t of the tile.
  DEVICE_MEMBER void of(const float (&products)[2][4], const float (&distances)[2], float (&score)[2][4]) const {
#pragma unroll
    for (int r = 0; r < 2; r++)
#pragma unroll
      for (int i = 0; i < 4; i++)
        score[r][i] = __builtin_fmaf(
            products[i / 2][2 * r + i % 2], factor, __builtin_fmaf(-slope, distances[r], offsets[i]));
  }
};

// Queries of a warp as the left side of products with keys.
template <bool kSigns> struct SoftmaxQueries;

// Signs: the matrix unit for bits counts the channels that agree.
template <> struct SoftmaxQueries<true> {
  using Keys = uint32_t[64][2];
  uint32_t bits[2];
  float most[2];  // the largest q·k of any key, scaled

  DEVICE_MEMBER void load(const Head& h, const HalfTile*, int row0) {
#pragma unroll
    for (int r = 0; r < 2; r++) {
      uint32_t all[2];
      h.load_query(min(row0 + (int)threadIdx.x % 32 / 4 + 8 * r, h.a.seq - 1), all);
      bits[r] = lane_word(all), most[r] = 64 * h.a.scale;
    }
  }
  DEVICE_MEMBER static void copy_keys(const Head& h, const HalfTile*, int tile, Keys& to) {
    int row = threadIdx.x % 64, t = 64 * tile + row;
    if (threadIdx.x < 64)
      copy_async_or_zero<8>(shared_address(to[row]), h.keys + (long)min(t, h.a.seq - 1) * h.a.words + 2 * h.head,
          t < h.a.seq);
  }
  DEVICE_MEMBER void multiply(const Keys& keys, int part, float (&products)[2][4]) const {
    constexpr float kCounted = 0x1p23f;  // an integer added to its bits is added to its value
#pragma unroll
    for (int n = 0; n < 2; n++) {
      int agree[4];
#pragma unroll
      for (int j = 0; j < 4; j++) agree[j] = as_int(kCounted);
      mma_bits(agree, bits, lane_word(keys[part + 8 * n + threadIdx.x % 32 / 4]));
#pragma unroll
      for (int j = 0; j < 4; j++) products[n][j] = as_float(agree[j]) - kCounted;
    }
  }
};

// Levels: halved integers.
template <> struct SoftmaxQueries<false> {
  using Keys = HalfTile;
  uint32_t pieces[4][4];  // of 16 channels each
  float most[2];

  DEVICE_MEMBER void load(const Head& h, const HalfTile* queries, int row0) {
    int lane = threadIdx.x % 32, g = lane / 4;
    const uint32_t* words = queries[(long)h.index * tiles_of(h.a) + row0 / 64].words + row0 % 64 * 32;
    most[0] = most[1] = 0;
#pragma unroll
    for (int k = 0; k < 4; k++)
#pragma unroll
      for (int j = 0; j < 4; j++) {
        int row = g + j % 2 * 8, piece = 2 * k + j / 2;
        uint32_t two = load_word(words + row * 32 + (piece ^ row % 8) * 4 + lane % 4);
        pieces[k][j] = two;
        most[j % 2] += __builtin_fabsf(low_f16(two)) + __builtin_fabsf(high_f16(two));
      }
#pragma unroll
    for (int r = 0; r < 2; r++) {
#pragma unroll
      for (int mask = 1; mask < 4; mask *= 2) most[r] += shuffle_xor(most[r], mask);
      most[r] *= 2 * h.a.scale * h.a.query_unit;
    }
  }
  DEVICE_MEMBER static void copy_keys(const Head& h, const HalfTile* keys, int tile, Keys& to) {
    copy_tile(to, keys + (long)h.index * tiles_of(h.a) + tile);
  }
  DEVICE_MEMBER void multiply(const Keys& keys, int part, float (&products)[2][4]) const {
    int lane = threadIdx.x % 32;
    uint32_t at = shared_address(&keys) + (part + lane / 16 * 8 + lane % 8) * 128 + (lane / 8 % 2 ^ lane % 8) * 16;
#pragma unroll
    for (int n = 0; n < 2; n++)
#pragma unroll
      for (int j = 0; j < 4; j++) products[n][j] = 0;
#pragma unroll
    for (int k = 0; k < 4; k++) {
      uint32_t b[4];
      load_matrices<false>(b, at ^ k * 32);
      mma_f16(products[0], pieces[k], b[0], b[1]);
      mma_f16(products[1], pieces[k], b[2], b[3]);
    }
  }
};

// sums[c / 8] += weights * values, of 16 keys from `part` on.
DEVICE void add_values(float (&sums)[8][4], const HalfSplit& weights, const HalfTile& values, int part) {
  int lane = threadIdx.x % 32;
  uint32_t at = shared_address(&values) + (part + lane / 8 % 2 * 8 + lane % 8) * 128 + (lane / 16 ^ lane % 8) * 16;
#pragma unroll
  for (int c = 0; c < 8; c += 4) {
    uint32_t b[2][4];
#pragma unroll
    for (int i = 0; i < 2; i++) load_matrices<true>(b[i], at ^ (c / 2 + i) * 32);
#pragma unroll
    for (int i = 0; i < 4; i++) mma_f16(sums[c + i], weights.high, b[i / 2][i % 2 * 2], b[i / 2][i % 2 * 2 + 1]);
#pragma unroll
    for (int i = 0; i < 4; i++) mma_f16(sums[c + i], weights.low, b[i / 2][i % 2 * 2], b[i / 2][i % 2 * 2 + 1]);
  }
}

// What softmax reads, scaled: weights are 2^(score * log2 e - reference). A row's reference follows its best score, so
// that weights fit float16. Sums of a tile of 64 keys are added to those of all: the matrix unit does not round to
// nearest.
struct SoftmaxSums {
  float all[32] = {}, tile[8][4], total[2] = {}, tile_total[2];
  float reference[2] = {kNever, kNever};

  DEVICE_MEMBER void open_tile() {
#pragma unroll
    for (int c = 0; c < 8; c++)
#pragma unroll
      for (int j = 0; j < 4; j++) tile[c][j] = 0;
    tile_total[0] = tile_total[1] = 0;
  }
  DEVICE_MEMBER void close_tile() {
#pragma unroll
    for (int c = 0; c < 8; c++)
#pragma unroll
      for (int j = 0; j < 4; j++) all[4 * c + j] += tile[c][j];
    total[0] += tile_total[0], total[1] += tile_total[1];
  }
  // The best score of a lane's rows among 16 keys is top. Nearly always it changes nothing.
  DEVICE_MEMBER void follow(const float (&top)[2]) {
    constexpr float kRoom = 15.5f, kUsual = 8;  // powers of two: of the largest weight, and of one after a change
    if (!ballot(top[0] * kLog2E > reference[0] + kRoom || top[1] * kLog2E > reference[1] + kRoom)) return;
#pragma unroll
    for (int r = 0; r < 2; r++) {
      float best = max(top[r], shuffle_xor(top[r], 1));
      best = max(best, shuffle_xor(best, 2));
      float next = max(reference[r], __builtin_fmaf(best, kLog2E, -kUsual)), factor = exp2_fast(reference[r] - next);
      reference[r] = next;
      total[r] *= factor, tile_total[r] *= factor;
#pragma unroll
      for (int c = 0; c < 8; c++)
#pragma unroll
        for (int e = 2 * r; e < 2 * r + 2; e++) all[4 * c + e] *= factor, tile[c][e] *= factor;
    }
  }
  DEVICE_MEMBER void add(float (&score)[2][4], const HalfTile& values, int part) {
#pragma unroll
    for (int r = 0; r < 2; r++) {
#pragma unroll
      for (int i = 0; i < 4; i++) score[r][i] = exp2_fast(__builtin_fmaf(score[r][i], kLog2E, -reference[r]));
      tile_total[r] += (score[r][0] + score[r][1]) + (score[r][2] + score[r][3]);
    }
    add_values(tile, split_f16(score), values, part);
  }
};

// A warp has 16 queries, a block 64. They pass over tiles of 64 keys, from their own tile to the first, until all keys
// that are left weigh less than kLeft of the weights' sum: from distance n on that is at most exp(most - slope * n) /
// slope. Grid: x queries / 64, the last queries first, y heads.
template <bool kSigns, bool kSeparate> DEVICE void attend_softmax_tiles(const Attention& a, const HalfTile* queries,
    const HalfTile* keys, const HalfTile* values, uint32_t* out, int* popcounts, int* pointers, uint32_t* unsure,
    int bits, long plane_words) {
  __shared__ HalfTile held_values[2];
  __shared__ alignas(128) typename SoftmaxQueries<kSigns>::Keys held_keys[2];
  Head h(a, blockIdx.y);
  int lane = threadIdx.x % 32, tile = gridDim.x - 1 - blockIdx.x, row0 = 64 * tile + threadIdx.x / 32 * 16;
  values += (long)h.index * tiles_of(a);
  SoftmaxQueries<kSigns> q;
  q.load(h, queries, row0);
  SoftmaxScores<kSigns> scores(h);
  SoftmaxReach reach(scores.slope);
  SoftmaxSums sums;
  SoftmaxBest best;
  TileStarts<kSeparate> starts(h, row0);
  int needed = starts.earliest, end = kSeparate ? h.first(64 * tile) / 64 : 0, buffer = 0;
  auto copy = [&](int tile, int buffer) {
    q.copy_keys(h, keys, tile, held_keys[buffer]);
    copy_tile(held_values[buffer], values + tile);
    copies_commit();
  };
  copy(tile, 0);
  for (; tile >= end && block_any(64 * tile + 63 >= needed); tile--, buffer ^= 1) {
    if (tile > end) {
      copy(tile - 1, buffer ^ 1);
      copies_wait<1>();
    } else {
      copies_wait<0>();
    }
    block_sync();
    sums.open_tile();
    for (int part = 48; part >= 0; part -= 16) {
      int from = 64 * tile + part;
      if (from > row0 || from + 15 < needed) continue;
      float products[2][4], score[2][4], distances[2], top[2];
#pragma unroll
      for (int r = 0; r < 2; r++) distances[r] = (float)(row0 + lane / 4 + 8 * r - from - 2 * (lane % 4));
      q.multiply(held_keys[buffer], part, products);
      scores.of(products, distances, score);
      hide_keys(h, starts, distances, row0, from, score);
#pragma unroll
      for (int r = 0; r < 2; r++) top[r] = max(max(score[r][0], score[r][1]), max(score[r][2], score[r][3]));
      best.add(top, from);
      sums.follow(top);
      sums.add(score, held_values[buffer], part);
    }
    sums.close_tile();
    needed = 0x7fffffff;
#pragma unroll
    for (int r = 0; r < 2; r++) {
      int t = row0 + lane / 4 + 8 * r;
      int from = reach.first(t, q.most[r], sums.reference[r], sums.total[r]);
      if (t < a.seq) needed = min(needed, from);
    }
    needed = max(warp_min(needed), starts.earliest);
  }
  copies_wait<0>();
  finish<16>(h, best, sums.all, sums.total, row0, {out, popcounts, pointers, unsure, bits, plane_words});
}

// Channel c of what query t reads, in float64, in all threads of a block. values are the head's. Keys that weigh less
// than exp(-42) = 2^-60 together are less than the rounding of the sum.
DEVICE float read_channel(const Head& h, const HalfTile* values, int t, int c, int pointer) {
  __shared__ double room[2][8];
  int at[1] = {t};
  ExactQueries<1> query(h, at);
  double best = exact_score(query, pointer), total = 0, sum = 0;
  float most = (float)(h.a.products[0] - best);  // of any query
  int first = max(h.first(t), SoftmaxReach((float)h.slope).first(t, most + 42));
  for (int u = first + threadIdx.x; u <= t; u += 256) {
    double p = exponential(exact_score(query, u) - best);
    uint32_t two = load_word(values[u / 64].words + u % 64 * 32 + (c / 8 ^ u % 8) * 4 + c % 8 / 2);
    total += p;
    sum += p * (double)(h.a.value_unit * (2 * (c % 2 ? high_f16(two) : low_f16(two))));
  }
  total = block_sum(total, room[0]);
  return (float)(block_sum(sum, room[1]) / total);
}

// Settles the channels that are marked. A block has 128 queries, with two words of marks each. Grid: x queries / 128, y
// heads.
KERNEL(attention float, 256, 2)
void settle_softmax(const __grid_constant__ Attention a, const HalfTile* values, uint32_t* out, int* popcounts,
    const int* pointers, const uint32_t* unsure, int bits, long plane_words) {
  __shared__ uint32_t marks[256], open[8];
  Head h(a, blockIdx.y);
  values += (long)h.index * tiles_of(a);
  SoftmaxLevels levels(a, bits);
  int t0 = blockIdx.x * 128;
  uint32_t mine = t0 + (int)threadIdx.x / 2 < a.seq ? unsure[2 * h.query(t0) + threadIdx.x] : 0;
  marks[threadIdx.x] = mine;
  uint32_t marked = ballot(mine != 0);
  if (threadIdx.x % 32 == 0) open[threadIdx.x / 32] = marked;
  block_sync();
  for (int w = 0; w < 8; w++)
    for (uint32_t words = open[w]; words; words &= words - 1) {
      int i = 32 * w + __builtin_ctz(words), t = t0 + i / 2;
      for (uint32_t rest = marks[i]; rest; rest &= rest - 1) {
        int bit = __builtin_ctz(rest);
        int level = levels.level(read_channel(h, values, t, i % 2 * 32 + bit, pointers[h.query(t)]));
        if (threadIdx.x == 0) levels.add(h, level, t, i % 2, bit, out, popcounts, plane_words);
      }
    }
}

#define ATTEND_SOFTMAX(name, kSigns, kSeparate)                                                                   \
  KERNEL(attention float, 128, 3)                                                                                 \
  void attend_softmax_##name(const __grid_constant__ Attention a, const HalfTile* queries, const HalfTile* keys,  \
      const HalfTile* values, uint32_t* out, int* popcounts, int* pointers, uint32_t* unsure, int bits,           \
      long plane_words) {                                                                                         \
    attend_softmax_tiles<kSigns, kSeparate>(                                                                      \
        a, queries, keys, values, out, popcounts, pointers, unsure, bits, plane_words);                           \
  }
ATTEND_SOFTMAX(64, true, false)
ATTEND_SOFTMAX(64_separate, true, true)
ATTEND_SOFTMAX(64_query_levels, false, false)
ATTEND_SOFTMAX(64_query_levels_separate, false, true)
