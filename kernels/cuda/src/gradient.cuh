// Sources of the gradient g of a linear's plain product. DenseGradient reads the gradient of the linear's output from
// memory, as float32 or bfloat16, applies the STE mask and undoes the K-shift. FactoredGradient multiplies it by
// factors. LogitsGradient computes it from the logits of the language-model head.
//
// A source gives eight neighbouring channels of a row at a time, zeros beyond the last channel. fetch loads them.
// finish computes from what was loaded g, and plain: the gradient of the output, before a K-shift is undone. They are
// two functions so that loads of later rows can be in flight. copy and take are a fetch through shared memory, where
// kSlot bytes are a thread's.
#pragma once
#include "shift.cuh"

// Where a thread of 256 keeps what it copies of a row to shared memory: a V at `before` bytes a thread. The Vs of all
// threads lie one behind the other, so that a warp copies and loads contiguous bytes.
template <class V> DEVICE V& slot(char* row, int before) { return ((V*)(row + 256 * before))[threadIdx.x]; }
template <class T> DEVICE void copy_eight(char* row, const T* from) {
#pragma unroll
  for (int i = 0; i < (int)sizeof(T) / 2; i++) copy_async<16>(&slot<Int4>(row, 16 * i), (const char*)from + 16 * i);
}
template <class T> DEVICE void put_eight(char* row, const Packed<T>& p) {
#pragma unroll
  for (int i = 0; i < (int)sizeof(T) / 2; i++)
    slot<Int4>(row, 16 * i) =
        Int4{(int)p.words[4 * i], (int)p.words[4 * i + 1], (int)p.words[4 * i + 2], (int)p.words[4 * i + 3]};
}
template <class T> DEVICE Packed<T> take_eight(char* row, int before = 0) {
  Packed<T> p;
#pragma unroll
  for (int i = 0; i < (int)sizeof(T) / 2; i++) {
    Int4 v = slot<Int4>(row, before + 16 * i);
    p.words[4 * i] = v.x, p.words[4 * i + 1] = v.y, p.words[4 * i + 2] = v.z, p.words[4 * i + 3] = v.w;
  }
  return p;
}

// An int16 of a pair as a float. The int16 plus 32,768 becomes the low bits of a float from 8,388,608 on, which is
// faster than the conversion instruction.
DEVICE float short_float(uint32_t pair, int upper) {
  return as_float((int)__nvvm_prmt(pair ^ 0x80008000u, 0x4b000000, upper ? 0x7632 : 0x7610)) - 8421376.0f;
}
DEVICE float value(const Packed<short>& p, int j) { return short_float(p.words[j / 2], j % 2); }

// The lower 16 bits of a sum of 24 bits. Its upper 8 bits lie in a matrix of their own, so that eight sums are two
// aligned loads.
struct Int24 {
  uint16_t low;
};
template <> struct Packed<Int24> {
  uint32_t words[4], high[2];
};
// Sum j of four, from the pair of lower bits that it is in and the upper bits of all four.
DEVICE float int24_float(uint32_t pair, uint32_t high, int j) {
  return (float)(int)__nvvm_prmt(pair, high, 0xc400 + 0x1100 * j + (j % 2 ? 0x32 : 0x10));
}
DEVICE float value(const Packed<Int24>& p, int j) { return int24_float(p.words[j / 2], p.high[j / 4], j % 4); }

template <class T, bool kShifted> struct DenseGradient {
  const T* dy;
  const uint32_t* mask;  // may be null
  int mask_words, width;
  Shift shift;

  static constexpr int kAhead = sizeof(T) == 2 && !kShifted ? 4 : 2;  // of rows in registers
  static constexpr int kMaskSlot = 8 * sizeof(T), kSlot = kMaskSlot + 4;
  struct Channels {};  // what a lane keeps of its eight channels
  DEVICE_MEMBER Channels channels(int) const { return {}; }

  struct alignas(16) Raw {  // what is loaded for eight channels of a row
    Packed<T> dy;
    uint32_t keep;  // its low byte: bit j: g[j] counts
    bool none;      // there is no such row
  };
  DEVICE_MEMBER Raw fetch(int row, int c0) const {
    Raw r = {};
    if (c0 >= width) return r;
    r.keep = mask ? load_byte((const char*)(mask + wide_product(row, mask_words)) + c0 / 8) : 0xffu;
    if (aligned()) r.dy = load_eight(dy + wide_product(row, width) + c0);
    else r.dy = load_each(row, c0);
    return r;
  }
  // The same through shared memory. kWhole: all eight channels exist and are aligned.
  template <bool kWhole> DEVICE_MEMBER void copy(char* to, int row, int c0) const {
    if (!kWhole && c0 >= width) return;
    if (mask) copy_async<4>(&slot<uint32_t>(to, kMaskSlot), mask + wide_product(row, mask_words) + c0 / 32);
    if (kWhole || aligned()) copy_eight(to, dy + wide_product(row, width) + c0);
    else put_eight(to, load_each(row, c0));
  }
  template <bool kWhole> DEVICE_MEMBER Raw take(char* from, int c0) const {
    if (!kWhole && c0 >= width) return {};
    return Raw{take_eight<T>(from), mask ? slot<uint32_t>(from, kMaskSlot) >> (c0 % 32) : 0xffu, false};
  }
  DEVICE_MEMBER bool aligned() const { return width % 8 == 0 && ((long)dy & 15) == 0; }
  DEVICE_MEMBER Packed<T> load_each(int row, int c0) const {
    const T* from = dy + wide_product(row, width) + c0;
    Packed<T> p = {};
#pragma unroll
    for (int j = 0; j < 8; j++) {
      if (c0 + j >= width) continue;
      if constexpr (sizeof(T) == 4) p.words[j] = (uint32_t)as_int(from[j]);
      else p.words[j / 2] |= (uint32_t)from[j].bits << 16 * (j % 2);
    }
    return p;
  }
  DEVICE_MEMBER void drop(Raw& r) const { r.keep = 0, r.none = true; }
  DEVICE_MEMBER void masked(const Raw& r, float (&g)[8]) const {
#pragma unroll
    for (int j = 0; j < 8; j++) g[j] = r.keep >> j & 1 ? value(r.dy, j) : 0.0f;
  }

  DEVICE_MEMBER void finish(const Raw& raw, int row, int c0, const Channels&, float (&g)[8], float (&plain)[8]) const {
    masked(raw, plain);
    float later[8] = {};
    if (kShifted && !raw.none && c0 < shift.to && c0 + 8 > shift.from && row % shift.seq + shift.offset < shift.seq &&
        (!shift.starts || shift.starts[row + shift.offset] <= row % shift.seq))
      masked(fetch(row + shift.offset, c0), later);
#pragma unroll
    for (int j = 0; j < 8; j++) {
      if (!kShifted) {
        g[j] = plain[j];
        continue;
      }
      bool inside = c0 + j >= shift.from && c0 + j < shift.to;
      g[j] = inside ? (shift.self ? plain[j] : 0.0f) + later[j] : plain[j];
    }
  }
};

// The gradient of a linear's output times factors, both bfloat16. width is a multiple of 8, and both are aligned to 16
// bytes.
struct FactoredGradient {
  const BFloat *dy, *factors;
  int width;

  static constexpr int kAhead = 2, kSlot = 32;
  struct Channels {};
  DEVICE_MEMBER Channels channels(int) const { return {}; }

  struct alignas(16) Raw {
    Packed<BFloat> dy, factors;
  };
  DEVICE_MEMBER Raw fetch(int row, int c0) const {
    if (c0 >= width) return {};
    return Raw{load_eight(dy + wide_product(row, width) + c0), load_eight(factors + wide_product(row, width) + c0)};
  }
  template <bool kWhole> DEVICE_MEMBER void copy(char* to, int row, int c0) const {
    if (!kWhole && c0 >= width) return;
    long at = wide_product(row, width) + c0;
    copy_async<16>(&slot<Int4>(to, 0), dy + at), copy_async<16>(&slot<Int4>(to, 16), factors + at);
  }
  template <bool kWhole> DEVICE_MEMBER Raw take(char* from, int c0) const {
    if (!kWhole && c0 >= width) return {};
    return Raw{take_eight<BFloat>(from), take_eight<BFloat>(from, 16)};
  }
  DEVICE_MEMBER bool aligned() const { return true; }
  DEVICE_MEMBER void drop(Raw& r) const { r = {}; }
  DEVICE_MEMBER void finish(const Raw& r, int, int, const Channels&, float (&g)[8], float (&plain)[8]) const {
#pragma unroll
    for (int j = 0; j < 8; j++) g[j] = plain[j] = value(r.dy, j) * value(r.factors, j);
  }
};

constexpr float kLog2E = 1.4426950408889634f;
DEVICE float exp2_fast(float x) { return __nvvm_ex2_approx_ftz_f(x); }

// Logits u = alpha * (unit * s) - theta from the sums s of the language-model head's product. Softmax is computed with
// logits in units of ln 2, as slope * y - offset. y is s where sums are int16, and unit * s rounded to float32 where they
// are wider: these are Int24, or floats that the product has multiplied by the unit.
template <class T> struct Logits {
  static constexpr bool kInt24 = __is_same(T, Int24);
  const T* data;
  const char* high;  // the upper bits of Int24, in rows of the same stride; else null
  long stride;
  int width;
  float unit;
  const float *alpha, *theta;

  // y of four sums from column c0 on, a multiple of 4. Rows are padded to multiples of eight.
  DEVICE_MEMBER void load(long row, int c0, float (&y)[4]) const {
    const T* from = data + row * stride + c0;
    if constexpr (kInt24) {
      Int2 low = load_two(from);
      uint32_t upper = load_word(high + row * stride + c0);
#pragma unroll
      for (int j = 0; j < 4; j++) y[j] = unit * int24_float(j < 2 ? low.x : low.y, upper, j);
    } else if constexpr (sizeof(T) == 2) {
      Int2 v = load_two(from);
      y[0] = short_float(v.x, 0), y[1] = short_float(v.x, 1), y[2] = short_float(v.y, 0), y[3] = short_float(v.y, 1);
    } else {
      Float4 v = load_four((const float*)from);
      y[0] = v.x, y[1] = v.y, y[2] = v.z, y[3] = v.w;
    }
  }
  // Eight sums from column c0 on, a multiple of 8, and the same through shared memory.
  DEVICE_MEMBER Packed<T> eight(int row, int c0) const {
    long at = wide_product(row, (int)stride) + c0;
    Packed<T> p = load_eight(data + at);
    if constexpr (kInt24) {
      Int2 upper = load_two(high + at);
      p.high[0] = upper.x, p.high[1] = upper.y;
    }
    return p;
  }
  static constexpr int kHighSlot = 8 * sizeof(T), kSlot = kHighSlot + (kInt24 ? 8 : 0);
  DEVICE_MEMBER void copy(char* to, int row, int c0) const {
    long at = wide_product(row, (int)stride) + c0;
    copy_eight(to, data + at);
    if constexpr (kInt24) copy_async<8>(&slot<Int2>(to, kHighSlot), high + at);
  }
  DEVICE_MEMBER Packed<T> take(char* from) const {
    Packed<T> p = take_eight<T>(from);
    if constexpr (kInt24) {
      Int2 upper = slot<Int2>(from, kHighSlot);
      p.high[0] = upper.x, p.high[1] = upper.y;
    }
    return p;
  }
  DEVICE_MEMBER float y(const Packed<T>& p, int j) const { return kInt24 ? unit * value(p, j) : value(p, j); }
  // Channels beyond the last get logits of -3.4e38, whose exponential is 0.
  DEVICE_MEMBER float slope(int c) const { return c < width ? alpha[c] * (kInt24 ? 1.0f : unit) * kLog2E : 0.0f; }
  DEVICE_MEMBER float offset(int c) const { return c < width ? theta[c] * kLog2E : 3.4e38f; }
  DEVICE_MEMBER float at(long row, int c) const {
    long at = row * stride + c;
    float s;
    if constexpr (kInt24) s = (float)((int)(signed char)high[at] << 16 | data[at].low);
    else s = (float)data[at];
    return alpha[c] * (unit * s) - theta[c];
  }
};

// The gradient of GradScale * Σ losses: (softmax - onehot) * GradScale. row_stats has two floats a row: the largest
// logit in units of ln 2, and GradScale / Σ exp(u - largest), which is 0 where the row has no target.
template <class T> struct LogitsGradient {
  Logits<T> logits;
  const float* row_stats;
  const int* targets;
  const Scalars* scalars;

  static constexpr int kAhead = 2, kRowSlot = Logits<T>::kSlot, kSlot = kRowSlot + 12;
  struct Channels {
    float slope[8], offset[8], scale;
  };  // what a lane keeps of its eight channels
  DEVICE_MEMBER Channels channels(int c0) const {
    Channels c;
    c.scale = (float)scalars->grad_scale;
#pragma unroll
    for (int j = 0; j < 8; j++) c.slope[j] = logits.slope(c0 + j), c.offset[j] = logits.offset(c0 + j);
    return c;
  }
  struct alignas(16) Raw {
    Packed<T> y;
    float top, factor;
    int target;
  };
  DEVICE_MEMBER Raw fetch(int row, int c0) const {
    Raw r;
    Int2 stats = load_two(row_stats + 2l * row);
    r.top = as_float(stats.x), r.factor = as_float(stats.y);
    r.target = targets[row];
    r.y = logits.eight(row, min(c0, (logits.width - 1) / 8 * 8));
    return r;
  }
  template <bool> DEVICE_MEMBER void copy(char* to, int row, int c0) const {
    logits.copy(to, row, min(c0, (logits.width - 1) / 8 * 8));
    copy_async<8>(&slot<Int2>(to, kRowSlot), row_stats + 2l * row);
    copy_async<4>(&slot<int>(to, kRowSlot + 8), targets + row);
  }
  template <bool> DEVICE_MEMBER Raw take(char* from, int) const {
    Int2 stats = slot<Int2>(from, kRowSlot);
    return Raw{logits.take(from), as_float(stats.x), as_float(stats.y), slot<int>(from, kRowSlot + 8)};
  }
  DEVICE_MEMBER bool aligned() const { return true; }
  DEVICE_MEMBER void drop(Raw& r) const { r.factor = 0, r.target = -1; }
  DEVICE_MEMBER void finish(const Raw& r, int, int c0, const Channels& c, float (&g)[8], float (&plain)[8]) const {
    if (r.target < 0) {  // whatever the logits are
#pragma unroll
      for (int j = 0; j < 8; j++) g[j] = plain[j] = 0;
      return;
    }
#pragma unroll
    for (int j = 0; j < 8; j++) {
      float y = sizeof(T) == 2 || c0 + j < logits.width ? logits.y(r.y, j) : 0.0f;  // floats of padding may be anything
      g[j] = exp2_fast(__builtin_fmaf(c.slope[j], y, -c.offset[j]) - r.top) * r.factor;
    }
    if ((uint32_t)(r.target - c0) < 8) {
#pragma unroll
      for (int j = 0; j < 8; j++) g[j] -= c0 + j == r.target ? c.scale : 0.0f;
    }
#pragma unroll
    for (int j = 0; j < 8; j++) plain[j] = g[j];
  }
};
