// Where the gradient g of a linear's plain product comes from: either it lies in memory, to be masked and its K-shift undone, or it
// follows from the logits of the head. A source gives four neighbouring channels of a row at a time, zeros beyond the last: fetch loads
// what finish turns into g, and into plain, the gradient of the output itself, before a shift is undone. The two are apart so that loads
// of later rows can be on their way.
#pragma once

struct Shift { int from, to, offset, self, seq; };

template <bool kShifted> struct DenseGradient {
  const float* dy;
  const uint32_t* pass;  // may be null
  int pass_words, width;
  Shift shift;

  struct Quad {};  // what a lane keeps of its four channels
  DEVICE_MEMBER Quad quad(int) const { return {}; }

  struct Raw {  // what is loaded for four channels of a row
    float g[4];
    uint32_t keep;
  };
  DEVICE_MEMBER Raw fetch(long row, int c0) const {
    Raw r;
    const float* from = dy + row * width + c0;
    r.keep = pass && c0 < width ? pass[row * pass_words + c0 / 32] : ~0u;
    if (width % 4 == 0 && ((long)dy & 15) == 0 && c0 < width) {
      Float4 v = load_four(from);
      r.g[0] = v.x, r.g[1] = v.y, r.g[2] = v.z, r.g[3] = v.w;
    } else {
#pragma unroll
      for (int j = 0; j < 4; j++) r.g[j] = c0 + j < width ? from[j] : 0.0f;
    }
    return r;
  }
  DEVICE_MEMBER void masked(const Raw& r, int c0, float (&g)[4]) const {
    uint32_t keep = r.keep >> (c0 % 32);
#pragma unroll
    for (int j = 0; j < 4; j++) g[j] = keep >> j & 1 ? r.g[j] : 0.0f;
  }

  DEVICE_MEMBER void finish(const Raw& raw, long row, int c0, const Quad&, float (&g)[4], float (&plain)[4]) const {
    masked(raw, c0, plain);
    float later[4] = {0, 0, 0, 0};
    if (kShifted && c0 < shift.to && c0 + 4 > shift.from && row % shift.seq + shift.offset < shift.seq)
      masked(fetch(row + shift.offset, c0), c0, later);
#pragma unroll
    for (int j = 0; j < 4; j++) {
      if (!kShifted) {
        g[j] = plain[j];
        continue;
      }
      bool inside = c0 + j >= shift.from && c0 + j < shift.to;
      g[j] = inside ? (shift.self ? plain[j] : 0.0f) + later[j] : plain[j];
    }
  }
};

constexpr float kLog2E = 1.4426950408889634f;
DEVICE float exp2_fast(float x) { return __nvvm_ex2_approx_ftz_f(x); }

// Logits u = alpha * (unit * s) - theta from what the head's product left, integers or floats.
template <class T> struct Logits {
  const T* data;
  long stride;
  int width;
  float unit;
  const float *alpha, *theta;

  // Four products from column c0, a multiple of 4; rows are padded to that.
  DEVICE_MEMBER void load(long row, int c0, float (&y)[4]) const {
    const T* from = data + row * stride + c0;
    if constexpr (sizeof(T) == 2) {
      Int2 v = load_two(from);
      y[0] = (float)(short)v.x, y[1] = (float)(v.x >> 16), y[2] = (float)(short)v.y, y[3] = (float)(v.y >> 16);
    } else {
      Float4 v = load_four((const float*)from);
      y[0] = v.x, y[1] = v.y, y[2] = v.z, y[3] = v.w;
    }
  }
  DEVICE_MEMBER float at(long row, int c) const {
    return alpha[c] * (unit * (float)data[row * stride + c]) - theta[c];
  }
};

// The gradient of GradScale * Σ losses: (softmax - onehot) * GradScale. row_stats are, for each row, the greatest logit and
// GradScale / Σ exp(u - greatest), or 0 where there is no target.
template <class T> struct HeadGradient {
  Logits<T> logits;
  const float* row_stats;
  const int* targets;
  const Scalars* scalars;

  struct Quad { float alpha[4], theta[4], scale; };  // what a lane keeps of its four channels
  DEVICE_MEMBER Quad quad(int c0) const {
    Quad q;
    q.scale = (float)scalars->grad_scale;
#pragma unroll
    for (int j = 0; j < 4; j++) {
      q.alpha[j] = c0 + j < logits.width ? logits.alpha[c0 + j] : 0;
      q.theta[j] = c0 + j < logits.width ? logits.theta[c0 + j] : 0;
    }
    return q;
  }
  struct Raw {
    float y[4];
    float top, factor;
    int target;
  };
  DEVICE_MEMBER Raw fetch(long row, int c0) const {
    Raw r;
    Int2 stats = load_two(row_stats + 2 * row);
    r.top = as_float(stats.x), r.factor = as_float(stats.y);
    r.target = targets[row];
    logits.load(row, min(c0, (logits.width - 1) / 4 * 4), r.y);
    return r;
  }
  DEVICE_MEMBER void finish(const Raw& r, long, int c0, const Quad& quad, float (&g)[4], float (&plain)[4]) const {
#pragma unroll
    for (int j = 0; j < 4; j++) {
      float u = quad.alpha[j] * (logits.unit * r.y[j]) - quad.theta[j];
      float e = exp2_fast((u - r.top) * kLog2E) * r.factor;
      if (c0 + j == r.target) e -= quad.scale;
      g[j] = plain[j] = c0 + j < logits.width ? e : 0.0f;
    }
  }
};
