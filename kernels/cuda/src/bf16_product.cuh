// Products of bfloat16 matrices with sums in float32, many of one shape: a block's z is the matrix.
#pragma once

constexpr int kBf16Tile = 128, kBf16Depth = 64;  // rows and columns of out that a block computes, and the k of a stage

// out[i][j] = alpha Σ_k a[i][k] b(k, j) + beta add[i][j]. a has m rows, padded to stride_a; b(k, j) is b[j][k], or
// b[k][j] where the kernel says so; out and add have rows of stride_out values.
struct Bf16Product {
  const BFloat *a, *b, *add;
  BFloat* out;
  long size_a, size_b, size_out;  // of one matrix
  int m, n, k, stride_a, stride_b, stride_out;
  float alpha, beta;
};

// Zeros between the last column and the stride, for a tile's rows.
DEVICE void clear_padding(const Bf16Product& p, int row0, int column0) {
  int row = row0 + threadIdx.x;
  if (column0 + kBf16Tile < p.stride_out || (int)threadIdx.x >= kBf16Tile || row >= p.m) return;
  BFloat* out = p.out + blockIdx.z * p.size_out + (long)row * p.stride_out;
  for (int c = p.n; c < p.stride_out; c++) out[c].bits = 0;
}

// Stores two neighbouring sums; mirrored: and their places on the other side of the diagonal.
DEVICE void store_pair(const Bf16Product& p, int row, int column, float x, float y, bool mirrored) {
  if (row >= p.m || column >= p.stride_out) return;
  BFloat* out = p.out + blockIdx.z * p.size_out;
  long to = (long)row * p.stride_out + column;
  x = p.alpha * x, y = p.alpha * y;
  if (p.add) {
    uint32_t word = *(const uint32_t*)(p.add + blockIdx.z * p.size_out + to);
    x += p.beta * low_bf16(word), y += p.beta * high_bf16(word);
  }
  uint32_t word = pack_bf16(x, y);
  *(uint32_t*)(out + to) = word;
  if (mirrored) {
    out[(long)column * p.stride_out + row].bits = (uint16_t)word;
    out[(long)(column + 1) * p.stride_out + row].bits = (uint16_t)(word >> 16);
  }
}
