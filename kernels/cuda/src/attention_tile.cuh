// Scores of 16 queries and 16 keys at a time, for kernels that pass over all pairs of queries and keys. Heads have 64
// channels, sequences a multiple of 4 tokens. A warp computes such a tile with the matrix units. Lane 4 g + t has
// queries g and g + 8, and keys 4 t ... 4 t + 3, which share one block of random numbers.
#pragma once
#include "attention.cuh"
#include "mma.cuh"

constexpr float kLog2E = 1.4426950408889634f;
constexpr float kNever = -1e30f;  // the score of a key that comes after its query
DEVICE float exp2_fast(float x) { return __nvvm_ex2_approx_ftz_f(x); }
DEVICE float log2_fast(float x) { return __nvvm_lg2_approx_ftz_f(x); }

// d (16 x 8) += popcount(a & b) over 128 bits, of which each lane of four has a word.
DEVICE void mma_bits(int (&d)[4], const uint32_t (&a)[2], uint32_t b) {
  asm volatile(
      "mma.sync.aligned.m16n8k128.row.col.s32.b1.b1.s32.and.popc {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(b));
}

constexpr float kMostNoise = 22.9f;  // no more than that comes of a word: -ln(-ln(1 - 2^-33)) = 22.88

// A random word's value of the Gumbel distribution, to 1e-5. Where the word's fraction is near 1, the inner logarithm
// is computed as that of 1 - c, in units of ln 2.
DEVICE float gumbel_fast(uint32_t word) {
  float w = __builtin_fmaf((float)word, 0x1p-32f, 0x1p-33f), c = __builtin_fmaf((float)~word, 0x1p-32f, 0x1p-33f);
  float near = __builtin_fmaf(c, kLog2E / 5, kLog2E / 4);
  near = __builtin_fmaf(c, near, kLog2E / 3);
  near = __builtin_fmaf(c, near, kLog2E / 2);
  near = c * __builtin_fmaf(c, near, kLog2E);
  float e = c < 0.0625f ? near : -log2_fast(w);
  return __builtin_fmaf(log2_fast(e), -0.6931471805599453f, 0.36651292058166435f);  // -ln(e ln 2)
}

// log2(-log2(1 - c)) of a word's random number 1 - c. Gumbel noise is -ln(-ln(1 - c)), so exp(noise / tau) is 2^(-this
// / tau), but for a factor that all words have in common. Errors are 1e-5 or less, 2e-6 on average. Only weights of one
// word in a thousand, less than 2^22, are further off: by 4e-5 at 2^22, 4e-2 at 2^12. These are the smallest weights.
//
// Where c is small -log2(1 - c) is its series c + c²/2 + c³/3, in units of ln 2, which stays below it. The other
// logarithm is of a number 2^-22 too large, so that it is the smaller one there in spite of its error.
DEVICE float log2_exponential(uint32_t word) {
  float c = (float)~word;  // in units of 2^-32, and 1/2 too small
  float series = __builtin_fmaf(c, kLog2E / 3 * 0x1p-96f, kLog2E / 2 * 0x1p-64f);
  series = __builtin_fmaf(c, __builtin_fmaf(c, series, kLog2E * 0x1p-32f), kLog2E * 0x1p-33f);
  return log2_fast(max(series, -log2_fast(__builtin_fmaf(c, -0x1p-32f, 1 + 0x1p-22f))));
}

// A lane's word of a head's 64 bits. Of four lanes two have the bits and two their complement: the popcount of an "and"
// over all four lanes is the number of channels that agree.
DEVICE uint32_t lane_word(const uint32_t* bits) {
  int t = threadIdx.x % 4;
  return bits[t % 2] ^ (t < 2 ? 0u : ~0u);
}

// A lane's two queries.
struct TileQueries {
  uint32_t bits[2];
  float at[2];        // positions; negative beyond the sequence, where no key counts
  uint64_t noise[2];  // the number of the block of random numbers for key 0

  DEVICE_MEMBER void place(const Head& h, int row, int t) {
    at[row] = t < h.a.seq ? (float)t : -1.0f;
    noise[row] = h.block(t);
  }
  // Takes query t, and reads its bits.
  DEVICE_MEMBER void load(const Head& h, int row, int t) {
    uint32_t all[2];
    h.load_query(min(t, h.a.seq - 1), all);
    place(h, row, t);
    bits[row] = lane_word(all);
  }
};

// The random numbers' key and the rest of their counters.
struct TileNoise {
  uint32_t seed[2], stream, step;
  __device__ __forceinline__ explicit TileNoise(const Attention& a)
      : seed{a.scalars->seed[0], a.scalars->seed[1]},
        stream(a.layer | a.scalars->micro << 16),
        step(a.scalars->step[0]) {}
  DEVICE_MEMBER Words4 words(uint64_t block) const {
    return philox(seed[0], seed[1], (uint32_t)block, (uint32_t)(block >> 32), stream, step);
  }
  // The random words of a lane's query `row` and of four keys from 4 * four on.
  DEVICE_MEMBER Words4 words(const TileQueries& q, int row, int four) const {
    return words(q.noise[row] + (uint32_t)four);
  }
};

// score[r][i] becomes the score of query g + 8 r and key from + 4 t + i. keys points at the bits of key `from`.
template <bool kNoise> DEVICE void tile_scores(const TileQueries& q, const TileNoise& noise, float slope,
    const uint32_t (*keys)[2], int from, float (&score)[2][4]) {
  int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  int agree[2][4] = {};
#pragma unroll
  for (int n = 0; n < 2; n++) mma_bits(agree[n], q.bits, lane_word(keys[g / 2 * 4 + 2 * n + g % 2]));
  float first = (float)(from + 4 * t);
#pragma unroll
  for (int r = 0; r < 2; r++) {
    Words4 random = {};
    if (kNoise) random = noise.words(q, r, from / 4 + t);
#pragma unroll
    for (int i = 0; i < 4; i++) {
      float distance = q.at[r] - (first + (float)i);
      float s = __builtin_fmaf(-slope, distance, __builtin_fmaf((float)agree[i / 2][2 * r + i % 2], 0.25f, -8.0f));
      if (kNoise) s += gumbel_fast(random.w[i]);
      score[r][i] = distance >= 0 ? s : kNever;
    }
  }
}

// Scores of a head, without noise: agree / 4 - 8 - slope * distance, where `agree` channels agree. Where the slope is a
// power of two every step is exact, so that equal scores are equal.
struct TileScores {
  float slope, offsets[4];  // of a lane's keys: -8 + slope * i

  __device__ __forceinline__ explicit TileScores(const Head& h) : slope((float)h.slope) {
#pragma unroll
    for (int i = 0; i < 4; i++) offsets[i] = __builtin_fmaf(slope, (float)i, -8.0f);
  }
  // score[r][i] becomes the score of query g + 8 r and key from + 4 t + i, also of a key that comes after the query.
  // keys points at the bits of key `from`.
  DEVICE_MEMBER void score(const TileQueries& q, const uint32_t (*keys)[2], int from, float (&score)[2][4]) const {
    constexpr float kCounted = 0x1p23f;  // an integer added to its bits is added to its value
    int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    int agree[2][4];
#pragma unroll
    for (int n = 0; n < 2; n++) {
#pragma unroll
      for (int j = 0; j < 4; j++) agree[n][j] = as_int(kCounted);
      mma_bits(agree[n], q.bits, lane_word(keys[g / 2 * 4 + 2 * n + g % 2]));
    }
#pragma unroll
    for (int r = 0; r < 2; r++) {
      float distance = q.at[r] - (float)(from + 4 * t);
#pragma unroll
      for (int i = 0; i < 4; i++) {
        float count = as_float(agree[i / 2][2 * r + i % 2]) - kCounted;
        score[r][i] = __builtin_fmaf(-slope, distance, __builtin_fmaf(count, 0.25f, offsets[i]));
      }
    }
  }
};

// The first keys that the first and the last of 16 queries from t on may read. For sequences of one document the
// compiler removes all of it: kernels are compiled for both cases.
template <bool kSeparate> struct TileStarts {
  int earliest, latest;
  __device__ __forceinline__ TileStarts(const Head& h, int t)
      : earliest(kSeparate ? h.first(min(t, h.a.seq - 1)) : 0),
        latest(kSeparate ? h.first(min(t + 15, h.a.seq - 1)) : 0) {}
};

// Sets scores to kNever where the key lies before the query's document. The scores are of queries from t on and keys
// from `from` on. Few tiles have such keys, so the first key of each query is read again for them.
template <bool kSeparate>
DEVICE void hide(const Head& h, const TileStarts<kSeparate>& starts, int t, int from, float (&score)[2][4]) {
  if (!kSeparate || from >= starts.latest) return;
  int lane = threadIdx.x % 32;
#pragma unroll
  for (int r = 0; r < 2; r++) {
    int first = h.first(min(t + lane / 4 + 8 * r, h.a.seq - 1));
#pragma unroll
    for (int i = 0; i < 4; i++)
      if (from + 4 * (lane % 4) + i < first) score[r][i] = kNever;
  }
}

// The same, and where the key comes after the query.
template <bool kSeparate> DEVICE void hide(const Head& h, const TileQueries& q, const TileStarts<kSeparate>& starts,
    int t, int from, float (&score)[2][4]) {
  int lane = threadIdx.x % 32;
  if (from + 15 > t) {
#pragma unroll
    for (int r = 0; r < 2; r++) {
      float distance = q.at[r] - (float)(from + 4 * (lane % 4));
#pragma unroll
      for (int i = 0; i < 4; i++)
        if (distance < (float)i) score[r][i] = kNever;
    }
  }
  hide(h, starts, t, from, score);
}

// What a thread of 128 loads of tiles of 64 keys, or their values: a word of a row in every tile.
struct TileWords {
  const uint32_t* at;  // in the last tile that was loaded
  int step;            // from one tile to the next

  __device__ __forceinline__ TileWords(const Head& h, const uint32_t* rows, int words, int first)
      : at(rows + (long)(first + threadIdx.x / 2) * words + 2 * h.head + threadIdx.x % 2), step(64 * words) {}
  DEVICE_MEMBER uint32_t load() const { return load_word(at); }
  DEVICE_MEMBER uint32_t load_earlier() { return load_word(at -= step); }
};

// The first key that may matter to a warp's 16 queries, if row r of a lane needs none that is further than far[r] away.
DEVICE int reach(const TileQueries& q, const float (&far)[2]) {
  int first = 0x7fffffff;
#pragma unroll
  for (int r = 0; r < 2; r++)
    if (q.at[r] >= 0) first = min(first, (int)max(q.at[r] - far[r], 0.0f));
  return warp_min(first);
}

// Half of the integers behind eight channels, as float16: odd integers up to 255 are exact. planes: a byte of each.
// 256 + x is 0x5c00 + 4 x.
DEVICE Int4 halved_integers(const uint32_t (&planes)[8], int count) {
  uint32_t words[4], middle = (0x5c00u + 2 * ((1 << count) - 1)) * 0x10001u;
#pragma unroll
  for (int i = 0; i < 4; i++) words[i] = 0x5c005c00u;
#pragma unroll
  for (int p = 0; p < 8; p++) {
    if (p >= count) break;
    uint32_t both = planes[p] | planes[p] << 15;  // bits 2 i and 2 i + 1 are 16 apart
#pragma unroll
    for (int i = 0; i < 4; i++)
      words[i] |= (2 * i > p + 2 ? both >> (2 * i - p - 2) : both << (p + 2 - 2 * i)) & 0x10001u << (p + 2);
  }
#pragma unroll
  for (int i = 0; i < 4; i++) words[i] = subtract_f16(words[i], middle);
  return {(int)words[0], (int)words[1], (int)words[2], (int)words[3]};
}

// ---- Products of tiles with ±1 ----

// The lower 16 bits of two words as one word, or their upper 16 bits.
DEVICE uint32_t pack_u16(uint32_t x, uint32_t y, int upper) { return __nvvm_prmt(x, y, upper ? 0x7632 : 0x5410); }
// Bits j and 16 + j of a word as two bfloat16 of ±1.
DEVICE uint32_t signs_of(uint32_t word, int j) { return (word << (15 - j) & 0x80008000u) ^ 0xbf80bf80u; }

// A tile, or its transpose, as the left side of a product: bfloat16, and the remainders in bfloat16.
struct Split {
  uint32_t high[4], low[4];
};
DEVICE Split split(const float (&x)[2][4]) {
  Split s;
#pragma unroll
  for (int j = 0; j < 4; j++) {
    float a = x[j % 2][j / 2 * 2], b = x[j % 2][j / 2 * 2 + 1];
    s.high[j] = pack_bf16(a, b);
    s.low[j] = pack_bf16(a - low_bf16(s.high[j]), b - high_bf16(s.high[j]));
  }
  return s;
}

// The same in float16.
struct HalfSplit {
  uint32_t high[4], low[4];
};
DEVICE HalfSplit split_f16(const float (&x)[2][4]) {
  HalfSplit s;
#pragma unroll
  for (int j = 0; j < 4; j++) {
    float a = x[j % 2][j / 2 * 2], b = x[j % 2][j / 2 * 2 + 1];
    s.high[j] = pack_f16(a, b);
    s.low[j] = pack_f16(a - low_f16(s.high[j]), b - high_f16(s.high[j]));
  }
  return s;
}

// ±1 as the right side of a tile's product, in shared memory, in the order in which lanes read it. One warp writes it;
// all warps of a block read it.
struct Signs {
  Int4 words[4][32];  // two products' b0, b1 each

  DEVICE_MEMBER void put(int j, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
    words[j][threadIdx.x % 32] = {(int)a, (int)b, (int)c, (int)d};
  }
  // Writes ±1 from the bits of 16 rows of 64 channels. first holds rows 2 t and 2 t + 1, second rows 2 t + 8 and 2 t +
  // 9. Products are of 8 channels.
  DEVICE_MEMBER void put_rows(Int4 first, Int4 second) {
    int g = threadIdx.x % 32 / 4;
#pragma unroll
    for (int c = 0; c < 4; c++) {
      uint32_t rows = (uint32_t)(c < 2 ? pack_u16(first.x, first.z, c % 2) : pack_u16(first.y, first.w, c % 2));
      uint32_t more = (uint32_t)(c < 2 ? pack_u16(second.x, second.z, c % 2) : pack_u16(second.y, second.w, c % 2));
      put(c, signs_of(rows, g), signs_of(more, g), signs_of(rows, 8 + g), signs_of(more, 8 + g));
    }
  }
};

// sums[j][c / 8] += x[j] s, where s was written by put_rows.
template <int kCount> DEVICE void add_signs(float (&sums)[kCount][8][4], const Split (&x)[kCount], const Signs& s) {
#pragma unroll
  for (int c = 0; c < 4; c++) {
    Int4 four = s.words[c][threadIdx.x % 32];
#pragma unroll
    for (int j = 0; j < kCount; j++) {
      mma_bf16(sums[j][2 * c], x[j].high, four.x, four.y);
      mma_bf16(sums[j][2 * c + 1], x[j].high, four.z, four.w);
      mma_bf16(sums[j][2 * c], x[j].low, four.x, four.y);
      mma_bf16(sums[j][2 * c + 1], x[j].low, four.z, four.w);
    }
  }
}
