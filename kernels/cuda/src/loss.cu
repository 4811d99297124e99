// Softmax cross-entropy over the logits of the language-model head. Of the logits only the sums of the head's product
// are kept, as int16, in 24 bits or as float32.
#include "gradient.cuh"

constexpr int kLossRows = 4;  // of a block, so that alpha and theta are read once for all of them

// losses[row] = log Σ exp(u) - u[target] in nats, 0 without a target, and what LogitsGradient needs of a row.
template <class T> DEVICE void losses(
    const Logits<T>& logits, int rows, const int* targets, const Scalars* scalars, float* losses, float* row_stats) {
  __shared__ float tops[kLossRows][8], sums[kLossRows][8];
  int first = blockIdx.x * kLossRows, count = min(kLossRows, rows - first);
  float top[kLossRows], sum[kLossRows];
#pragma unroll
  for (int r = 0; r < kLossRows; r++) top[r] = -3e38f, sum[r] = 0;  // a logit of -Inf adds nothing
  for (int c0 = 4 * threadIdx.x; c0 < logits.width; c0 += 1024) {
    int valid = min(4, logits.width - c0);
    float slope[4], offset[4];
#pragma unroll
    for (int j = 0; j < 4; j++) slope[j] = logits.slope(c0 + j), offset[j] = logits.offset(c0 + j);
    float y[kLossRows][4];  // loaded together: rows that there are not are the last one, and nobody uses their sums
#pragma unroll
    for (int r = 0; r < kLossRows; r++) logits.load(min(first + r, rows - 1), c0, y[r]);
#pragma unroll
    for (int r = 0; r < kLossRows; r++) {
      float u[4];
#pragma unroll
      for (int j = 0; j < 4; j++) u[j] = __builtin_fmaf(slope[j], j < valid ? y[r][j] : 0.0f, -offset[j]);
      float most = max(max(u[0], u[1]), max(u[2], u[3]));
      if (most > top[r]) {
        sum[r] *= exp2_fast(top[r] - most);
        top[r] = most;
      }
#pragma unroll
      for (int j = 0; j < 4; j++) sum[r] += exp2_fast(u[j] - top[r]);
    }
  }
#pragma unroll
  for (int r = 0; r < kLossRows; r++) {
    float most = warp_max(top[r]);
    float total = warp_sum(sum[r] * exp2_fast(top[r] - most));
    if (threadIdx.x % 32 == 0) tops[r][threadIdx.x / 32] = most, sums[r][threadIdx.x / 32] = total;
  }
  block_sync();
  if ((int)threadIdx.x >= count) return;
  int row = first + threadIdx.x, target = targets[row];
  float most = tops[threadIdx.x][0];
  for (int i = 1; i < 8; i++) most = max(most, tops[threadIdx.x][i]);
  double total = 0;
  for (int i = 0; i < 8; i++) total += (double)(sums[threadIdx.x][i] * exp2_fast(tops[threadIdx.x][i] - most));
  if (!(total > 0)) total = __builtin_nan("");  // a logit is NaN or +Inf, or all are -Inf
  double loss =
      logarithm(total) + ((double)most * 0.6931471805599453 - (double)logits.at(row, target < 0 ? 0 : target));
  losses[row] = target < 0 ? 0.0f : (float)(total > 0 ? loss : total);
  if (!row_stats) return;
  row_stats[2 * row] = most;
  row_stats[2 * row + 1] = target < 0 ? 0.0f : (float)(scalars->grad_scale / total);
}

KERNEL(loss float, 256, 4)
void losses_int16(const __grid_constant__ Logits<short> logits, int rows, const int* targets, const Scalars* scalars,
    float* to, float* row_stats) {
  losses(logits, rows, targets, scalars, to, row_stats);
}
KERNEL(loss float, 256, 4)
void losses_int24(const __grid_constant__ Logits<Int24> logits, int rows, const int* targets, const Scalars* scalars,
    float* to, float* row_stats) {
  losses(logits, rows, targets, scalars, to, row_stats);
}
KERNEL(loss float, 256, 4)
void losses_float32(const __grid_constant__ Logits<float> logits, int rows, const int* targets, const Scalars* scalars,
    float* to, float* row_stats) {
  losses(logits, rows, targets, scalars, to, row_stats);
}
