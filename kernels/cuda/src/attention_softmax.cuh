// Softmax over all keys, forward, for heads of 64 channels: what kernels for different matrix units share.
#pragma once
#include "attention_tile.cuh"

// 64 rows of 64 integers, halved, as float16: odd integers up to 255 are exact. The eight pieces of 16 bytes of a row
// lie in another order, piece p at p ^ row % 8, so that matrices are read without bank conflicts.
struct alignas(128) HalfTile {
  uint32_t words[64 * 32];
};

// Where results go.
struct SoftmaxOutput {
  uint32_t* out;
  int *popcounts, *pointers;
  uint32_t* unsure;  // marks of channels to settle: two words of each query of each head
  int bits;
  long plane_words;
};

// Tiles of a head. Those of one tensor lie together, heads of all sequences one after the other.
DEVICE int tiles_of(const Attention& a) { return ceil_div(a.seq, 64); }

// The best keys of a lane's rows, g and g + 8: the part of a tile that has the best score, the earliest of equal ones,
// and the best score of other parts.
struct SoftmaxBest {
  float score[2] = {kNever, kNever}, next[2] = {kNever, kNever};
  int part[2] = {};

  DEVICE_MEMBER void add(const float (&top)[2], int from) {
#pragma unroll
    for (int r = 0; r < 2; r++) {
      next[r] = max(next[r], min(score[r], top[r]));
      if (top[r] >= score[r]) score[r] = top[r], part[r] = from;
    }
  }
};

// Queries whose scores are wanted in float64. All loads are under way together.
template <int kRows> struct ExactQueries {
  const Head& h;
  int at[kRows];
  Int2 planes[kRows][8] = {};  // else a loop around it would keep registers for those that are not loaded

  DEVICE_MEMBER ExactQueries(const Head& h, const int (&t)[kRows]) : h(h) {
#pragma unroll
    for (int r = 0; r < kRows; r++) at[r] = t[r];
#pragma unroll
    for (int p = 0; p < 8; p++) {
      if (p >= h.a.query_planes) break;
#pragma unroll
      for (int r = 0; r < kRows; r++)
        planes[r][p] = load_two(h.queries + p * h.a.query_plane_words + at[r] * h.a.words + 2 * h.head);
    }
  }
  // score[r][i] becomes that of query r and key keys[r][i].
  template <int kKeys> DEVICE_MEMBER void score(const int (&keys)[kRows][kKeys], double (&score)[kRows][kKeys]) const {
    Int2 bits[kRows][kKeys];
    int differ[kRows][kKeys] = {};
#pragma unroll
    for (int r = 0; r < kRows; r++)
#pragma unroll
      for (int i = 0; i < kKeys; i++) bits[r][i] = load_two(h.keys + keys[r][i] * h.a.words + 2 * h.head);
#pragma unroll
    for (int p = 0; p < 8; p++) {
      if (p >= h.a.query_planes) break;
#pragma unroll
      for (int r = 0; r < kRows; r++)
#pragma unroll
        for (int i = 0; i < kKeys; i++) {
          Int2 q = planes[r][p], k = bits[r][i];
          differ[r][i] += (popcount((uint32_t)(q.x ^ k.x)) + popcount((uint32_t)(q.y ^ k.y))) << p;
        }
    }
#pragma unroll
    for (int r = 0; r < kRows; r++)
#pragma unroll
      for (int i = 0; i < kKeys; i++) score[r][i] = h.score(h.a.products, differ[r][i], at[r] - keys[r][i]);
  }
};

// The score of a query and key u in float64.
DEVICE double exact_score(const ExactQueries<1>& query, int u) {
  int keys[1][1] = {{u}};
  double score[1][1];
  query.score(keys, score);
  return score[0][0];
}

// What the four lanes know that have a row's keys becomes that of all its keys. See SoftmaxBest.
DEVICE void best_of_four(float& top, float& next, int& part) {
#pragma unroll
  for (int mask = 1; mask < 4; mask *= 2) {
    float s = shuffle_xor(top, mask), other = shuffle_xor(next, mask);
    int u = shuffle_xor(part, mask);
    next = max(max(next, other), min(top, s));
    if (s > top || (s == top && u < part)) top = s, part = u;
  }
}

// The pointers of queries g and g + 8, in all four lanes that have their keys: the first of the best. A part has kKeys
// keys, of which lane t has 8 c + 2 t and 8 c + 2 t + 1. Those of the best lane are scored in float64, and those of
// each lane with an equal score in the same part: if scores in float32 are exact, these are all that matter. If they
// are not, and keys of two lanes or parts are about equal, all keys are scored.
template <int kKeys>
DEVICE void find_pointers(const Head& h, const SoftmaxBest& best, int row0, bool exact, int (&pointers)[2]) {
  constexpr float kClose = 1e-5f;
  constexpr int kEach = kKeys / 16;
  int lane = threadIdx.x % 32, part[2], group[2], first[2], at[2];
  uint32_t equal[2];  // lanes of four
  double highest[2] = {-1e300, -1e300};
  bool close[2];
#pragma unroll
  for (int r = 0; r < 2; r++) {
    float top = best.score[r], next = best.next[r];
    part[r] = best.part[r];
    best_of_four(top, next, part[r]);
    close[r] = !exact && !(top - next > kClose);
    equal[r] = ballot(best.score[r] == top && best.part[r] == part[r]) >> lane / 4 * 4 & 15;
    at[r] = min(row0 + lane / 4 + 8 * r, h.a.seq - 1);
    first[r] = h.first(at[r]), group[r] = part[r], pointers[r] = at[r];
  }
  ExactQueries<2> queries(h, at);
  do {
    int keys[2][kEach];
    double score[2][kEach];
#pragma unroll
    for (int r = 0; r < 2; r++) {
      if (equal[r]) group[r] = part[r] + 2 * __builtin_ctz(equal[r]);
      equal[r] &= equal[r] - 1;
#pragma unroll
      for (int i = 0; i < kEach; i++) keys[r][i] = min(group[r] + (lane % 4 + 4 * i) / 2 * 8 + lane % 2, at[r]);
    }
    queries.score(keys, score);
#pragma unroll
    for (int r = 0; r < 2; r++)
#pragma unroll
      for (int i = 0; i < kEach; i++) {
        int u = keys[r][i];
        double s = score[r][i];
        if (u >= first[r] && (s > highest[r] || (s == highest[r] && u < pointers[r]))) highest[r] = s, pointers[r] = u;
      }
  } while (ballot((equal[0] | equal[1]) != 0));
#pragma unroll
  for (int r = 0; r < 2; r++) {
#pragma unroll
    for (int mask = 1; mask < 4; mask *= 2) {
      double s = shuffle_xor(highest[r], mask);
      int u = shuffle_xor(pointers[r], mask);
      if (s > highest[r] || (s == highest[r] && u < pointers[r])) highest[r] = s, pointers[r] = u;
    }
    bool inside = row0 + lane / 4 + 8 * r < h.a.seq;
    for (uint32_t open = ballot(inside && close[r] && lane % 4 == 0); open; open &= open - 1) {
      int from = __builtin_ctz(open), query[1] = {row0 + from / 4 + 8 * r};
      ExactQueries<1> one(h, query);
      int found = first_best(
          shuffle(first[r], from), query[0], [&](int u) { return exact_score(one, u); }, highest[r]);
      if (lane / 4 == from / 4) pointers[r] = found;
    }
  }
}

// The levels of what a query reads, and which of them float32 cannot tell.
struct SoftmaxLevels {
  MidRise mid_rise;
  int bits;
  float unit, largest;  // of a halved integer; the largest value
  __device__ __forceinline__ SoftmaxLevels(const Attention& a, int bits)
      : mid_rise(bits),
        bits(bits),
        unit(2 * a.value_unit),
        largest(a.value_unit * (float)((1 << a.value_planes) - 1)) {}
  static constexpr float kLeft = 1e-6f;  // part of the weights' sum that may be left out

  // The largest error of what query t reads, in float32. Parts of the largest value: sums of 64 keys by the matrix unit
  // 8e-6, which is 17 addends, each cut at 2^-24 of the largest, in 8 products; weights 4e-6; keys that are left out
  // 2e-6; three additions for each tile.
  DEVICE_MEMBER float error(int t) const {
    return largest * __builtin_fmaf((float)(t / 64 + 1), 3 * 0x1p-24f, 1.4e-5f);
  }

  DEVICE_MEMBER int level(float x) const { return bits == 1 ? x >= 0 : mid_rise.level(x); }
  // Writes the level of a channel, bit `bit` of word w, whose bits are 0.
  DEVICE_MEMBER void add(
      const Head& h, int level, int t, int w, int bit, uint32_t* out, int* popcounts, long plane_words) const {
    uint32_t* to = out + (h.row0 + t) * h.a.out_words + 2 * h.head + w;
    for (int b = 0; b < bits; b++)
      if (level >> b & 1) or_to(to + b * plane_words, 1u << bit);
    add_to(popcounts + h.row0 + t, level);
  }
};

DEVICE uint32_t or_of_four(uint32_t x) {
#pragma unroll
  for (int mask = 1; mask < 4; mask *= 2) x |= (uint32_t)shuffle_xor((int)x, mask);
  return x;
}

// The levels of a lane's eight channels of a word, and whether they are open, which means not sure: byte c of even and
// odd ones is that of channel 8 c + 2 t and 8 c + 2 t + 1 of lane t.
struct EightLevels {
  uint32_t levels[2] = {}, open[2] = {};

  // kSigns: levels of one bit.
  template <bool kSigns> DEVICE_MEMBER void find(
      const MidRise& rule, const float (&sums)[32], int w, int r, float scale, float error) {
#pragma unroll
    for (int i = 0; i < 8; i++) {
      float x = sums[16 * w + i / 2 * 4 + 2 * r + i % 2] * scale;
      float border = rule.border(x), off = kSigns ? x : rule.off(x, border);
      bool sure = __builtin_fabsf(off) > error;
      uint32_t level = kSigns ? off > 0 : (uint32_t)rule.beside(border, off > 0);
      levels[i % 2] |= sure ? level << 8 * (i / 2) : 0;
      open[i % 2] |= (uint32_t)!sure << 8 * (i / 2);
    }
  }
  // Bit b of all channels of the word, in all four lanes.
  DEVICE_MEMBER static uint32_t word(const uint32_t (&bytes)[2], int b) {
    uint32_t even = bytes[0] >> b & 0x01010101u, odd = bytes[1] >> b & 0x01010101u;
    return or_of_four((even | odd << 1) << 2 * (threadIdx.x % 4));
  }
};

// Writes what query g + 8 r reads. Channels that are not sure become 0, and are marked.
DEVICE void write_levels(const Head& h, const SoftmaxLevels& levels, const float (&sums)[32], float total, int r, int t,
    const SoftmaxOutput& to) {
  float scale = levels.unit / total, error = levels.error(t);
  bool writes = t < h.a.seq && threadIdx.x % 4 == 0;
  EightLevels words[2];
#pragma unroll
  for (int w = 0; w < 2; w++) {
    if (levels.bits == 1) words[w].find<true>(levels.mid_rise, sums, w, r, scale, error);
    else words[w].find<false>(levels.mid_rise, sums, w, r, scale, error);
  }
  Int2 open = {(int)words[0].word(words[0].open, 0), (int)words[1].word(words[1].open, 0)};
  if (writes) *(Int2*)(to.unsure + 2 * h.query(t)) = open;
  uint32_t* row = to.out + (h.row0 + t) * h.a.out_words + 2 * h.head;
  int count = 0;
  for (int b = 0; b < levels.bits; b++) {
    Int2 two = {(int)words[0].word(words[0].levels, b), (int)words[1].word(words[1].levels, b)};
    if (writes) *(Int2*)(row + b * to.plane_words) = two;
    count += (popcount((uint32_t)two.x) + popcount((uint32_t)two.y)) << b;
  }
  if (writes) add_to(to.popcounts + h.row0 + t, count);
}

// How far back queries of a head need keys. If none has a score above 0, those from distance n on weigh at most
// exp(-slope * n) / slope together.
struct SoftmaxReach {
  float inverse, whole;  // of the slope; what all keys weigh, as a logarithm
  __device__ __forceinline__ explicit SoftmaxReach(float slope)
      : inverse(1 / slope), whole(-log2_fast(slope) * (1 / kLog2E)) {}
  // The first key that query t needs where keys may be left out that weigh exp(-spare) together.
  DEVICE_MEMBER int first(int t, float spare) const {
    return (int)max((float)t - max((spare + whole) * inverse, 0.0f) - 1, 0.0f);
  }
  // The same for a lane's query t, whose scores are at most `most` without distance. Weights are 2^(score * log2 e -
  // reference); total is the lane's part of their sum.
  DEVICE_MEMBER int first(int t, float most, float reference, float total) const {
    total += shuffle_xor(total, 1);
    total += shuffle_xor(total, 2);
    return first(t, most - (reference + log2_fast(SoftmaxLevels::kLeft * total)) * (1 / kLog2E));
  }
};

// Writes what a lane's rows read, and their pointers.
template <int kKeys> DEVICE void finish(const Head& h, const SoftmaxBest& best, const float (&sums)[32],
    const float (&totals)[2], int row0, const SoftmaxOutput& to) {
  SoftmaxLevels levels(h.a, to.bits);
  int lane = threadIdx.x % 32;
#pragma unroll
  for (int r = 0; r < 2; r++) {
    float total = totals[r];
#pragma unroll
    for (int mask = 1; mask < 4; mask *= 2) total += shuffle_xor(total, mask);
    write_levels(h, levels, sums, total, r, row0 + lane / 4 + 8 * r, to);
  }
  float slope = (float)h.slope;
  bool exact = (double)slope == h.slope && (as_int(slope) & 0x7fffff) == 0;  // a power of two: see SoftmaxScores
  int found[2];
  find_pointers<kKeys>(h, best, row0, exact, found);
#pragma unroll
  for (int r = 0; r < 2; r++) {
    int t = row0 + lane / 4 + 8 * r;
    if (t < h.a.seq && lane % 4 == 0) to.pointers[h.query(t)] = found[r];
  }
}
