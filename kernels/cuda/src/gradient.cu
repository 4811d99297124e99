// The backward pass of a linear, without its products: the largest gradients, from which the scales follow; rounding to
// integers; packing these as bit planes or bytes, along channels for dx and along tokens for the weights; and the
// weights' gradients from the products' sums.
//
// A block of 256 threads takes 256 rows x 256 channels. A lane has eight neighbouring channels.
#include "philox.cuh"
#include "gradient.cuh"
#include "levels.cuh"

// row_max[t] = max_c |alpha_c g| and column_max[c] = max_t |g|. Both are kept as the bits of non-negative floats, and
// are the maximum of what was there and the new value. theta[block of rows][c] = Σ_t of the gradient after the STE
// mask. A null output is not computed.
template <class Source> DEVICE void grad_max(const Source& source, int rows, int width, const float* alpha,
    uint32_t* row_max, uint32_t* column_max, float* theta) {
  __shared__ float tops[8][256], sums[8][256];
  constexpr int kAhead = Source::kAhead;  // rows whose loads are in flight together
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32, c0 = blockIdx.x * 256 + 8 * lane;
  typename Source::Channels channels = source.channels(c0);
  float a[8], top[8] = {}, sum[8] = {};
#pragma unroll
  for (int j = 0; j < 8; j++) a[j] = c0 + j < width ? alpha[c0 + j] : 0;
  for (int i = 0; i < 32; i += kAhead) {
    typename Source::Raw raw[kAhead];
#pragma unroll
    for (int k = 0; k < kAhead; k++) raw[k] = source.fetch(min(blockIdx.y * 256 + 8 * (i + k) + warp, rows - 1), c0);
#pragma unroll
    for (int k = 0; k < kAhead; k++) {
      int row = blockIdx.y * 256 + 8 * (i + k) + warp;
      if (row >= rows) break;
      float g[8], plain[8], most = 0;
      source.finish(raw[k], row, c0, channels, g, plain);
#pragma unroll
      for (int j = 0; j < 8; j++) {
        sum[j] += plain[j];
        top[j] = max_nan(top[j], __builtin_fabsf(g[j]));
        most = max_nan(most, __builtin_fabsf(a[j] * g[j]));
      }
      if (row_max) {
        uint32_t bits = warp_max((uint32_t)as_int(most));
        if (lane == 0) max_to(row_max + row, bits);
      }
    }
  }
#pragma unroll
  for (int j = 0; j < 8; j++) tops[warp][8 * lane + j] = top[j], sums[warp][8 * lane + j] = sum[j];
  block_sync();
  int c = blockIdx.x * 256 + threadIdx.x;
  if (c >= width) return;
  float most = 0, total = 0;
#pragma unroll
  for (int w = 0; w < 8; w++) most = max_nan(most, tops[w][threadIdx.x]), total += sums[w][threadIdx.x];
  if (column_max) max_to(column_max + c, (uint32_t)as_int(most));
  if (theta) theta[(long)blockIdx.y * width + c] = total;
}

// Replaces maxima, those of rows and then those of channels, by the scales max / levels, and writes the inverses, which
// are a little less than levels / max. The scale of a maximum that is not finite is NaN.
constexpr float kBelowOne = 1 - 0x1p-22f;
KERNEL(rounding, 256) void grad_scales(
    float* maxima, int rows, int n, float row_levels, float column_levels, float* inverse) {
  int i = blockIdx.x * 256 + threadIdx.x;
  if (i >= n) return;
  float most = maxima[i], levels = i < rows ? row_levels : column_levels;
  bool finite = most - most == 0;
  inverse[i] = most >= 1e-30f && finite ? levels / most * kBelowOne : 0.0f;
  maxima[i] = finite ? most / levels : most - most;
}

struct Rounding {
  int rows, width, row_bits, row0;  // row0: what counts as the first row's number
  const float *alpha, *row_inverse, *column_inverse;
  // For dx, planes or bytes of rows x channels; null where not wanted. Bits are in the order of pack.cu's
  // kGradientOrder.
  uint32_t* row_planes;
  int* row_popcounts;  // added to: the sum of a row's integers is its weighted popcount
  long row_plane_words;
  int row_words;
  // For the weights, channels x rows, as planes whose bits are in the same order, or as bytes; from these rows on.
  int column_bits;                 // of planes
  int column_stride, column_left;  // of a channel: in words of planes, or in bytes
  void* columns;
  int* column_popcounts;
  long column_plane_words;
  uint32_t id;
  const Scalars* scalars;
};

// 16 of a random word's bits as a multiple of 2^-16 in [0, 1). Exact: the bits become the low bits of a float in [128,
// 129).
DEVICE float fraction(uint32_t word, int upper) {
  return as_float((int)__nvvm_prmt(word, 0x43000000, upper ? 0x7632 : 0x7610)) - 128.0f;
}

// floor(v * inverse + r) as the bits of the float 12,582,912 + q, which are kRounded + q. r has 32 random bits: `high`
// counts 2^-16 and `low` 2^-32.
//
// Adding 12,582,912 with rounding downwards takes the floor, which is faster than the conversion instruction. All sums
// are rounded downwards, so no rounding changes the floor: where the exact sum reaches an integer, the rounded sum does
// so as well, because multiples of 2^-16 are floats. The result needs no bounds: inverse is such that |v * inverse| <=
// levels.
constexpr uint32_t kRounded = 0x4b400000u;
DEVICE uint32_t rounded(float v, float inverse, float high, float low) {
  float sum = __nvvm_add_rm_f(__nvvm_fma_rm_f(low, 0x1p-16f, v * inverse), high);
  return (uint32_t)as_int(__nvvm_add_rm_f(sum, 12582912.0f));
}

// From Σ_e (kRounded + q_e) 16^e (or 256^e) the word that holds every q_e in two's complement. `each` replaces kRounded
// for the upper nibbles of 8 bits: kRounded / 16.
DEVICE uint32_t nibbles(uint32_t sum, uint32_t each = kRounded) {
  return (sum + 0x88888888u - each * 0x11111111u) ^ 0x88888888u;
}
DEVICE uint32_t bytes(uint32_t sum) { return (sum + 0x80808080u - kRounded * 0x01010101u) ^ 0x80808080u; }

// The low bytes of four words.
DEVICE uint32_t low_bytes(const uint32_t* q) {
  return (uint32_t)__nvvm_prmt(__nvvm_prmt(q[0], q[1], 0x0040), __nvvm_prmt(q[2], q[3], 0x0040), 0x5410);
}

// sum plus the four signed bytes of a word.
DEVICE int sum_bytes(int word, int sum) {
  asm("dp4a.s32.s32 %0, %1, %2, %0;" : "+r"(sum) : "r"(word), "r"(0x01010101));
  return sum;
}

// As `separate` does, for four words in four neighbouring lanes: lane k passes word k, and lane b gets plane b.
DEVICE uint32_t separate_lanes(uint32_t x, int lane) {
  constexpr uint32_t k5 = 0x55555555, k3 = 0x33333333;
  uint32_t y = (uint32_t)shuffle_xor((int)x, 1);
  x = lane & 1 ? (y >> 1 & k5) | (x & ~k5) : (x & k5) | (y << 1 & ~k5);
  y = (uint32_t)shuffle_xor((int)x, 2);
  return lane & 2 ? (y >> 2 & k3) | (x & ~k3) : (x & k3) | (y << 2 & ~k3);
}

// A block rounds pieces of 256 rows, in two halves. Dynamic shared memory: the integers of 256 channels for two halves,
// as planes of up to 4 bits or as bytes, and what is being copied of each warp's next rows.
constexpr int kPiece = 256, kHalf = 128, kCollectedPlanes = 2 * 4 * 256 * 17, kCollectedBytes = 2 * 4 * 256 * 33,
              kRowsAhead = 4, kSlots = 256 * kRowsAhead;

// A block takes every gridDim.y-th piece of 256 channels, so that blocks at work at one time read neighbouring rows and
// write neighbouring parts of channels. Its warps take neighbouring rows, kRows each. Rows of the next half, and of the
// next piece, are on their way while a half is written.
//
// kNibbles is 1 where planes, of rows and of channels, have up to 4 bits, else 2; it is 1 where there are no planes.
// The integers for dx become bytes if kRowBytes, else planes; those for the weights bytes if kBytes, else planes. They
// are collected in shared memory first, as words of 4 bytes or of 8 nibbles of a channel, so that whole sectors are
// written to global memory. Channel 8 lane + e has place 32 e + lane there.
template <int kNibbles, bool kRowBytes, bool kBytes, class Source> struct Rounder {
  static constexpr int kRows = kBytes ? 4 : 8, kWords = kBytes ? 1 : kNibbles;  // of one word; words for a channel
  static constexpr int kChannel = kHalf / kRows + 1;  // words of a channel: an odd number, against bank conflicts
  static constexpr int kBuffer = kWords * 256 * kChannel;
  static_assert(kRows % kRowsAhead == 0);
  static_assert(2 * 4 * kBuffer == (kBytes ? kCollectedBytes : kWords * kCollectedPlanes));
  using Raw = typename Source::Raw;

  const Source& source;
  const Rounding& p;
  uint32_t* collected;
  int lane, warp, c0, pieces;
  uint32_t key0, key1, step0, step1, stream, groups;
  typename Source::Channels channels;
  float a[8], inverse[8];

  DEVICE_MEMBER Rounder(const Source& source, const Rounding& p, uint32_t* collected)
      : source(source), p(p), collected(collected) {
    lane = threadIdx.x % 32, warp = threadIdx.x / 32, c0 = (int)blockIdx.x * 256 + 8 * lane;
    pieces = ceil_div(ceil_div(p.rows, kPiece) - (int)blockIdx.y, (int)gridDim.y);
  }
  DEVICE_MEMBER void load_channels() {
    key0 = p.scalars->seed[0] ^ 0x44494e47u, key1 = p.scalars->seed[1] ^ 0x524f554eu;
    step0 = p.scalars->step[0], step1 = p.scalars->step[1], stream = p.id | p.scalars->micro << 16;
    groups = (uint32_t)ceil_div(p.width, 8);
    channels = source.channels(c0);
#pragma unroll
    for (int e = 0; e < 8; e++) {
      a[e] = c0 + e < p.width ? p.alpha[c0 + e] : 0;
      inverse[e] = p.columns && c0 + e < p.width ? p.column_inverse[c0 + e] : 0;
    }
  }
  DEVICE_MEMBER int first_of(int half) const {
    return ((int)blockIdx.y + half / 2 * (int)gridDim.y) * kPiece + half % 2 * kHalf;
  }
  // The inverse of the i-th row that this warp has of a half, in lane i and in lane i + 16.
  template <bool kWhole> DEVICE_MEMBER float load_inverses(int half) const {
    if (!kWhole && !p.row_planes) return 0;
    int i = lane % 16, row = first_of(min(half, 2 * pieces - 1)) + (i / kRows * 8 + warp) * kRows + i % kRows;
    return p.row_inverse[kWhole ? row : min(row, p.rows - 1)];
  }

  // kWhole: all rows and channels exist, and nothing is tested.
  template <bool kWhole> DEVICE_MEMBER void round() {
    auto slots = [&](int r) { return (char*)(collected + 2 * kBuffer) + r % kRowsAhead * (256 * Source::kSlot); };
    auto copy = [&](int r, int row, bool wanted) {
      if (wanted) source.template copy<kWhole>(slots(r), kWhole ? row : min(row, p.rows - 1), c0);
      copies_commit();
    };
    int first = (int)blockIdx.y * kPiece + kRows * warp;  // row of a group
#pragma unroll 1
    for (int i = 0; i < kRowsAhead; i++) copy(i, first + i, true);
    load_channels();
    float inverses = 0, next_inverses = load_inverses<kWhole>(0);
    for (int half = 0; half < 2 * pieces; half++) {
      uint32_t* buffer = collected + half % 2 * kBuffer;
      inverses = next_inverses, next_inverses = load_inverses<kWhole>(half + 1);
#pragma unroll 1
      for (int group = 0; group < 16 / kRows; group++) {
        uint32_t column[kWords][8] = {}, weight = 1;  // weight: of the row in a word
        bool last_of_piece = half % 2 == 1 && group == 16 / kRows - 1, last = last_of_piece && half == 2 * pieces - 1;
        int next = first + 8 * kRows + (last_of_piece ? kPiece * ((int)gridDim.y - 1) : 0);
#pragma unroll 1
        for (int r = 0; r < kRows; r++, weight *= kBytes ? 256 : 16) {
          copies_wait<kRowsAhead - 1>();
          Raw raw = source.template take<kWhole>(slots(r), c0);
          if (!kWhole && first + r >= p.rows) source.drop(raw);
          bool within = r + kRowsAhead < kRows;
          copy(r, (within ? first : next - kRows) + r + kRowsAhead, within || !last);
          round_row<kWhole>(raw, first + r, shuffle(inverses, kRows * group + r), weight, column);
        }
        first = next;
#pragma unroll
        for (int n = 0; n < kWords; n++)
#pragma unroll
          for (int e = 0; e < 8; e++) {
            uint32_t x = column[n][e];
            buffer[(256 * n + 32 * e + lane) * kChannel + 8 * group + warp] =
                kBytes            ? bytes(x)
                : n == kWords - 1 ? nibbles(x, kRounded >> 4 * n)
                                  : x;
          }
      }
      if (!p.columns) continue;
      block_sync();  // the half is complete. The buffer is free again after the next half's barrier
      if constexpr (kBytes) write_bytes(buffer, first_of(half));
      else write_planes(buffer, first_of(half));
    }
  }

  // Writes a row's integers for dx, and adds those for the weights to column.
  template <bool kWhole> DEVICE_MEMBER void round_row(
      const Raw& raw, int row, float inverse_row, uint32_t weight, uint32_t (&column)[kWords][8]) {
    float g[8], plain[8];
    uint32_t q[8], weight_q[8];
    source.finish(raw, row, c0, channels, g, plain);
    Words4 random = philox(key0, key1, (uint32_t)(p.row0 + row) * groups + (uint32_t)(c0 / 8), stream, step0, step1);
#pragma unroll
    for (int e = 0; e < 8; e++) {
      float own = fraction(random.w[e / 2], e % 2), other = fraction(random.w[e / 2], 1 - e % 2);
      q[e] = rounded(a[e] * g[e], inverse_row, own, other);
      weight_q[e] = rounded(g[e], inverse[e], own, other);
    }
    if (kWhole || (p.row_planes && row < p.rows)) {
      int total = 0;
      if constexpr (kRowBytes) {
        uint32_t low = low_bytes(q), high = low_bytes(q + 4);
        char* to = (char*)(p.row_planes + (long)row * p.row_words) + c0;
        *(Int2*)to = Int2{(int)low, (int)high};
        total = sum_bytes((int)low, sum_bytes((int)high, 0));
      }
#pragma unroll
      for (int n = 0; n < (kRowBytes ? 0 : kNibbles); n++) {
        uint32_t x = 0;
#pragma unroll
        for (int e = 7; e >= 0; e--) x = x * 16 + (n == kNibbles - 1 ? q[e] >> 4 * n : q[e] & 15);
        uint32_t plane = separate_lanes(n == kNibbles - 1 ? nibbles(x, kRounded >> 4 * n) : x, lane);
        int b = 4 * n + lane % 4;
        if (b < p.row_bits) {
          p.row_planes[b * p.row_plane_words + (long)row * p.row_words + blockIdx.x * 8 + lane / 4] = plane;
          total += (b == p.row_bits - 1 ? -1 : 1) * (popcount(plane) << b);
        }
      }
      total = warp_sum(total);
      if (lane == 0) add_to(p.row_popcounts + row, total);
    }
#pragma unroll
    for (int n = 0; n < kWords; n++)
#pragma unroll
      for (int e = 0; e < 8; e++)
        column[n][e] += (kBytes || n == kWords - 1 ? weight_q[e] >> 4 * n : weight_q[e] & 15) * weight;
  }

  // Eight threads write 128 bytes of a channel.
  DEVICE_MEMBER void write_bytes(const uint32_t* buffer, int first) const {
#pragma unroll 4
    for (int i = 0; i < 8; i++) {
      int place = 32 * i + (int)threadIdx.x / 8, k = threadIdx.x % 8;
      int c = (int)blockIdx.x * 256 + place % 32 * 8 + place / 32, at = first + 16 * k;
      const uint32_t* from = buffer + place * kChannel + 4 * k;
      Int4 word{(int)from[0], (int)from[1], (int)from[2], (int)from[3]};
      if (c < p.width && at < p.column_left) *(Int4*)((char*)p.columns + (long)c * p.column_stride + at) = word;
      int total = sum_bytes(word.x, sum_bytes(word.y, sum_bytes(word.z, sum_bytes(word.w, 0))));
#pragma unroll
      for (int mask = 1; mask < 8; mask *= 2) total += shuffle_xor(total, mask);
      if (k == 0 && c < p.width) add_to(p.column_popcounts + c, total);
    }
  }

  // A thread per channel.
  DEVICE_MEMBER void write_planes(const uint32_t* buffer, int first) const {
    int c = c0 + warp, total = 0, at = first / 32;
    if (c >= p.width) return;
#pragma unroll
    for (int n = 0; n < kWords; n++) {
      uint32_t x[4][4];  // of 32 rows
#pragma unroll
      for (int w = 0; w < 4; w++) {
#pragma unroll
        for (int k = 0; k < 4; k++) x[w][k] = buffer[(256 * n + threadIdx.x) * kChannel + 4 * w + k];
        separate(x[w]);
      }
#pragma unroll
      for (int b = 0; b < 4; b++) {
        if (4 * n + b >= p.column_bits) break;
        int count = popcount(x[0][b]) + popcount(x[1][b]) + popcount(x[2][b]) + popcount(x[3][b]);
        total += (4 * n + b == p.column_bits - 1 ? -1 : 1) * (count << (4 * n + b));
        if (at < p.column_left)
          *(Int4*)((uint32_t*)p.columns + (4 * n + b) * p.column_plane_words + (long)c * p.column_stride + at) =
              Int4{(int)x[0][b], (int)x[1][b], (int)x[2][b], (int)x[3][b]};
      }
    }
    add_to(p.column_popcounts + c, total);
  }
};

template <int kNibbles, bool kRowBytes, bool kBytes, class Source>
DEVICE void grad_round(const Source& source, const Rounding& p) {
  extern __shared__ uint32_t collected[];
  Rounder<kNibbles, kRowBytes, kBytes, Source> rounder(source, p, collected);
  int last = (int)blockIdx.y + (rounder.pieces - 1) * (int)gridDim.y;
  bool whole =
      (last + 1) * kPiece <= p.rows && blockIdx.x * 256 + 256 <= p.width && source.aligned() && p.row_planes;
  if (kNibbles == 1 && whole) rounder.template round<true>();
  else rounder.template round<false>();
}

// out = g in floats.
template <class Source> DEVICE void grad_copy(const Source& source, int rows, int width, float* out) {
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32, c0 = blockIdx.x * 256 + 8 * lane;
  typename Source::Channels channels = source.channels(c0);
  for (int i = 0; i < 32; i++) {
    int row = blockIdx.y * 256 + 8 * i + warp;
    if (row >= rows) break;
    float g[8], plain[8];
    source.finish(source.fetch(row, c0), row, c0, channels, g, plain);
#pragma unroll
    for (int j = 0; j < 8; j++)
      if (c0 + j < width) out[(long)row * width + c0 + j] = g[j];
  }
}

#define GRADIENT_KERNELS(name, Source, kRow)                                                                           \
  KERNEL(rounding, 256, 3)                                                                                             \
  void grad_max_##name(const __grid_constant__ Source source, int rows, int width, const float* alpha,                 \
      uint32_t* row_max, uint32_t* column_max, float* theta) {                                                         \
    grad_max<Source>(source, rows, width, alpha, row_max, column_max, theta);                                          \
  }                                                                                                                    \
  KERNEL(rounding shared(kCollectedPlanes + kSlots * kRow), 256, 2)                                                    \
  void grad_round_planes_4_##name(const __grid_constant__ Source source, const __grid_constant__ Rounding rounding) {  \
    grad_round<1, false, false, Source>(source, rounding);                                                             \
  }                                                                                                                    \
  KERNEL(rounding shared(kCollectedBytes + kSlots * kRow), 256, 2)                                                     \
  void grad_round_bytes_4_##name(const __grid_constant__ Source source, const __grid_constant__ Rounding rounding) {   \
    grad_round<1, false, true, Source>(source, rounding);                                                              \
  }                                                                                                                    \
  KERNEL(rounding shared(kCollectedPlanes * 2 + kSlots * kRow), 256, 2)                                                \
  void grad_round_planes_8_##name(const __grid_constant__ Source source, const __grid_constant__ Rounding rounding) {  \
    grad_round<2, false, false, Source>(source, rounding);                                                             \
  }                                                                                                                    \
  KERNEL(rounding shared(kCollectedBytes + kSlots * kRow), 256, 2)                                                     \
  void grad_round_bytes_8_##name(const __grid_constant__ Source source, const __grid_constant__ Rounding rounding) {   \
    grad_round<2, false, true, Source>(source, rounding);                                                              \
  }                                                                                                                    \
  KERNEL(rounding shared(kCollectedBytes + kSlots * kRow), 256, 2)                                                     \
  void grad_round_all_bytes_##name(const __grid_constant__ Source source, const __grid_constant__ Rounding rounding) { \
    grad_round<1, true, true, Source>(source, rounding);                                                               \
  }                                                                                                                    \
  KERNEL(elementwise float, 256)                                                                                       \
  void grad_copy_##name(const __grid_constant__ Source source, int rows, int width, float* out) {                      \
    grad_copy<Source>(source, rows, width, out);                                                                       \
  }                                                                                                                    \
  static_assert(Source::kSlot == kRow);
using DenseFloats = DenseGradient<float, false>;
using DenseBFloats = DenseGradient<BFloat, false>;
using ShiftedFloats = DenseGradient<float, true>;
using ShiftedBFloats = DenseGradient<BFloat, true>;
GRADIENT_KERNELS(dense_float32, DenseFloats, 36)
GRADIENT_KERNELS(dense_bfloat16, DenseBFloats, 20)
GRADIENT_KERNELS(shifted_float32, ShiftedFloats, 36)
GRADIENT_KERNELS(shifted_bfloat16, ShiftedBFloats, 20)
GRADIENT_KERNELS(factored_bfloat16, FactoredGradient, 32)
GRADIENT_KERNELS(logits_int16, LogitsGradient<short>, 28)
GRADIENT_KERNELS(logits_int24, LogitsGradient<Int24>, 36)
GRADIENT_KERNELS(logits_float32, LogitsGradient<float>, 44)

// out = gradients times factors.
template <class T, class F> DEVICE void multiply_by(const T* dy, const F* factors, long count, float* out) {
  for (long i = blockIdx.x * 256l + threadIdx.x; i < count; i += gridDim.x * 256l)
    out[i] = read(dy + i) * read(factors + i);
}
#define MULTIPLY_FACTORS_KERNELS(type, T)                                                                              \
  KERNEL(elementwise float, 256)                                                                                       \
  void multiply_by_float32_##type(const T* dy, const float* factors, long count, float* out) {                         \
    multiply_by(dy, factors, count, out);                                                                              \
  }                                                                                                                    \
  KERNEL(elementwise float, 256)                                                                                       \
  void multiply_by_bfloat16_##type(const T* dy, const BFloat* factors, long count, float* out) {                       \
    multiply_by(dy, factors, count, out);                                                                              \
  }
MULTIPLY_FACTORS_KERNELS(float32, float)
MULTIPLY_FACTORS_KERNELS(bfloat16, BFloat)

// A block per channel c, with s_k = Σ_t g x_k: dweight_k += alpha_c scale_c unit s_k, and dalpha_c += scale_c unit Σ_k
// w_ck s_k with the effective weight w. Null scales count as 1. Integers s are converted to float32 before they are
// multiplied; products of float64 are rounded once, at the end.
template <class T> DEVICE void finish_weights(const T* s, int width, const float* alpha, const float* scales,
    float unit, const Quantized& weights, const float* mixed, float* dweight, float* dalpha) {
  __shared__ double room[8];
  long c = blockIdx.x, at = c * width;
  float scale = scales ? scales[c] * unit : unit, factor = alpha[c] * scale;
  constexpr int kAhead = 4;  // loads in flight
  double sum = 0;
  for (int k0 = threadIdx.x; k0 < width; k0 += 256 * kAhead) {
    T value[kAhead];
    float before[kAhead];
    int index[kAhead] = {};
#pragma unroll
    for (int i = 0; i < kAhead; i++) {
      int k = min(k0 + 256 * i, width - 1);
      value[i] = s[at + k], before[i] = dweight[at + k];
    }
#pragma unroll
    for (int i = 0; i < kAhead; i++) fence_operand(before[i]), fence_operand(value[i]);
#pragma unroll 1
    for (int p = 0; p < (mixed ? 0 : weights.planes); p++) {
      const uint32_t* row = weights.data + p * weights.plane_words + c * weights.words;
#pragma unroll
      for (int i = 0; i < kAhead; i++) {
        int k = min(k0 + 256 * i, width - 1);
        index[i] |= (int)(row[k / 32] >> (k % 32) & 1) << p;
      }
    }
#pragma unroll
    for (int i = 0; i < kAhead; i++) {
      int k = k0 + 256 * i;
      if (k >= width) break;
      double w = mixed ? (double)mixed[at + k] : (double)weights.of_index(index[i]);
      sum += w * (double)value[i];
      if constexpr (sizeof(T) == 8) dweight[at + k] = before[i] + (float)((double)factor * value[i]);
      else dweight[at + k] = before[i] + factor * (float)value[i];
    }
  }
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = sum;
  block_sync();
  if (threadIdx.x > 0) return;
  for (int i = 1; i < 8; i++) sum += room[i];
  dalpha[c] += (float)((double)scale * sum);
}

KERNEL(rounding, 256, 5)
void finish_weights_int32(const int* s, int width, const float* alpha, const float* scales, float unit,
    const __grid_constant__ Quantized weights, const float* mixed, float* dweight, float* dalpha) {
  finish_weights(s, width, alpha, scales, unit, weights, mixed, dweight, dalpha);
}
KERNEL(rounding, 256, 5)
void finish_weights_float64(const double* s, int width, const float* alpha, const float* scales, float unit,
    const __grid_constant__ Quantized weights, const float* mixed, float* dweight, float* dalpha) {
  finish_weights(s, width, alpha, scales, unit, weights, mixed, dweight, dalpha);
}
