// Binary matrix product in its simplest form on the matrix units of compute capability 8.0 and later. A warp computes
// 16 x 32 of C and reads its operands from global memory: one plane of A and one of B after the other. Read this
// version first. All devices but Hopper run it, and tests compare the fast kernel with it.
#include <stdint.h>

constexpr int kTiles = 4;  // of 8 columns per warp

struct PlainProduct {
  int m, n;
  int planes, negative_top, column_planes;  // of A and of B
  int words;                                // of 32 bits in a row
  int product, row_weight, column_weight, bias;
  long plane_words, column_plane_words;  // from one plane to the next
  const int *row_popcounts, *column_popcounts;
};

// d (16 x 8) += popcount(a & b) over 256 bits. Lane l holds rows l / 4 and l / 4 + 8, columns 2 (l % 4) and the next.
DEVICE void mma_and_popc(int (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k256.row.col.s32.b1.b1.s32.and.popc {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, "
      "%1, %2, %3};"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

DEVICE uint32_t word_or_zero(const uint32_t* matrix, int row, int rows, int word, int words) {
  return row < rows && word < words ? matrix[(long)row * words + word] : 0;
}

template <class Store>
DEVICE void gemm(const uint32_t* a, const uint32_t* b, const PlainProduct& p, const Store& store) {
  int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  int row = blockIdx.y * 64 + threadIdx.x / 32 * 16 + g, column = blockIdx.x * 8 * kTiles;
  int d[kTiles][4] = {};
  for (int pair = 0; pair < p.planes * p.column_planes; pair++) {
    int plane = pair % p.planes, column_plane = pair / p.planes, count[kTiles][4] = {};
    const uint32_t *left = a + plane * p.plane_words, *right = b + column_plane * p.column_plane_words;
    for (int w = t; w < p.words; w += 8) {
      uint32_t x[4] = {word_or_zero(left, row, p.m, w, p.words), word_or_zero(left, row + 8, p.m, w, p.words),
          word_or_zero(left, row, p.m, w + 4, p.words), word_or_zero(left, row + 8, p.m, w + 4, p.words)};
      for (int j = 0; j < kTiles; j++) {
        int c = column + 8 * j + g;
        uint32_t y[2] = {word_or_zero(right, c, p.n, w, p.words), word_or_zero(right, c, p.n, w + 4, p.words)};
        mma_and_popc(count[j], x, y);
      }
    }
    int weight = (p.negative_top && plane == p.planes - 1 ? -1 : 1) * (1 << (plane + column_plane));
    for (int j = 0; j < kTiles; j++)
      for (int i = 0; i < 4; i++) d[j][i] += weight * count[j][i];
  }
  for (int j = 0; j < kTiles; j++) {
    for (int i = 0; i < 4; i++) {
      int r = row + i / 2 * 8, c = column + 8 * j + 2 * t + i % 2;
      if (r >= p.m || c >= p.n) continue;
      int s = p.product * d[j][i] + p.bias;
      if (p.row_weight) s += p.row_weight * p.row_popcounts[r];
      if (p.column_weight) s += p.column_weight * p.column_popcounts[c];
      store(r, c, s);
    }
  }
}

KERNEL(binary_products, 128)
void gemm_mma_add(
    const uint32_t* a, const uint32_t* b, const __grid_constant__ PlainProduct p, int* out, long stride) {
  gemm(a, b, p, [&](int r, int c, int s) { out[r * stride + c] += s; });
}

KERNEL(binary_products, 128)
void gemm_mma_float32(const uint32_t* a, const uint32_t* b, const __grid_constant__ PlainProduct p,
    const float* row_scale, float scale, float* out, long stride) {
  gemm(a, b, p,
      [&](int r, int c, int s) { out[r * stride + c] = (row_scale ? row_scale[r] * scale : scale) * (float)s; });
}
