// Packing floats into bit planes, popcounts of packed rows, and the integer thresholds that decide a channel's output bits.

// One warp per row: bit c of a row is x[c] >= 0. `words` 32-bit words a row, a multiple of 4; padding bits are zero.
extern "C" __global__ __launch_bounds__(256) void pack_signs(const float* x, long x_stride, int rows, int columns, uint32_t* out,
                                                             int words, int* popcounts) {
  int row = (blockIdx.x * blockDim.x + threadIdx.x) / 32, lane = threadIdx.x % 32;
  if (row >= rows) return;
  int count = 0;
  for (int w = 0; w < words; w++) {
    int c = 32 * w + lane;
    uint32_t word = ballot(c < columns && x[row * x_stride + c] >= 0.0f);
    count += popcount(word);
    if (lane == 0) out[(long)row * words + w] = word;
  }
  if (lane == 0) popcounts[row] = count;
}

// Weighted popcounts of packed rows: the sum over planes p of weight_p * popcount, weight 2^p or, for the top plane of a
// two's-complement matrix, -2^p.
extern "C" __global__ __launch_bounds__(256) void count_rows(const uint32_t* bits, int rows, int words, int planes,
                                                             long plane_words, int negative_top, int* popcounts) {
  int row = (blockIdx.x * blockDim.x + threadIdx.x) / 32, lane = threadIdx.x % 32;
  if (row >= rows) return;
  int sum = 0;
  for (int plane = 0; plane < planes; plane++) {
    int count = 0;
    for (int w = lane; w < words; w += 32) count += popcount(bits[plane * plane_words + (long)row * words + w]);
    sum += (negative_top && plane == planes - 1 ? -1 : 1) * (count << plane);
  }
  for (int mask = 16; mask > 0; mask /= 2) sum += shuffle_xor(sum, mask);
  if (lane == 0) popcounts[row] = sum;
}

DEVICE double clamp(double x, double low, double high) { return x < low ? low : x > high ? high : x; }

// For every output channel, the bits' test in quarters of s (Go: Threshold has the derivation), shifted so that the epilogue
// needs no column term: centre = base + 4 (centre - column_weight * popcount - bias). Written in the order in which the
// accumulators of a 256-column tile hold the channels: channel 64 t + 2 b + e at 8 b + 2 t + e.
extern "C" __global__ __launch_bounds__(256) void channel_thresholds(const float* alpha, const float* theta, float scale, int n,
                                                                     int largest, const int* popcounts, int column_weight,
                                                                     int bias, float* centre_radius, uint32_t* negative) {
  int channel = blockIdx.x * 256 + threadIdx.x;  // the grid covers n rounded up to 256
  double centre = 0, radius = -1;
  bool flip = false;
  if (channel < n) {
    double a = (double)(alpha[channel] * scale), b = theta[channel], limit = largest + 1.0;
    flip = a < 0;
    double middle, low, high;
    if (a == 0) {
      middle = b <= 0 ? -limit : limit;
      low = b >= -1 && b <= 1 ? -limit : limit;
      high = -low;
    } else {
      middle = flip ? __nvvm_floor_d(b / a) + 1 : __nvvm_ceil_d(b / a);
      low = __nvvm_ceil_d((flip ? b + 1 : b - 1) / a);
      high = __nvvm_floor_d((flip ? b - 1 : b + 1) / a);
    }
    if (middle > largest) {  // no s reaches it
      centre = 4 * limit, radius = centre - 4 * low;
    } else if (middle < -largest) {  // every s does
      centre = -4 * limit, radius = 4 * high - centre;
    } else {
      double both = clamp(low, -4 * limit, 4 * limit) + clamp(high, -4 * limit, 4 * limit);
      centre = clamp(2 * both, 4 * middle - 3, 4 * middle);
      double below = centre - 4 * low, above = 4 * high - centre;
      radius = below > above ? below : above;
    }
    radius = low > high ? -1 : clamp(radius, -1, 8 * limit);
    centre -= 4.0 * ((double)column_weight * popcounts[channel] + bias);
  }
  int tile = channel / 256, t = channel % 256 / 64, b = channel % 64 / 2, e = channel % 2;
  long at = tile * 256 + 8 * b + 2 * t + e;
  centre_radius[2 * at] = (float)(centre + 10485760.0);
  centre_radius[2 * at + 1] = (float)radius;
  uint32_t word = ballot(flip);
  if (threadIdx.x % 32 == 0) negative[channel / 32] = word;
}
