// Attention, forward: the keys that a query reads, and the signs of the attention output. No scores are written to
// memory.
#include "attention_tile.cuh"

constexpr int kTile = 128;

// The sign bits of Σ_r w_r v_r from the survivors' value bits, for up to 4 survivors. `signs` has a bit for each
// pattern of their values.
DEVICE uint32_t read_few(const uint32_t (&v)[4], uint32_t signs) {
  uint32_t level[8];
#pragma unroll
  for (int i = 0; i < 8; i++)
    level[i] = (v[0] & (0u - (signs >> (2 * i + 1) & 1))) | (~v[0] & (0u - (signs >> (2 * i) & 1)));
#pragma unroll
  for (int r = 1; r < 4; r++)
#pragma unroll
    for (int i = 0; i < 8 >> r; i++) level[i] = (v[r] & level[2 * i + 1]) | (~v[r] & level[2 * i]);
  return level[0];
}

// The same for any number of survivors, a channel at a time.
DEVICE uint32_t read_many(const Head& h, const int* pointers, int alive, int w) {
  const double* weights = h.a.scalars->weights[alive];
  uint32_t out = 0;
  for (int i = 0; i < min(32, h.a.dim - 32 * w); i++) {
    double sum = 0;
    for (int r = 0; r < alive; r++) sum += h.value_word(pointers[r], w) >> i & 1 ? weights[r] : -weights[r];
    out |= (uint32_t)((float)sum >= 0) << i;
  }
  return out;
}

// A bit of the first plane that differs, in fixed point, where queries have so many planes. All planes of a channel
// together are worth less than 2^17.
DEVICE int bit_of(int planes) { return 131072 >> planes; }

// Σ_b 2^b agree_b of a query and 32 keys, where agree_b channels of plane b agree. Rows of 72 bytes keep lanes apart.
struct alignas(8) Counts {
  uint16_t of[36];
};

// Finds which of 32 keys may be among the best of this lane's query: bit k is set where differ * bit_of(planes) is at
// most left - (31 - k) * slope. A bit of plane b that differs counts 2^b times. Lane 4 g + t has query 8 t + g of the
// warp's 32.
template <int kWords, int kPlanes> struct Candidates {
  uint32_t query[kWords];
  DEVICE_MEMBER Candidates(const uint32_t (&q)[1][kWords], int) {
#pragma unroll
    for (int w = 0; w < kWords; w++) query[w] = q[0][w];
  }
  DEVICE_MEMBER uint32_t among(const uint32_t (*keys)[kWords], int left, int slope, Counts*) const {
    uint32_t none = 0;
#pragma unroll 8
    for (int k = 31; k >= 0; k--) {
      int differ = 0;
#pragma unroll
      for (int w = 0; w < kWords; w++) differ += popcount(query[w] ^ keys[k][w]);
      none = __builtin_elementwise_fshl(none, (uint32_t)(left - differ * bit_of(1)), 1u);
      left -= slope;
    }
    return ~none;
  }
};

// Where queries may have any number of planes, all keys are candidates.
template <int kWords> struct Candidates<kWords, 0> {
  DEVICE_MEMBER Candidates(const uint32_t (&)[1][kWords], int) {}
  DEVICE_MEMBER uint32_t among(const uint32_t (*)[kWords], int, int, Counts*) const { return ~0u; }
};

// The same for heads of 33 to 64 channels, by the matrix unit for bits: counting the bits of a word takes eight times
// as long as other instructions. The unit gives lane 4 g + t the channels that agree for queries g, g + 8, g + 16 and g
// + 24 and for two of each eight keys. These are chosen to be neighbours, 8 t ... 8 t + 7, so that a byte of each of
// four lanes makes up the word of a query.
template <> struct Candidates<2, 1> {
  uint32_t query[2][2];
  DEVICE_MEMBER Candidates(const uint32_t (&q)[1][2], int) { spread(q[0], query); }
  // Of the bits of a plane, one query a lane, what this lane gives the unit.
  DEVICE_MEMBER static void spread(const uint32_t (&q)[2], uint32_t (&to)[2][2]) {
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < 4; i++) {
      int low = shuffle((int)q[0], (lane & 28) + i), high = shuffle((int)q[1], (lane & 28) + i);
      to[i / 2][i % 2] = (uint32_t)(lane % 2 ? high : low) ^ (lane % 4 < 2 ? 0u : ~0u);  // as lane_word
    }
  }
  DEVICE_MEMBER uint32_t among(const uint32_t (*keys)[2], int left, int slope, Counts*) const {
    int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    uint32_t none = 0;
    int agree[2][4][4] = {};
#pragma unroll
    for (int n = 0; n < 4; n++) {
      uint32_t key = lane_word(keys[g / 2 * 8 + 2 * n + g % 2]);
#pragma unroll
      for (int m = 0; m < 2; m++) mma_bits(agree[m][n], query[m], key);
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
      int room = shuffle(left, (lane & 28) + i) - 64 * bit_of(1) - (31 - 8 * t) * slope;
      uint32_t byte = 0;
#pragma unroll
      for (int k = 7; k >= 0; k--) {
        int over = agree[i / 2][k / 2][i % 2 * 2 + k % 2] * bit_of(1) + (room + k * slope);
        byte = __builtin_elementwise_fshl(byte, (uint32_t)over, 1u);
      }
      none |= byte << 8 * i;
    }
    return ~transpose_bytes(none, lane);
  }
};

// The same for queries of several planes. A lane finds in its row of `counts` what the unit has counted for its query
// and each key: counting the bits of every plane again would take longer than all else that a candidate takes. There
// may be fewer planes than kPlanes.
template <int kPlanes> struct Candidates<2, kPlanes> {
  uint32_t query[kPlanes][2][2];
  int planes;
  DEVICE_MEMBER Candidates(const uint32_t (&q)[kPlanes][2], int planes) : planes(planes) {
#pragma unroll
    for (int b = 0; b < kPlanes; b++) Candidates<2, 1>::spread(q[b], query[b]);
  }
  DEVICE_MEMBER uint32_t among(const uint32_t (*keys)[2], int left, int slope, Counts* counts) const {
    int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4, bit = bit_of(planes), room[4];
    uint32_t bytes[4] = {};
#pragma unroll
    for (int i = 0; i < 4; i++)
      room[i] = shuffle(left, (lane & 28) + i) - ((1 << planes) - 1) * 64 * bit - (31 - 8 * t) * slope;
    warp_sync();  // all lanes have read the counts of other keys
#pragma unroll
    for (int half = 1; half >= 0; half--) {  // four of each eight keys at a time, in half the registers
      int agree[2][2][4] = {};
      uint32_t key[2];
#pragma unroll
      for (int n = 0; n < 2; n++) key[n] = lane_word(keys[g / 2 * 8 + 4 * half + 2 * n + g % 2]);
#pragma unroll
      for (int b = kPlanes - 1; b >= 0; b--) {
        if (b >= planes) continue;
#pragma unroll
        for (int n = 0; n < 2; n++)
#pragma unroll
          for (int m = 0; m < 2; m++) {
            for (int& x : agree[m][n]) x *= 2;  // Σ_b 2^b agree_b from the top plane down
            mma_bits(agree[m][n], query[b][m], key[n]);
          }
      }
#pragma unroll
      for (int i = 0; i < 4; i++) {
        uint32_t four[4];
#pragma unroll
        for (int k = 3; k >= 0; k--) {
          four[k] = (uint32_t)agree[i / 2][k / 2][i % 2 * 2 + k % 2];
          int over = (int)four[k] * bit + (room[i] + (4 * half + k) * slope);
          bytes[i] = __builtin_elementwise_fshl(bytes[i], (uint32_t)over, 1u);
        }
        *(Int2*)&counts[threadIdx.x - t + i].of[8 * t + 4 * half] = {
            (int)pack_u16(four[0], four[1], 0), (int)pack_u16(four[2], four[3], 0)};
      }
    }
    warp_sync();
    return ~transpose_bytes(bytes[0] | bytes[1] << 8 | bytes[2] << 16 | bytes[3] << 24, lane);
  }
};

// A thread per query. The 128 queries of a block pass over tiles of 128 keys, the most recent tile first. Grid: x tiles
// of queries, y heads of all sequences.
//
// A key can be among the best only if few of its bits differ from the query's: at most (highest - last - slope *
// distance) / step, where last is the worst score that is kept. This bound is kept in fixed point, see bit_of, with a
// margin for its rounding. A key within the bound gets an exact score in float64. A query is done when even the best of
// all possible keys, which has the query's signs, would be too far away.
//
// Queries have kPlanes planes, or 5 to 8 if kPlanes is 8, or any number if kPlanes is 0.
template <int kWords, int kMax, int kPlanes, bool kSeparate>
DEVICE void survivors(const Attention& a, uint32_t* out, int* popcounts, int* pointers) {
  constexpr int kHeld = kPlanes ? kPlanes : 1;       // planes in registers
  constexpr int kNear = kPlanes <= 4 ? kPlanes : 0;  // planes, where the table of products fits in shared memory
  __shared__ uint32_t keys[kTile][kWords];
  __shared__ Counts counts[kPlanes > 1 ? kTile : 1];
  __shared__ double near_products[((1 << kNear) - 1) * 32 * kWords + 1];
  Head h(a, blockIdx.y);
  int lane = threadIdx.x % 32, most = a.survivors;
  int t = blockIdx.x * kTile + threadIdx.x / 32 * 32 + lane % 4 * 8 + lane / 4;  // see Candidates
  int planes = kNear ? kNear : a.query_planes, all = ((1 << planes) - 1) * a.dim;
  if (kNear)
    for (int i = threadIdx.x; i <= all; i += kTile) near_products[i] = a.products[i];
  const double* products = kNear ? near_products : a.products;
  bool done = t >= a.seq;
  uint32_t q[kHeld][kWords] = {};
  if (!done)
    for (int b = 0; b < kHeld && b < planes; b++) h.load_query(t, q[b], b);
  Candidates<kWords, kPlanes> find(q, planes);
  int least = kPlanes == 1 || done ? 0 : h.least_differ(t);
  int first = 0;
  if (kSeparate && !done) first = h.first(t);
  double best[kMax], last = -1e300;  // last: the score to beat, once there are enough
  int at[kMax];
#pragma unroll
  for (int r = 0; r < kMax; r++) best[r] = -1e300, at[r] = -1;
  float highest = (float)a.products[least], per_bit = (float)all / ((float)a.products[0] - (float)a.products[all]);
  float slope = (float)h.slope * per_bit;                             // bits a step of distance costs
  float weight = (float)(1 << (planes - 1)), far = 8192.0f * weight;  // far: more bits than there are
  float margin = 0.02f * weight + 1e-5f * slope, above = far;  // above: bits that the best score lies over the bar
  int bit_fixed = bit_of(planes), slope_fixed = (int)(slope * (float)bit_fixed);
  for (int from = blockIdx.x * kTile; from >= 0; from -= kTile) {
    block_sync();
    if (from + (int)threadIdx.x < a.seq) {
      uint32_t key[kWords];
      h.load_key(from + threadIdx.x, key);
#pragma unroll
      for (int w = 0; w < kWords; w++) keys[threadIdx.x][w] = key[w];
    }
    block_sync();
    for (int end = kTile - 1; end >= 0; end -= 32) {
      int nearest = t - from - end;
      int left = (int)((float)bit_fixed * min(above - slope * (float)max(nearest, 0) + margin, far));
      done |= nearest >= 0 && left < 0;
      if (kSeparate) done |= from + end < first;
      if (ballot(!done) == 0) break;
      if (nearest < 0) left -= nearest * slope_fixed;  // comes down to the bound at the query itself
      if (ballot(nearest > -32) == 0) continue;        // all keys come later
      uint32_t some = find.among(keys + end - 31, left + least * bit_fixed, slope_fixed, counts);
      if (nearest < 0) some = nearest > -32 ? some & ~0u >> -nearest : 0;
      if (kSeparate && first > from + end - 31) some &= ~0u << (first - (from + end - 31) & 31);
      if (done) some = 0;
      while (some) {
        int bit = 31 - __builtin_clz(some), k = end - 31 + bit, differ = 0;
        some ^= 1u << bit;
        if (kPlanes > 1) {
          differ = 64 * ((1 << planes) - 1) - counts[threadIdx.x].of[bit];
        } else {
#pragma unroll
          for (int w = 0; w < kWords; w++) differ += popcount(q[0][w] ^ keys[k][w]);
        }
        if (kPlanes == 0) differ += h.differ_above(t, from + k);
        double s = h.score(products, differ, t - from - k);
        if (s <= last) continue;
        // The key goes behind keys of the same or a higher score, which are more recent. Keys of lower scores move
        // back.
        double carry = s;
        int key = from + k;
        bool moving = false;
#pragma unroll
        for (int r = 0; r < kMax; r++) {
          if (r < most) {
            moving |= carry > best[r];
            double b = best[r];
            int p = at[r];
            if (moving) best[r] = carry, at[r] = key, carry = b, key = p;
            last = best[r];
          }
        }
        if (last > -1e299) above = (highest - (float)last) * per_bit;
      }
    }
    if (!block_any(!done)) break;
  }
  if (t >= a.seq) return;
  int alive = 0;
#pragma unroll
  for (int r = 0; r < kMax; r++) {
    if (r < most) pointers[h.query(t) * most + r] = at[r];
    alive += at[r] >= 0;
  }
  if (!out) return;
#pragma unroll
  for (int w = 0; w < kWords; w++) {
    if (32 * w >= a.dim) break;
    uint32_t bits;
    if (kMax == 4) {
      uint32_t v[4] = {};
#pragma unroll
      for (int r = 0; r < 4; r++)
        if (r < alive) v[r] = h.value_word(at[r], w);
      bits = read_few(v, a.scalars->signs[alive]);
      if (a.dim - 32 * w < 32) bits &= (1u << (a.dim - 32 * w)) - 1;
    } else {
      bits = read_many(h, pointers + h.query(t) * most, alive, w);
    }
    h.write(out, popcounts, t, w, bits);
  }
}

// Names tell the words of a head's bits and the survivors that fit, or the planes of queries, of heads of up to 64
// channels and with up to 4 survivors. survivors_query_levels is for all others.
#define SURVIVORS(name, kWords, kMax, kPlanes, kSeparate)                                                    \
  KERNEL(attention, 128)                                                                                     \
  void survivors_##name(const __grid_constant__ Attention a, uint32_t* out, int* popcounts, int* pointers) { \
    survivors<kWords, kMax, kPlanes, kSeparate>(a, out, popcounts, pointers);                                \
  }
#define SURVIVORS_LEVELS(name, kPlanes, kSeparate, kBlocks)                                \
  KERNEL(attention, 128, kBlocks)                                                          \
  void survivors_query_levels_##name(                                                      \
      const __grid_constant__ Attention a, uint32_t* out, int* popcounts, int* pointers) { \
    survivors<2, 4, kPlanes, kSeparate>(a, out, popcounts, pointers);                      \
  }
SURVIVORS(1_4, 1, 4, 1, false)
SURVIVORS(2_4, 2, 4, 1, false)
SURVIVORS(4_4, 4, 4, 1, false)
SURVIVORS(8_4, 8, 4, 1, false)
SURVIVORS(8_16, 8, 16, 1, false)
SURVIVORS(1_4_separate, 1, 4, 1, true)
SURVIVORS(2_4_separate, 2, 4, 1, true)
SURVIVORS(4_4_separate, 4, 4, 1, true)
SURVIVORS(8_4_separate, 8, 4, 1, true)
SURVIVORS(8_16_separate, 8, 16, 1, true)
SURVIVORS(query_levels, 8, 16, 0, false)
SURVIVORS(query_levels_separate, 8, 16, 0, true)
SURVIVORS_LEVELS(2, 2, false, 7)
SURVIVORS_LEVELS(3, 3, false, 7)
SURVIVORS_LEVELS(4, 4, false, 7)
SURVIVORS_LEVELS(8, 8, false, 5)
SURVIVORS_LEVELS(2_separate, 2, true, 7)
SURVIVORS_LEVELS(3_separate, 3, true, 7)
SURVIVORS_LEVELS(4_separate, 4, true, 7)
SURVIVORS_LEVELS(8_separate, 8, true, 5)

// ---- Values of several planes, read along pointers ----
//
// What is read is unit * Σ_b 2^b Σ_r w_r s_br, where s_br is ±1, bit b of the value of survivor r. Sums over r are
// rounded to float32, and those over b are float32. So every device finds the same levels.

// Its level, where sum(b) is Σ_r w_r s_br.
template <class Sum> DEVICE int read_level(int planes, float unit, int bits, const MidRise& levels, const Sum& sum) {
  float x = sum(0);
  for (int b = 1; b < planes; b++) x += (float)(1 << b) * sum(b);
  x *= unit;
  return bits == 1 ? x >= 0 : levels.level(x);
}

// table[v_0 + 16 v_1 + 256 v_2 + 4096 v_3] = the level for survivors with the values v_r, numbers of up to 4 bits.
KERNEL(attention, 256)
void level_table(const Scalars* scalars, int survivors, int planes, float unit, int bits, uint8_t* table) {
  int index = blockIdx.x * 256 + threadIdx.x;
  table[index] = (uint8_t)read_level(planes, unit, bits, MidRise(bits), [&](int b) {
    int x = index >> b, pattern = (x & 1) | (x >> 3 & 2) | (x >> 6 & 4) | (x >> 9 & 8);
    return scalars->sums[survivors][pattern & ((1 << survivors) - 1)];
  });
}

// A thread takes 32 channels of a row at a time. The words of a survivor's planes become words of nibbles, as
// `separate` makes planes of nibbles: it exchanges the numbers of word and bit. So do the levels that the table has.
KERNEL(attention shared(65536), 512, 2)
void read_levels_few(const __grid_constant__ Attention a, const int* pointers, int rows,
    const __grid_constant__ Levels to, const uint8_t* table) {
  alignas(16) extern __shared__ uint8_t level_of[];
  for (int i = threadIdx.x; i < 4096; i += 512) ((Int4*)level_of)[i] = load_four_words(table + 16 * i);
  block_sync();
  int per_row = to.width / 32;
  for (long e = blockIdx.x * 512l + threadIdx.x; e < (long)rows * per_row; e += gridDim.x * 512l) {
    int row = (int)(e / per_row), w = (int)(e % per_row), sequence = row / a.seq, t = row % a.seq;
    const int* keys = pointers + ((long)(sequence * a.heads + 32 * w / a.dim) * a.seq + t) * a.survivors;
    const uint32_t* values = a.values + (long)sequence * a.seq * a.value_words + w;
    int alive = min(t + 1 - (a.starts ? a.starts[row] : 0), a.survivors);
    uint32_t v[4][4] = {}, levels[4] = {};  // [survivor][plane]
#pragma unroll
    for (int r = 0; r < 4; r++)
#pragma unroll
      for (int b = 0; b < 4; b++)
        if (r < alive && b < a.value_planes)
          v[r][b] = values[b * a.value_plane_words + (long)keys[r] * a.value_words];
    if (alive == a.survivors) {
#pragma unroll
      for (int r = 0; r < 4; r++) separate(v[r]);
#pragma unroll
      for (int k = 0; k < 4; k++) {  // channels 4 n + k
        constexpr uint32_t kLow = 0x0f0f0f0f;
        uint32_t even01 = (v[0][k] & kLow) | (v[1][k] << 4 & ~kLow), odd01 = (v[0][k] >> 4 & kLow) | (v[1][k] & ~kLow);
        uint32_t even23 = (v[2][k] & kLow) | (v[3][k] << 4 & ~kLow), odd23 = (v[2][k] >> 4 & kLow) | (v[3][k] & ~kLow);
#pragma unroll
        for (int n = 6; n >= 0; n -= 2) {  // byte n / 2 of each word
          uint32_t pair = n < 4 ? __nvvm_prmt(even01, even23, 0x5140) : __nvvm_prmt(even01, even23, 0x7362);
          uint32_t next = n < 4 ? __nvvm_prmt(odd01, odd23, 0x5140) : __nvvm_prmt(odd01, odd23, 0x7362);
          bool upper = n % 4 == 2;
          levels[k] = levels[k] * 16 + level_of[upper ? next >> 16 : next & 0xffff];
          levels[k] = levels[k] * 16 + level_of[upper ? pair >> 16 : pair & 0xffff];
        }
      }
    } else {  // a document's first queries
      MidRise rule(to.bits);
      for (int c = 31; c >= 0; c--) {
        uint32_t level = (uint32_t)read_level(a.value_planes, a.value_unit, to.bits, rule, [&](int b) {
          int pattern = 0;
#pragma unroll
          for (int r = 0; r < 4; r++)
#pragma unroll
            for (int i = 0; i < 4; i++)
              if (i == b) pattern |= (int)(v[r][i] >> c & 1) << r;
          return a.scalars->sums[alive][pattern];
        });
#pragma unroll
        for (int k = 0; k < 4; k++)
          if (k == c % 4) levels[k] = levels[k] * 16 + level;
      }
    }
    separate(levels);
    int count = 0;
#pragma unroll
    for (int b = 0; b < 4; b++) {
      if (b >= to.bits) break;
      to.data[b * to.plane_words + (long)row * to.words + w] = levels[b];
      count += popcount(levels[b]) << b;
    }
    add_to(to.popcounts + row, count);
  }
}

// The same for any number of planes, survivors and channels. A warp per row.
template <int kMax> DEVICE void read_rows(const Attention& a, const int* pointers, int rows, const Levels& to) {
  __shared__ float sums[5][16];
  if (threadIdx.x < 80) sums[threadIdx.x / 16][threadIdx.x % 16] = a.scalars->sums[threadIdx.x / 16][threadIdx.x % 16];
  block_sync();
  int row = blockIdx.x * 8 + threadIdx.x / 32, lane = threadIdx.x % 32, count = 0;
  if (row >= rows) return;
  int sequence = row / a.seq, t = row % a.seq, alive = min(t + 1 - (a.starts ? a.starts[row] : 0), a.survivors);
  const double* weights = a.scalars->weights[alive];
  MidRise levels(to.bits);
  for (int w = 0; 32 * w < to.width; w++) {
    int c = min(32 * w + lane, to.width - 1);
    const int* keys = pointers + ((long)(sequence * a.heads + c / a.dim) * a.seq + t) * a.survivors;
    const uint32_t* values = a.values + (long)sequence * a.seq * a.value_words + c / 32;
    long at[kMax];
#pragma unroll
    for (int r = 0; r < kMax; r++) at[r] = r < alive ? (long)keys[r] * a.value_words : 0;
    int index = read_level(a.value_planes, a.value_unit, to.bits, levels, [&](int b) {
      const uint32_t* plane = values + b * a.value_plane_words;
      if constexpr (kMax == 4) {
        int pattern = 0;
#pragma unroll
        for (int r = 0; r < 4; r++)
          if (r < alive) pattern |= (int)(plane[at[r]] >> (c % 32) & 1) << r;
        return sums[alive][pattern];
      } else {
        double exact = 0;
#pragma unroll
        for (int r = 0; r < kMax; r++)
          if (r < alive) exact += plane[at[r]] >> (c % 32) & 1 ? weights[r] : -weights[r];
        return (float)exact;
      }
    });
    count += put_levels(to, row, w, 32 * w + lane < to.width ? index : 0);
  }
  if (lane == 0) to.popcounts[row] = count;
}
KERNEL(attention, 256)
void read_levels_4(
    const __grid_constant__ Attention a, const int* pointers, int rows, const __grid_constant__ Levels to) {
  read_rows<4>(a, pointers, rows, to);
}
KERNEL(attention, 256)
void read_levels_16(
    const __grid_constant__ Attention a, const int* pointers, int rows, const __grid_constant__ Levels to) {
  read_rows<16>(a, pointers, rows, to);
}

// ---- Pointers and softmax: a warp per query, keys among its lanes. Grid: x queries / 8, y heads ----

// The key from `first` on with the highest score + noise for query t. Of equal ones it is the most recent. kLevels:
// queries have several planes.
template <bool kLevels, int kWords> DEVICE int best_key(const Head& h, int first, int t) {
  uint32_t q[kWords];
  h.load_query(t, q);
  double best = -1e300;
  int at = -1;
  for (int u = first + threadIdx.x % 32; u <= t; u += 32) {
    double s = h.score<kLevels>(q, t, u) + h.noise(t, u);
    if (s >= best) best = s, at = u;
  }
  for (int mask = 16; mask > 0; mask /= 2) {
    double s = shuffle_xor(best, mask);
    int u = shuffle_xor(at, mask);
    if (s > best || (s == best && u > at)) best = s, at = u;
  }
  return at;
}

template <bool kLevels> DEVICE void attend_best(const Attention& a, uint32_t* out, int* popcounts, int* pointers) {
  Head h(a, blockIdx.y);
  int t = blockIdx.x * 8 + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (t >= a.seq) return;
  int at = best_key<kLevels, kMaxWords>(h, h.first(t), t);
  if (lane == 0) pointers[h.query(t)] = at;
  if (32 * lane < a.dim) h.write(out, popcounts, t, lane, h.value_word(at, lane));
}
KERNEL(attention float, 256)
void attend_pointer(const __grid_constant__ Attention a, uint32_t* out, int* popcounts, int* pointers) {
  attend_best<false>(a, out, popcounts, pointers);
}
KERNEL(attention float, 256)
void attend_pointer_query_levels(const __grid_constant__ Attention a, uint32_t* out, int* popcounts, int* pointers) {
  attend_best<true>(a, out, popcounts, pointers);
}

// Pointers with Gumbel noise, for heads of 64 channels and sequences of a multiple of 4. A warp has 16 queries, a block
// 64; they pass over tiles of 64 keys, from their own tile to the first. The two best scores of a query, in float32,
// tell its best key if they differ by more than kClose, several times the error of float32. Otherwise the query's keys
// are scored again in float64. Grid: x queries / 64, the last queries first, y heads.
//
// Noise is computed only of pairs that may be among the best. The noise of a random number 1 - c is -ln(-ln(1 - c)) <
// -ln c, so that c must be less than exp(score - best). No noise is more than kMostNoise: a query is done with keys
// that are too far away for that. bar is the score to beat, in powers of two.
template <bool kSeparate>
DEVICE void attend_pointer_tiles(const Attention& a, uint32_t* out, int* popcounts, int* pointers) {
  constexpr float kClose = 1e-4f, kSlack = 1e-3f, kMost = 8 + kMostNoise;
  __shared__ uint32_t keys[64][2];
  Head h(a, blockIdx.y);
  int lane = threadIdx.x % 32, first = (gridDim.x - 1 - blockIdx.x) * 64, row0 = first + threadIdx.x / 32 * 16;
  int key = threadIdx.x / 2, word = threadIdx.x % 2, end = kSeparate ? h.first(first) / 64 * 64 : 0;
  float best[2], second[2], bar[2], inverse = 1 / (float)h.slope;
  int at[2] = {};
  TileQueries q;
  TileNoise noise(a);
  TileScores scores(h);
#pragma unroll
  for (int r = 0; r < 2; r++) {
    q.load(h, r, row0 + lane / 4 + 8 * r);
    best[r] = second[r] = bar[r] = kNever;
  }
  TileStarts<kSeparate> starts(h, row0);
  TileWords tiles(h, h.keys, a.words, first);
  uint32_t next = first + key < a.seq ? tiles.load() : 0;
  int needed = starts.earliest;
  for (int from = first; from >= end && block_any(from + 63 >= needed); from -= 64) {
    keys[key][word] = next;
    block_sync();
    if (from > end) next = tiles.load_earlier();
    for (int part = 48; part >= 0; part -= 16) {
      if (from + part > row0 || from + part + 15 < needed) continue;
      float score[2][4];
      scores.score(q, keys + part, from + part, score);
      hide(h, q, starts, row0, from + part, score);
      Words4 random[2];
      bool open[2][4], any = false;
#pragma unroll
      for (int r = 0; r < 2; r++) {
        random[r] = noise.words(q, r, (from + part) / 4 + (int)threadIdx.x % 4);
#pragma unroll
        for (int i = 0; i < 4; i++) {
          open[r][i] = (float)~random[r].w[i] < exp2_fast(__builtin_fmaf(score[r][i], kLog2E, -bar[r]));
          any |= open[r][i];
        }
      }
      if (!ballot(any)) continue;
#pragma unroll
      for (int r = 0; r < 2; r++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
          if (!ballot(open[r][i])) continue;
          float s = open[r][i] ? score[r][i] + gumbel_fast(random[r].w[i]) : kNever;
          second[r] = max(second[r], min(best[r], s));
          if (s > best[r]) best[r] = s, at[r] = from + part + 4 * (lane % 4) + i;
        }
        float top = max(best[r], shuffle_xor(best[r], 1));
        top = max(top, shuffle_xor(top, 2));
        bar[r] = __builtin_fmaf(top - (kClose + kSlack), kLog2E, -32.0f);  // so that words need not be divided by 2^32
      }
    }
    float far[2];
#pragma unroll
    for (int r = 0; r < 2; r++)
      far[r] = max(kMost - __builtin_fmaf(bar[r], 1 / kLog2E, 32 / kLog2E), 1.0f) * inverse + 1;
    needed = max(reach(q, far), starts.earliest);
  }
#pragma unroll
  for (int r = 0; r < 2; r++) {
#pragma unroll
    for (int mask = 1; mask < 4; mask *= 2) {
      float s = shuffle_xor(best[r], mask), other = shuffle_xor(second[r], mask);
      int u = shuffle_xor(at[r], mask);
      second[r] = max(max(second[r], other), min(best[r], s));
      if (s > best[r]) best[r] = s, at[r] = u;
    }
    int t = row0 + lane / 4 + 8 * r;
    for (uint32_t open = ballot(t < a.seq && !(best[r] - second[r] > kClose) && lane % 4 == 0); open;
        open &= open - 1) {
      int from = __builtin_ctz(open), query = row0 + from / 4 + 8 * r,
          found = best_key<false, 2>(h, kSeparate ? h.first(query) : 0, query);
      if (lane / 4 == from / 4) at[r] = found;
    }
    if (t < a.seq && lane % 4 == 0) pointers[h.query(t)] = at[r];
    if (t < a.seq && lane % 4 < 2) h.write(out, popcounts, t, lane % 4, h.value_word(at[r], lane % 4));
  }
}

// Softmax over all keys from `first` on: Σ_u p_u v_u of query t, in float64, with p_u = exp(score - best), and divided
// by their sum first if kDivided. Channel 32 w + lane is that of sum[w]. Returns the first key of the highest score.
template <bool kLevels, bool kDivided, int kWords>
DEVICE int sum_all(const Head& h, int first, int t, double (&sum)[kWords]) {
  int lane = threadIdx.x % 32;
  uint32_t q[kWords];
  h.load_query(t, q);
  double best;
  int at = first_best(first, t, [&](int u) { return h.score<kLevels>(q, t, u); }, best);
  double total = 0;
  if (kDivided)
    for (int u = first + lane; u <= t; u += 32) total += exponential(h.score<kLevels>(q, t, u) - best);
  total = warp_sum(total);
#pragma unroll
  for (int w = 0; w < kWords; w++) sum[w] = 0;
  for (int from = first; from <= t; from += 32) {
    int u = from + lane;
    double e = u <= t ? exponential(h.score<kLevels>(q, t, u) - best) : 0;
    if (kDivided) e /= total;
    for (int j = 0; j < min(32, t - from + 1); j++) {
      double p = shuffle(e, j);
#pragma unroll
      for (int w = 0; w < kWords; w++)
        if (32 * w < h.a.dim) sum[w] += p * (double)(h.a.value_unit * (float)h.value_integer(from + j, 32 * w + lane));
    }
  }
  return at;
}

// The signs of query t's attention output.
template <int kWords> DEVICE int read_all(const Head& h, int first, int t, uint32_t (&bits)[kWords]) {
  double sum[kWords];
  int at = sum_all<false, false>(h, first, t, sum);
#pragma unroll
  for (int w = 0; w < kWords; w++) bits[w] = ballot(32 * w + (int)threadIdx.x % 32 < h.a.dim && sum[w] >= 0);
  return at;
}

KERNEL(attention float, 256)
void attend_softmax(const __grid_constant__ Attention a, uint32_t* out, int* popcounts, int* pointers) {
  Head h(a, blockIdx.y);
  int t = blockIdx.x * 8 + threadIdx.x / 32;
  if (t >= a.seq) return;
  uint32_t bits[kMaxWords];
  int at = read_all(h, h.first(t), t, bits);
  if (threadIdx.x % 32 > 0) return;
  pointers[h.query(t)] = at;
#pragma unroll
  for (int w = 0; w < kMaxWords; w++)
    if (32 * w < a.dim) h.write(out, popcounts, t, w, bits[w]);
}

// The same, with levels of values of several planes. Planes of out lie plane_words apart.
template <bool kLevels> DEVICE void attend_levels(
    const Attention& a, uint32_t* out, int* popcounts, int* pointers, int bits, long plane_words) {
  Head h(a, blockIdx.y);
  int t = blockIdx.x * 8 + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (t >= a.seq) return;
  double sum[kMaxWords];
  int at = sum_all<kLevels, true>(h, h.first(t), t, sum);
  if (lane == 0) pointers[h.query(t)] = at;
  MidRise levels(bits);
#pragma unroll
  for (int w = 0; w < kMaxWords; w++) {
    if (32 * w >= a.dim) break;
    float x = (float)sum[w];
    int index = 32 * w + lane >= a.dim ? 0 : bits == 1 ? x >= 0 : levels.level(x);
    for (int b = 0; b < bits; b++) {
      uint32_t word = ballot(index >> b & 1);
      if (lane == 0) h.write(out + b * plane_words, popcounts, t, w, word, b);
    }
  }
}

KERNEL(attention float, 256)
void attend_softmax_levels(
    const __grid_constant__ Attention a, uint32_t* out, int* popcounts, int* pointers, int bits, long plane_words) {
  attend_levels<false>(a, out, popcounts, pointers, bits, plane_words);
}
KERNEL(attention float, 256)
void attend_softmax_query_levels(
    const __grid_constant__ Attention a, uint32_t* out, int* popcounts, int* pointers, int bits, long plane_words) {
  attend_levels<true>(a, out, popcounts, pointers, bits, plane_words);
}

#define ATTEND_POINTER_64(suffix, kSeparate)                                                                           \
  KERNEL(attention float, 128, 5)                                                                                      \
  void attend_pointer_64##suffix(const __grid_constant__ Attention a, uint32_t* out, int* popcounts, int* pointers) {  \
    attend_pointer_tiles<kSeparate>(a, out, popcounts, pointers);                                                      \
  }
ATTEND_POINTER_64(, false)
ATTEND_POINTER_64(_separate, true)
