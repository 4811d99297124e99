// RMSNorm with a rotation: blocks of a row times the orthonormal Hadamard matrix of their size (in Go: kernels.RMSNorm).
#include "block_sum.cuh"
#include "levels.cuh"

// What makes a rotation orthonormal.
DEVICE double rotation_factor(int rotation) { return 1.0 / __builtin_sqrt((double)rotation); }

// 128 columns among the lanes of a warp: v[j] is column 4 lane + j. `rotation` is at most 128. Butterflies of the
// columns 1, 2, 4 ... apart, without the factor that makes the matrix orthonormal.
DEVICE void rotate(double (&v)[4], int rotation) {
  int lane = threadIdx.x % 32;
  auto butterfly = [](double& a, double& b) {
    double sum = a + b;
    b = a - b, a = sum;
  };
  if (rotation > 1) butterfly(v[0], v[1]), butterfly(v[2], v[3]);
  if (rotation > 2) butterfly(v[0], v[2]), butterfly(v[1], v[3]);
#pragma unroll
  for (int mask = 1; mask < 32; mask *= 2) {
    if (rotation <= 4 * mask) break;
#pragma unroll
    for (int j = 0; j < 4; j++) {
      double other = shuffle_xor(v[j], mask);
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
// Rows of up to 2,048 values, a multiple of 256, are taken by teams of two warps, half a row each.
// For everything else, four lanes share a block: lane 4 i + q has columns 128 i + 16 k + 4 q ... + 3 for k = 0 ... 7. So
// five of a rotation's seven rounds need no other lane. The padding keeps lanes in different banks in both orders.
constexpr int kPaddedBlock = 128 + 16;

// The sum over a team of kTeam warps, of what each of their lanes has. Of two sums in a row, each needs its own room.
template <int kTeam, class S> DEVICE S team_sum(S warp_sum, S* room) {
  if (kTeam == 1) return warp_sum;
  int warp = threadIdx.x / 32;
  if (threadIdx.x % 32 == 0) room[warp] = warp_sum;
  asm volatile("bar.sync %0, 64;" ::"r"(1 + warp / 2) : "memory");
  return room[warp & ~1] + room[warp | 1];
}

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

// How far float32 may be off a rotated value of gain * x: eight roundings of at most Σ |gain * x| of its block, two for
// that sum's own, and the least float32. It is NaN or infinite where a value is. A lane passes its part of the sum.
DEVICE float rotation_error(float sum) {
  sum += shuffle_xor(sum, 1), sum += shuffle_xor(sum, 2);
  return sum * (10 * 0x1p-24f) + 1e-42f;
}

// normalize_levels (rows.cu) with a rotation, for 1 to 4 bits. Float32 decides where no value of a block of 128 columns
// is near a border, else float64.
constexpr int kNormalizedAhead = 2, kNormalizedShared = 8 * kNormalizedAhead * 8 * kPaddedBlock * 4;
template <int kTeam> DEVICE void normalize_rotated_rows(const float* x, const float* gain, int rows, int width,
    double eps, int rotation, int bits, uint32_t* out, int words, long plane_words, int* popcounts) {
  extern __shared__ char memory[];
  __shared__ double squares[kNormalizedAhead][8];
  __shared__ int counts[kNormalizedAhead][8];
  constexpr int kFours = 8, kRow = 8 * kPaddedBlock;
  constexpr float kMagic = 12582912.0f;  // adding it rounds, ties to even, and leaves the integer in the low bits
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32, stride = gridDim.x * 8 / kTeam;
  float* held = (float*)memory + warp * kNormalizedAhead * kRow;
  int columns = width / kTeam;  // of this warp's part of a row
  x += warp % kTeam * columns, gain += warp % kTeam * columns, out += warp % kTeam * columns / 32;
  int column = lane / 4 * 128 + lane % 4 * 4, place = lane / 4 * kPaddedBlock + lane % 4 * 4;
  bool inside = column < columns;
  FourFloats by[kFours] = {};
#pragma unroll
  for (int k = 0; k < kFours; k++)
    if (inside) by[k] = load_four_of(gain + column + 16 * k);
  double half = (double)(1 << (bits - 1)), step = 2.5 / half, inverse = half / 2.5;
  float low = -(float)half, high = (float)half - 1, base = kMagic + (float)half;
  auto fetch = [&](int row, float* to) {
    if (row < rows) copy_row(to, x + (long)row * width, columns);
    copies_commit();
  };
  int first = (blockIdx.x * 8 + warp) / kTeam, turn = 0;
  for (int i = 0; i < kNormalizedAhead; i++) fetch(first + i * stride, held + i * kRow);
  for (int row = first; row < rows; row += stride, turn = turn + 1 == kNormalizedAhead ? 0 : turn + 1) {
    float* at = held + turn * kRow;
    copies_wait<kNormalizedAhead - 1>();
    warp_sync();
    FourFloats value[kFours] = {};
#pragma unroll
    for (int i = 0; i < kFours; i++)
      if (128 * i < columns) value[i] = load_four_of(at + i * kPaddedBlock + 4 * lane);
    double total = team_sum<kTeam>(warp_sum(sum_squares(value)), squares[turn]),
           rms = 1.0 / __builtin_sqrt(total / (double)width + eps), factor = rms * rotation_factor(rotation);
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
      for (int i = 0; 128 * i < columns; i++) {
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
    count = team_sum<kTeam>(warp_sum(count), counts[turn]);
    if (lane == 0 && warp % kTeam == 0) popcounts[row] = count;
  }
}
#define NORMALIZE_ROTATED(name, kTeam)                                                                                \
  KERNEL(elementwise float shared(kNormalizedShared), 256, 2)                                                          \
  void name(const float* x, const float* gain, int rows, int width, double eps, int rotation, int bits, uint32_t* out, \
      int words, long plane_words, int* popcounts) {                                                                   \
    normalize_rotated_rows<kTeam>(x, gain, rows, width, eps, rotation, bits, out, words, plane_words, popcounts);      \
  }
NORMALIZE_ROTATED(normalize_rotated, 1)
NORMALIZE_ROTATED(normalize_rotated_wide, 2)

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

// normalize_backward (rows.cu) with a rotation: the gradient passes where |rotated a| <= limit, and da is the rotation of
// what passes.
template <int kTeam, class T> DEVICE void normalize_backward_rotated_rows(T* dx, float* partial, const T* dout,
    const float* x, const float* gain, int rows, int width, double eps, float limit, int rotation) {
  extern __shared__ char memory[];
  __shared__ double squares[2][kRotatedWarps], dots[2][kRotatedWarps];
  using Row = RotatedRow<T>;
  constexpr int kFours = 8;
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32, stride = gridDim.x * kRotatedWarps / kTeam;
  Row* held = (Row*)memory + warp * Row::kAhead;
  int columns = width / kTeam;  // of this warp's part of a row
  dx += warp % kTeam * columns, dout += warp % kTeam * columns;
  x += warp % kTeam * columns, gain += warp % kTeam * columns;
  int column = lane / 4 * 128 + lane % 4 * 4, place = lane / 4 * kPaddedBlock + lane % 4 * 4;
  bool inside = column < columns;
  double unrotate = rotation_factor(rotation);
  FourFloats by[kFours] = {};
  float dgain[kFours][4] = {};
#pragma unroll
  for (int k = 0; k < kFours; k++)
    if (inside) by[k] = load_four_of(gain + column + 16 * k);
  auto fetch = [&](int row, Row& to) {
    long at = (long)row * width;
    if (row < rows) {
      copy_row(to.x, x + at, columns);
      copy_row(to.dout, dout + at, columns), copy_row(to.dx, dx + at, columns);
    }
    copies_commit();
  };
  int first = (blockIdx.x * kRotatedWarps + warp) / kTeam, turn = 0, parity = 0;
  for (int i = 0; i < Row::kAhead; i++) fetch(first + i * stride, held[i]);
  for (int row = first; row < rows; row += stride, turn = turn + 1 == Row::kAhead ? 0 : turn + 1, parity ^= 1) {
    Row& at = held[turn];
    copies_wait<Row::kAhead - 1>();
    warp_sync();
    FourFloats value[kFours] = {};
#pragma unroll
    for (int i = 0; i < kFours; i++)
      if (128 * i < columns) value[i] = load_four_of(at.x + i * kPaddedBlock + 4 * lane);
    double total = team_sum<kTeam>(warp_sum(sum_squares(value)), squares[parity]),
           rms = 1.0 / __builtin_sqrt(total / (double)width + eps);
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
      pass_exactly(at, gain, columns, rotation, rms * unrotate, (double)limit);
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
      if (128 * i >= columns) break;
      FourFloats product = load_four_of(at.x + i * kPaddedBlock + 4 * lane);
#pragma unroll
      for (int j = 0; j < 4; j++) dot += product[j];
    }
    float factor = (float)(team_sum<kTeam>((double)warp_sum(dot), dots[parity]) * (rms * rms / (double)width));
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
    int part = c / columns, within = c - part * columns;
    float sum = 0;
#pragma unroll
    for (int w = 0; w < kRotatedWarps; w += kTeam)
      sum += held[(w + part - warp) * Row::kAhead].x[within + within / 128 * 16];
    partial[(long)blockIdx.x * width + c] = sum;
  }
}

// ---- Rows of any length go through memory, in float64 ----

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

// A block per row: gain * x, rotated. Its product with
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

#define ROTATED_KERNELS(type, T, kShared)                                                                              \
  KERNEL(elementwise float shared(kShared), 32 * kRotatedWarps, 3)                                                     \
  void normalize_backward_rotated_##type(T* dx, float* partial, const T* dout, const float* x, const float* gain,      \
      int rows, int width, double eps, float limit, int rotation) {                                                    \
    normalize_backward_rotated_rows<1>(dx, partial, dout, x, gain, rows, width, eps, limit, rotation);                 \
  }                                                                                                                    \
  KERNEL(elementwise float shared(kShared), 32 * kRotatedWarps, 3)                                                     \
  void normalize_backward_rotated_wide_##type(T* dx, float* partial, const T* dout, const float* x, const float* gain, \
      int rows, int width, double eps, float limit, int rotation) {                                                    \
    normalize_backward_rotated_rows<2>(dx, partial, dout, x, gain, rows, width, eps, limit, rotation);                 \
  }                                                                                                                    \
  KERNEL(elementwise float, 256)                                                                                       \
  void rotate_gradient_##type(const double* v, const double* factors, const T* dout, int width, int rotation,          \
      float limit, double* to) {                                                                                       \
    rotate_gradient(v, factors, dout, width, rotation, limit, to);                                                     \
  }
ROTATED_KERNELS(float32, float, kRotatedFloats)
ROTATED_KERNELS(bfloat16, BFloat, kRotatedBFloats)
