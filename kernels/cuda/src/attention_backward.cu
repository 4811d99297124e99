// Attention, backward. dqkv is rows x 3 * heads * dim, dout is rows x heads * dim, both of type T: float or BFloat.
//
// With survivors a query reads few keys. One kernel computes the gradients of scores and of queries. The next one lists
// for every key the queries that read it, in order. The last one sums along these lists. No memory is added to by two
// threads.
#include "attention_tile.cuh"

DEVICE float signed_by(uint32_t word, int bit, float x) { return as_float(as_int(x) ^ (int)(~(word >> bit) << 31)); }
DEVICE double signed_by(uint32_t word, int bit, double x) { return word >> bit & 1 ? x : -x; }
template <class T> DEVICE T* gradient_row(T* dqkv, const Head& h, int part, int t) {
  return dqkv + ((h.row0 + t) * 3 + part) * h.a.heads * h.a.dim + h.head * h.a.dim;
}
template <class T> DEVICE const T* read_row(const T* dout, const Head& h, int t) {
  return dout + ((h.row0 + t) * h.a.heads + h.head) * h.a.dim;
}

// Four sums over a warp at once: every lane returns the sum of v[lane / 8].
DEVICE float four_sums(const float (&v)[4], int lane) {
  float x0 = (lane & 16 ? v[2] : v[0]) + shuffle_xor(lane & 16 ? v[0] : v[2], 16);
  float x1 = (lane & 16 ? v[3] : v[1]) + shuffle_xor(lane & 16 ? v[1] : v[3], 16);
  float x = (lane & 8 ? x1 : x0) + shuffle_xor(lane & 8 ? x0 : x1, 8);
  x += shuffle_xor(x, 4);
  x += shuffle_xor(x, 2);
  return x + shuffle_xor(x, 1);
}

// The gradients of a query's scores sum to zero, and they must do so in float32: where all keys of a query are equal,
// dq is nothing but that sum. So the gradient of the last survivor is minus the sum of the others, in the order in
// which dq adds them. kLanes lanes belong to each survivor; the first survivor's begin at lane `first`. slope is the
// gradient of this lane's survivor.
template <int kLanes, int kMax> DEVICE float balanced(float slope, int mine, int alive, int first) {
  float others = 0;
#pragma unroll
  for (int r = 0; r < kMax - 1; r++) {
    float x = shuffle(slope, first + r * kLanes);
    if (r < alive - 1) others += x;
  }
  return mine == alive - 1 ? -others : slope;
}

// A warp per query: ds [query][survivor], the gradient of q·k, and dq. Each survivor has eight lanes where there are up
// to 4, else one lane. kLevels: queries have several planes.
template <int kWords, int kMax, bool kLevels, class T>
DEVICE void survivor_scores(const Attention& a, const T* dout, const int* pointers, float* ds, T* dqkv) {
  Head h(a, blockIdx.y);
  int t = blockIdx.x * 8 + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (t >= a.seq) return;
  constexpr int kLanes = kMax == 4 ? 8 : 1;
  int most = a.survivors, alive = min(t + 1 - h.first(t), most), mine = lane / kLanes;
  bool live = mine < alive;
  int u = live ? pointers[h.query(t) * most + mine] : 0;
  const T* grad = read_row(dout, h, t);
  float g[kWords];
#pragma unroll
  for (int w = 0; w < kWords; w++) g[w] = 32 * w + lane < a.dim ? read(grad + 32 * w + lane) : 0.0f;
  uint32_t q[kWords], k[kWords], v[kWords];
  h.load_query(t, q);
  h.load_key(u, k);
  float product = 0;  // Σ_c do_c v_c of this lane's survivor
  if constexpr (kMax == 4) {
    float sums[4] = {};
    for (int plane = a.value_planes - 1; plane >= 0; plane--) {
      h.load_value(u, v, plane);
#pragma unroll
      for (int r = 0; r < 4; r++) {
        sums[r] *= 2;
#pragma unroll
        for (int w = 0; w < kWords; w++) sums[r] += signed_by((uint32_t)shuffle((int)v[w], r * kLanes), lane, g[w]);
      }
    }
    product = four_sums(sums, lane);
  } else {
    for (int plane = a.value_planes - 1; plane >= 0; plane--) {
      h.load_value(u, v, plane);
      product *= 2;
      for (int r = 0; r < most; r++) {
        float sum = 0;
#pragma unroll
        for (int w = 0; w < kWords; w++) sum += signed_by((uint32_t)shuffle((int)v[w], r), lane, g[w]);
        sum = warp_sum(sum);
        if (lane == r) product += sum;
      }
    }
  }
  product *= a.value_unit;
  int differ = 0;
#pragma unroll
  for (int w = 0; w < kWords; w++) differ += popcount(q[w] ^ k[w]);
  if (kLevels) differ += h.differ_above(t, u);
  double s = h.score(a.products, differ, t - u), top = shuffle(s, 0);  // the first scores best
  float e = live ? exp2_fast((float)(s - top) * kLog2E) : 0.0f, sum = e, mean = e * product;
#pragma unroll
  for (int mask = kLanes; mask < 32; mask *= 2) sum += shuffle_xor(sum, mask), mean += shuffle_xor(mean, mask);
  float slope = balanced<kLanes, kMax>(e / sum * (product - mean / sum) * a.scale, mine, alive, 0);
  if (lane % kLanes == 0 && mine < most) ds[h.query(t) * most + mine] = slope;
  float dq[kWords] = {};
#pragma unroll
  for (int r = 0; r < kMax; r++) {
    float x = shuffle(slope, r * kLanes);  // 0 beyond the living
#pragma unroll
    for (int w = 0; w < kWords; w++) dq[w] += signed_by((uint32_t)shuffle((int)k[w], r * kLanes), lane, x);
  }
  T* to = gradient_row(dqkv, h, 0, t);
#pragma unroll
  for (int w = 0; w < kWords; w++)
    if (32 * w + lane < a.dim) write(to + 32 * w + lane, dq[w]);
}

DEVICE uint32_t lanes_with(int value) { return __nvvm_match_any_sync_i32(0xffffffff, value); }

// A block of one warp per head. entries [seq * survivors] gets the positions in pointers, ordered by key and then by
// position. The entries of key u are offsets[u] ... offsets[u + 1] - 1. counts is working memory of seq ints, in shared
// memory if it fits.
KERNEL(attention shared, 32)
void survivor_lists(const int* pointers, int seq, int survivors, int* offsets, int* entries, int* global_counts) {
  extern __shared__ int shared_counts[];
  int* counts = global_counts ? global_counts + (long)blockIdx.x * seq : shared_counts;
  int lane = threadIdx.x, n = seq * survivors;
  pointers += (long)blockIdx.x * n;
  entries += (long)blockIdx.x * n;
  offsets += (long)blockIdx.x * (seq + 1);
  for (int u = lane; u < seq; u += 32) counts[u] = 0;
  warp_sync();
#pragma unroll 4
  for (int e = lane; e < n; e += 32) {
    int u = pointers[e];
    if (u >= 0) __nvvm_atom_add_gen_i(counts + u, 1);
  }
  warp_sync();
  int before = 0;
  for (int from = 0; from < seq; from += 32) {
    int u = from + lane, count = u < seq ? counts[u] : 0, sum = count;
    for (int step = 1; step < 32; step *= 2) {
      int other = shuffle(sum, lane - step & 31);
      if (lane >= step) sum += other;
    }
    if (u < seq) counts[u] = offsets[u] = before + sum - count;
    before += shuffle(sum, 31);
  }
  if (lane == 0) offsets[seq] = before;
  warp_sync();
  constexpr int kAhead = 8;
  for (int from = 0; from < n; from += 32 * kAhead) {
    int keys[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; i++) keys[i] = from + 32 * i + lane < n ? pointers[from + 32 * i + lane] : -1;
#pragma unroll
    for (int i = 0; i < kAhead; i++) {
      int u = keys[i];
      uint32_t same = lanes_with(u);
      int rank = popcount(same & ((1u << lane) - 1));
      int at = u >= 0 ? counts[u] : 0;
      warp_sync();
      if (u >= 0) {
        entries[at + rank] = from + 32 * i + lane;
        if (rank == 0) counts[u] = at + popcount(same);
      }
      warp_sync();
    }
  }
}

// A warp per key: dk = Σ ds q and dv = Σ w_r do over the queries that read it, in their order.
template <int kWords, bool kLevels, class T> DEVICE void survivor_gather(
    const Attention& a, const T* dout, const float* ds, const int* offsets, const int* entries, T* dqkv) {
  Head h(a, blockIdx.y);
  int u = blockIdx.x * 8 + threadIdx.x / 32, lane = threadIdx.x % 32, most = a.survivors;
  if (u >= a.seq) return;
  offsets += (long)blockIdx.y * (a.seq + 1);
  entries += (long)blockIdx.y * a.seq * most;
  ds += (long)blockIdx.y * a.seq * most;
  int end = offsets[u + 1], stride = a.heads * a.dim;
  const T* grads = read_row(dout, h, 0);
  float dk[kWords] = {}, dv[kWords] = {};
  for (int from = offsets[u]; from < end; from += 32) {
    int count = min(32, end - from), entry = lane < count ? entries[from + lane] : 0;
    int t = entry / most, at = t * stride;
    float slope = lane < count ? ds[entry] : 0.0f;
    float weight = lane < count ? (float)a.scalars->weights[min(t + 1 - h.first(t), most)][entry - t * most] : 0.0f;
    uint32_t q[kWords];
    h.load_query(t, q);
    constexpr int kTogether = kLevels ? 1 : 4;
    for (int j0 = 0; j0 < count; j0 += kTogether) {  // beyond count: query 0 with factors 0
#pragma unroll
      for (int j = 0; j < kTogether; j++) {
        float x = shuffle(slope, j0 + j), y = shuffle(weight, j0 + j);
        const T* grad = grads + shuffle(at, j0 + j) + lane;
#pragma unroll
        for (int w = 0; w < kWords; w++) {
          if constexpr (kLevels) dk[w] += x * (float)h.query_integer(shuffle(t, j0 + j), 32 * w + lane);
          else dk[w] += signed_by((uint32_t)shuffle((int)q[w], j0 + j), lane, x);
          if (32 * w + lane < a.dim) dv[w] += y * read(grad + 32 * w);
        }
      }
    }
  }
  T *to_k = gradient_row(dqkv, h, 1, u), *to_v = gradient_row(dqkv, h, 2, u);
#pragma unroll
  for (int w = 0; w < kWords; w++) {
    if (kLevels) dk[w] *= a.query_unit;
    if (32 * w + lane < a.dim) write(to_k + 32 * w + lane, dk[w]), write(to_v + 32 * w + lane, dv[w]);
  }
}

// ---- Heads of 64 channels and 4 survivors, as in all presets ----
//
// Eight lanes take a query or a key, each lane eight channels, so that a row's part is one load. dout and dqkv must be
// aligned to 16 bytes. Neighbouring blocks have different heads of the same tokens: together they read and write whole
// rows.

// sum += x where bit j of a byte is set. Σ ±x is computed as 2 Σ_{bits set} x - Σ x, which takes the fewest
// instructions.
template <int j> DEVICE void add_where(uint32_t byte, float x, float& sum) {
  asm("{ .reg .pred p; .reg .b32 t; and.b32 t, %1, %2; setp.ne.b32 p, t, 0; @p add.f32 %0, %0, %3; }"
      : "+f"(sum)
      : "r"(byte), "n"(1 << j), "f"(x));
}
// The same for eight channels, of one value and of eight.
DEVICE void add_eight(uint32_t byte, float x, float (&sums)[8]) {
  add_where<0>(byte, x, sums[0]), add_where<1>(byte, x, sums[1]), add_where<2>(byte, x, sums[2]),
      add_where<3>(byte, x, sums[3]);
  add_where<4>(byte, x, sums[4]), add_where<5>(byte, x, sums[5]), add_where<6>(byte, x, sums[6]),
      add_where<7>(byte, x, sums[7]);
}
DEVICE void add_eight(uint32_t byte, const float (&x)[8], float& sum) {
  add_where<0>(byte, x[0], sum), add_where<1>(byte, x[1], sum), add_where<2>(byte, x[2], sum),
      add_where<3>(byte, x[3], sum);
  add_where<4>(byte, x[4], sum), add_where<5>(byte, x[5], sum), add_where<6>(byte, x[6], sum),
      add_where<7>(byte, x[7], sum);
}

// A head's 64 bits in the first plane of token t's query, in its key, and in the first plane of its value.
DEVICE const char* query_bits(const Head& h, int t) {
  return (const char*)(h.queries + wide_product(t, h.a.words) + h.head * 2);
}
DEVICE const char* key_bits(const Head& h, int t) {
  return (const char*)(h.keys + wide_product(t, h.a.words) + h.head * 2);
}
DEVICE const char* value_bits(const Head& h, int t) {
  return (const char*)(h.values + wide_product(t, h.a.value_words) + h.head * 2);
}

// Bit j of a byte becomes bit 4 j.
DEVICE uint32_t spread_bits(uint32_t byte) {
  uint32_t x = (byte | byte << 12) & 0x000f000fu;
  x = (x | x << 6) & 0x03030303u;
  return (x | x << 3) & 0x11111111u;
}

// 2^23 + (x & mask), where mask is less than 2^23. One instruction: the compiler would take two.
DEVICE float in_mantissa(uint32_t x, uint32_t mask) {
  uint32_t y;
  asm("lop3.b32 %0, %1, %2, 0x4b000000, 0xea;" : "=r"(y) : "r"(x), "r"(mask));
  return as_float((int)y);
}

// Adds x times the integers behind eight channels of a query, from the numbers that their planes spell, as nibbles of a
// word. A nibble becomes a float in the mantissa of 2^23, from which the middle between all levels is subtracted. So
// sums[j] is in units of query_unit / 8 / 16^(j % 4).
struct AddLevels {
  float middle[4];
  DEVICE_MEMBER explicit AddLevels(int planes) {
#pragma unroll
    for (int j = 0; j < 4; j++) middle[j] = 8388608.0f + (float)(((1 << planes) - 1) * (8 << 4 * j));
  }
  DEVICE_MEMBER void operator()(uint32_t nibbles, float x, float (&sums)[8]) const {
#pragma unroll
    for (int j = 0; j < 8; j++) {
      float level = in_mantissa(j < 4 ? nibbles << 4 : nibbles >> 12, 0xf0u << 4 * (j % 4));
      sums[j] = __builtin_fmaf(x, level - middle[j % 4], sums[j]);
    }
  }
  // Brings the sums to the unit of queries.
  DEVICE_MEMBER static void finish(float unit, float (&sums)[8]) {
#pragma unroll
    for (int j = 0; j < 8; j++) sums[j] *= unit * (0.125f / (float)(1 << 4 * (j % 4)));
  }
};

// Grid: x heads, y queries / 32, z sequences. Values have up to kPlanes planes. kLevels: queries have 2 to 4 planes,
// and the numbers that these spell are written to a.query_levels.
template <int kPlanes, bool kLevels, bool kSeparate, class T>
DEVICE void survivor_scores_64(const Attention& a, const T* dout, const int* pointers, float* ds, T* dqkv) {
  Head h(a, blockIdx.z * a.heads + blockIdx.x);
  int t = blockIdx.y * 32 + threadIdx.x / 8, lane = threadIdx.x % 8;
  bool inside = t < a.seq;
  t = min(t, a.seq - 1);  // the shuffles want all lanes
  const Int4 keys = *(const Int4*)(pointers + 4 * h.query(t));
  int at[4] = {keys.x, keys.y, keys.z, keys.w}, alive = min(t + 1 - (kSeparate ? h.first(t) : 0), 4);
  auto grad = load_eight(read_row(dout, h, t) + 8 * lane);
  uint32_t k[4], v[4][kPlanes];
#pragma unroll
  for (int r = 0; r < 4; r++) {
    if (r >= alive) at[r] = at[0];
    k[r] = load_byte(key_bits(h, at[r]) + lane);
#pragma unroll
    for (int b = 0; b < kPlanes; b++)
      v[r][b] = kPlanes == 1 || b < a.value_planes
                    ? load_byte(value_bits(h, at[r]) + 4 * b * a.value_plane_words + lane)
                    : 0;
  }
  // Two lanes a survivor: the score.
  int mine = lane / 2;
  bool live = mine < alive;
  int u = mine < 2 ? (mine == 0 ? at[0] : at[1]) : (mine == 2 ? at[2] : at[3]);
  Int2 k2 = load_two(key_bits(h, u));
  int differ = 0;
  if constexpr (kLevels) {  // each of the two lanes takes every other plane
    uint32_t levels = 0;
#pragma unroll
    for (int b = 0; b < 4; b++)
      if (b < a.query_planes)
        levels |= spread_bits(load_byte(query_bits(h, t) + 4 * b * a.query_plane_words + lane)) << b;
    if (inside) a.query_levels[8 * h.query(t) + lane] = levels;
#pragma unroll
    for (int i = 0; i < 2; i++) {
      int b = 2 * i + lane % 2;
      if (b >= a.query_planes) continue;
      Int2 q2 = load_two(query_bits(h, t) + 4 * b * a.query_plane_words);
      differ += (popcount(q2.x ^ k2.x) + popcount(q2.y ^ k2.y)) << b;
    }
    differ += shuffle_xor(differ, 1);
  } else {
    Int2 q2 = load_two(query_bits(h, t));
    differ = popcount(q2.x ^ k2.x) + popcount(q2.y ^ k2.y);
  }
  double s = h.score(a.products, differ, t - u), top = shuffle(s, threadIdx.x & 24);
  float e = live ? exp2_fast((float)(s - top) * kLog2E) : 0.0f;
  // Σ_c do_c v_c of every survivor: partial sums over eight channels, then each pair of lanes gets one survivor's.
  float g[8], sums[4] = {}, all = 0;
#pragma unroll
  for (int j = 0; j < 8; j++) g[j] = value(grad, j), all += g[j];
  if (kPlanes > 1) all *= (float)((1 << a.value_planes) - 1);
#pragma unroll
  for (int r = 0; r < 4; r++) {
#pragma unroll
    for (int b = kPlanes - 1; b >= 0; b--) {
      sums[r] *= 2;
      add_eight(v[r][b], g, sums[r]);
    }
    sums[r] = 2 * sums[r] - all;
    if (kPlanes > 1) sums[r] *= a.value_unit;
  }
  float x0 = (lane & 4 ? sums[2] : sums[0]) + shuffle_xor(lane & 4 ? sums[0] : sums[2], 4);
  float x1 = (lane & 4 ? sums[3] : sums[1]) + shuffle_xor(lane & 4 ? sums[1] : sums[3], 4);
  float product = (lane & 2 ? x1 : x0) + shuffle_xor(lane & 2 ? x0 : x1, 2);
  product += shuffle_xor(product, 1);
  float sum = e, mean = e * product;
#pragma unroll
  for (int mask = 2; mask < 8; mask *= 2) sum += shuffle_xor(sum, mask), mean += shuffle_xor(mean, mask);
  float slope = balanced<2, 4>(e / sum * (product - mean / sum) * a.scale, mine, alive, threadIdx.x & 24), dq[8] = {};
  if (inside && lane % 2 == 0) ds[4 * h.query(t) + mine] = slope;
  all = 0;
#pragma unroll
  for (int r = 0; r < 4; r++) {
    float x = shuffle(slope, (threadIdx.x & 24) + 2 * r);  // 0 beyond the living
    all += x;
    add_eight(k[r], x, dq);
  }
#pragma unroll
  for (int j = 0; j < 8; j++) dq[j] = 2 * dq[j] - all;
  if (inside) store_eight(gradient_row(dqkv, h, 0, t) + 8 * lane, dq);
}

// Grid: x heads, y keys / 32, z sequences. Each of a key's eight lanes loads an entry and shuffles it to the others.
// The four keys of a warp continue until the longest list is done.
template <bool kLevels, bool kSeparate, class T> DEVICE void survivor_gather_64(
    const Attention& a, const T* dout, const float* ds, const int* offsets, const int* entries, T* dqkv) {
  constexpr int kAhead = 4;      // entries whose loads are in flight together
  __shared__ float weights[16];  // [keys before the query that it may read, at most 3][rank]
  Head h(a, blockIdx.z * a.heads + blockIdx.x);
  int u = blockIdx.y * 32 + threadIdx.x / 8, lane = threadIdx.x % 8, group = threadIdx.x & 24;
  if (threadIdx.x < 16) weights[threadIdx.x] = (float)a.scalars->weights[threadIdx.x / 4 + 1][threadIdx.x % 4];
  block_sync();
  offsets += (long)h.index * (a.seq + 1);
  entries += (long)h.index * a.seq * 4;
  ds += (long)h.index * a.seq * 4;
  const T* grads = read_row(dout, h, 0) + 8 * lane;
  const char* queries = kLevels ? (const char*)(a.query_levels + 8 * h.query(0) + lane) : query_bits(h, 0) + lane;
  AddLevels add_levels(a.query_planes);
  float dk[8] = {}, dv[8] = {}, all = 0;
  int from = u < a.seq ? offsets[u] : 0, end = u < a.seq ? offsets[u + 1] : 0;
  for (; ballot(from < end); from += 8) {
    int entry = 0;
    float slope = 0, weight = 0;
    if (from + lane < end) {
      entry = entries[from + lane];
      slope = ds[entry];
      weight = weights[min(entry - (kSeparate ? 4 * h.first(entry / 4) : 0), 12 + (entry & 3))];
    }
    int t = (uint32_t)entry / 4;
#pragma unroll
    for (int first = 0; first < 8; first += kAhead) {
      if (first > 0 && !ballot(from + first < end)) break;
      uint32_t q[kAhead];
      Packed<T> grad[kAhead];
#pragma unroll
      for (int i = 0; i < kAhead; i++) {
        int row = shuffle(t, group + first + i);
        q[i] =
            kLevels ? load_word(queries + wide_product(row, 32)) : load_byte(queries + wide_product(row, 4 * a.words));
        grad[i] = load_eight(grads + wide_product(row, 64 * a.heads));
      }
#pragma unroll
      for (int i = 0; i < kAhead; i++) {
        fence_operand(q[i]);
        for (uint32_t& word : grad[i].words) fence_operand(word);
      }
#pragma unroll
      for (int i = 0; i < kAhead; i++) {
        float x = shuffle(slope, group + first + i), y = shuffle(weight, group + first + i);
        if constexpr (kLevels) {
          add_levels(q[i], x, dk);
        } else {
          all += x;
          add_eight(q[i], x, dk);
        }
#pragma unroll
        for (int j = 0; j < 8; j++) dv[j] = __builtin_fmaf(y, value(grad[i], j), dv[j]);
      }
    }
  }
  if (u >= a.seq) return;
  if (kLevels) add_levels.finish(a.query_unit, dk);
#pragma unroll
  for (int j = 0; j < 8; j++)
    if (!kLevels) dk[j] = 2 * dk[j] - all;
  store_eight(gradient_row(dqkv, h, 1, u) + 8 * lane, dk);
  store_eight(gradient_row(dqkv, h, 2, u) + 8 * lane, dv);
}

#define SCORES_KERNEL_64(name, kPlanes, kLevels, kSeparate, T)                                       \
  KERNEL(attention float, 256)                                                                       \
  void survivor_scores_64_##name(                                                                    \
      const __grid_constant__ Attention a, const T* dout, const int* pointers, float* ds, T* dqkv) { \
    survivor_scores_64<kPlanes, kLevels, kSeparate>(a, dout, pointers, ds, dqkv);                    \
  }
#define GATHER_KERNEL_64(name, kLevels, kSeparate, T)                                                 \
  KERNEL(attention float, 256, 3)                                                                     \
  void survivor_gather_64_##name(const __grid_constant__ Attention a, const T* dout, const float* ds, \
      const int* offsets, const int* entries, T* dqkv) {                                              \
    survivor_gather_64<kLevels, kSeparate>(a, dout, ds, offsets, entries, dqkv);                      \
  }
#define SURVIVOR_KERNELS_64(type, T, kSeparate)                \
  SCORES_KERNEL_64(type, 1, false, kSeparate, T)               \
  SCORES_KERNEL_64(levels_##type, 4, false, kSeparate, T)      \
  SCORES_KERNEL_64(query_levels_##type, 4, true, kSeparate, T) \
  GATHER_KERNEL_64(type, false, kSeparate, T)                  \
  GATHER_KERNEL_64(query_levels_##type, true, kSeparate, T)
SURVIVOR_KERNELS_64(float32, float, false)
SURVIVOR_KERNELS_64(bfloat16, BFloat, false)
SURVIVOR_KERNELS_64(separate_float32, float, true)
SURVIVOR_KERNELS_64(separate_bfloat16, BFloat, true)

#define SCORES_KERNEL(name, kWords, kMax, kLevels, type, T)                                          \
  KERNEL(attention float, 256)                                                                       \
  void survivor_scores_##name##_##type(                                                              \
      const __grid_constant__ Attention a, const T* dout, const int* pointers, float* ds, T* dqkv) { \
    survivor_scores<kWords, kMax, kLevels>(a, dout, pointers, ds, dqkv);                             \
  }
#define GATHER_KERNEL(name, kWords, kLevels, type, T)                                                       \
  KERNEL(attention float, 256, kWords == 2 ? 6 : 2)                                                         \
  void survivor_gather_##name##_##type(const __grid_constant__ Attention a, const T* dout, const float* ds, \
      const int* offsets, const int* entries, T* dqkv) {                                                    \
    survivor_gather<kWords, kLevels>(a, dout, ds, offsets, entries, dqkv);                                  \
  }
#define SURVIVOR_KERNELS(type, T)                   \
  SCORES_KERNEL(2_4, 2, 4, false, type, T)          \
  SCORES_KERNEL(8_4, 8, 4, false, type, T)          \
  SCORES_KERNEL(8_16, 8, 16, false, type, T)        \
  SCORES_KERNEL(query_levels, 8, 16, true, type, T) \
  GATHER_KERNEL(2, 2, false, type, T)               \
  GATHER_KERNEL(8, 8, false, type, T)               \
  GATHER_KERNEL(query_levels, 8, true, type, T)
SURVIVOR_KERNELS(float32, float)
SURVIVOR_KERNELS(bfloat16, BFloat)

// ---- All keys: softmax, and the pointer's straight-through gradient as softmax((score + noise) / tau) ----
//
// All sums are float64, so that terms that cancel leave zero.

struct RowStats {
  double top, sum, mean;
};  // of a query

template <bool kLevels>
DEVICE double dense_score(const Head& h, const uint32_t (&q)[kMaxWords], int t, int u, int pointer) {
  double s = h.score<kLevels>(q, t, u);
  return pointer ? s + h.noise(t, u) : s;
}
// Σ_c do_c v_c for query t and key u.
template <class T> DEVICE double dense_product(const Head& h, const T* grad, int u) {
  double sum = 0;
  for (int c = 0; c < h.a.dim; c++) sum += (double)h.value_integer(u, c) * (double)read(grad + c);
  return (double)h.a.value_unit * sum;
}

// A warp per query: its statistics and dq.
template <bool kLevels, class T>
DEVICE void dense_queries(const Attention& a, const T* dout, int pointer, RowStats* stats, T* dqkv) {
  Head h(a, blockIdx.y);
  int t = blockIdx.x * 8 + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (t >= a.seq) return;
  double tau = pointer ? a.scalars->tau : 1.0;
  const T* grad = read_row(dout, h, t);
  uint32_t q[kMaxWords];
  h.load_query(t, q);
  double top = -1e300, sum = 0, mean = 0;
  int first = h.first(t);
  for (int u = first + lane; u <= t; u += 32) {
    double s = dense_score<kLevels>(h, q, t, u, pointer);
    if (s > top) top = s;
  }
  for (int mask = 16; mask > 0; mask /= 2) {
    double s = shuffle_xor(top, mask);
    if (s > top) top = s;
  }
  for (int u = first + lane; u <= t; u += 32) {
    double e = exponential((dense_score<kLevels>(h, q, t, u, pointer) - top) / tau);
    sum += e;
    mean += e * dense_product(h, grad, u);
  }
  sum = warp_sum(sum);
  mean = warp_sum(mean) / sum;
  if (lane == 0) stats[h.query(t)] = RowStats{top, sum, mean};
  double dq[kMaxWords] = {};
  for (int from = first; from <= t; from += 32) {
    int u = from + lane;
    double ds = 0;
    if (u <= t) {
      double p = exponential((dense_score<kLevels>(h, q, t, u, pointer) - top) / tau) / sum;
      ds = p * (dense_product(h, grad, u) - mean) / tau;
    }
    ds /= __builtin_sqrt((double)a.dim);
    for (int j = 0; j < min(32, t - from + 1); j++) {
      double x = shuffle(ds, j);
#pragma unroll
      for (int w = 0; w < kMaxWords; w++) dq[w] += signed_by(h.key_word(from + j, w), lane, x);
    }
  }
  T* to = gradient_row(dqkv, h, 0, t);
#pragma unroll
  for (int w = 0; w < kMaxWords; w++)
    if (32 * w + lane < a.dim) write(to + 32 * w + lane, (float)dq[w]);
}

// A warp per key: dk and dv, queries in their order.
template <bool kLevels, class T> DEVICE void dense_keys(
    const Attention& a, const T* dout, int pointer, const int* pointers, const RowStats* stats, T* dqkv) {
  Head h(a, blockIdx.y);
  int u = blockIdx.x * 8 + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (u >= a.seq) return;
  double tau = pointer ? a.scalars->tau : 1.0;
  double dk[kMaxWords] = {}, dv[kMaxWords] = {};
  for (int from = u; from < a.seq && h.first(from) <= u; from += 32) {
    int t = from + lane, count = min(32, a.seq - from);
    double slope = 0, weight = 0;
    if (lane < count && h.first(t) <= u) {
      uint32_t q[kMaxWords];
      h.load_query(t, q);
      RowStats s = stats[h.query(t)];
      double p = exponential((dense_score<kLevels>(h, q, t, u, pointer) - s.top) / tau) / s.sum;
      slope = p * (dense_product(h, read_row(dout, h, t), u) - s.mean) / tau / __builtin_sqrt((double)a.dim);
      weight = pointer ? (pointers[h.query(t)] == u ? 1.0 : 0.0) : p;
    }
    for (int j = 0; j < count; j++) {
      double x = shuffle(slope, j), y = shuffle(weight, j);
      const T* grad = read_row(dout, h, from + j);
#pragma unroll
      for (int w = 0; w < kMaxWords; w++) {
        if (32 * w + lane < a.dim) {
          if constexpr (kLevels) dk[w] += x * (double)h.query_integer(from + j, 32 * w + lane);
          else dk[w] += signed_by(h.query_word(from + j, w), lane, x);
          dv[w] += y * (double)read(grad + 32 * w + lane);
        }
      }
    }
  }
  T *to_k = gradient_row(dqkv, h, 1, u), *to_v = gradient_row(dqkv, h, 2, u);
#pragma unroll
  for (int w = 0; w < kMaxWords; w++) {
    if (kLevels) dk[w] *= (double)a.query_unit;
    if (32 * w + lane < a.dim) write(to_k + 32 * w + lane, (float)dk[w]), write(to_v + 32 * w + lane, (float)dv[w]);
  }
}

#define DENSE_KERNELS(name, kLevels, T)                                                                        \
  KERNEL(attention float, 256)                                                                                 \
  void dense_queries_##name(                                                                                   \
      const __grid_constant__ Attention a, const T* dout, int pointer, RowStats* stats, T* dqkv) {             \
    dense_queries<kLevels>(a, dout, pointer, stats, dqkv);                                                     \
  }                                                                                                            \
  KERNEL(attention float, 256)                                                                                 \
  void dense_keys_##name(const __grid_constant__ Attention a, const T* dout, int pointer, const int* pointers, \
      const RowStats* stats, T* dqkv) {                                                                        \
    dense_keys<kLevels>(a, dout, pointer, pointers, stats, dqkv);                                              \
  }
DENSE_KERNELS(float32, false, float)
DENSE_KERNELS(bfloat16, false, BFloat)
DENSE_KERNELS(query_levels_float32, true, float)
DENSE_KERNELS(query_levels_bfloat16, true, BFloat)
