// Operations on rows around the linears: embedding, RMSNorm and quantization of the residual stream, outputs of linears
// whose product was computed in floats or whose keys are shifted, and bits expanded to floats.
#include "block_sum.cuh"
#include "levels.cuh"
#include "shift.cuh"

// A block per row of x: looks up the effective weight of the row's token. *failure becomes 1 + row where a token is
// outside the vocabulary.
KERNEL(elementwise float, 256)
void embed(float* x, const int* tokens, const __grid_constant__ Quantized table, const float* mixed, int width,
    int vocab, int* failure) {
  long row = blockIdx.x;
  int token = tokens[row];
  if (token < 0 || token >= vocab) {
    if (threadIdx.x == 0) *failure = (int)row + 1;
    return;
  }
  for (int c = threadIdx.x; c < width; c += 256)
    x[row * width + c] = mixed ? mixed[(long)token * width + c] : table.value(token, c);
}

// ---- RMSNorm and quantization of the residual stream ----

// 1 / sqrt(mean(x²) + eps) in float64, by a warp.
DEVICE double reciprocal_rms(const float* x, int width, double eps) {
  double sum = 0;
  for (int c = threadIdx.x % 32; c < width; c += 32) sum += (double)x[c] * (double)x[c];
  return 1.0 / __builtin_sqrt(warp_sum(sum) / (double)width + eps);
}

// The sign, or the level, of gain * x * rms. Float32 decides where the value is far from every border, else float64. So
// the result is that of exact arithmetic on the float32 inputs.
template <int kBits> struct Reader {
  double rms, half, step, inverse;
  float rms_float, scale, half_float;
  DEVICE_MEMBER Reader(double rms, int bits) : rms(rms) {
    half = (double)(1 << (bits - 1)), step = 2.5 / half, inverse = half / 2.5;
    rms_float = (float)rms, scale = (float)inverse, half_float = (float)half;
  }
  DEVICE_MEMBER int read(float gain, float x) const {
    if (kBits == 1) {
      bool finite = (gain != 0) & (__builtin_fabsf(gain) <= 3.4028235e38f);
      return x * (finite ? __builtin_copysignf(1.0f, gain) : gain) >= 0;  // gain * x may be too small for float32
    }
    constexpr float kMagic =
        12582912.0f;  // its unit is 1: adding it rounds, ties to even, and leaves the integer in the low bits
    float q = __nvvm_fmin_f(max(gain * (x * rms_float) * scale - 0.5f, -half_float), half_float - 1),
          shifted = q + kMagic;
    float off = q - (shifted - kMagic);
    if (__builtin_fabsf(__builtin_fabsf(off) - 0.5f) < 1e-4f)
      return level((double)gain * (double)x * rms, step, inverse, half);
    return as_int(shifted + half_float);
  }
};

// Nibble k of lane j becomes nibble j of lane k, among eight lanes: an 8 x 8 transpose.
DEVICE uint32_t transpose_nibbles(uint32_t x, int lane) {
  uint32_t y = (uint32_t)shuffle_xor((int)x, 1);
  x = lane & 1 ? (x & 0xf0f0f0f0u) | (y >> 4 & 0x0f0f0f0fu) : (x & 0x0f0f0f0fu) | (y << 4 & 0xf0f0f0f0u);
  x = (uint32_t)__nvvm_prmt(x, shuffle_xor((int)x, 2), lane & 2 ? 0x3715 : 0x6240);
  return (uint32_t)__nvvm_prmt(x, shuffle_xor((int)x, 4), lane & 4 ? 0x3276 : 0x5410);
}

// Writes a row's planes of up to 4 bits. Nibble i of word j of a lane is the level of column 128 i + 4 lane + j.
DEVICE void store_levels(uint32_t (&packed)[4], int row, int bits, uint32_t* out, int words, long plane_words,
    int* popcounts) {
  int lane = threadIdx.x % 32, count = 0, word = 4 * (lane % 8) + lane / 8;
  separate(packed);
#pragma unroll
  for (int b = 0; b < 4; b++) {
    uint32_t plane = transpose_nibbles(packed[b], lane);
    if (b >= bits) continue;
    if (word < words) out[b * plane_words + (long)row * words + word] = plane;
    count += popcount(plane) << b;
  }
  count = warp_sum(count);
  if (lane == 0) popcounts[row] = count;
}

// A warp per row of up to 1,024 values, a multiple of 128: planes of 2 to 4 bits, and the rows' weighted popcounts. A
// lane has groups of four columns, 128 apart. Levels are packed as nibbles, separated into planes within the lane, and
// transposed among eight lanes, so that each lane gets a word of a plane.
KERNEL(elementwise float, 256)
void normalize_levels(const float* x, const float* gain, int rows, int width, double eps, int bits, uint32_t* out,
    int words, long plane_words, int* popcounts) {
  constexpr int kFours = 8;
  constexpr float kMagic = 12582912.0f;  // see Reader
  int row = blockIdx.x * 8 + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (row >= rows) return;
  x += (long)row * width + 4 * lane;
  gain += 4 * lane;
  FourFloats value[kFours] = {};
#pragma unroll
  for (int i = 0; i < kFours; i++)
    if (128 * i < width) value[i] = load_four_of(x + 128 * i);
  double squares = sum_squares(value);
#pragma unroll
  for (int i = 0; i < kFours; i++)
    for (uint32_t& word : value[i].words) fence_operand(word);  // nobody needs them as float64 again
  double rms = 1.0 / __builtin_sqrt(warp_sum(squares) / (double)width + eps);
  double half = (double)(1 << (bits - 1)), step = 2.5 / half, inverse = half / 2.5;
  float factor = (float)(rms * inverse), low = -(float)half, high = (float)half - 1, base = kMagic + (float)half;
  uint32_t packed[4] = {};
#pragma unroll
  for (int i = kFours - 1; i >= 0; i--) {
    uint32_t index[4];
    if (128 * i < width) {
      FourFloats by = load_four_of(gain + 128 * i);
      bool border = false;
#pragma unroll
      for (int j = 0; j < 4; j++) {
        float q = __nvvm_fmin_f(max(by[j] * (value[i][j] * factor) - 0.5f, low), high), shifted = q + kMagic,
              off = q - (shifted - kMagic);
        border |= __builtin_fabsf(__builtin_fabsf(off) - 0.5f) < 1e-4f;
        index[j] = (uint32_t)as_int(shifted - kMagic + base);
      }
      if (ballot(border)) {
#pragma unroll
        for (int j = 0; j < 4; j++)
          index[j] = (uint32_t)as_int(kMagic) +
                     (uint32_t)level((double)by[j] * (double)value[i][j] * rms, step, inverse, half);
      }
    } else {
#pragma unroll
      for (int j = 0; j < 4; j++) index[j] = (uint32_t)as_int(kMagic);
    }
#pragma unroll
    for (int j = 0; j < 4; j++) packed[j] = packed[j] * 16 + index[j];
  }
#pragma unroll
  for (int j = 0; j < 4; j++) packed[j] -= 0x4b400000u * 0x11111111u;  // what kMagic's bits left there
  store_levels(packed, row, bits, out, words, plane_words, popcounts);
}

// A warp per row: planes of Q(gain * x / rms(x)), and the rows' weighted popcounts. Rows of up to 1,024 values stay in
// registers.
template <int kBits> DEVICE void normalize_row(const float* x, const float* gain, int width, double eps, int bits,
    uint32_t* out, int words, long plane_words, int* popcount_out) {
  constexpr int kHeld = 32;
  int lane = threadIdx.x % 32, count = 0;
  float held[kHeld];
  double sum = 0;
  for (int from = 0; from < width; from += 32 * kHeld) {
#pragma unroll
    for (int i = 0; i < kHeld; i++) {
      int c = from + 32 * i + lane;
      held[i] = c < width ? x[c] : 0.0f;
    }
#pragma unroll
    for (int i = 0; i < kHeld; i++) sum = multiply_add((double)held[i], (double)held[i], sum);
  }
  Reader<kBits> reader(1.0 / __builtin_sqrt(warp_sum(sum) / (double)width + eps), bits);
  for (int from = 0; from < width; from += 32 * kHeld) {
    if (width > 32 * kHeld) {
#pragma unroll
      for (int i = 0; i < kHeld; i++) {
        int c = from + 32 * i + lane;
        held[i] = c < width ? x[c] : 0.0f;
      }
    }
    uint32_t mine[kBits] = {};
#pragma unroll
    for (int i = 0; i < kHeld; i++) {
      if (from + 32 * i < width) {
        int c = from + 32 * i + lane;
        int index = c < width ? reader.read(gain[c], held[i]) : 0;  // in its low bits
#pragma unroll
        for (int p = 0; p < kBits; p++) {
          uint32_t word = ballot(index >> p & 1);
          if (lane == i) mine[p] = word;
        }
      }
    }
    int at = from / 32 + lane;
#pragma unroll
    for (int p = 0; p < kBits; p++) {
      count += popcount(mine[p]) << p;
      if (at < words && p < bits) out[p * plane_words + at] = mine[p];
    }
  }
  count = warp_sum(count);
  if (lane == 0) *popcount_out = count;
}

KERNEL(elementwise float, 256)
void normalize(const float* x, const float* gain, int rows, int width, double eps, int bits, uint32_t* out, int words,
    long plane_words, int* popcounts) {
  int row = blockIdx.x * 8 + threadIdx.x / 32;
  if (row >= rows) return;
  x += (long)row * width;
  out += (long)row * words;
  if (bits == 1) normalize_row<1>(x, gain, width, eps, bits, out, words, plane_words, popcounts + row);
  else if (bits <= 4) normalize_row<4>(x, gain, width, eps, bits, out, words, plane_words, popcounts + row);
  else normalize_row<8>(x, gain, width, eps, bits, out, words, plane_words, popcounts + row);
}

KERNEL(elementwise float, 256)
void normalize_floats(const float* x, const float* gain, int rows, int width, double eps, float* out) {
  int row = blockIdx.x * 8 + threadIdx.x / 32;
  if (row >= rows) return;
  x += (long)row * width;
  double rms = reciprocal_rms(x, width, eps);
  for (int c = threadIdx.x % 32; c < width; c += 32)
    out[(long)row * width + c] = (float)((double)gain[c] * (double)x[c] * rms);
}

// The gradient of RMSNorm and quantization. With a = gain * x * r and da the gradient where |a| <= limit, dx += r *
// (da*gain - x * r²/d * Σ da*gain*x). The block's part of dGain = Σ da*x*r goes to partial [gridDim.x][width].
//
// A warp per row of up to 1,024 values, a multiple of 4, aligned to 16 bytes. A lane has groups of four columns, 128
// apart. Where no lane is near the limit, float32 decides |a| <= limit, else float64.
template <class T> DEVICE void normalize_backward_rows(T* dx, float* partial, const T* dout, const float* x,
    const float* gain, int rows, int width, double eps, float limit) {
  constexpr int kFours = 8, kWarps = 4;
  __shared__ float sums[kWarps][128 * kFours];
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  float dgain[kFours][4] = {};
  for (int row = blockIdx.x * kWarps + warp; row < rows; row += gridDim.x * kWarps) {
    long at = (long)row * width + 4 * lane;
    FourFloats value[kFours] = {};
    decltype(load_four_of(dout)) grad[kFours] = {}, before[kFours] = {};
#pragma unroll
    for (int i = 0; i < kFours; i++) {
      if (128 * i + 4 * lane >= width) continue;
      value[i] = load_four_of(x + at + 128 * i);
      grad[i] = load_four_of(dout + at + 128 * i);
    }
    double squares = sum_squares(value);
#pragma unroll
    for (int i = 0; i < kFours; i++) {
      for (uint32_t& word : value[i].words) fence_operand(word);  // nobody needs them as float64 again
      if (128 * i + 4 * lane < width) before[i] = load_four_of(dx + at + 128 * i);
    }
    double rms = 1.0 / __builtin_sqrt(warp_sum(squares) / (double)width + eps);
    float r = (float)rms, scaled[kFours][4], dot = 0;
#pragma unroll
    for (int i = 0; i < kFours; i++) {
      FourFloats by = {};
      if (128 * i + 4 * lane < width) by = load_four_of(gain + 128 * i + 4 * lane);
      float da[4];
      bool pass[4], border = false;
#pragma unroll
      for (int j = 0; j < 4; j++) {
        float off = __builtin_fabsf(by[j] * value[i][j] * r) - limit;
        pass[j] = off <= 0;
        border |= __builtin_fabsf(off) <= 1e-5f * limit;
      }
      if (ballot(border)) {
#pragma unroll
        for (int j = 0; j < 4; j++)
          pass[j] = __builtin_fabs((double)by[j] * (double)value[i][j] * rms) <= (double)limit;
      }
#pragma unroll
      for (int j = 0; j < 4; j++) da[j] = pass[j] ? grad[i][j] : 0.0f;
#pragma unroll
      for (int j = 0; j < 4; j++) {
        dgain[i][j] += da[j] * (value[i][j] * r);
        scaled[i][j] = da[j] * by[j];
        dot += scaled[i][j] * value[i][j];
      }
    }
    float factor = (float)((double)warp_sum(dot) * (rms * rms / (double)width));
#pragma unroll
    for (int i = 0; i < kFours; i++) {
      if (128 * i + 4 * lane >= width) continue;
      float sum[4];
#pragma unroll
      for (int j = 0; j < 4; j++) sum[j] = before[i][j] + r * (scaled[i][j] - value[i][j] * factor);
      store_four_of(dx + at + 128 * i, sum);
    }
  }
#pragma unroll
  for (int i = 0; i < kFours; i++) store_four_of(&sums[warp][128 * i + 4 * lane], dgain[i]);
  block_sync();
  for (int c = threadIdx.x; c < width; c += 32 * kWarps) {
    float sum = 0;
#pragma unroll
    for (int w = 0; w < kWarps; w++) sum += sums[w][c];
    partial[(long)blockIdx.x * width + c] = sum;
  }
}

// The same for any row of up to 256 kPer values: a block per row, rows blockIdx.x, + gridDim.x, ...
template <int kPer, class T, class G> DEVICE void normalize_backward_any(T* dx, float* partial, const G* dout,
    const float* x, const float* gain, int rows, int width, double eps, float limit) {
  __shared__ double room[2][2][8];
  float dgain[kPer] = {};
  int turn = 0;
  for (int row = blockIdx.x; row < rows; row += gridDim.x, turn ^= 1) {
    long at = (long)row * width;
    double sum = 0, dot = 0;
    for (int c = threadIdx.x; c < width; c += 256) sum = multiply_add((double)x[at + c], (double)x[at + c], sum);
    double rms = 1.0 / __builtin_sqrt(block_sum(sum, room[turn][0]) / (double)width + eps);
    float r = (float)rms;
    auto passes = [&](int c) { return __builtin_fabs((double)gain[c] * (double)x[at + c] * rms) <= (double)limit; };
#pragma unroll
    for (int i = 0; i < kPer; i++) {
      int c = threadIdx.x + 256 * i;
      if (c >= width) continue;
      float da = passes(c) ? read(dout + at + c) : 0.0f;  // times what may be NaN
      dgain[i] += da * (x[at + c] * r);
      dot += (double)(da * gain[c]) * (double)x[at + c];
    }
    float factor = (float)(block_sum(dot, room[turn][1]) * (rms * rms / (double)width));
    for (int c = threadIdx.x; c < width; c += 256) {
      float da = passes(c) ? read(dout + at + c) : 0.0f;
      write(dx + at + c, read(dx + at + c) + r * (da * gain[c] - x[at + c] * factor));
    }
  }
#pragma unroll
  for (int i = 0; i < kPer; i++) {
    int c = threadIdx.x + 256 * i;
    if (c < width) partial[(long)blockIdx.x * width + c] = dgain[i];
  }
}

#define NORMALIZE_BACKWARD_KERNELS(type, T)                                                                            \
  KERNEL(elementwise float, 128, 3)                                                                                    \
  void normalize_backward_##type(T* dx, float* partial, const T* dout, const float* x, const float* gain, int rows,    \
      int width, double eps, float limit) {                                                                            \
    normalize_backward_rows(dx, partial, dout, x, gain, rows, width, eps, limit);                                      \
  }                                                                                                                    \
  KERNEL(elementwise float, 256)                                                                                       \
  void normalize_backward_64_from_float64_##type(T* dx, float* partial, const double* dout, const float* x,            \
      const float* gain, int rows, int width, double eps, float limit) {                                               \
    normalize_backward_any<64>(dx, partial, dout, x, gain, rows, width, eps, limit);                                   \
  }                                                                                                                    \
  KERNEL(elementwise float, 256)                                                                                       \
  void normalize_backward_16_##type(T* dx, float* partial, const T* dout, const float* x, const float* gain, int rows, \
      int width, double eps, float limit) {                                                                            \
    normalize_backward_any<16>(dx, partial, dout, x, gain, rows, width, eps, limit);                                   \
  }                                                                                                                    \
  KERNEL(elementwise float, 256)                                                                                       \
  void normalize_backward_64_##type(T* dx, float* partial, const T* dout, const float* x, const float* gain, int rows, \
      int width, double eps, float limit) {                                                                            \
    normalize_backward_any<64>(dx, partial, dout, x, gain, rows, width, eps, limit);                                   \
  }
NORMALIZE_BACKWARD_KERNELS(float32, float)
NORMALIZE_BACKWARD_KERNELS(bfloat16, BFloat)

// ---- Outputs of linears from products y in floats: u = alpha * y - theta ----

DEVICE float shifted(const float* y, long stride, long row, int c, const Shift& s) {
  float own = y[row * stride + c];
  if (c < s.from || c >= s.to) return own;
  float sum = s.self ? own : 0.0f;
  if (row % s.seq - s.offset >= (s.starts ? s.starts[row] : 0)) sum += y[(row - s.offset) * stride + c];
  return sum;
}

// A warp per row: signs, or mid-rise levels, of u and, unless mask is null, whether u lies within their range: bits of
// a mask of all channels.
KERNEL(elementwise float, 256)
void emit_levels(const float* y, long stride, const float* alpha, const float* theta, int rows,
    const __grid_constant__ Shift shift, const __grid_constant__ Levels to, uint32_t* mask, int mask_words) {
  int row = blockIdx.x * 8 + threadIdx.x / 32, lane = threadIdx.x % 32, count = 0;
  if (row >= rows) return;
  MidRise levels(to.bits);
  float limit = to.bits == 1 ? 1.0f : 2.5f;
  for (int w = 0; 32 * w < to.width; w++) {
    int c = to.from + 32 * w + lane, left = to.width - 32 * w;
    float u = lane < left ? alpha[c] * shifted(y, stride, row, c, shift) - theta[c] : -4.0f;
    count += put_levels(to, row, w, to.bits == 1 ? u >= 0.0f : levels.level(u));
    uint32_t inside = ballot(__builtin_fabsf(u) <= limit);
    if (mask && lane == 0) put_bits(mask + (long)row * mask_words, to.from + 32 * w, min(32, left), inside);
  }
  if (lane == 0) to.popcounts[row] = count;
}

// A warp per row: levels of relu(u)², and factors of all channels unless that is null.
template <class T> DEVICE void emit_squares(const float* y, long stride, const float* alpha, const float* theta,
    int rows, const Shift& shift, const Levels& to, T* factors, int all) {
  int row = blockIdx.x * 8 + threadIdx.x / 32, lane = threadIdx.x % 32, count = 0;
  if (row >= rows) return;
  float top = (float)((1 << to.bits) - 1);
  for (int w = 0; 32 * w < to.width; w++) {
    int c = to.from + 32 * w + lane;
    bool inside = 32 * w + lane < to.width;
    float u = inside ? alpha[c] * shifted(y, stride, row, c, shift) - theta[c] : 0.0f;
    count += put_levels(to, row, w, rounded_square(u, top));
    if (factors && inside) write(factors + (long)row * all + c, squared_factor(u));
  }
  if (lane == 0) to.popcounts[row] = count;
}
#define EMIT_SQUARES(type, T)                                                                                 \
  KERNEL(elementwise float, 256)                                                                              \
  void emit_squares_##type(const float* y, long stride, const float* alpha, const float* theta, int rows,     \
      const __grid_constant__ Shift shift, const __grid_constant__ Levels to, T* factors, int all) {          \
    emit_squares(y, stride, alpha, theta, rows, shift, to, factors, all);                                     \
  }
EMIT_SQUARES(float32, float)
EMIT_SQUARES(bfloat16, BFloat)

// out = residual + u, or u where residual is null; u is y itself where alpha is null. out may be residual.
KERNEL(elementwise float, 256)
void emit_add(float* out, const float* residual, const float* y, long stride, const float* alpha, const float* theta,
    long count, int width) {
  for (long i = blockIdx.x * 256l + threadIdx.x; i < count; i += gridDim.x * 256l) {
    int c = (int)(i % width);
    float u = y[i / width * stride + c];
    if (alpha) u = alpha[c] * u - theta[c];
    out[i] = residual ? residual[i] + u : u;
  }
}

// out = y rounded to bfloat16.
KERNEL(elementwise float, 256) void emit_bfloats(BFloat* out, const float* y, long stride, long count, int width) {
  for (long i = blockIdx.x * 256l + threadIdx.x; i < count; i += gridDim.x * 256l)
    write(out + i, y[i / width * stride + i % width]);
}

// out = scale_r * unit * s, for sums of any size.
template <class T>
DEVICE void emit_integers(T* out, const int* s, const float* scale, float unit, long count, int width) {
  for (long i = blockIdx.x * 256l + threadIdx.x; i < count; i += gridDim.x * 256l)
    write(out + i, scale[i / width] * unit * (float)s[i]);
}
KERNEL(elementwise float, 256)
void emit_integers_float32(float* out, const int* s, const float* scale, float unit, long count, int width) {
  emit_integers(out, s, scale, unit, count, width);
}
KERNEL(elementwise float, 256)
void emit_integers_bfloat16(BFloat* out, const int* s, const float* scale, float unit, long count, int width) {
  emit_integers(out, s, scale, unit, count, width);
}

// ---- Bits as floats, for products with floats ----

// out[r][c] = factor_r * values[r][c]; factor may be null.
KERNEL(elementwise float, 256)
void expand(const __grid_constant__ Quantized values, int columns, const float* factor, float* out) {
  long row = blockIdx.x;
  float f = factor ? factor[row] : 1.0f;
  for (int c = threadIdx.x; c < columns; c += 256) out[row * columns + c] = f * values.value(row, c);
}

// out[r][c] = factor_r * x[r][c].
KERNEL(elementwise float, 256) void scale_rows(const float* x, int columns, const float* factor, float* out) {
  long row = blockIdx.x;
  for (int c = threadIdx.x; c < columns; c += 256) out[row * columns + c] = factor[row] * x[row * columns + c];
}

// A block per row: mixed = (1-mix) * w / mean|w| + mix * Q(w).
KERNEL(elementwise float, 256)
void blend(const float* weight, int width, const __grid_constant__ Quantized quantized, const Scalars* scalars,
    float* mixed) {
  __shared__ double room[8];
  long at = (long)blockIdx.x * width;
  double sum = 0;
  for (int c = threadIdx.x; c < width; c += 256) sum += __builtin_fabs((double)weight[at + c]);
  double mean = block_sum(sum, room) / (double)width, mix = scalars->mix;
  double factor = (1 - mix) / (mean < 1e-12 ? 1e-12 : mean);
  for (int c = threadIdx.x; c < width; c += 256) {
    double w = weight[at + c];
    mixed[at + c] = (float)(w * factor + mix * (double)quantized.value(blockIdx.x, c));
  }
}
