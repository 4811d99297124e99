// What the attention kernels share: where heads lie in packed rows, and scores.
#pragma once
#include "levels.cuh"
#include "philox.cuh"

struct Attention {
  int batch, seq, heads, dim, survivors;
  int words, value_words, out_words;  // 32-bit words of a row of queries or keys, of values and of what is read
  int query_planes, value_planes;
  int gumbel;            // 1: scores get Gumbel noise
  uint32_t layer;
  long query_plane_words, value_plane_words;
  const uint32_t *queries, *keys, *values;  // rows x heads * dim; keys are signs
  const float* noise;      // batch x heads x seq x seq, or null
  const double* products;  // q·k / sqrt(dim) by the number of bits that differ, those of plane b weighted by 2^b
  const double* slopes;    // by head
  float scale;             // 1 / sqrt(dim)
  float query_unit, value_unit;  // what 1 of the integer behind a query or a value is worth
  uint32_t* query_levels;  // batch x heads x seq x 64 nibbles: survivor_scores_64 leaves them for survivor_gather_64
  const Scalars* scalars;
  const int* starts;  // batch x seq: the first key that a query may read; null: 0
};

constexpr int kMaxWords = 8;  // of a head: up to 256 channels

// n <= 32 bits of a row from bit `at` on.
DEVICE uint32_t bits_at(const uint32_t* row, int at, int n) {
  uint32_t w = row[at / 32] >> (at % 32);
  if (at % 32 + n > 32) w |= row[at / 32 + 1] << (32 - at % 32);
  return n < 32 ? w & ((1u << n) - 1) : w;
}

// Word w of the dim bits of a row from bit `at` on; zero beyond them.
DEVICE uint32_t head_word(const uint32_t* row, int at, int dim, int w) {
  int n = dim - 32 * w;
  if (n <= 0) return 0;
  if (dim % 32 == 0) return row[at / 32 + w];
  return bits_at(row, at + 32 * w, min(32, n));
}

// One head of one sequence.
struct Head {
  const Attention& a;
  int index;  // sequence * heads + head
  int head;
  long row0;  // of the sequence
  const uint32_t *queries, *keys, *values;
  double slope;

  __device__ __forceinline__ Head(const Attention& a, int index) : a(a), index(index) {
    head = index % a.heads;
    row0 = (long)(index / a.heads) * a.seq;
    queries = a.queries + row0 * a.words;
    keys = a.keys + row0 * a.words;
    values = a.values + row0 * a.value_words;
    slope = a.slopes[head];
  }
  // Word w of the head's bits in a plane of token t's query, in its key and in a plane of its value; zero beyond the
  // head.
  __device__ __forceinline__ uint32_t query_word(int t, int w, int plane = 0) const {
    return head_word(queries + plane * a.query_plane_words + t * a.words, head * a.dim, a.dim, w);
  }
  __device__ __forceinline__ uint32_t key_word(int t, int w) const {
    return head_word(keys + t * a.words, head * a.dim, a.dim, w);
  }
  __device__ __forceinline__ uint32_t value_word(int t, int w, int plane = 0) const {
    return head_word(values + plane * a.value_plane_words + t * a.value_words, head * a.dim, a.dim, w);
  }
  template <int kWords> __device__ __forceinline__ void load_query(int t, uint32_t (&to)[kWords], int plane = 0) const {
#pragma unroll
    for (int w = 0; w < kWords; w++) to[w] = query_word(t, w, plane);
  }
  template <int kWords> __device__ __forceinline__ void load_key(int t, uint32_t (&to)[kWords]) const {
#pragma unroll
    for (int w = 0; w < kWords; w++) to[w] = key_word(t, w);
  }
  template <int kWords> __device__ __forceinline__ void load_value(int t, uint32_t (&to)[kWords], int plane = 0) const {
#pragma unroll
    for (int w = 0; w < kWords; w++) to[w] = value_word(t, w, plane);
  }
  // Every device computes the score so: the product is rounded once, and the difference once.
  __device__ __forceinline__ double score(const double* products, int differ, int distance) const {
    return products[differ] - slope * (double)distance;
  }
  // q is the first plane of query t. kLevels: queries have other planes, too, which stay in memory.
  template <bool kLevels, int kWords>
  __device__ __forceinline__ double score(const uint32_t (&q)[kWords], int t, int u) const {
    int differ = 0;
#pragma unroll
    for (int w = 0; w < kWords; w++) differ += popcount(q[w] ^ key_word(u, w));
    if (kLevels) differ += differ_above(t, u);
    return score(a.products, differ, t - u);
  }
  // Σ_b 2^b times the number of bits in which plane b of query t and key u differ, over the planes above the first.
  __device__ __forceinline__ int differ_above(int t, int u) const {
    int differ = 0;
    for (int w = 0; 32 * w < a.dim; w++) {
      uint32_t key = key_word(u, w);
      for (int b = 1; b < a.query_planes; b++) differ += popcount(query_word(t, w, b) ^ key) << b;
    }
    return differ;
  }
  // The same of all planes, for the best of all possible keys: its bits are those of the query's top plane.
  __device__ __forceinline__ int least_differ(int t) const {
    int differ = 0;
    for (int w = 0; 32 * w < a.dim; w++) {
      uint32_t key = query_word(t, w, a.query_planes - 1);
      for (int b = 0; b < a.query_planes - 1; b++) differ += popcount(query_word(t, w, b) ^ key) << b;
    }
    return differ;
  }
  // What is added to the score of query t and key u before a pointer is chosen.
  __device__ __forceinline__ double noise(int t, int u) const {
    long at = ((long)index * a.seq + t) * a.seq + u;
    if (a.noise) return a.noise[at];
    if (!a.gumbel) return 0;
    const Scalars& s = *a.scalars;
    Words4 block =
        philox(s.seed[0], s.seed[1], (uint32_t)(at / 4), (uint32_t)(at / 4 >> 32), a.layer | s.micro << 16, s.step[0]);
    int i = (int)(at % 4);
    return gumbel(i < 2 ? (i == 0 ? block.w[0] : block.w[1]) : (i == 2 ? block.w[2] : block.w[3]));
  }
  __device__ __forceinline__ long query(int t) const { return (long)index * a.seq + t; }
  // The number of query t's first block of random numbers, where sequences are a multiple of 4.
  __device__ __forceinline__ uint64_t block(int t) const { return (uint64_t)query(t) * (uint32_t)(a.seq / 4); }
  // The first key that query t may read: that of its document.
  __device__ __forceinline__ int first(int t) const { return a.starts ? a.starts[row0 + t] : 0; }

  // The integer behind channel c of token t's query, and of its value.
  __device__ __forceinline__ int query_integer(int t, int c) const {
    int index = 0;
    for (int p = 0; p < a.query_planes; p++) index |= (int)(query_word(t, c / 32, p) >> (c % 32) & 1) << p;
    return 2 * index - ((1 << a.query_planes) - 1);
  }
  __device__ __forceinline__ int value_integer(int t, int c) const {
    int index = 0;
    for (int p = 0; p < a.value_planes; p++) index |= (int)(value_word(t, c / 32, p) >> (c % 32) & 1) << p;
    return 2 * index - ((1 << a.value_planes) - 1);
  }

  // Writes word w of a plane of query t's attention output, unless out is null: then read_levels does. Heads whose bits
  // are not whole words share words: out must be zero before.
  __device__ __forceinline__ void write(
      uint32_t* out, int* popcounts, int t, int w, uint32_t bits, int plane = 0) const {
    if (!out) return;
    long row = row0 + t;
    int at = head * a.dim + 32 * w;
    uint32_t* to = out + row * a.out_words + at / 32;
    if (a.dim % 32 == 0) {
      *to = bits;
    } else {
      or_to(to, bits << (at % 32));
      if (at % 32 && bits >> (32 - at % 32)) or_to(to + 1, bits >> (32 - at % 32));
    }
    add_to(popcounts + row, popcount(bits) << plane);
  }
};

// The first of keys first ... last with the highest score(key), and that score, in all lanes of a warp.
template <class Score> DEVICE int first_best(int first, int last, const Score& score, double& best) {
  best = -1e300;
  int at = 0x7fffffff;
  for (int u = first + threadIdx.x % 32; u <= last; u += 32) {
    double s = score(u);
    if (s > best) best = s, at = u;
  }
  for (int mask = 16; mask > 0; mask /= 2) {
    double s = shuffle_xor(best, mask);
    int u = shuffle_xor(at, mask);
    if (s > best || (s == best && u < at)) best = s, at = u;
  }
  return at;
}
