// Packing the signs and levels of floats, transposing bit planes, and the integer thresholds that decide a channel's
// output bits.
#include "levels.cuh"

// One warp per row: bit c of a row is x[c] >= 0. `words` 32-bit words a row, a multiple of 4; padding bits are zero.
KERNEL(packing, 256)
void pack_signs(const float* x, long x_stride, int rows, int columns, uint32_t* out, int words, int* popcounts) {
  int row = (blockIdx.x * blockDim.x + threadIdx.x) / 32, lane = threadIdx.x % 32;
  if (row >= rows) return;
  constexpr int kAhead = 8;  // words whose loads are in flight together
  int count = 0;
  for (int w0 = 0; w0 < words; w0 += kAhead) {
    float held[kAhead];
    uint32_t mine = 0;
#pragma unroll
    for (int i = 0; i < kAhead; i++) {
      int c = 32 * (w0 + i) + lane;
      held[i] = c < columns ? x[row * x_stride + c] : -1.0f;
    }
#pragma unroll
    for (int i = 0; i < kAhead; i++) {
      uint32_t word = ballot(held[i] >= 0.0f);
      if (lane == i) mine = word;
    }
    count += popcount(mine);
    if (lane < kAhead && w0 + lane < words) out[(long)row * words + w0 + lane] = mine;
  }
  count = warp_sum(count);
  if (lane == 0) popcounts[row] = count;
}

// One warp per row: the levels of x / sqrt(max(mean(x²), 1e-24)), `step` apart.
KERNEL(packing, 256)
void pack_levels(const float* x, int rows, double step, const __grid_constant__ Levels to) {
  int row = blockIdx.x * 8 + threadIdx.x / 32, lane = threadIdx.x % 32, count = 0;
  if (row >= rows) return;
  x += (long)row * to.width;
  double sum = 0;
  for (int c = lane; c < to.width; c += 32) sum = multiply_add((double)x[c], (double)x[c], sum);
  double mean = warp_sum(sum) / (double)to.width, rms = __builtin_sqrt(mean < 1e-24 ? 1e-24 : mean);
  double half = (double)(1 << (to.bits - 1));
  for (int w = 0; 32 * w < to.width; w++) {
    int c = 32 * w + lane;
    count += put_levels(to, row, w, c < to.width ? nearest_level((double)x[c] / rms, step, half) : 0);
  }
  if (lane == 0) to.popcounts[row] = count;
}

// The output of a channel whose sum is s, exactly as every device computes it.
struct Channel {
  float unit, alpha, theta;
  __device__ __forceinline__ float output(int s) const { return alpha * (unit * (float)s) - theta; }
};

// The least s in [low, high] with test(s), high + 1 when there is none; test must be false up to some s and true from
// there.
template <class Test> DEVICE int first_where(int low, int high, const Test& test) {
  high++;
  while (low < high) {
    int middle = low + (high - low) / 2;
    if (test(middle)) high = middle;
    else low = middle + 1;
  }
  return low;
}

// The thresholds of every output channel, in quarters of s (in Go: thresholds, with the derivation). They are shifted
// so that the epilogue adds no term of the column: centre = base + 4 (centre - column_weight * popcount - bias). They
// are written in the order in which the accumulators of a 256-column tile hold the channels: channel 64 t + 2 b + e has
// place 8 b + 2 t + e.
KERNEL(packing, 256)
void channel_thresholds(const float* alpha, const float* theta, float unit, int n, int largest, const int* popcounts,
    int column_weight, int bias, float* centre_radius, uint32_t* negative) {
  int channel = blockIdx.x * 256 + threadIdx.x;  // the grid covers n rounded up to 256
  int centre = 0, radius = -1;
  bool flip = false;
  if (channel < n) {
    Channel c{unit, alpha[channel], theta[channel]};
    flip = c.alpha < 0;
    // Rounding is monotonic, so each test changes once as s grows. middle is the first s with the other sign; low ...
    // high are the s with |u| <= 1.
    int middle, low, high;
    if (flip) {
      middle = first_where(-largest, largest, [&](int s) { return !(c.output(s) >= 0); });
      low = first_where(-largest, largest, [&](int s) { return c.output(s) <= 1; });
      high = first_where(-largest, largest, [&](int s) { return c.output(s) < -1; }) - 1;
    } else {
      middle = first_where(-largest, largest, [&](int s) { return c.output(s) >= 0; });
      low = first_where(-largest, largest, [&](int s) { return c.output(s) >= -1; });
      high = first_where(-largest, largest, [&](int s) { return c.output(s) > 1; }) - 1;
    }
    centre = min(max(2 * (low + high), 4 * middle - 3), 4 * middle);
    radius = low > high ? -1 : max(centre - 4 * low, 4 * high - centre);
    centre -= 4 * (column_weight * popcounts[channel] + bias);
  }
  int tile = channel / 256, t = channel % 256 / 64, b = channel % 64 / 2, e = channel % 2;
  long at = tile * 256 + 8 * b + 2 * t + e;
  centre_radius[2 * at] = (float)centre + 10485760.0f;
  centre_radius[2 * at + 1] = (float)radius;
  uint32_t word = ballot(flip);
  if (threadIdx.x % 32 == 0) negative[channel / 32] = word;
}

// What epilogues want of every output channel: alpha, theta, and what the channel adds to its sums. A null alpha counts
// as 1, a null theta as 0. Threads of an epilogue have `run` neighbouring channels, and four of them load one channel
// each at a time: channel 4 run g + run t + i has place 4 run g + 4 i + t. Channels beyond the last get the lowest
// level, and no gradient passes there.
KERNEL(packing, 256)
void channel_terms(const float* alpha, const float* theta, int n, const int* popcounts, int column_weight, int bias,
    int run, Float4* terms) {
  int channel = blockIdx.x * 256 + threadIdx.x;  // the grid covers n rounded up to 256
  int group = channel / (4 * run) * (4 * run), t = channel % (4 * run) / run, i = channel % run;
  Float4 of = {0, 100, 0, 0};
  if (channel < n) {
    int term = bias + (column_weight ? column_weight * popcounts[channel] : 0);
    of = {alpha ? alpha[channel] : 1, theta ? theta[channel] : 0, as_float(term), 0};
  }
  terms[group + 4 * i + t] = of;
}

// The row whose bits become bit `lane` of word `target` of out's rows. With kNeighbours it is row 32 target + lane.
// With kGradientOrder it follows the order in which gradient.cu packs gradients, so that the two can be multiplied: a
// sum over rows may take them in any order.
constexpr int kNeighbours = 0, kGradientOrder = 1;
DEVICE int source_row(int order, int target, int lane) {
  return 32 * target + (order == kNeighbours ? lane : 8 * (lane % 4) + lane / 4);
}

// 32 x 32 bits transposed: lane l passes row l, and gets column l. It exchanges the off-diagonal squares of side j
// (Hacker's Delight, 7-3).
DEVICE uint32_t transpose_square(uint32_t x, int lane) {
  uint32_t mask = 0x0000ffff;
#pragma unroll
  for (int j = 16; j > 0; j /= 2) {
    uint32_t other = (uint32_t)shuffle_xor((int)x, j);
    x = lane & j ? (x & ~mask) | ((other & ~mask) >> j) : (x & mask) | ((other & mask) << j);
    mask ^= mask << (j / 2);
  }
  return x;
}

// out (columns x rows bits) = bits (rows x columns bits) transposed, plane by plane. A warp transposes 32 rows of four
// words. Padding of out is written as zero. Grid: x words of a row / 4, y words of an output's row / 8, z planes.
KERNEL(packing, 256)
void transpose_bits(const uint32_t* bits, int rows, int columns, int words, long plane_words, uint32_t* out,
    int out_words, long out_plane_words, int order) {
  __shared__ uint32_t tile[8][132];  // 132: no bank conflicts below
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int target = blockIdx.y * 8 + warp;  // word of the output's rows
  int row = source_row(order, target, lane);
  bits += blockIdx.z * plane_words;
  out += blockIdx.z * out_plane_words;
  Int4 four = {0, 0, 0, 0};
  int first = blockIdx.x * 4;  // rows are whole multiples of four words
  if (row < rows && target < out_words) four = *(const Int4*)(bits + (long)row * words + first);
  uint32_t x[4] = {(uint32_t)four.x, (uint32_t)four.y, (uint32_t)four.z, (uint32_t)four.w};
#pragma unroll
  for (int i = 0; i < 4; i++) tile[warp][32 * i + lane] = transpose_square(x[i], lane);
  block_sync();
  // 128 columns x 8 words: neighbouring threads write neighbouring words of a column.
  for (int i = threadIdx.x; i < 1024; i += 256) {
    int column = blockIdx.x * 128 + i / 8, word = blockIdx.y * 8 + i % 8;
    if (column < columns && word < out_words) out[(long)column * out_words + word] = tile[i % 8][i / 8];
  }
}

// 32 entries of a row as signed bytes: the numbers that the bits of planes spell, minus 2^(planes-1).
struct Spread {
  uint32_t four[8];
  DEVICE_MEMBER explicit Spread(int planes) {
#pragma unroll
    for (int i = 0; i < 8; i++) four[i] = (uint32_t)(256 - (1 << (planes - 1)) & 255) * 0x01010101u;
  }
  DEVICE_MEMBER void add(uint32_t word, int plane) {
#pragma unroll
    for (int i = 0; i < 8; i++) {
      uint32_t spread = ((word >> 4 * i & 15) * 0x00204081u & 0x01010101u) << plane;
      four[i] = ((four[i] & 0x7f7f7f7fu) + spread) ^ (four[i] & 0x80808080u);  // bytewise sum
    }
  }
  // Writes entries 32 w ... 32 w + 31 of a row, zero from `columns` on.
  DEVICE_MEMBER void store(char* row, int w, int columns, int row_bytes) {
#pragma unroll
    for (int i = 0; i < 8; i++) {
      int left = columns - 32 * w - 4 * i;
      if (left < 4) four[i] &= left > 0 ? (1u << 8 * left) - 1 : 0;
    }
#pragma unroll
    for (int i = 0; i < 2; i++)
      if (32 * w + 16 * i < row_bytes)
        *(Int4*)(row + 32 * w + 16 * i) =
            Int4{(int)four[4 * i], (int)four[4 * i + 1], (int)four[4 * i + 2], (int)four[4 * i + 3]};
  }
};

// out[r][k] = entry k of row r as a signed byte. A two's-complement number is the number its bits spell with the top
// bit flipped, minus 2^(planes-1). A thread writes 32 entries. Grid: x rows, y words of a row / 256.
KERNEL(packing, 256)
void spread_bytes(const uint32_t* bits, int columns, int words, long plane_words, int planes, int is_signed, char* out,
    int row_bytes) {
  int w = blockIdx.y * 256 + threadIdx.x;
  if (32 * w >= row_bytes) return;
  Spread spread(planes);
  for (int p = 0; p < planes; p++) {
    uint32_t word = bits[p * plane_words + (long)blockIdx.x * words + w];
    spread.add(is_signed && p == planes - 1 ? ~word : word, p);
  }
  spread.store(out + (long)blockIdx.x * row_bytes, w, columns, row_bytes);
}

// spread_bytes of the transposed planes, up to 4 of them: out is columns x rows bytes. A block takes 256 rows of four
// words, 128 columns. A thread turns the planes of a row into nibbles, as `separate` turns nibbles into planes, and
// these into bytes, four columns a word. Threads then take 16 rows of four columns each and exchange their bytes. Word
// w of row r lies at w ^ r % 32 ^ r / 32 of the row in shared memory, which keeps lanes in different banks both times.
// Grid: x words of a row / 4, y rows / 256.
KERNEL(packing, 256)
void transpose_spread(const uint32_t* bits, int rows, int columns, int words, long plane_words, int planes, char* out,
    int row_bytes) {
  __shared__ uint32_t tile[256][32];
  int row = blockIdx.y * 256 + threadIdx.x, swizzle = threadIdx.x % 32 ^ threadIdx.x / 32;
  Int4 four[4] = {};
#pragma unroll
  for (int p = 0; p < 4; p++)
    if (p < planes && row < rows)
      four[p] = load_four_words(bits + p * plane_words + (long)row * words + 4 * blockIdx.x);
  uint32_t half = row < rows ? (1u << (planes - 1)) * 0x01010101u : 0;
#pragma unroll
  for (int w = 0; w < 4; w++) {
    uint32_t x[4];
#pragma unroll
    for (int p = 0; p < 4; p++)
      x[p] = (uint32_t)(w < 2 ? (w == 0 ? four[p].x : four[p].y) : (w == 2 ? four[p].z : four[p].w));
    separate(x);
#pragma unroll
    for (int k = 0; k < 4; k++)
#pragma unroll
      for (int n = 0; n < 2; n++) {  // byte j: column 32 w + 8 j + 4 n + k
        uint32_t entries = (x[k] >> 4 * n & 0x0f0f0f0fu) | 0x80808080u;
        tile[threadIdx.x][8 * w + 2 * k + n ^ swizzle] = (entries - half) ^ 0x80808080u;
      }
  }
  block_sync();
#pragma unroll
  for (int turn = 0; turn < 2; turn++) {
    int r0 = threadIdx.x % 16 * 16, w = threadIdx.x / 32 + 8 * (threadIdx.x / 16 % 2) + 16 * turn;
    int at = blockIdx.y * 256 + r0, c0 = blockIdx.x * 128 + w / 8 * 32 + w % 2 * 4 + w % 8 / 2;
    uint32_t piece[4][4];  // [column][four rows]
#pragma unroll
    for (int i = 0; i < 4; i++) {
      uint32_t x[4];
#pragma unroll
      for (int k = 0; k < 4; k++) {
        int r = r0 + 4 * i + k;
        x[k] = tile[r][w ^ r % 32 ^ r / 32];
      }
#pragma unroll
      for (int upper = 0; upper < 2; upper++) {  // bytes 0 and 1, or 2 and 3
        uint32_t first = (uint32_t)__nvvm_prmt(x[0], x[1], upper ? 0x7362 : 0x5140);
        uint32_t second = (uint32_t)__nvvm_prmt(x[2], x[3], upper ? 0x7362 : 0x5140);
        piece[2 * upper][i] = (uint32_t)__nvvm_prmt(first, second, 0x5410);
        piece[2 * upper + 1][i] = (uint32_t)__nvvm_prmt(first, second, 0x7632);
      }
    }
    if (at >= row_bytes) continue;
#pragma unroll
    for (int j = 0; j < 4; j++)
      if (c0 + 8 * j < columns)
        *(Int4*)(out + (long)(c0 + 8 * j) * row_bytes + at) =
            Int4{(int)piece[j][0], (int)piece[j][1], (int)piece[j][2], (int)piece[j][3]};
  }
}
