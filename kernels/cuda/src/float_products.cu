// Matrix products of floats: for gradients that are not rounded, streams that are not quantized and blended weights.
// They are plain code, for completeness and comparison; training runs on binary products.
//
// Products of two float32 are exact in float64. They are summed in float64 in ascending order, so that terms that
// cancel leave zero. Otherwise a rounding error could decide the sign of an output, or the step of an optimizer that
// divides by a gradient's size.

struct Operand {
  const float* data;
  long row, k;  // strides
};

constexpr int kSide = 64, kDepth = 16;

// store(i, j, Σ_k a(i,k) b(j,k)). A block computes 64 x 64, a thread 4 x 4.
template <class Store>
DEVICE void multiply(const Operand& a, const Operand& b, int m, int n, int k, const Store& store) {
  __shared__ double tile_a[kDepth][kSide + 2], tile_b[kDepth][kSide + 2];
  int row0 = blockIdx.y * kSide, column0 = blockIdx.x * kSide;
  int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
  double sum[4][4] = {};
  for (int k0 = 0; k0 < k; k0 += kDepth) {
#pragma unroll
    for (int e = threadIdx.x; e < kSide * kDepth; e += 256) {
      // Neighbouring threads read along the dimension whose stride is 1.
      int ai = a.k == 1 ? e / kDepth : e % kSide, ak = a.k == 1 ? e % kDepth : e / kSide;
      tile_a[ak][ai] = row0 + ai < m && k0 + ak < k ? (double)a.data[(row0 + ai) * a.row + (k0 + ak) * a.k] : 0.0;
      int bi = b.k == 1 ? e / kDepth : e % kSide, bk = b.k == 1 ? e % kDepth : e / kSide;
      tile_b[bk][bi] = column0 + bi < n && k0 + bk < k ? (double)b.data[(column0 + bi) * b.row + (k0 + bk) * b.k] : 0.0;
    }
    block_sync();
#pragma unroll
    for (int d = 0; d < kDepth; d++) {
      double x[4], y[4];
#pragma unroll
      for (int i = 0; i < 4; i++) x[i] = tile_a[d][ty + 16 * i], y[i] = tile_b[d][tx + 16 * i];
#pragma unroll
      for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) sum[i][j] = multiply_add(x[i], y[j], sum[i][j]);
    }
    block_sync();
  }
#pragma unroll
  for (int i = 0; i < 4; i++)
#pragma unroll
    for (int j = 0; j < 4; j++) {
      int r = row0 + ty + 16 * i, c = column0 + tx + 16 * j;
      if (r < m && c < n) store(r, c, sum[i][j]);
    }
}

// out[i][j] = Σ_k a(i,k) b(j,k), rounded to float32.
KERNEL(elementwise float, 256)
void float_product(const __grid_constant__ Operand a, const __grid_constant__ Operand b, int m, int n, int k,
    float* out, long stride) {
  multiply(a, b, m, n, k, [&](int r, int c, double sum) { out[r * stride + c] = (float)sum; });
}

// out[i][j] += Σ_k a(i,k) b(j,k), in float64.
KERNEL(elementwise float, 256)
void float_product_add(const __grid_constant__ Operand a, const __grid_constant__ Operand b, int m, int n, int k,
    double* out, long stride) {
  multiply(a, b, m, n, k, [&](int r, int c, double sum) { out[r * stride + c] += sum; });
}
