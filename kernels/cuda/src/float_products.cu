// Matrix products of floats: for gradients that are not rounded, streams that are not quantized and blended weights.
//
// Products of two float32 are exact in float64. They are summed in float64 by the matrix unit, four at a time in
// ascending order of k, so that terms that cancel leave zero. Otherwise a rounding error could decide the sign of an
// output, or the step of an optimizer that divides by a gradient's size. The order among four is the matrix unit's; it
// is the same for all outputs.

struct Operand {
  const float* data;
  long row, k;  // strides
};

constexpr int kSide = 64, kDepth = 16;  // rows and columns of out that a block computes, and the k of a stage
constexpr int kFloatThreads = 128, kFloatStages = 3;

// d (8 x 8) += a (8 x 4) b (4 x 8). Lane 4 g + t has row g and column t of a, row t and column g of b, and row g and
// columns 2 t and 2 t + 1 of d. PTX ISA, "mma".
DEVICE void mma_f64(double (&d)[2], double a, double b) {
  asm volatile("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%0, %1}, {%2}, {%3}, {%0, %1};"
      : "+d"(d[0]), "+d"(d[1])
      : "d"(a), "d"(b));
}

// 64 rows and 16 k of an operand in shared memory. They lie as in global memory: k runs along a line where its stride
// is 1, and rows do otherwise. With these distances between lines, the eight rows of four k that a warp reads at once
// lie in different banks.
DEVICE bool along_k(const Operand& x) { return x.k == 1; }
constexpr int kLineOfK = kDepth + 4, kLineOfRows = kSide + 8;
constexpr int kTileFloats = kSide * kLineOfK;  // the larger of the two
DEVICE int row_stride(const Operand& x) { return along_k(x) ? kLineOfK : 1; }
DEVICE int k_stride(const Operand& x) { return along_k(x) ? 1 : kLineOfRows; }

// Copies rows row0 … row0 + 63 and k0 … k0 + 15 of an operand, with zeros beyond its `rows` and `k`. Four values of a
// line are one copy where they are aligned, and where always all four or none are there.
DEVICE void load_tile(float* tile, const Operand& x, int row0, int rows, int k0, int k) {
  bool by_k = along_k(x);
  int line = by_k ? kDepth : kSide, distance = by_k ? kLineOfK : kLineOfRows;
  long along_stride = by_k ? x.k : x.row, line_stride = by_k ? x.row : x.k;
  int along_all = by_k ? k : rows, lines_all = by_k ? rows : k;
  bool fours = (uint64_t)x.data % 16 == 0 && along_stride == 1 && line_stride % 4 == 0 && along_all % 4 == 0;
  int e = (fours ? 4 : 1) * threadIdx.x, step = (fours ? 4 : 1) * kFloatThreads / line;
  int along = e % line, along0 = by_k ? k0 : row0, line0 = by_k ? row0 : k0;
  const float* from = x.data + (along0 + along) * along_stride;
#pragma unroll 1
  for (int l = e / line; l < kSide * kDepth / line; l += step) {
    bool there = along0 + along < along_all && line0 + l < lines_all;
    uint32_t to = shared_address(tile + l * distance + along);
    const float* at = there ? from + (line0 + l) * line_stride : x.data;
    if (fours) copy_async_or_zero<16>(to, at, there);
    else copy_async_or_zero<4>(to, at, there);
  }
}

// store(i, j, Σ_k a(i,k) b(j,k)). A block computes 64 x 64 with four warps of 32 x 32. Values stay float32 in shared
// memory, whose bandwidth would be the bound with float64.
template <class Store>
DEVICE void multiply(const Operand& a, const Operand& b, int m, int n, int k, const Store& store) {
  __shared__ alignas(16) float tiles[kFloatStages][2][kTileFloats];
  int row0 = blockIdx.y * kSide, column0 = blockIdx.x * kSide;
  int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  int warp_row = warp / 2 * 32, warp_column = warp % 2 * 32;
  int row_a = row_stride(a), k_a = k_stride(a), row_b = row_stride(b), k_b = k_stride(b);
  int steps = ceil_div(k, kDepth);
  auto load = [&](int step) __attribute__((always_inline)) {
    if (step < steps) {
      load_tile(tiles[step % kFloatStages][0], a, row0, m, step * kDepth, k);
      load_tile(tiles[step % kFloatStages][1], b, column0, n, step * kDepth, k);
    }
    copies_commit();
  };
  for (int i = 0; i < kFloatStages - 1; i++) load(i);
  double sums[4][4][2] = {};
  for (int step = 0; step < steps; step++) {
    copies_wait<kFloatStages - 2>();
    block_sync();
    load(step + kFloatStages - 1);
    const float* from_a = tiles[step % kFloatStages][0] + (warp_row + g) * row_a + t * k_a;
    const float* from_b = tiles[step % kFloatStages][1] + (warp_column + g) * row_b + t * k_b;
#pragma unroll
    for (int d = 0; d < kDepth; d += 4) {
      double x[4], y[4];
#pragma unroll
      for (int i = 0; i < 4; i++)
        x[i] = (double)from_a[8 * i * row_a + d * k_a], y[i] = (double)from_b[8 * i * row_b + d * k_b];
#pragma unroll
      for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) mma_f64(sums[i][j], x[i], y[j]);
    }
  }
#pragma unroll
  for (int i = 0; i < 4; i++)
#pragma unroll
    for (int j = 0; j < 4; j++)
#pragma unroll
      for (int e = 0; e < 2; e++) {
        int r = row0 + warp_row + 8 * i + g, c = column0 + warp_column + 8 * j + 2 * t + e;
        if (r < m && c < n) store(r, c, sums[i][j][e]);
      }
}

// out[i][j] = Σ_k a(i,k) b(j,k), rounded to float32.
KERNEL(elementwise float, kFloatThreads, 4)
void float_product(const __grid_constant__ Operand a, const __grid_constant__ Operand b, int m, int n, int k,
    float* out, long stride) {
  multiply(a, b, m, n, k, [&](int r, int c, double sum) { out[r * stride + c] = (float)sum; });
}

// out[i][j] += Σ_k a(i,k) b(j,k), in float64.
KERNEL(elementwise float, kFloatThreads, 4)
void float_product_add(const __grid_constant__ Operand a, const __grid_constant__ Operand b, int m, int n, int k,
    double* out, long stride) {
  multiply(a, b, m, n, k, [&](int r, int c, double sum) { out[r * stride + c] += sum; });
}
