// Sums, the optimizer, and the gradient of the embedding. The order of every sum depends on sizes alone.

#include "clip_factor.cuh"

DEVICE double block_sum(double value) {
  __shared__ double room[32];
  value = warp_sum(value);
  if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = value;
  block_sync();
  double sum = 0;
  for (int i = 0; i < (int)blockDim.x / 32; i++) sum += room[i];
  return sum;
}

// partial[block] = Σ x, or Σ x² when square, over the block's elements.
KERNEL(optimizer float, 256) void sum_blocks(const float* x, long n, int square, double* partial) {
  double sum = 0;
  for (long i = blockIdx.x * 256l + threadIdx.x; i < n; i += gridDim.x * 256l)
    sum += square ? (double)x[i] * (double)x[i] : (double)x[i];
  sum = block_sum(sum);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// dst[0] += Σ partial. One block.
KERNEL(optimizer float, 1024) void add_total(const double* partial, int n, float* dst) {
  double sum = 0;
  for (int i = threadIdx.x; i < n; i += 1024) sum += partial[i];
  sum = block_sum(sum);
  if (threadIdx.x == 0) dst[0] += (float)sum;
}

// dst[c] += sign * Σ_r partial[r][c]: a block per 32 columns, whose warps take every eighth row.
KERNEL(rounding, 256) void add_columns(const float* partial, int rows, int columns, double sign, float* dst) {
  __shared__ double sums[8][32];
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32, c = blockIdx.x * 32 + lane;
  double sum = 0;
#pragma unroll 8
  for (int r = warp; r < rows; r += 8) sum += c < columns ? (double)partial[(long)r * columns + c] : 0.0;
  sums[warp][lane] = sum;
  block_sync();
  if (warp > 0 || c >= columns) return;
  for (int w = 1; w < 8; w++) sum += sums[w][lane];
  dst[c] += (float)(sign * sum);
}

KERNEL(copies) void set_scalars(Scalars* to, const __grid_constant__ Scalars from) {
  for (int i = threadIdx.x; i < (int)sizeof(Scalars) / 4; i += blockDim.x)
    ((uint32_t*)to)[i] = ((const uint32_t*)&from)[i];
}

// ---- AdamW (Loshchilov and Hutter 2019) ----

struct Adam {
  float *param, *m, *v, *master;  // master may be null: else it is updated and param becomes it rounded to float16
  const float *grad, *squared_norm;
  long n;
  float beta1, beta2, rest1, rest2, eps;
  double max_norm;
  int decays;
};

// Every operation is rounded to float32 by itself, as on every device.
KERNEL(optimizer float, 256) void adamw(const __grid_constant__ Adam a, const Scalars* scalars) {
  float factor = clip_factor(a.squared_norm, a.max_norm);
  float keep = (float)(1 - scalars->learning_rate * (a.decays ? scalars->decay : 0)),
        rate = (float)(scalars->learning_rate / scalars->correction1);
  float root = (float)(1 / __builtin_sqrt(scalars->correction2));
  float* target = a.master ? a.master : a.param;
  for (long i = blockIdx.x * 256l + threadIdx.x; i < a.n; i += gridDim.x * 256l) {
    float g = a.grad[i] * factor;
    float m = a.beta1 * a.m[i] + a.rest1 * g, v = a.beta2 * a.v[i] + a.rest2 * (g * g);
    a.m[i] = m;
    a.v[i] = v;
    float denominator = __builtin_sqrtf(v) * root + a.eps;
    float updated = target[i] * keep - (rate * m) / denominator;
    target[i] = updated;
    if (a.master) a.param[i] = (float)(_Float16)updated;
  }
}

// ---- Gradients of looked-up rows ----

// next[i] is the next row with the token of row i, or n. later[j] is 1 where an earlier row has the token of row j. A
// thread per row searches the rows after it.
KERNEL(elementwise, 256) void chain_tokens(const int* tokens, int n, int* next, int* later) {
  constexpr int kTile = 1024;
  __shared__ alignas(16) int tile[kTile];
  int i = blockIdx.x * 256 + threadIdx.x;
  int token = i < n ? tokens[i] : -1, found = i < n ? n : 0;
  for (int from = blockIdx.x * 256; from < n; from += kTile) {
    block_sync();
    for (int k = threadIdx.x; k < kTile; k += 256) tile[k] = from + k < n ? tokens[from + k] : -2;
    block_sync();
    int begin = i + 1 - from;
    for (int k = begin > 0 ? begin / 4 * 4 : 0; k < kTile && found == n; k += 4) {
      Int4 four = *(const Int4*)(tile + k);
      if (four.w == token && k + 3 >= begin) found = from + k + 3;
      if (four.z == token && k + 2 >= begin) found = from + k + 2;
      if (four.y == token && k + 1 >= begin) found = from + k + 1;
      if (four.x == token && k >= begin) found = from + k;
    }
    if (!block_any(found == n)) break;
  }
  if (i >= n) return;
  next[i] = found;
  if (found < n) later[found] = 1;
}

constexpr int kJump = 8;

// jumps[i] are the next kJump rows with row i's token; n where there are fewer.
KERNEL(elementwise, 256) void chain_jumps(const int* next, int n, int* jumps) {
  int i = blockIdx.x * 256 + threadIdx.x;
  if (i >= n) return;
  int at = i;
#pragma unroll
  for (int k = 0; k < kJump; k++) {
    at = at < n ? next[at] : n;
    jumps[kJump * i + k] = at;
  }
}

// A block per row that is the first of its token: adds the gradients of all rows with this token, in their order. Links
// are read kJump at a time, because every link waits for memory.
template <class T> DEVICE void embed_backward(
    float* dweight, const T* dx, const int* tokens, const int* jumps, const int* later, int n, int width) {
  if (later[blockIdx.x]) return;
  float* row = dweight + (long)tokens[blockIdx.x] * width;
  bool aligned = width % 4 == 0 && (((long)row | (long)dx) & 15) == 0;
  // Calls f(sum, rows) for the next kJump rows until the chain ends. The next links are loaded while f adds the rows.
  auto follow = [&](auto& sum, auto f) {
    int rows[kJump], next[kJump];
#pragma unroll
    for (int k = 0; k < kJump; k++) next[k] = jumps[kJump * blockIdx.x + k];
    while (next[0] < n) {
#pragma unroll
      for (int k = 0; k < kJump; k++) rows[k] = next[k];
#pragma unroll
      for (int k = 0; k < kJump; k++) next[k] = rows[kJump - 1] < n ? jumps[kJump * rows[kJump - 1] + k] : n;
      f(sum, rows);
    }
  };
  if (aligned) {
    for (int c = 4 * threadIdx.x; c < width; c += 1024) {
      auto first = load_four_of(dx + (long)blockIdx.x * width + c);
      float sum[4];
#pragma unroll
      for (int j = 0; j < 4; j++) sum[j] = row[c + j] + first[j];
      follow(sum, [&](float (&sum)[4], const int (&rows)[kJump]) {
        decltype(first) add[kJump] = {};
#pragma unroll
        for (int k = 0; k < kJump; k++)
          if (rows[k] < n) add[k] = load_four_of(dx + (long)rows[k] * width + c);
#pragma unroll
        for (int k = 0; k < kJump; k++)
#pragma unroll
          for (int j = 0; j < 4; j++) sum[j] += add[k][j];
      });
#pragma unroll
      for (int j = 0; j < 4; j++) row[c + j] = sum[j];
    }
    return;
  }
  for (int c = threadIdx.x; c < width; c += 256) {
    float sum = row[c] + read(dx + (long)blockIdx.x * width + c);
    follow(sum, [&](float& sum, const int (&rows)[kJump]) {
      for (int k = 0; k < kJump; k++)
        if (rows[k] < n) sum += read(dx + (long)rows[k] * width + c);
    });
    row[c] = sum;
  }
}

KERNEL(elementwise float, 256, 3)
void embed_backward_float32(
    float* dweight, const float* dx, const int* tokens, const int* jumps, const int* later, int n, int width) {
  embed_backward(dweight, dx, tokens, jumps, later, n, width);
}
KERNEL(elementwise float, 256, 3)
void embed_backward_bfloat16(
    float* dweight, const BFloat* dx, const int* tokens, const int* jumps, const int* later, int n, int width) {
  embed_backward(dweight, dx, tokens, jumps, later, n, width);
}
