// RMSNorm with a rotation: blocks of a row times the orthonormal Hadamard matrix of their size (in Go: kernels.RMSNorm).
#include "block_sum.cuh"
#include "levels.cuh"

// What makes a rotation orthonormal.
DEVICE double rotation_factor(int rotation) { return 1.0 / __builtin_sqrt((double)rotation); }

// 128 columns among the lanes of a warp: v[j] is column 4 lane + j. `rotation` is at most 128. Butterflies of the
// columns 1, 2, 4 ... apart, without the factor that makes the matrix orthonormal.
DEVICE void rotate(double (&v)[4], int rotation) {
  int lane = threadIdx.x % 32;
  fence_operand(lane);  // it is rare that float64 is needed: nothing of it is kept in registers
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

// A barrier of some of a block's warps.
DEVICE void sync_warps(int id, int warps) { asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(32 * warps) : "memory"); }

// The sum over a team of kTeam warps, of what each of their lanes has. Of two sums in a row, each needs its own room.
template <int kTeam, class S> DEVICE S team_sum(S warp_sum, S* room) {
  if (kTeam == 1) return warp_sum;
  int warp = threadIdx.x / 32;
  if (threadIdx.x % 32 == 0) room[warp] = warp_sum;
  sync_warps(1 + warp / 2, 2);
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

// 128 columns among kLanes lanes: v[k][j] is column 4 kLanes k + 4 (lane % kLanes) + j. Butterflies as in rotate.
template <int kLanes> DEVICE void rotate_among(float (&v)[32 / kLanes][4], int rotation) {
  constexpr int kFours = 32 / kLanes;
  auto within = [&](int k_apart, int j_apart) __attribute__((always_inline)) {
#pragma unroll
    for (int k = 0; k < kFours; k++)
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
    for (int k = 0; k < kFours; k++)
#pragma unroll
      for (int j = 0; j < 4; j++) v[k][j] = __builtin_fmaf(v[k][j], sign, shuffle_xor(v[k][j], mask));
  };
  auto rounds = [&](bool all) __attribute__((always_inline)) {
    if (all || rotation > 1) within(0, 1);
    if (all || rotation > 2) within(0, 2);
#pragma unroll
    for (int mask = 1; mask < kLanes; mask *= 2)
      if (all || rotation > 4 * mask) across(mask);
#pragma unroll
    for (int apart = 1; apart < kFours; apart *= 2)
      if (all || rotation > 4 * kLanes * apart) within(apart, 0);
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
  double share = inverse / (2 * half - 1);
  float top = (float)(2 * half - 1);
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
    rotate_among<4>(v, rotation);
    // A level is v * scale * top + top / 2, within 0 and top, rounded.
    float error = rotation_error(sum), scale = (float)(factor * share), within = 0.5f - (error * scale * top + 4e-6f);
    bool border = false;
    uint32_t packed[4] = {};
    auto quantize = [&](bool signs) __attribute__((always_inline)) {
#pragma unroll
      for (int k = kFours - 1; k >= 0; k--)
#pragma unroll
        for (int j = 0; j < 4; j++) {
          float q = multiply_add_within_one(v[k][j], scale, 0.5f), shifted = __builtin_fmaf(q, top, kMagic),
                off = __builtin_fmaf(q, top, kMagic - shifted);
          border |= signs ? !(__builtin_fabsf(v[k][j]) > error) : !(__builtin_fabsf(off) < within);
          packed[j] = packed[j] * 16 + (uint32_t)(signs ? as_int(kMagic) + (v[k][j] >= 0 ? 1 : 0) : as_int(shifted));
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

// ---- Gradients of such rows ----
//
// A row is taken by a team of kParts pairs of warps, each of which has a part of up to 1,024 columns. A warp of a pair
// has every other block of 128 columns, eight lanes a block: lane q has columns 32 k + 4 q ... + 3 for k = 0 ... 3.
// Sums over a row are taken by one warp of each pair, in the order of sum_squares: by one the sum of squares, by the
// other the second sum, and in the next row the other way round.
//
// Two warps, because a scheduler wants many warps with little code: these have half the registers and half the code of
// one that holds a whole row. For the same reason both rotations run through one loop.
constexpr int kRotatedPairs = 4, kRotatedThreads = 64 * kRotatedPairs;
template <class T> struct alignas(16) RotatedRow {
  static constexpr int kAhead = sizeof(T) == 2 ? 2 : 1;  // rows of a pair in shared memory
  float x[1024];
  T dout[1024], dx[1024];  // column c at place<T>(c)
};
constexpr int kRotatedBFloats = 65536, kRotatedFloats = 49152;
static_assert(kRotatedBFloats == kRotatedPairs * RotatedRow<BFloat>::kAhead * sizeof(RotatedRow<BFloat>));
static_assert(kRotatedFloats == kRotatedPairs * RotatedRow<float>::kAhead * sizeof(RotatedRow<float>));

// Where a column lies in a row in shared memory. Of bfloat16, halves of 64 columns change places in every other block
// of a warp, so that 16 lanes read from different banks.
template <class T> DEVICE int place(int column) { return sizeof(T) == 2 ? column ^ (column / 8 & 32) : column; }

// What the sum of squares of a row says: 1 / rms is that of kernels.RMSNorm, shrink = 1 / (rms² width), and a rotated
// value without factor passes up to about limit * unscale.
struct Measured {
  double inverse, shrink;
  float unscale;
};

// Starts a warp's copy of its blocks of a part.
template <class T> DEVICE void copy_blocks(T* to, const T* from, uint32_t columns, uint32_t thread) {
  constexpr int kPiece = 16 / sizeof(T), kPieces = 128 / kPiece;  // values of a piece, pieces of a block
  uint32_t column = thread % 32 / kPieces * 256 + thread / 32 % 2 * 128 + thread % kPieces * kPiece,
           at = shared_address(to) + sizeof(T) * place<T>((int)column);
  from += column;
#pragma unroll
  for (uint32_t i = 0; i < 1024; i += 8192 / kPieces)
    if (column + i < columns) copy_async<16>(at + sizeof(T) * i, from + i);
}

// Clears the gradients of a warp's blocks in shared memory that do not pass, by float64.
template <class T> DEVICE void pass_exactly(
    RotatedRow<T>& row, const float* gain, int part, int columns, int rotation, double inverse, float limit) {
  uint32_t thread = threadIdx.x;
  fence_operand(thread), fence_operand(part), fence_operand(rotation), fence_operand(limit);
  int block = thread / 32 % 2 * 128, at = block + thread % 32 * 4;
  double factor = inverse * rotation_factor(rotation);
#pragma unroll 1
  for (; block < columns; block += 256, at += 256) {
    double exact[4];
    rotated_columns(load_four_of(row.x + at), load_four_of(gain + part + at), rotation, exact);
#pragma unroll
    for (int j = 0; j < 4; j++)
      if (!(__builtin_fabs(exact[j] * factor) <= (double)limit)) write(row.dout + place<T>(at) + j, 0);
  }
  warp_sync();
}

// normalize_backward (rows.cu) with a rotation: the gradient passes where |rotated a| <= limit, and da is the rotation
// of what passes.
template <int kParts, class T> DEVICE void normalize_backward_rotated_rows(T* dx, float* partial, const T* dout,
    const float* x, const float* gain, int rows, int width, double eps, float limit, int rotation) {
  extern __shared__ char memory[];
  constexpr int kTeams = kRotatedPairs / kParts, kFours = 4;
  __shared__ Measured measured[kTeams];
  __shared__ float factors[kTeams];
  __shared__ double room[kRotatedPairs];
  __shared__ alignas(16) float gains[1024 * kParts];
  using Row = RotatedRow<T>;
  int lane = threadIdx.x % 32, half = threadIdx.x / 32 % 2, pair = threadIdx.x / 64, team = pair / kParts;
  int stride = gridDim.x * kTeams, first = blockIdx.x * kTeams + team;
  Row* held = (Row*)memory + pair * Row::kAhead;
  int columns = width / kParts, part = pair % kParts * columns;  // of this pair
  int column = 256 * (lane / 8) + 128 * half + 4 * (lane % 8);
  bool inside = column < columns;
  auto four = [&](int k) { return (place<T>(column) ^ k % 2 * 32) + k / 2 * 64; };  // place<T>(column + 32 * k)
  float unrotate = (float)rotation_factor(rotation);
  float dgain[kFours][4] = {};
  for (int c = threadIdx.x; c < width; c += kRotatedThreads) gains[c] = gain[c];
  block_sync();
  uint32_t largest = 0;  // the bits of max |gain|, NaN the largest
#pragma unroll 1
  for (int c = lane; c < width; c += 32) largest = (uint32_t)max((int)largest, as_int(gains[c]) & 0x7fffffff);
  // Float32 is off a rotated value, without factor, by eight roundings of at most Σ |gain * x| of its block, and the
  // least float32. That sum is at most max |gain| * sqrt(rotation) ‖x‖, and so unscale * max |gain| * sqrt(width).
  float reach = as_float((int)warp_max(largest)) * (float)__builtin_sqrt((double)width),
        tolerance = reach * (10 * 0x1p-24f) + 6e-7f * limit, root_rotation = (float)__builtin_sqrt((double)rotation);
  auto fetch = [&](int row, Row& to) {
    long at = wide_product(row, width) + part;
    uint32_t thread = threadIdx.x;
    fence_operand(thread);  // so that no addresses are kept in registers
    if (row < rows) {
      copy_blocks(to.x, x + at, columns, thread);
      copy_blocks(to.dout, dout + at, columns, thread), copy_blocks(to.dx, dx + at, columns, thread);
    }
    copies_commit();
  };
  auto sync_team = [&] { sync_warps(1 + team, 2 * kParts); };
  // The sum over a team of what one warp of each pair has.
  auto sum_parts = [&](double sum) {
    if (kParts == 1) return sum;
    if (lane == 0) room[pair] = sum;
    sync_warps(1 + kTeams + team, kParts);
    return room[team * kParts] + room[team * kParts + kParts - 1];
  };
  int turn = 0, parity = pair / 2;  // so each scheduler's warps have a fourth of a block's sums
  for (int i = 0; i < Row::kAhead; i++) fetch(first + i * stride, held[i]);
  for (int row = first; row < rows; row += stride, turn = turn + 1 == Row::kAhead ? 0 : turn + 1, parity ^= 1) {
    Row& at = held[turn];
    copies_wait<Row::kAhead - 1>();
    sync_team();
    if (half == parity) {
      double squares = 0;
#pragma unroll 1
      for (int i = 0; 128 * i < columns; i++) {
        FourFloats value = load_four_of(at.x + 128 * i + 4 * lane);
#pragma unroll
        for (int j = 0; j < 4; j++) squares = multiply_add((double)value[j], (double)value[j], squares);
      }
      double root = __builtin_sqrt(sum_parts(warp_sum(squares)) / (double)width + eps), inverse = 1.0 / root;
      if (lane == 0 && pair % kParts == 0)
        measured[team] = {inverse, inverse * inverse / (double)width, (float)root * root_rotation};
    }
    sync_team();
    float v[kFours][4];
#pragma unroll
    for (int k = 0; k < kFours; k++) {
      FourFloats own = {}, by = {};
      if (inside) own = load_four_of(at.x + column + 32 * k), by = load_four_of(gains + part + column + 32 * k);
#pragma unroll
      for (int j = 0; j < 4; j++) v[k][j] = by[j] * own[j];
    }
#pragma unroll 1
    for (bool gradient = false;; gradient = true) {
      rotate_among<8>(v, rotation);
      if (gradient) break;
      float unscale = measured[team].unscale, centre = limit * unscale, margin = tolerance * unscale + 1e-42f;
      bool border = !(reach * unscale < 1e36f);  // else no sum is too large for float32
#pragma unroll
      for (int k = 0; k < kFours; k++) {
        decltype(load_four_of(dout)) grad = {};
        if (inside) grad = load_four_of(at.dout + four(k));
#pragma unroll
        for (int j = 0; j < 4; j++) {
          float off = __builtin_fabsf(v[k][j]) - centre;
          v[k][j] = off <= 0 ? grad[j] : 0.0f;
          border |= !(__builtin_fabsf(off) > margin);
        }
      }
      if (ballot(border & inside)) {
        pass_exactly(at, gains, part, columns, rotation, measured[team].inverse, limit);
#pragma unroll
        for (int k = 0; k < kFours; k++) {
          decltype(load_four_of(dout)) grad = {};
          if (inside) grad = load_four_of(at.dout + four(k));
#pragma unroll
          for (int j = 0; j < 4; j++) v[k][j] = grad[j];
        }
      }
    }
    float r = (float)measured[team].inverse;
    FourFloats value[kFours] = {};  // once more, for the registers are needed in between
#pragma unroll
    for (int k = 0; k < kFours; k++) {
      FourFloats by = {};
      if (inside) value[k] = load_four_of(at.x + column + 32 * k), by = load_four_of(gains + part + column + 32 * k);
      float product[4];
#pragma unroll
      for (int j = 0; j < 4; j++) {
        float da = v[k][j] * unrotate;
        dgain[k][j] += da * (value[k][j] * r);
        fence_operand(dgain[k][j]);  // else it is added at the end of the loop, and both are kept
        v[k][j] = da * by[j];
        product[j] = v[k][j] * value[k][j];
      }
      store_four_of(at.x + column + 32 * k, product);  // only this warp still reads its blocks of x
    }
    sync_team();
    if (half != parity) {
      float dot = 0;
#pragma unroll 1
      for (int i = 0; 128 * i < columns; i++) {
        FourFloats product = load_four_of(at.x + 128 * i + 4 * lane);
#pragma unroll
        for (int j = 0; j < 4; j++) dot += product[j];
      }
      double sum = sum_parts((double)warp_sum(dot));
      if (lane == 0 && pair % kParts == 0) factors[team] = (float)(sum * measured[team].shrink);
    }
    sync_team();
    float factor = factors[team];
#pragma unroll
    for (int k = 0; k < kFours; k++) {
      if (!inside) continue;
      auto before = load_four_of(at.dx + four(k));
      float to[4];
#pragma unroll
      for (int j = 0; j < 4; j++) to[j] = before[j] + r * (v[k][j] - value[k][j] * factor);
      store_four_of(dx + wide_product(row, width) + part + column + 32 * k, to);
    }
    warp_sync();
    fetch(row + Row::kAhead * stride, at);
  }
#pragma unroll
  for (int k = 0; k < kFours; k++) store_four_of(held->x + column + 32 * k, dgain[k]);
  block_sync();
  for (int c = threadIdx.x; c < width; c += kRotatedThreads) {
    float sum = 0;
#pragma unroll
    for (int i = 0; i < kTeams; i++)
      sum += held[((i - team) * kParts + c / columns - pair % kParts) * Row::kAhead].x[c % columns];
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
  KERNEL(elementwise float shared(kShared), kRotatedThreads, 3)                                                     \
  void normalize_backward_rotated_##type(T* dx, float* partial, const T* dout, const float* x, const float* gain,      \
      int rows, int width, double eps, float limit, int rotation) {                                                    \
    normalize_backward_rotated_rows<1>(dx, partial, dout, x, gain, rows, width, eps, limit, rotation);                 \
  }                                                                                                                    \
  KERNEL(elementwise float shared(kShared), kRotatedThreads, 3)                                                     \
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
