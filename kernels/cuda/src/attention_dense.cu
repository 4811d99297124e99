// The backward pass of attention over all keys: softmax, and the straight-through gradient of a pointer. For heads of
// 64 channels, queries and values of signs, sequences of a multiple of 4 and gradients in bfloat16. No seq x seq matrix
// is kept: probabilities are computed again where they are needed. Every sum is taken by one warp in a fixed order.
//
// Let w = exp((score - top) / tau), do the gradient of a query's attention output, and d_u = do·v_u:
//
//	p_u = w_u / Σ w    ds_u = p_u (d_u - Σ p d) / (tau sqrt(dim))    dq = Σ_u ds_u k_u    dk_u = Σ_t ds_tu q_t
//	dv_u = Σ_t p_tu do_t, or of a pointer Σ do_t over the queries that point at u
//
// These sums are matrix products with ±1, or with do, which is bfloat16 already. The other factors are split into two
// bfloat16, which keep 16 significant bits.
#include "attention_tile.cuh"

// Transposes an 8 x 8 matrix of 16-bit values. Lane 4 g + t has row g, columns 2 t and 2 t + 1.
DEVICE uint32_t transpose(uint32_t x) {
  uint32_t y;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(y) : "r"(x));
  return y;
}
// Transposes one part of a Split.
DEVICE void transpose(uint32_t (&x)[4]) {
  uint32_t y = transpose(x[1]);
  x[0] = transpose(x[0]), x[1] = transpose(x[2]), x[2] = y, x[3] = transpose(x[3]);
}

// Sums over channels take pairs of channels that are 16 apart. Pair i < 8 of lane t of four is channels c and c + 16
// with c = channel(t, i).
DEVICE int channel(int t, int i) { return 32 * (i / 4) + 8 * (i / 2 % 2) + 2 * t + i % 2; }

// What a query needs beside its scores: w = exp2(score * slope + shift), ds = w * (d - mean) * factor, p = w * inverse.
struct alignas(16) QueryStats {
  float shift, factor, mean, inverse;
};

// Writes the value bits of 16 keys as columns. Lane 4 g + t has column g of the tile's two matrices and the channels of
// its pairs.
DEVICE void put_columns(Signs& s, const uint32_t (*bits)[2]) {
  int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
  for (int j = 0; j < 4; j++) {
    uint32_t word = bits[g / 2 * 4 + 2 * (j / 2) + g % 2][j % 2];
    s.put(j, signs_of(word, channel(t, 0)), signs_of(word, channel(t, 1)), signs_of(word, channel(t, 2)),
        signs_of(word, channel(t, 3)));
  }
}

// d[r][i] = do·v of query g + 8 r and key 4 t + i. grads are the channel pairs of rows g and g + 8; values were written
// by put_columns.
DEVICE void tile_products(const uint32_t (&grads)[2][8], const Signs& values, float (&d)[2][4]) {
#pragma unroll
  for (int n = 0; n < 2; n++) {
    float sum[4] = {};
#pragma unroll
    for (int w = 0; w < 2; w++) {
      Int4 four = values.words[2 * n + w][threadIdx.x % 32];
      mma_bf16(sum, {grads[0][4 * w], grads[1][4 * w], grads[0][4 * w + 1], grads[1][4 * w + 1]}, four.x, four.y);
      mma_bf16(
          sum, {grads[0][4 * w + 2], grads[1][4 * w + 2], grads[0][4 * w + 3], grads[1][4 * w + 3]}, four.z, four.w);
    }
#pragma unroll
    for (int j = 0; j < 4; j++) d[j / 2][2 * n + j % 2] = sum[j];
  }
}

// Writes the rows of a 16 x 64 result, two neighbouring channels at a time.
DEVICE void write_rows(BFloat* row, const float (&sums)[8][4], int half) {
#pragma unroll
  for (int c = 0; c < 8; c++)
    *(uint32_t*)(row + 8 * c + 2 * (threadIdx.x % 4)) = pack_bf16(sums[c][2 * half], sums[c][2 * half + 1]);
}

DEVICE BFloat* gradient_row(BFloat* dqkv, const Head& h, int part, int t) {
  return dqkv + ((h.row0 + t) * 3 + part) * h.a.heads * 64 + h.head * 64;
}
DEVICE const BFloat* read_row(const BFloat* dout, const Head& h, int t) {
  return dout + ((h.row0 + t) * h.a.heads + h.head) * 64;
}

// Computes dq and the statistics of queries. A warp has 16 queries, a block 64; they pass over tiles of 64 keys. The
// mean m of e_u = d_u - d_best is known only at the end, so two sums over keys are kept: dq = factor * (Σ w e k - m Σ w
// k). In a query with one strong key nearly everything large cancels exactly. Grid: x queries / 64, the last queries
// first, y heads.
template <bool kPointer, bool kSeparate> DEVICE void dense_queries(
    const Attention& a, const BFloat* dout, const int* pointers, QueryStats* stats, BFloat* dqkv) {
  __shared__ alignas(16) uint32_t keys[64][2], values[64][2];
  __shared__ Signs key_signs[4], value_signs[4];
  Head h(a, blockIdx.y);
  int lane = threadIdx.x % 32, t = lane % 4, mine = threadIdx.x / 32, first = (gridDim.x - 1 - blockIdx.x) * 64,
      row0 = first + threadIdx.x / 32 * 16;
  float slope = (float)h.slope, tau = kPointer ? (float)a.scalars->tau : 1.0f, sharpness = kLog2E / tau;
  TileQueries q;
  TileNoise noise(a);
  uint32_t grads[2][8];
  float shift[2], reference[2], sum[2] = {}, mean[2] = {}, sums[2][8][4] = {};
#pragma unroll
  for (int r = 0; r < 2; r++) {
    int at = row0 + lane / 4 + 8 * r, row = min(at, a.seq - 1);
    uint32_t bits[2];
    h.load_query(row, bits);
    q.place(h, r, at);
    q.bits[r] = lane_word(bits);
    int best = pointers[h.query(row)];
    double top = h.score<false>(bits, row, best);
    if (kPointer) top += h.noise(row, best);
    shift[r] = -(float)top * sharpness;
    const BFloat* from = read_row(dout, h, row);
#pragma unroll
    for (int i = 0; i < 8; i++) {
      int c = channel(t, i);
      grads[r][i] = at < a.seq ? from[c].bits | (uint32_t)from[c + 16].bits << 16 : 0;
    }
    uint32_t v[2];
    h.load_value(best, v);
    reference[r] = 0;
#pragma unroll
    for (int i = 0; i < 8; i++) {
      uint32_t signs = v[i / 4] >> channel(t, i) % 32;
      reference[r] += (signs & 1 ? 1.0f : -1.0f) * low_bf16(grads[r][i]) +
                      (signs >> 16 & 1 ? 1.0f : -1.0f) * high_bf16(grads[r][i]);
    }
#pragma unroll
    for (int mask = 1; mask < 4; mask *= 2) reference[r] += shuffle_xor(reference[r], mask);
  }
  TileStarts<kSeparate> starts(h, row0);
  for (int from = kSeparate ? h.first(first) / 64 * 64 : 0; from < first + 64; from += 64) {
    block_sync();
    int key = threadIdx.x / 2, word = threadIdx.x % 2;
    bool inside = from + key < a.seq;
    keys[key][word] = inside ? h.key_word(from + key, word) : 0;
    values[key][word] = inside ? h.value_word(from + key, word) : 0;
    warp_sync();  // a warp makes signs of the keys that it loaded
    const Int4* bits = (const Int4*)keys[16 * mine + 4 * t];
    key_signs[mine].put_rows(bits[0], bits[1]);
    put_columns(value_signs[mine], values + 16 * mine);
    block_sync();
    for (int part = 0; part < 64 && from + part < row0 + 16; part += 16) {
      if (kSeparate && from + part + 15 < starts.earliest) continue;
      float w[2][4], d[2][4];
      tile_scores<kPointer>(q, noise, slope, keys + part, from + part, w);
      hide(h, starts, row0, from + part, w);
      tile_products(grads, value_signs[part / 16], d);
#pragma unroll
      for (int r = 0; r < 2; r++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
          w[r][i] = exp2_fast(__builtin_fmaf(w[r][i], sharpness, shift[r]));
          d[r][i] = w[r][i] * (d[r][i] - reference[r]);
          sum[r] += w[r][i], mean[r] += d[r][i];
        }
      add_signs(sums, {split(d), split(w)}, key_signs[part / 16]);
    }
  }
  float factor[2];
#pragma unroll
  for (int r = 0; r < 2; r++) {
#pragma unroll
    for (int mask = 1; mask < 4; mask *= 2) sum[r] += shuffle_xor(sum[r], mask), mean[r] += shuffle_xor(mean[r], mask);
    mean[r] /= sum[r];
    factor[r] = a.scale / (sum[r] * tau);
    int at = row0 + lane / 4 + 8 * r;
    if (at < a.seq && t == 0) stats[h.query(at)] = QueryStats{shift[r], factor[r], reference[r] + mean[r], 1 / sum[r]};
  }
#pragma unroll
  for (int r = 0; r < 2; r++) {
#pragma unroll
    for (int j = 2 * r; j < 2 * r + 2; j++)
#pragma unroll
      for (int c = 0; c < 8; c++) sums[0][c][j] = factor[r] * (sums[0][c][j] - mean[r] * sums[1][c][j]);
    int at = row0 + lane / 4 + 8 * r;
    if (at < a.seq) write_rows(gradient_row(dqkv, h, 0, at), sums[0], r);
  }
}

// What a block of keys needs of 64 queries.
struct QueryTile {
  alignas(16) uint32_t bits[64][2];
  QueryStats stats[64];
  int pointers[64];
  alignas(16) uint32_t units[64][36];  // do: of each lane of four its 8 units; rows are padded against bank conflicts
  alignas(16) uint32_t pairs[32][72];  // do again: of every channel two neighbouring queries'
  Signs signs[4];                      // of bits

  DEVICE_MEMBER void load(
      const Head& h, const BFloat* dout, const int* all_pointers, const QueryStats* all_stats, int from) {
    const Int4 none = {};
    int row = threadIdx.x / 2, w = threadIdx.x % 2;
    bool inside = from + row < h.a.seq;
    bits[row][w] = inside ? h.query_word(from + row, w) : 0;
    if (w == 0) stats[row] = inside ? all_stats[h.query(from + row)] : QueryStats{};
    else pointers[row] = inside ? all_pointers[h.query(from + row)] : -1;
    warp_sync();  // a warp makes signs of the queries that it loaded
    const Int4* pair = (const Int4*)bits[threadIdx.x / 32 * 16 + 2 * (threadIdx.x % 4)];
    signs[threadIdx.x / 32].put_rows(pair[0], pair[4]);
    for (int e = threadIdx.x; e < 256; e += 128) {  // channels c ... c + 7 and those 16 further on
      int row = e / 4, w = e / 2 % 2, half = e % 2, c = 32 * w + 8 * half;
      bool inside = from + row < h.a.seq;
      const BFloat* grad = read_row(dout, h, inside ? from + row : 0) + c;
      Int4 x = inside ? load_four_words(grad) : none, y = inside ? load_four_words(grad + 16) : none;
      int xs[4] = {x.x, x.y, x.z, x.w}, ys[4] = {y.x, y.y, y.z, y.w};
#pragma unroll
      for (int t = 0; t < 4; t++) {
        units[row][8 * t + 4 * w + 2 * half] = pack_u16((uint32_t)xs[t], (uint32_t)ys[t], 0);
        units[row][8 * t + 4 * w + 2 * half + 1] = pack_u16((uint32_t)xs[t], (uint32_t)ys[t], 1);
      }
    }
    for (int e = threadIdx.x; e < 256; e += 128) {  // eight channels of two rows
      int pair = e / 8, c = e % 8 * 8, t = from + 2 * pair;
      Int4 x = t < h.a.seq ? load_four_words(read_row(dout, h, t) + c) : none;
      Int4 y = t + 1 < h.a.seq ? load_four_words(read_row(dout, h, t + 1) + c) : none;
      int xs[4] = {x.x, x.y, x.z, x.w}, ys[4] = {y.x, y.y, y.z, y.w};
#pragma unroll
      for (int i = 0; i < 8; i++) pairs[pair][c + i] = pack_u16((uint32_t)xs[i / 2], (uint32_t)ys[i / 2], i % 2);
    }
  }
};

// Computes dk and dv. A warp has 16 keys, a block 64; they pass over tiles of 64 queries in the queries' order. Grid: x
// keys / 64, y heads.
template <bool kPointer, bool kSeparate> DEVICE void dense_keys(
    const Attention& a, const BFloat* dout, const int* pointers, const QueryStats* stats, BFloat* dqkv) {
  __shared__ alignas(16) uint32_t keys[64][2], values[64][2];
  __shared__ Signs value_signs[4];
  __shared__ QueryTile tile;
  Head h(a, blockIdx.y);
  int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4, first = blockIdx.x * 64, mine = threadIdx.x / 32 * 16,
      key0 = first + mine;
  float slope = (float)h.slope, sharpness = kLog2E / (kPointer ? (float)a.scalars->tau : 1.0f);
  TileNoise noise(a);
  {
    int key = threadIdx.x / 2, w = threadIdx.x % 2;
    bool inside = first + key < a.seq;
    keys[key][w] = inside ? h.key_word(first + key, w) : 0;
    values[key][w] = inside ? h.value_word(first + key, w) : 0;
  }
  warp_sync();
  put_columns(value_signs[threadIdx.x / 32], values + mine);
  float dk[1][8][4] = {}, dv[8][4] = {};
  for (int from = first; from < a.seq && (!kSeparate || h.first(from) < first + 64); from += 64) {
    block_sync();
    tile.load(h, dout, pointers, stats, from);
    block_sync();
    for (int part = 0; part < 64; part += 16) {
      if (from + part + 15 < key0 || from + part >= a.seq) continue;
      TileStarts<kSeparate> starts(h, from + part);
      if (kSeparate && starts.earliest >= key0 + 16) continue;
      TileQueries q;
      uint32_t grads[2][8];
      float w[2][4], d[2][4];
#pragma unroll
      for (int r = 0; r < 2; r++) {
        int row = part + g + 8 * r;
        q.place(h, r, from + row);
        q.bits[r] = lane_word(tile.bits[row]);
        const Int4* units = (const Int4*)(tile.units[row] + 8 * t);
#pragma unroll
        for (int i = 0; i < 2; i++) {
          Int4 four = units[i];
          grads[r][4 * i] = four.x, grads[r][4 * i + 1] = four.y, grads[r][4 * i + 2] = four.z,
                       grads[r][4 * i + 3] = four.w;
        }
      }
      tile_scores<kPointer>(q, noise, slope, keys + mine, key0, w);
      hide(h, starts, from + part, key0, w);
      tile_products(grads, value_signs[threadIdx.x / 32], d);
#pragma unroll
      for (int r = 0; r < 2; r++) {
        QueryStats s = tile.stats[part + g + 8 * r];
        int pointer = tile.pointers[part + g + 8 * r];
#pragma unroll
        for (int i = 0; i < 4; i++) {
          float e = exp2_fast(__builtin_fmaf(w[r][i], sharpness, s.shift));
          d[r][i] = e * (d[r][i] - s.mean) * s.factor;
          w[r][i] = kPointer ? (pointer == key0 + 4 * t + i ? 1.0f : 0.0f) : e * s.inverse;
        }
      }
      Split slopes = split(d), weights = split(w);
      transpose(slopes.high), transpose(slopes.low);
      add_signs(dk, {slopes}, tile.signs[part / 16]);
      if (kPointer && !ballot(weights.high[0] | weights.high[1] | weights.high[2] | weights.high[3])) continue;
      transpose(weights.high);
      if (!kPointer) transpose(weights.low);
#pragma unroll
      for (int c = 0; c < 8; c++) {
        uint32_t b0 = tile.pairs[part / 2 + t][8 * c + g], b1 = tile.pairs[part / 2 + 4 + t][8 * c + g];
        mma_bf16(dv[c], weights.high, b0, b1);
        if (!kPointer) mma_bf16(dv[c], weights.low, b0, b1);
      }
    }
  }
#pragma unroll
  for (int half = 0; half < 2; half++) {
    int u = key0 + g / 2 * 4 + 2 * half + g % 2;
    if (u >= a.seq) continue;
    write_rows(gradient_row(dqkv, h, 1, u), dk[0], half);
    write_rows(gradient_row(dqkv, h, 2, u), dv, half);
  }
}

#define DENSE_KERNELS_64(name, kPointer, kSeparate)                                                                    \
  KERNEL(attention float, 128, 3)                                                                                      \
  void dense_queries_64_##name(                                                                                        \
      const __grid_constant__ Attention a, const BFloat* dout, const int* pointers, QueryStats* stats, BFloat* dqkv) { \
    dense_queries<kPointer, kSeparate>(a, dout, pointers, stats, dqkv);                                                \
  }                                                                                                                    \
  KERNEL(attention float, 128, 3)                                                                                      \
  void dense_keys_64_##name(const __grid_constant__ Attention a, const BFloat* dout, const int* pointers,              \
      const QueryStats* stats, BFloat* dqkv) {                                                                         \
    dense_keys<kPointer, kSeparate>(a, dout, pointers, stats, dqkv);                                                   \
  }
DENSE_KERNELS_64(softmax, false, false)
DENSE_KERNELS_64(softmax_separate, false, true)
DENSE_KERNELS_64(pointer, true, false)
DENSE_KERNELS_64(pointer_separate, true, true)
