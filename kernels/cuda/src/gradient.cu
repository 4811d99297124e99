// The backward pass of linears but for its products: the greatest gradients, which fix the scales; rounding to integers and packing
// them as bit planes, along channels for dx and along tokens for the weights; and what becomes of the weights' products.
//
// A block of 256 threads handles 256 rows x 128 channels; a lane has four neighbouring channels.
#include "philox.cuh"
#include "gradient.cuh"

// row_max[t] = max_c |alpha_c g|, column_max[c] = max_t |g|, as the bits of non-negative floats over what is there, and
// theta[block of rows][c] = Σ_t of the masked gradient. Null pointers are left out.
template <class Source>
DEVICE void grad_max(Source source, int rows, int width, const float* alpha, uint32_t* row_max, uint32_t* column_max, float* theta) {
  __shared__ float tops[8][128], sums[8][128];
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32, c0 = blockIdx.x * 128 + 4 * lane;
  source.prepare(c0);
  float a[4], top[4] = {}, sum[4] = {};
#pragma unroll
  for (int j = 0; j < 4; j++) a[j] = c0 + j < width ? alpha[c0 + j] : 0;
#pragma unroll 2
  for (int i = 0; i < 32; i++) {
    int row = blockIdx.y * 256 + 8 * i + warp;
    if (row >= rows) break;
    float g[4], plain[4], most = 0;
    source.load(row, c0, g, plain);
#pragma unroll
    for (int j = 0; j < 4; j++) {
      sum[j] += plain[j];
      top[j] = max(top[j], __builtin_fabsf(g[j]));
      most = max(most, __builtin_fabsf(a[j] * g[j]));
    }
    if (row_max) {
      uint32_t bits = warp_max((uint32_t)as_int(most));
      if (lane == 0) max_to(row_max + row, bits);
    }
  }
#pragma unroll
  for (int j = 0; j < 4; j++) tops[warp][4 * lane + j] = top[j], sums[warp][4 * lane + j] = sum[j];
  block_sync();
  int c = blockIdx.x * 128 + threadIdx.x;
  if (threadIdx.x >= 128 || c >= width) return;
  float most = 0, total = 0;
#pragma unroll
  for (int w = 0; w < 8; w++) most = max(most, tops[w][threadIdx.x]), total += sums[w][threadIdx.x];
  if (column_max) max_to(column_max + c, (uint32_t)as_int(most));
  if (theta) theta[(long)blockIdx.y * width + c] = total;
}

// From maxima (float bits) the scales max / levels, over them, and the inverses levels / max.
extern "C" __global__ __launch_bounds__(256) void grad_scales(float* maxima, int n, float levels, float* inverse) {
  int i = blockIdx.x * 256 + threadIdx.x;
  if (i >= n) return;
  float most = maxima[i];
  inverse[i] = most < 1e-30f ? 0.0f : levels / most;
  maxima[i] = most / levels;
}

struct Rounding {
  int rows, width, bits, row0;  // row0: what counts as the first row's number
  const float *alpha, *row_inverse, *column_inverse;
  // For dx, rows x channels; null where not wanted. Channels are in the order in which ballots find them: bit l of word j of a group
  // of four is channel 4 l + j.
  uint32_t* row_planes;
  int* row_popcounts;  // added to: the sum of a row's integers is its weighted popcount
  long row_plane_words;
  int row_words;
  // For the weights, channels x rows.
  int column_words, column_words_left;  // of a channel; from these rows on
  uint32_t* column_planes;
  int* column_popcounts;
  long column_plane_words;
  uint32_t id;
  const Scalars* scalars;
};

// Sixteen random bits as a multiple of 2^-16 in [0, 1), exactly.
DEVICE float fraction(uint32_t half) { return as_float((int)(0x3f800000u | half << 7)) - 1.0f; }

DEVICE int rounded(float v, float inverse, uint32_t half, int levels) {
  int q;
  asm("cvt.rmi.s32.f32 %0, %1;" : "=r"(q) : "f"(v * inverse + fraction(half)));
  return max(-levels, min(levels, q));
}

template <int kBits, class Source> DEVICE void grad_round(Source source, const Rounding& p) {
  __shared__ uint32_t words[kBits][128][9];  // 9: fewer bank conflicts
  __shared__ int sums[8][128];
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32, c0 = blockIdx.x * 128 + 4 * lane;
  int levels = (1 << (p.bits - 1)) - 1, quads = ceil_div(p.width, 4);
  uint32_t key0 = p.scalars->seed[0] ^ 0x44494e47u, key1 = p.scalars->seed[1] ^ 0x524f554eu;
  uint32_t step0 = p.scalars->step[0], step1 = p.scalars->step[1], stream = p.id | p.scalars->micro << 16;
  source.prepare(c0);
  float a[4], inverse[4];
#pragma unroll
  for (int j = 0; j < 4; j++) {
    a[j] = c0 + j < p.width ? p.alpha[c0 + j] : 0;
    inverse[j] = p.column_planes && c0 + j < p.width ? p.column_inverse[c0 + j] : 0;
  }
  uint32_t columns[kBits][4] = {};
  int sum[4] = {};
  for (int i = 0; i < 32; i++) {
    int row = blockIdx.y * 256 + 32 * warp + i;
    if (row >= p.rows) break;
    float g[4], plain[4];
    source.load(row, c0, g, plain);
    Words4 random = philox(key0, key1, (uint32_t)(p.row0 + row) * (uint32_t)quads + (uint32_t)(c0 / 4), stream, step0, step1);
    if (p.row_planes) {
      float inverse_row = p.row_inverse[row];
      uint32_t mine = 0;
      int total = 0;
#pragma unroll
      for (int j = 0; j < 4; j++) {
        int q = rounded(a[j] * g[j], inverse_row, random.w[j] & 0xffff, levels);
        total += q;
#pragma unroll
        for (int b = 0; b < kBits; b++) {
          uint32_t word = ballot(q >> b & 1);
          if (lane == 4 * b + j) mine = word;
        }
      }
      if (lane < 4 * p.bits) p.row_planes[lane / 4 * p.row_plane_words + (long)row * p.row_words + blockIdx.x * 4 + lane % 4] = mine;
      total = warp_sum(total);
      if (lane == 0) add_to(p.row_popcounts + row, total);
    }
    if (p.column_planes) {
#pragma unroll
      for (int j = 0; j < 4; j++) {
        int q = rounded(g[j], inverse[j], random.w[j] >> 16, levels);
        sum[j] += q;
#pragma unroll
        for (int b = 0; b < kBits; b++) columns[b][j] |= (uint32_t)(q >> b & 1) << i;
      }
    }
  }
  if (!p.column_planes) return;
#pragma unroll
  for (int j = 0; j < 4; j++) {
    sums[warp][4 * lane + j] = sum[j];
#pragma unroll
    for (int b = 0; b < kBits; b++) words[b][4 * lane + j][warp] = columns[b][j];
  }
  block_sync();
  for (int e = threadIdx.x; e < p.bits * 256; e += 256) {
    int b = e / 256, column = e % 256 / 2, half = e % 2, word = blockIdx.y * 8 + 4 * half;
    const uint32_t* from = words[b][column] + 4 * half;
    if (blockIdx.x * 128 + column < p.width && word < p.column_words_left)
      *(Int4*)(p.column_planes + b * p.column_plane_words + (long)(blockIdx.x * 128 + column) * p.column_words + word) =
          Int4{(int)from[0], (int)from[1], (int)from[2], (int)from[3]};
  }
  int c = blockIdx.x * 128 + threadIdx.x;
  if (threadIdx.x >= 128 || c >= p.width) return;
  int total = 0;
#pragma unroll
  for (int w = 0; w < 8; w++) total += sums[w][threadIdx.x];
  add_to(p.column_popcounts + c, total);
}

// out = g in floats.
template <class Source> DEVICE void grad_copy(Source source, int rows, int width, float* out) {
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32, c0 = blockIdx.x * 128 + 4 * lane;
  source.prepare(c0);
  for (int i = 0; i < 32; i++) {
    int row = blockIdx.y * 256 + 8 * i + warp;
    if (row >= rows) break;
    float g[4], plain[4];
    source.load(row, c0, g, plain);
#pragma unroll
    for (int j = 0; j < 4; j++)
      if (c0 + j < width) out[(long)row * width + c0 + j] = g[j];
  }
}

#define GRADIENT_KERNELS(name, Source)                                                                                           \
  extern "C" __global__ __launch_bounds__(256) void grad_max_##name(const __grid_constant__ Source source, int rows, int width,  \
                                                                    const float* alpha, uint32_t* row_max, uint32_t* column_max, \
                                                                    float* theta) {                                              \
    grad_max<Source>(source, rows, width, alpha, row_max, column_max, theta);                                                    \
  }                                                                                                                              \
  extern "C" __global__ __launch_bounds__(256) void grad_round4_##name(const __grid_constant__ Source source,                    \
                                                                       const __grid_constant__ Rounding rounding) {              \
    grad_round<4, Source>(source, rounding);                                                                                     \
  }                                                                                                                              \
  extern "C" __global__ __launch_bounds__(256) void grad_round8_##name(const __grid_constant__ Source source,                    \
                                                                       const __grid_constant__ Rounding rounding) {              \
    grad_round<8, Source>(source, rounding);                                                                                     \
  }                                                                                                                              \
  extern "C" __global__ __launch_bounds__(256) void grad_copy_##name(const __grid_constant__ Source source, int rows, int width, \
                                                                     float* out) {                                               \
    grad_copy<Source>(source, rows, width, out);                                                                                 \
  }
GRADIENT_KERNELS(dense, DenseGradient)
GRADIENT_KERNELS(head_int16, HeadGradient<short>)
GRADIENT_KERNELS(head_float32, HeadGradient<float>)

// A block per channel c, s = Σ_t g x of its weights: dweight += alpha_c scale_c unit s, dalpha_c += scale_c unit Σ_k w_ck s_k, with
// w the effective weight. Null scales count as 1.
template <class T>
DEVICE void finish_weights(const T* s, int width, const float* alpha, const float* scales, float unit, const uint32_t* signs,
                           int words, const float* mixed, float* dweight, float* dalpha) {
  __shared__ double room[8];
  long c = blockIdx.x, at = c * width;
  float scale = scales ? scales[c] * unit : unit, factor = alpha[c] * scale;
  double sum = 0;
  for (int k = threadIdx.x; k < width; k += 256) {
    T value = s[at + k];
    double w = mixed ? (double)mixed[at + k] : signs[c * words + k / 32] >> (k % 32) & 1 ? 1.0 : -1.0;
    sum += w * (double)value;
    dweight[at + k] += factor * (float)value;
  }
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = sum;
  block_sync();
  if (threadIdx.x > 0) return;
  for (int i = 1; i < 8; i++) sum += room[i];
  dalpha[c] += (float)((double)scale * sum);
}

extern "C" __global__ __launch_bounds__(256) void finish_weights_int32(const int* s, int width, const float* alpha,
                                                                       const float* scales, float unit, const uint32_t* signs,
                                                                       int words, const float* mixed, float* dweight, float* dalpha) {
  finish_weights(s, width, alpha, scales, unit, signs, words, mixed, dweight, dalpha);
}
extern "C" __global__ __launch_bounds__(256) void finish_weights_float32(const float* s, int width, const float* alpha,
                                                                         const float* scales, float unit, const uint32_t* signs,
                                                                         int words, const float* mixed, float* dweight,
                                                                         float* dalpha) {
  finish_weights(s, width, alpha, scales, unit, signs, words, mixed, dweight, dalpha);
}
