// Matrix product of floats, for gradients that are not rounded, unquantized streams and blended weights. It is there for
// completeness and for comparison, and plain: binary products are what training runs on.

struct Operand {
  const float* data;
  long row, k;  // strides
};

constexpr int kSide = 64, kDepth = 16;

// out[i][j] (+)= Σ_k a(i,k) b(j,k). A block computes 64 x 64, a thread 4 x 4, in ascending order of k.
extern "C" __global__ __launch_bounds__(256) void sgemm(const __grid_constant__ Operand a, const __grid_constant__ Operand b, int m,
                                                        int n, int k, float* out, long stride, int add) {
  __shared__ float tile_a[kDepth][kSide + 4], tile_b[kDepth][kSide + 4];
  int row0 = blockIdx.y * kSide, column0 = blockIdx.x * kSide;
  int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
  float sum[4][4] = {};
  for (int k0 = 0; k0 < k; k0 += kDepth) {
#pragma unroll
    for (int e = threadIdx.x; e < kSide * kDepth; e += 256) {
      // Neighbouring threads read along the dimension whose stride is 1.
      int ai = a.k == 1 ? e / kDepth : e % kSide, ak = a.k == 1 ? e % kDepth : e / kSide;
      tile_a[ak][ai] = row0 + ai < m && k0 + ak < k ? a.data[(row0 + ai) * a.row + (k0 + ak) * a.k] : 0.0f;
      int bi = b.k == 1 ? e / kDepth : e % kSide, bk = b.k == 1 ? e % kDepth : e / kSide;
      tile_b[bk][bi] = column0 + bi < n && k0 + bk < k ? b.data[(column0 + bi) * b.row + (k0 + bk) * b.k] : 0.0f;
    }
    block_sync();
#pragma unroll
    for (int d = 0; d < kDepth; d++) {
      Float4 x = *(const Float4*)&tile_a[d][4 * ty], y = *(const Float4*)&tile_b[d][4 * tx];
      float xs[4] = {x.x, x.y, x.z, x.w}, ys[4] = {y.x, y.y, y.z, y.w};
#pragma unroll
      for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) sum[i][j] = __builtin_fmaf(xs[i], ys[j], sum[i][j]);
    }
    block_sync();
  }
#pragma unroll
  for (int i = 0; i < 4; i++)
#pragma unroll
    for (int j = 0; j < 4; j++) {
      int r = row0 + 4 * ty + i, c = column0 + 4 * tx + j;
      if (r < m && c < n) {
        float* to = out + r * stride + c;
        *to = add ? *to + sum[i][j] : sum[i][j];
      }
    }
}
