// Muon (Jordan et al. 2024): momentum, made nearly orthogonal by the Newton–Schulz iteration. Matrices of one shape are
// updated together, a block's z is the matrix. They are kept in bfloat16 with `short` rows of `wide` values: the
// transpose, where a matrix has more rows than columns. Rows are padded with zeros to `stride` values, a multiple of 8.
#include "bf16_product.cuh"
#include "block_sum.cuh"
#include "clip_factor.cuh"
#include "mma.cuh"

struct Muon {
  float *param, *momentum;
  const float *grad, *squared_norm;  // squared_norm may be null
  const double* at;                  // where each matrix begins
  BFloat* x;                         // [count][short][stride]
  double* squares;                   // [count][blocks of muon_momentum]
  int rows, cols, stride;
  float beta, rest, root;  // root = sqrt(max(1, rows / cols))
  double max_norm;

  DEVICE_MEMBER bool transposed() const { return rows > cols; }
  DEVICE_MEMBER int height() const { return min(rows, cols); }
  DEVICE_MEMBER int width() const { return max(rows, cols); }
  DEVICE_MEMBER long begin() const { return (long)at[blockIdx.z]; }
};

constexpr int kMuonSide = 32;  // blocks of elementwise kernels have 32 x 32 values, four a thread

// Calls f(i, index) for this thread's values i = 0 ... 3, which are eight rows of the matrix apart; places beyond the
// matrix are left out. `begin` is where the matrix begins.
template <class F> DEVICE void each_value(const Muon& m, long begin, const F& f) {
  int c = blockIdx.x * kMuonSide + threadIdx.x % kMuonSide;
#pragma unroll
  for (int i = 0; i < 4; i++) {
    int r = blockIdx.y * kMuonSide + threadIdx.x / kMuonSide + 8 * i;
    if (r < m.rows && c < m.cols) f(i, begin + (long)r * m.cols + c);
  }
}

// Where value (r, c) of this block's 32 x 32 of the matrix lies in x; -1 beyond x. Values between the width and the
// stride exist.
DEVICE long place(const Muon& m, int r, int c) {
  int row = (m.transposed() ? blockIdx.x : blockIdx.y) * kMuonSide + r;
  int column = (m.transposed() ? blockIdx.y : blockIdx.x) * kMuonSide + c;
  if (row >= m.height() || column >= m.stride) return -1;
  return ((long)blockIdx.z * m.height() + row) * m.stride + column;
}

// momentum = beta * momentum + rest * grad; x = beta * momentum + rest * grad; and Σ x² of the block.
KERNEL(optimizer float, 256, 5) void muon_momentum(const __grid_constant__ Muon m) {
  __shared__ float tile[kMuonSide][kMuonSide + 1];
  long begin = m.begin();
  float grad[4] = {}, before[4] = {};
  each_value(m, begin, [&](int i, long at) { grad[i] = m.grad[at], before[i] = m.momentum[at]; });
#pragma unroll
  for (int i = 0; i < 4; i++) fence_operand(grad[i]), fence_operand(before[i]);
  float clip = clip_factor(m.squared_norm, m.max_norm), made[4] = {};
  double squares = 0;
  each_value(m, begin, [&](int i, long at) {
    float g = grad[i] * clip;
    float momentum = m.beta * before[i] + m.rest * g;
    m.momentum[at] = momentum;
    made[i] = m.beta * momentum + m.rest * g;
    squares += (double)made[i] * (double)made[i];
  });
#pragma unroll
  for (int i = 0; i < 4; i++) tile[threadIdx.x / kMuonSide + 8 * i][threadIdx.x % kMuonSide] = made[i];
  __shared__ double room[8];
  squares = block_sum(squares, room);  // and a barrier
  if (threadIdx.x == 0) m.squares[((long)blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x] = squares;
#pragma unroll
  for (int i = 0; i < 4; i++) {
    int r = threadIdx.x / kMuonSide + 8 * i, c = threadIdx.x % kMuonSide;
    long to = place(m, r, c);
    if (to >= 0) write(m.x + to, m.transposed() ? tile[c][r] : tile[r][c]);
  }
}

// x /= ‖x‖ + 1e-7, of which `blocks` pieces of Σ x² are there. blockIdx.y is the matrix, whose size is a multiple of 8.
KERNEL(optimizer float, 256) void muon_scale(BFloat* x, const double* squares, int blocks, long size) {
  __shared__ double room[8];
  double sum = 0;
  for (int i = threadIdx.x; i < blocks; i += 256) sum += squares[(long)blockIdx.y * blocks + i];
  float inverse = (float)(1 / (__builtin_sqrt(block_sum(sum, room)) + 1e-7));
  x += blockIdx.y * size;
  for (long i = 8 * (blockIdx.x * 256l + threadIdx.x); i < size; i += 8 * gridDim.x * 256l) {
    FourBFloats four[2] = {load_four_of(x + i), load_four_of(x + i + 4)};
    float scaled[8];
#pragma unroll
    for (int j = 0; j < 8; j++) scaled[j] = inverse * four[j / 4][j % 4];
    store_eight(x + i, scaled);
  }
}

// param = (1 - rate decay) param - rate root x.
KERNEL(optimizer float, 256, 6) void muon_update(const __grid_constant__ Muon m, const Scalars* scalars) {
  __shared__ float tile[kMuonSide][kMuonSide + 1];
  long begin = m.begin();
  float before[4] = {}, value[4];
  each_value(m, begin, [&](int i, long at) { before[i] = m.param[at]; });
#pragma unroll
  for (int i = 0; i < 4; i++) {
    long from = place(m, threadIdx.x / kMuonSide + 8 * i, threadIdx.x % kMuonSide);
    value[i] = from >= 0 ? read(m.x + from) : 0;
  }
#pragma unroll
  for (int i = 0; i < 4; i++) fence_operand(before[i]), fence_operand(value[i]);
#pragma unroll
  for (int i = 0; i < 4; i++) {
    int r = threadIdx.x / kMuonSide + 8 * i, c = threadIdx.x % kMuonSide;
    if (m.transposed()) tile[c][r] = value[i];
    else tile[r][c] = value[i];
  }
  block_sync();
  double rate = scalars->muon_rate;
  float keep = (float)(1 - rate * scalars->muon_decay), step = (float)(rate * (double)m.root);
  each_value(m, begin, [&](int i, long at) {
    m.param[at] = before[i] * keep - step * tile[threadIdx.x / kMuonSide + 8 * i][threadIdx.x % kMuonSide];
  });
}

// ---- Products of bfloat16 with sums in float32: mma of sm_80 ----

constexpr int kBf16Stages = 3, kBf16Threads = 256;
constexpr int kBf16Stage = 2 * kBf16Tile * kBf16Depth * 2;  // bytes, of a and b

DEVICE void load_matrices(uint32_t (&d)[4], uint32_t from) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
      : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
      : "r"(from)
      : "memory");
}
DEVICE void load_matrices_transposed(uint32_t (&d)[4], uint32_t from) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
      : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
      : "r"(from)
      : "memory");
}
// Rows of 128 or 256 bytes in shared memory, whose 16-byte chunks are exchanged so that eight rows' chunks lie in
// different banks.
template <int kRowBytes> DEVICE uint32_t chunk_at(uint32_t base, int row, int chunk) {
  return base + row * kRowBytes + (chunk ^ row % 8) * 16;
}

// A stage of the tile's rows first … first + 127 of `from`, columns k … k + 63.
DEVICE void load_rows(uint32_t to, const BFloat* from, int stride, int first, int rows, int k, int columns) {
#pragma unroll
  for (int i = threadIdx.x; i < kBf16Tile * 8; i += kBf16Threads) {
    int row = i / 8, chunk = i % 8;
    bool there = first + row < rows && k + 8 * chunk < columns;
    copy_async_or_zero<16>(
        chunk_at<128>(to, row, chunk), there ? from + (long)(first + row) * stride + k + 8 * chunk : from, there);
  }
}
// A stage of rows k … k + 63 of `from`, the tile's columns first … first + 127.
DEVICE void load_columns(uint32_t to, const BFloat* from, int stride, int first, int columns, int k, int rows) {
#pragma unroll
  for (int i = threadIdx.x; i < kBf16Depth * 16; i += kBf16Threads) {
    int row = i / 16, chunk = i % 16;
    bool there = k + row < rows && first + 8 * chunk < columns;
    copy_async_or_zero<16>(
        chunk_at<256>(to, row, chunk), there ? from + (long)(k + row) * stride + first + 8 * chunk : from, there);
  }
}

// A block computes 128 x 128 with eight warps of 64 x 32. kSymmetric: out is symmetric, blocks above the diagonal leave
// it to those below.
template <bool kByRows, bool kSymmetric> DEVICE void multiply_bf16(const Bf16Product& p) {
  extern __shared__ char memory[];
  int row0 = blockIdx.y * kBf16Tile, column0 = blockIdx.x * kBf16Tile;
  if (kSymmetric && column0 > row0) {
    clear_padding(p, row0, column0);
    return;
  }
  uint32_t stages = shared_address(memory);
  const BFloat *a = p.a + blockIdx.z * p.size_a, *b = p.b + blockIdx.z * p.size_b;
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warp_row = warp / 4 * 64, warp_column = warp % 4 * 32;
  int steps = ceil_div(p.k, kBf16Depth);
  auto load = [&](int step) {
    if (step < steps) {
      uint32_t to = stages + step % kBf16Stages * kBf16Stage;
      load_rows(to, a, p.stride_a, row0, p.m, step * kBf16Depth, p.stride_a);
      to += kBf16Stage / 2;
      if constexpr (kByRows) load_columns(to, b, p.stride_b, column0, p.stride_b, step * kBf16Depth, p.k);
      else load_rows(to, b, p.stride_b, column0, p.n, step * kBf16Depth, p.stride_b);
    }
    copies_commit();
  };
#pragma unroll
  for (int i = 0; i < kBf16Stages - 1; i++) load(i);
  float sums[4][4][4] = {};
  for (int step = 0; step < steps; step++) {
    copies_wait<kBf16Stages - 2>();
    block_sync();
    load(step + kBf16Stages - 1);
    uint32_t at_a = stages + step % kBf16Stages * kBf16Stage, at_b = at_a + kBf16Stage / 2;
#pragma unroll
    for (int k = 0; k < kBf16Depth / 16; k++) {
      uint32_t fragment_a[4][4], fragment_b[2][4];
#pragma unroll
      for (int i = 0; i < 4; i++)
        load_matrices(fragment_a[i], chunk_at<128>(at_a, warp_row + 16 * i + lane % 16, 2 * k + lane / 16));
#pragma unroll
      for (int j = 0; j < 2; j++) {
        if constexpr (kByRows)
          load_matrices_transposed(
              fragment_b[j], chunk_at<256>(at_b, 16 * k + lane % 16, warp_column / 8 + 2 * j + lane / 16));
        else
          load_matrices(fragment_b[j],
              chunk_at<128>(at_b, warp_column + 16 * j + lane / 16 * 8 + lane % 8, 2 * k + lane / 8 % 2));
      }
#pragma unroll
      for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++)
          mma_bf16(sums[i][j], fragment_a[i], fragment_b[j / 2][j % 2 * 2], fragment_b[j / 2][j % 2 * 2 + 1]);
    }
  }
#pragma unroll
  for (int i = 0; i < 4; i++)
#pragma unroll
    for (int j = 0; j < 4; j++)
#pragma unroll
      for (int h = 0; h < 2; h++) {
        int row = row0 + warp_row + 16 * i + 8 * h + lane / 4, column = column0 + warp_column + 8 * j + lane % 4 * 2;
        store_pair(p, row, column, sums[i][j][2 * h], sums[i][j][2 * h + 1], kSymmetric && column0 < row0);
      }
}

// A = X Xᵀ, or b A + c A Aᵀ of a symmetric A.
KERNEL(optimizer float shared(kBf16Stages* kBf16Stage), kBf16Threads)
void bf16_product_symmetric(const __grid_constant__ Bf16Product p) { multiply_bf16<false, true>(p); }
// a X + P X.
KERNEL(optimizer float shared(kBf16Stages* kBf16Stage), kBf16Threads)
void bf16_product(const __grid_constant__ Bf16Product p) { multiply_bf16<true, false>(p); }
