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

// The sum of squares of a lane's values, in float64.
template <int kFours> DEVICE double sum_squares(const FourFloats (&value)[kFours]) {
  double squares = 0;
#pragma unroll
  for (int i = 0; i < kFours; i++)
#pragma unroll
    for (int j = 0; j < 4; j++) squares = multiply_add((double)value[i][j], (double)value[i][j], squares);
  return squares;
}

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

// What makes a rotation orthonormal.
DEVICE double rotation_factor(int rotation) { return 1.0 / __builtin_sqrt((double)rotation); }

// The rotation of a row in memory by a block of 256 threads, without that factor, and barriers before and after it.
DEVICE void rotate_block(double* v, int width, int rotation) {
  block_sync();
  for (int n = 1; n < rotation; n *= 2) {
    for (int i = threadIdx.x; i < width / 2; i += 256) {
      int at = i / n * 2 * n + i % n;
      double a = v[at], b = v[at + n];
      v[at] = a + b, v[at + n] = a - b;
    }
    block_sync();
  }
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

// ---- Rotation: blocks of a row times the orthonormal Hadamard matrix of their size (in Go: kernels.RMSNorm) ----

// 128 columns among the lanes of a warp: v[j] is column 4 lane + j. `rotation` is at most 128. Butterflies of the
// columns 1, 2, 4 ... apart, without the factor that makes the matrix orthonormal.
template <class T> DEVICE void rotate(T (&v)[4], int rotation) {
  int lane = threadIdx.x % 32;
  auto butterfly = [](T& a, T& b) {
    T sum = a + b;
    b = a - b, a = sum;
  };
  if (rotation > 1) butterfly(v[0], v[1]), butterfly(v[2], v[3]);
  if (rotation > 2) butterfly(v[0], v[2]), butterfly(v[1], v[3]);
#pragma unroll
  for (int mask = 1; mask < 32; mask *= 2) {
    if (rotation <= 4 * mask) break;
#pragma unroll
    for (int j = 0; j < 4; j++) {
      T other = shuffle_xor(v[j], mask);
      v[j] = lane & mask ? other - v[j] : v[j] + other;
    }
  }
}

// gain * x of these columns, rotated. The product with rms * rotation_factor is what is quantized.
DEVICE void rotated_columns(const FourFloats& x, const FourFloats& gain, int rotation, double (&v)[4]) {
#pragma unroll
  for (int j = 0; j < 4; j++) v[j] = (double)gain[j] * (double)x[j];
  rotate(v, rotation);
}

// ---- Rows of up to 1,024 values, a multiple of 128, with rotations of up to 128 columns ----
//
// A warp takes a row at a time, and has later ones copied to shared memory meanwhile. There, each block of 128 columns
// has 16 values of padding behind it. For sums over a row, a lane has columns 128 i + 4 lane ... + 3 for every block i.
// For everything else, four lanes share a block: lane 4 i + q has columns 128 i + 16 k + 4 q ... + 3 for k = 0 ... 7. So
// five of a rotation's seven rounds need no other lane. The padding keeps lanes in different banks in both orders.
constexpr int kPaddedBlock = 128 + 16;

// Starts a warp's copy of a row to shared memory.
template <class T> DEVICE void copy_row(T* to, const T* from, int width) {
  constexpr int kPiece = 16 / sizeof(T), kPieces = 128 / kPiece;  // values of a piece, pieces of a block
#pragma unroll
  for (int i = 0; i < 8 * kPieces / 32; i++) {
    int piece = 32 * i + threadIdx.x % 32;
    if (kPiece * piece < width)
      copy_async<16>(to + piece / kPieces * kPaddedBlock + piece % kPieces * kPiece, from + kPiece * piece);
  }
}

// 128 columns among four lanes: v[k][j] is column 16 k + 4 (lane % 4) + j. Butterflies as in rotate.
DEVICE void rotate_in_four(float (&v)[8][4], int rotation) {
  auto within = [&](int k_apart, int j_apart) __attribute__((always_inline)) {
#pragma unroll
    for (int k = 0; k < 8; k++)
#pragma unroll
      for (int j = 0; j < 4; j++) {
        if (k & k_apart || j & j_apart) continue;
        float &a = v[k][j], &b = v[k + k_apart][j + j_apart], sum = a + b;
        b = a - b, a = sum;
      }
  };
  auto across = [&](int mask) __attribute__((always_inline)) {
    float sign = threadIdx.x & mask ? -1.0f : 1.0f;  // a multiplication by it is exact
#pragma unroll
    for (int k = 0; k < 8; k++)
#pragma unroll
      for (int j = 0; j < 4; j++) v[k][j] = __builtin_fmaf(v[k][j], sign, shuffle_xor(v[k][j], mask));
  };
  auto rounds = [&](bool all) __attribute__((always_inline)) {
    if (all || rotation > 1) within(0, 1);
    if (all || rotation > 2) within(0, 2);
    if (all || rotation > 4) across(1);
    if (all || rotation > 8) across(2);
    if (all || rotation > 16) within(1, 0);
    if (all || rotation > 32) within(2, 0);
    if (all || rotation > 64) within(4, 0);
  };
  if (rotation == 128) rounds(true);  // without tests, which cost a move for every value
  else rounds(false);
}

// Float32 has a rotated value of gain * x within this many times Σ |gain * x| of its block, plus the least float32: eight
// roundings, and two for the sum's own. Where a value is NaN or infinite, so is the sum.
constexpr float kRotationError = 10 * 0x1p-24f;
DEVICE float rotation_error(float sum_of_lane) {
  sum_of_lane += shuffle_xor(sum_of_lane, 1), sum_of_lane += shuffle_xor(sum_of_lane, 2);
  return sum_of_lane * kRotationError + 1e-42f;
}

// normalize_levels with a rotation, for 1 to 4 bits. Float32 decides where no value of a block of 128 columns is near a
// border, else float64. Levels are packed as nibbles, plus what kMagic's bits are.
constexpr int kNormalizedAhead = 2, kNormalizedShared = 8 * kNormalizedAhead * 8 * kPaddedBlock * 4;
KERNEL(elementwise float shared(kNormalizedShared), 256, 2)
void normalize_rotated(const float* x, const float* gain, int rows, int width, double eps, int rotation, int bits,
    uint32_t* out, int words, long plane_words, int* popcounts) {
  extern __shared__ char memory[];
  constexpr int kFours = 8, kRow = 8 * kPaddedBlock;
  constexpr float kMagic = 12582912.0f;  // see Reader
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32, stride = gridDim.x * 8;
  float* held = (float*)memory + warp * kNormalizedAhead * kRow;
  int column = lane / 4 * 128 + lane % 4 * 4, place = lane / 4 * kPaddedBlock + lane % 4 * 4;
  bool inside = column < width;
  FourFloats by[kFours] = {};
#pragma unroll
  for (int k = 0; k < kFours; k++)
    if (inside) by[k] = load_four_of(gain + column + 16 * k);
  double half = (double)(1 << (bits - 1)), step = 2.5 / half, inverse = half / 2.5;
  float low = -(float)half, high = (float)half - 1, base = kMagic + (float)half;
  auto fetch = [&](int row, float* to) {
    if (row < rows) copy_row(to, x + (long)row * width, width);
    copies_commit();
  };
  int first = blockIdx.x * 8 + warp, turn = 0;
  for (int i = 0; i < kNormalizedAhead; i++) fetch(first + i * stride, held + i * kRow);
  for (int row = first; row < rows; row += stride, turn = turn + 1 == kNormalizedAhead ? 0 : turn + 1) {
    float* at = held + turn * kRow;
    copies_wait<kNormalizedAhead - 1>();
    warp_sync();
    FourFloats value[kFours] = {};
#pragma unroll
    for (int i = 0; i < kFours; i++)
      if (128 * i < width) value[i] = load_four_of(at + i * kPaddedBlock + 4 * lane);
    double factor = 1.0 / __builtin_sqrt(warp_sum(sum_squares(value)) / (double)width + eps) * rotation_factor(rotation);
    float v[kFours][4], sum = 0;
#pragma unroll
    for (int k = 0; k < kFours; k++) {
      FourFloats own = {};
      if (inside) own = load_four_of(at + place + 16 * k);
#pragma unroll
      for (int j = 0; j < 4; j++) v[k][j] = by[k][j] * own[j], sum += __builtin_fabsf(v[k][j]);
    }
    rotate_in_four(v, rotation);
    float error = rotation_error(sum), scale = (float)(factor * inverse), margin = error * scale + 4e-6f;
    bool border = false;
    uint32_t packed[4] = {};
    auto quantize = [&](bool signs) __attribute__((always_inline)) {
#pragma unroll
      for (int k = kFours - 1; k >= 0; k--)
#pragma unroll
        for (int j = 0; j < 4; j++) {
          float q = __nvvm_fmin_f(max(v[k][j] * scale - 0.5f, low), high), shifted = q + kMagic,
                off = __builtin_fabsf(q - (shifted - kMagic)) - 0.5f;
          border |= signs ? !(__builtin_fabsf(v[k][j]) > error) : !(__builtin_fabsf(off) > margin);
          packed[j] = packed[j] * 16 +
                      (uint32_t)(signs ? as_int(kMagic) + (v[k][j] >= 0 ? 1 : 0) : as_int(shifted - kMagic + base));
        }
    };
    if (bits == 1) quantize(true);
    else quantize(false);
    uint32_t borders = ballot(border & inside);
    if (borders) {
      warp_sync();  // everybody has read x
#pragma unroll 1
      for (int i = 0; 128 * i < width; i++) {
        if (!(borders >> 4 * i & 15)) continue;
        float* four = at + i * kPaddedBlock + 4 * lane;
        double exact[4];
        rotated_columns(load_four_of(four), load_four_of(gain + 128 * i + 4 * lane), rotation, exact);
#pragma unroll
        for (int j = 0; j < 4; j++)
          four[j] = as_float(as_int(kMagic) +
                             (bits == 1 ? exact[j] >= 0 : level(exact[j] * factor, step, inverse, half)));
      }
      warp_sync();
      if (borders >> lane / 4 * 4 & 15) {
#pragma unroll
        for (int k = kFours - 1; k >= 0; k--) {
          FourFloats index = load_four_of(at + place + 16 * k);
#pragma unroll
          for (int j = 0; j < 4; j++) packed[j] = packed[j] * 16 + index.words[j];  // what was there is shifted out
        }
      }
    }
    warp_sync();
    fetch(row + kNormalizedAhead * stride, at);
#pragma unroll
    for (int j = 0; j < 4; j++) packed[j] = inside ? packed[j] - 0x4b400000u * 0x11111111u : 0;
    separate(packed);
    int count = 0;
#pragma unroll
    for (int b = 0; b < 4; b++) {
      if (b >= bits) break;
      // Bit 4 k + j of a lane. Byte k / 2 becomes that of a word; its lower nibbles are the word's lower half.
      uint32_t plane = transpose_bytes(packed[b], lane), swapped = (plane >> 4 ^ plane) & 0x00f000f0u;
      plane ^= swapped ^ swapped << 4;
      plane = (uint32_t)__nvvm_prmt(plane, plane, 0x3120);
      if (inside) out[b * plane_words + (long)row * words + lane] = plane;
      count += popcount(plane) << b;
    }
    count = warp_sum(count);
    if (lane == 0) popcounts[row] = count;
  }
}

// Rotations of rows of any length go through memory, in float64. A block per row: gain * x, rotated. Its product with
// the row's factor is what is quantized.
KERNEL(elementwise float, 256)
void rotate_normalized(
    const float* x, const float* gain, int width, double eps, int rotation, double* out, double* factors) {
  __shared__ double room[8];
  x += (long)blockIdx.x * width, out += (long)blockIdx.x * width;
  double sum = 0;
  for (int c = threadIdx.x; c < width; c += 256) sum = multiply_add((double)x[c], (double)x[c], sum);
  double rms = 1.0 / __builtin_sqrt(block_sum(sum, room) / (double)width + eps);
  if (threadIdx.x == 0) factors[blockIdx.x] = rms * rotation_factor(rotation);
  for (int c = threadIdx.x; c < width; c += 256) out[c] = (double)gain[c] * (double)x[c];
  rotate_block(out, width, rotation);
}

// A warp per row: the levels of v times the row's factor, or floats if those are wanted.
KERNEL(elementwise float, 256)
void quantize_rotated(const double* v, const double* factors, int rows, int width, const __grid_constant__ Levels to,
    float* floats) {
  int row = blockIdx.x * 8 + threadIdx.x / 32, lane = threadIdx.x % 32, count = 0;
  if (row >= rows) return;
  v += (long)row * width;
  double factor = factors[row];
  if (floats) {
    for (int c = lane; c < width; c += 32) floats[(long)row * width + c] = (float)(v[c] * factor);
    return;
  }
  double half = (double)(1 << (to.bits - 1)), step = 2.5 / half;
  for (int w = 0; 32 * w < width; w++) {
    int c = 32 * w + lane;
    int index = c >= width ? 0 : to.bits == 1 ? v[c] >= 0 : nearest_level(v[c] * factor, step, half);
    count += put_levels(to, row, w, index);
  }
  if (lane == 0) to.popcounts[row] = count;
}

// A block per row: the gradient of gain * x / rms from that of its rotation, which passes where |v * factor| <= limit.
template <class T> DEVICE void rotate_gradient(
    const double* v, const double* factors, const T* dout, int width, int rotation, float limit, double* to) {
  double factor = factors[blockIdx.x], scale = rotation_factor(rotation);
  v += (long)blockIdx.x * width, dout += (long)blockIdx.x * width, to += (long)blockIdx.x * width;
  for (int c = threadIdx.x; c < width; c += 256)
    to[c] = __builtin_fabs(v[c] * factor) <= (double)limit ? (double)read(dout + c) : 0.0;
  rotate_block(to, width, rotation);
  for (int c = threadIdx.x; c < width; c += 256) to[c] *= scale;
}
KERNEL(elementwise float, 256)
void rotate_gradient_float32(const double* v, const double* factors, const float* dout, int width, int rotation,
    float limit, double* to) {
  rotate_gradient(v, factors, dout, width, rotation, limit, to);
}
KERNEL(elementwise float, 256)
void rotate_gradient_bfloat16(const double* v, const double* factors, const BFloat* dout, int width, int rotation,
    float limit, double* to) {
  rotate_gradient(v, factors, dout, width, rotation, limit, to);
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

DEVICE void store_four_of(float* to, const float (&x)[4]) { *(Float4*)to = Float4{x[0], x[1], x[2], x[3]}; }
DEVICE void store_four_of(BFloat* to, const float (&x)[4]) {
  *(Int2*)to = Int2{(int)pack_bf16(x[0], x[1]), (int)pack_bf16(x[2], x[3])};
}

// The gradient of RMSNorm and quantization. With a = gain * x * r and da the gradient where |a| <= limit, dx += r *
// (da*gain - x * r²/d * Σ da*gain*x). The block's part of dGain = Σ da*x*r goes to partial [gridDim.x][width]. With a
// rotation, the gradient passes where |rotated a| <= limit, and da is the rotation of what passes.
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

// ---- The same with a rotation of up to 128 columns, for rows of up to 1,024 values, a multiple of 128 ----

constexpr int kRotatedWarps = 4;
template <class T> struct alignas(16) RotatedRow {
  static constexpr int kAhead = sizeof(T) == 2 ? 2 : 1;  // rows of a warp in shared memory
  float x[8 * kPaddedBlock];
  T dout[8 * kPaddedBlock], dx[8 * kPaddedBlock];
};
constexpr int kRotatedBFloats = 73728, kRotatedFloats = 55296;
static_assert(kRotatedBFloats == kRotatedWarps * RotatedRow<BFloat>::kAhead * sizeof(RotatedRow<BFloat>));
static_assert(kRotatedFloats == kRotatedWarps * RotatedRow<float>::kAhead * sizeof(RotatedRow<float>));

// Clears the gradients of a row in shared memory that do not pass, by float64.
template <class T> DEVICE void pass_exactly(
    RotatedRow<T>& row, const float* gain, int width, int rotation, double factor, double limit) {
  int lane = threadIdx.x % 32;
#pragma unroll 1
  for (int i = 0; 128 * i < width; i++) {
    int at = i * kPaddedBlock + 4 * lane;
    double exact[4];
    rotated_columns(load_four_of(row.x + at), load_four_of(gain + 128 * i + 4 * lane), rotation, exact);
#pragma unroll
    for (int j = 0; j < 4; j++)
      if (!(__builtin_fabs(exact[j] * factor) <= limit)) write(row.dout + at + j, 0);
  }
  warp_sync();
}

template <class T> DEVICE void normalize_backward_rotated_rows(T* dx, float* partial, const T* dout, const float* x,
    const float* gain, int rows, int width, double eps, float limit, int rotation) {
  extern __shared__ char memory[];
  using Row = RotatedRow<T>;
  constexpr int kFours = 8;
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32, stride = gridDim.x * kRotatedWarps;
  Row* held = (Row*)memory + warp * Row::kAhead;
  int column = lane / 4 * 128 + lane % 4 * 4, place = lane / 4 * kPaddedBlock + lane % 4 * 4;
  bool inside = column < width;
  double unrotate = rotation_factor(rotation);
  FourFloats by[kFours] = {};
  float dgain[kFours][4] = {};
#pragma unroll
  for (int k = 0; k < kFours; k++)
    if (inside) by[k] = load_four_of(gain + column + 16 * k);
  auto fetch = [&](int row, Row& to) {
    long at = (long)row * width;
    if (row < rows) copy_row(to.x, x + at, width), copy_row(to.dout, dout + at, width), copy_row(to.dx, dx + at, width);
    copies_commit();
  };
  int first = blockIdx.x * kRotatedWarps + warp, turn = 0;
  for (int i = 0; i < Row::kAhead; i++) fetch(first + i * stride, held[i]);
  for (int row = first; row < rows; row += stride, turn = turn + 1 == Row::kAhead ? 0 : turn + 1) {
    Row& at = held[turn];
    copies_wait<Row::kAhead - 1>();
    warp_sync();
    FourFloats value[kFours] = {};
#pragma unroll
    for (int i = 0; i < kFours; i++)
      if (128 * i < width) value[i] = load_four_of(at.x + i * kPaddedBlock + 4 * lane);
    double rms = 1.0 / __builtin_sqrt(warp_sum(sum_squares(value)) / (double)width + eps);
    float r = (float)rms, v[kFours][4], da[kFours][4], sum = 0;
#pragma unroll
    for (int k = 0; k < kFours; k++) {
      value[k] = {};
      if (inside) value[k] = load_four_of(at.x + place + 16 * k);
#pragma unroll
      for (int j = 0; j < 4; j++) v[k][j] = by[k][j] * value[k][j], sum += __builtin_fabsf(v[k][j]);
    }
    rotate_in_four(v, rotation);
    float scale = (float)(rms * unrotate), margin = rotation_error(sum) * scale + 4e-7f * limit;
    bool border = false;
#pragma unroll
    for (int k = 0; k < kFours; k++) {
      decltype(load_four_of(dout)) grad = {};
      if (inside) grad = load_four_of(at.dout + place + 16 * k);
#pragma unroll
      for (int j = 0; j < 4; j++) {
        float off = __builtin_fabsf(v[k][j] * scale) - limit;
        da[k][j] = off <= 0 ? grad[j] : 0.0f;
        border |= !(__builtin_fabsf(off) > margin);
      }
    }
    if (ballot(border)) {
      pass_exactly(at, gain, width, rotation, rms * unrotate, (double)limit);
#pragma unroll
      for (int k = 0; k < kFours; k++) {
        decltype(load_four_of(dout)) grad = {};
        if (inside) grad = load_four_of(at.dout + place + 16 * k);
#pragma unroll
        for (int j = 0; j < 4; j++) da[k][j] = grad[j];
      }
    }
    rotate_in_four(da, rotation);
    warp_sync();  // everybody has read x
#pragma unroll
    for (int k = 0; k < kFours; k++) {
      float product[4];
#pragma unroll
      for (int j = 0; j < 4; j++) {
        fence_operand(da[k][j]);
        da[k][j] *= (float)unrotate;
        dgain[k][j] += da[k][j] * (value[k][j] * r);
        da[k][j] *= by[k][j];
        product[j] = da[k][j] * value[k][j];
        fence_operand(dgain[k][j]);
      }
      store_four_of(at.x + place + 16 * k, product);
    }
    warp_sync();
    float dot = 0;
#pragma unroll
    for (int i = 0; i < kFours; i++) {
      if (128 * i >= width) break;
      FourFloats product = load_four_of(at.x + i * kPaddedBlock + 4 * lane);
#pragma unroll
      for (int j = 0; j < 4; j++) dot += product[j];
    }
    float factor = (float)((double)warp_sum(dot) * (rms * rms / (double)width));
#pragma unroll
    for (int k = 0; k < kFours; k++) {
      if (!inside) continue;
      auto before = load_four_of(at.dx + place + 16 * k);
      float to[4];
#pragma unroll
      for (int j = 0; j < 4; j++) to[j] = before[j] + r * (da[k][j] - value[k][j] * factor);
      store_four_of(dx + (long)row * width + column + 16 * k, to);
    }
    warp_sync();
    fetch(row + Row::kAhead * stride, at);
  }
#pragma unroll
  for (int k = 0; k < kFours; k++) store_four_of(held->x + place + 16 * k, dgain[k]);
  block_sync();
  for (int c = threadIdx.x; c < width; c += 32 * kRotatedWarps) {
    float sum = 0;
#pragma unroll
    for (int w = 0; w < kRotatedWarps; w++) sum += held[(w - warp) * Row::kAhead].x[c + c / 128 * 16];
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

#define NORMALIZE_BACKWARD_KERNELS(type, T, kShared)                                                                   \
  KERNEL(elementwise float, 128, 3)                                                                                    \
  void normalize_backward_##type(T* dx, float* partial, const T* dout, const float* x, const float* gain, int rows,    \
      int width, double eps, float limit) {                                                                            \
    normalize_backward_rows(dx, partial, dout, x, gain, rows, width, eps, limit);                                      \
  }                                                                                                                    \
  KERNEL(elementwise float shared(kShared), 32 * kRotatedWarps, 3)                                                     \
  void normalize_backward_rotated_##type(T* dx, float* partial, const T* dout, const float* x, const float* gain,      \
      int rows, int width, double eps, float limit, int rotation) {                                                    \
    normalize_backward_rotated_rows(dx, partial, dout, x, gain, rows, width, eps, limit, rotation);                    \
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
NORMALIZE_BACKWARD_KERNELS(float32, float, kRotatedFloats)
NORMALIZE_BACKWARD_KERNELS(bfloat16, BFloat, kRotatedBFloats)

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
