// Sums in fixed point: integers, whose sums do not depend on the order of their terms.

// sums[i] += x[i] * units, rounded to nearest, ties to even; x[i] = 0. A value that is not less than the limit, or no
// number, adds 1 to overflow instead.
KERNEL(rounding, 256) void add_fixed(float* x, long n, long* sums, long* overflow, double limit, double units) {
  for (long i = blockIdx.x * 256l + threadIdx.x; i < n; i += gridDim.x * 256l) {
    double v = (double)x[i];
    if (__builtin_fabs(v) < limit)
      sums[i] += __nvvm_d2ll_rn(v * units);
    else
      __nvvm_atom_add_gen_ll((long long*)overflow, 1);
    x[i] = 0;
  }
}

// x[i] = sums[i] * unit; NaN where anything overflowed.
KERNEL(rounding, 256) void read_fixed(float* x, long n, const long* sums, const long* overflow, float unit) {
  if (*overflow != 0) unit = __builtin_nanf("");
  for (long i = blockIdx.x * 256l + threadIdx.x; i < n; i += gridDim.x * 256l) x[i] = (float)sums[i] * unit;
}
