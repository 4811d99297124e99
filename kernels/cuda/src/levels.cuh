// Quantized values in planes: how kernels read and write them, and which level is nearest to a value.
#pragma once

// Quantized values as they lie in planes: the integer behind one is factor * (the number its bits spell) - offset.
struct Quantized {
  const uint32_t* data;
  long plane_words;
  int words, planes;  // words: 32-bit words of a row
  int factor, offset;
  float unit;  // what 1 of the integer is worth

  DEVICE_MEMBER float value(long row, int c) const {
    int index = 0;
    for (int p = 0; p < planes; p++)
      index |= (int)(data[p * plane_words + row * words + c / 32] >> (c % 32) & 1) << p;
    return of_index(index);
  }
  DEVICE_MEMBER float of_index(int index) const { return unit * (float)(factor * index - offset); }
};

// Where the quantized channels from ... from + width - 1 of a linear go: planes of rows x width, with the rows'
// weighted popcounts.
struct Levels {
  int from, width, bits, words;  // words: 32-bit words of a row
  long plane_words;
  uint32_t* data;
  int* popcounts;
};

// Byte k of lane t becomes byte t of lane k, among four lanes.
DEVICE uint32_t transpose_bytes(uint32_t x, int lane) {
  x = (uint32_t)__nvvm_prmt(x, shuffle_xor((int)x, 1), lane & 1 ? 0x3715 : 0x6240);
  return (uint32_t)__nvvm_prmt(x, shuffle_xor((int)x, 2), lane & 2 ? 0x3276 : 0x5410);
}

// Replaces bits at ... at + n - 1 of a row of packed words, n <= 32. No other thread may write the row.
DEVICE void put_bits(uint32_t* row, int at, int n, uint32_t bits) {
  uint32_t all = n < 32 ? (1u << n) - 1 : ~0u;
  int word = at / 32, shift = at % 32;
  row[word] = (row[word] & ~(all << shift)) | (bits & all) << shift;
  if (shift + n > 32) row[word + 1] = (row[word + 1] & ~(all >> (32 - shift))) | (bits & all) >> (32 - shift);
}

// Writes the planes of 32 levels, one a lane, as word w of a row. Returns their weighted popcount.
DEVICE int put_levels(const Levels& to, long row, int w, int index) {
  int count = 0;
  for (int b = 0; b < to.bits; b++) {
    uint32_t word = ballot(index >> b & 1);
    count += popcount(word) << b;
    if (threadIdx.x % 32 == 0) to.data[b * to.plane_words + row * to.words + w] = word;
  }
  return count;
}

// Finds the mid-rise level of a float32: the level, counted from the lowest, that float64 arithmetic finds (see
// nearest_level). A float32 product tells the nearest border j * step between two levels. The difference from the
// border has the right sign, because the border is exact and one multiply-add computes it. A value on a border has the
// even level. So has, on the border 0, what is lost when float64 subtracts 1/2.
struct MidRise {
  float scale, step, last;
  int lost, half;  // lost: the bits of the first difference that is not lost
  DEVICE_MEMBER explicit MidRise(int bits) : half(1 << (bits - 1)) {
    scale = (float)half * 0.4f, step = 2.5f / (float)half, last = (float)(half - 1) * step;
    lost = as_int(-step * 0x1p-54f) + 1;
  }
  // The nearest border j * step: j is in the low bits of a float from 12,582,912 on.
  DEVICE_MEMBER float border(float u) const { return __builtin_fmaf(min(max(u, -last), last), scale, 12582912.0f); }
  // How far u lies above a border.
  DEVICE_MEMBER float off(float u, float border) const { return __builtin_fmaf(12582912.0f - border, step, u); }
  // The level above or below a border.
  DEVICE_MEMBER int beside(float border, bool above) const {
    return as_int(border) - 0x4b400000 + half - 1 + (above ? 1 : 0);
  }
  DEVICE_MEMBER int level(float u) const {
    float nearest = border(u), above = off(u, nearest);
    float bar = as_float((~as_int(nearest) & 1) * lost);
    return beside(nearest, above > bar);
  }
};

// The level nearest to v of 2 * half levels that are `step` apart: round(v / step - 1/2), ties to even, counted from
// the lowest level, which NaN gets as well.
DEVICE int nearest_level(double v, double step, double half) {
  double index = round_even(v / step - 0.5) + half;
  return !(index > 0) ? 0 : index >= 2 * half - 1 ? (int)(2 * half - 1) : (int)index;
}

// The same, where inverse is 1 / step. A division is slow, so v is multiplied by the inverse, and divided only where
// the product could round to another level.
DEVICE int level(double v, double step, double inverse, double half) {
  double q = v * inverse - 0.5, rounded = round_even(q), off = q - rounded;
  if (__builtin_fabs(__builtin_fabs(off) - 0.5) < 1e-9) return nearest_level(v, step, half);
  double index = rounded + half;
  return !(index > 0) ? 0 : index >= 2 * half - 1 ? (int)(2 * half - 1) : (int)index;
}

// The level of relu(u)² on the levels from 0 to 4, of which `top` is the highest, in the low bits of a float from
// 12,582,912 on. Half of u is exact where it matters, and its square is a quarter of the square. The sum is rounded
// once, to the nearest integer, ties to even, so the level is that of the exact product.
DEVICE int rounded_square(float u, float top) {
  float v = half_within_one(u);
  return as_int(__builtin_fmaf(v * v, top, 12582912.0f));
}
// And its derivative. As unsigned integers, only the bits of floats from 0 to 2 are at most those of 2.
DEVICE float squared_factor(float u) { return (uint32_t)as_int(u) <= 0x40000000u ? 2 * u : 0.0f; }
