// Sums in fixed point: integers, whose sums do not depend on the order of their terms. A block takes 1024 values, four
// to a thread, whose loads are in flight together.
constexpr int kFixedPer = 4, kFixedStep = 256;

DEVICE long fixed_at(int i) { return (long)blockIdx.x * (kFixedPer * kFixedStep) + i * kFixedStep + threadIdx.x; }

// x * units, rounded to nearest, ties to even. What is not less than the limit, or no number, is 0 and adds 1 to
// overflow. The branch keeps ptxas from moving the loads of the sums down to where they are used.
DEVICE long in_units(float x, double limit, double units, long* overflow) {
  double v = (double)x;
  if (__builtin_fabs(v) < limit) return __nvvm_d2ll_rn(v * units);
  __nvvm_atom_add_gen_ll((long long*)overflow, 1);
  return 0;
}

template <bool kSet>
DEVICE void add_terms(long* sums, long* overflow, const float* x, long n, double limit, double units) {
  float term[kFixedPer];
  long sum[kFixedPer];
#pragma unroll
  for (int i = 0; i < kFixedPer; i++) {
    long at = fixed_at(i);
    term[i] = at < n ? x[at] : 0;
    sum[i] = !kSet && at < n ? sums[at] : 0;
  }
#pragma unroll
  for (int i = 0; i < kFixedPer; i++) fence_operand(term[i]), fence_operand(sum[i]);
#pragma unroll
  for (int i = 0; i < kFixedPer; i++) {
    long at = fixed_at(i);
    if (at < n) sums[at] = sum[i] + in_units(term[i], limit, units, overflow);
  }
}

// sums[i] += x[i] in units.
KERNEL(rounding, 256, 8)
void add_fixed(long* sums, long* overflow, const float* x, long n, double limit, double units) {
  add_terms<false>(sums, overflow, x, n, limit, units);
}

// sums[i] = x[i] in units.
KERNEL(rounding, 256, 8)
void set_fixed(long* sums, long* overflow, const float* x, long n, double limit, double units) {
  add_terms<true>(sums, overflow, x, n, limit, units);
}

// x[i] = sums[i] * unit; NaN where anything overflowed.
KERNEL(rounding, 256, 8) void read_fixed(float* x, long n, const long* sums, const long* overflow, float unit) {
  long sum[kFixedPer], odd = *overflow;
#pragma unroll
  for (int i = 0; i < kFixedPer; i++) {
    long at = fixed_at(i);
    sum[i] = at < n ? sums[at] : 0;
  }
#pragma unroll
  for (int i = 0; i < kFixedPer; i++) fence_operand(sum[i]);
  if (odd != 0) unit = __builtin_nanf("");
#pragma unroll
  for (int i = 0; i < kFixedPer; i++) {
    long at = fixed_at(i);
    if (at < n) x[at] = (float)sum[i] * unit;
  }
}
