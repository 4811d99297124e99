// The few declarations that clang needs in place of CUDA's headers, so that the kernels compile without a toolkit.
// compile.sh includes this file before every kernel.
#pragma once
#define __global__ __attribute__((global))
#define __device__ __attribute__((device))
#define __host__ __attribute__((host))
#define __shared__ __attribute__((shared))
#define __constant__ __attribute__((constant))
#define __grid_constant__ __attribute__((grid_constant))
#define __forceinline__ __inline__ __attribute__((always_inline))
#define __launch_bounds__(...) __attribute__((launch_bounds(__VA_ARGS__)))
#include <__clang_cuda_builtin_vars.h>
#include <stdint.h>

// KERNEL(category, threads of a block, blocks of a multiprocessor at least) begins every kernel. ptx2go reads it and
// writes the kernel's launcher in Go. The category is one of those of kernels/timing, with these words behind it:
//   float            the kernel's arithmetic is float work
//   shared(bytes)    a block has that much dynamic shared memory
//   shared           a block has as much dynamic shared memory as the launch says, up to 48 KiB
#define KERNEL(category, ...) extern "C" __global__ __VA_OPT__(__launch_bounds__(__VA_ARGS__))

#define DEVICE static __device__ __forceinline__
#define DEVICE_MEMBER __device__ __forceinline__

DEVICE int ceil_div(int a, int b) { return (a + b - 1) / b; }
DEVICE int min(int a, int b) { return a < b ? a : b; }
DEVICE int max(int a, int b) { return a > b ? a : b; }
DEVICE float max(float a, float b) { return __nvvm_fmax_f(a, b); }
DEVICE float min(float a, float b) { return __nvvm_fmin_f(a, b); }
// u / 2, but 0 where it is less or NaN, and 1 where it is more. Unlike minima and maxima it does not take the integer
// units.
DEVICE float half_within_one(float u) {
  float v;
  asm("mul.rn.sat.f32 %0, %1, 0f3F000000;" : "=f"(v) : "f"(u));
  return v;
}
// a * b + c, but 0 where it is less or NaN, and 1 where it is more.
DEVICE float multiply_add_within_one(float a, float b, float c) {
  float v;
  asm("fma.rn.sat.f32 %0, %1, %2, %3;" : "=f"(v) : "f"(a), "f"(b), "f"(c));
  return v;
}
DEVICE float max_nan(float a, float b) { return __nvvm_fmax_nan_f(a, b); }  // NaN counts as the largest
DEVICE float as_float(int bits) { return __builtin_bit_cast(float, bits); }
DEVICE int as_int(float x) { return __builtin_bit_cast(int, x); }
DEVICE long wide_product(int a, int b) {
  return (long)((uint64_t)(uint32_t)a * (uint32_t)b);
}  // of what is not negative
DEVICE int popcount(uint32_t x) { return __builtin_popcount(x); }

// Lane-to-lane exchange within a full warp.
DEVICE int shuffle_xor(int value, int lane_mask) {
  return __nvvm_shfl_sync_bfly_i32(0xffffffff, value, lane_mask, 0x1f);
}
DEVICE float shuffle_xor(float value, int lane_mask) {
  return __nvvm_shfl_sync_bfly_f32(0xffffffff, value, lane_mask, 0x1f);
}
// Lets the compiler know that a value is the same in all lanes.
DEVICE int warp_uniform(int value) { return __nvvm_shfl_sync_idx_i32(0xffffffff, value, 0, 0x1f); }
DEVICE uint32_t ballot(bool predicate) { return __nvvm_vote_ballot_sync(0xffffffff, predicate); }

// Adds to memory without waiting for the old value.
DEVICE void add_to(int* target, int value) {
  asm volatile("red.global.add.s32 [%0], %1;" ::"l"(target), "r"(value) : "memory");
}

DEVICE void or_to(uint32_t* target, uint32_t bits) {
  asm volatile("red.global.or.b32 [%0], %1;" ::"l"(target), "r"(bits) : "memory");
}

struct BFloat {
  uint16_t bits;
};  // the upper half of a float
// The compiler computes x before this place. So loads that should be in flight together stay together.
DEVICE void fence_operand(uint32_t& x) { asm volatile("" : "+r"(x)); }
DEVICE void fence_operand(int& x) { asm volatile("" : "+r"(x)); }
DEVICE void fence_operand(float& x) { asm volatile("" : "+f"(x)); }
DEVICE void fence_operand(long& x) { asm volatile("" : "+l"(x)); }
DEVICE void fence_operand(double& x) { asm volatile("" : "+d"(x)); }
// Two floats rounded to nearest even as bfloat16, the first in the low half.
DEVICE uint32_t pack_bf16(float low, float high) {
  uint32_t packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}
DEVICE float low_bf16(uint32_t packed) { return as_float((int)(packed << 16)); }
DEVICE float high_bf16(uint32_t packed) { return as_float((int)(packed & 0xffff0000u)); }

// Two floats rounded to nearest even as float16, the first in the low half.
DEVICE uint32_t pack_f16(float low, float high) {
  uint32_t packed;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}
DEVICE float low_f16(uint32_t packed) {
  float x;
  asm("{ .reg .b16 low, high; mov.b32 {low, high}, %1; cvt.f32.f16 %0, low; }" : "=f"(x) : "r"(packed));
  return x;
}
DEVICE float high_f16(uint32_t packed) {
  float x;
  asm("{ .reg .b16 low, high; mov.b32 {low, high}, %1; cvt.f32.f16 %0, high; }" : "=f"(x) : "r"(packed));
  return x;
}

// x - y of two float16 each.
DEVICE uint32_t subtract_f16(uint32_t x, uint32_t y) {
  uint32_t z;
  asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(z) : "r"(x), "r"(y));
  return z;
}

// Gradients in memory, float32 or bfloat16.
DEVICE float read(const float* from) { return *from; }
DEVICE float read(const double* from) { return (float)*from; }
DEVICE float read(const BFloat* from) { return as_float(from->bits << 16); }
DEVICE void write(float* to, float x) { *to = x; }
DEVICE void write(BFloat* to, float x) { to->bits = (uint16_t)pack_bf16(x, 0); }

// Warp-wide sums and maxima. Sums of floats are taken in one fixed order.
DEVICE int warp_sum(int value) { return __nvvm_redux_sync_add(value, 0xffffffff); }
DEVICE int warp_min(int value) { return __nvvm_redux_sync_min(value, 0xffffffff); }
DEVICE int warp_max(int value) { return __nvvm_redux_sync_max(value, 0xffffffff); }
DEVICE uint32_t warp_max(uint32_t value) { return __nvvm_redux_sync_umax(value, 0xffffffff); }
DEVICE float warp_sum(float value) {
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2) value += shuffle_xor(value, mask);
  return value;
}
DEVICE float warp_max(float value) {
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2) value = max(value, shuffle_xor(value, mask));
  return value;
}
DEVICE double shuffle_xor(double value, int lane_mask) {
  long bits = __builtin_bit_cast(long, value);
  uint32_t low = (uint32_t)shuffle_xor((int)bits, lane_mask),
           high = (uint32_t)shuffle_xor((int)(bits >> 32), lane_mask);
  return __builtin_bit_cast(double, (long)((uint64_t)high << 32 | low));
}
DEVICE double warp_sum(double value) {
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2) value += shuffle_xor(value, mask);
  return value;
}
DEVICE int shuffle(int value, int lane) { return __nvvm_shfl_sync_idx_i32(0xffffffff, value, lane, 0x1f); }
DEVICE float shuffle(float value, int lane) { return as_float(shuffle(as_int(value), lane)); }
DEVICE double shuffle(double value, int lane) {
  long bits = __builtin_bit_cast(long, value);
  uint32_t low = (uint32_t)shuffle((int)bits, lane), high = (uint32_t)shuffle((int)(bits >> 32), lane);
  return __builtin_bit_cast(double, (long)((uint64_t)high << 32 | low));
}

// Barriers of a block; the second also says whether the predicate holds anywhere.
DEVICE void block_sync() { asm volatile("bar.sync 0;" ::: "memory"); }
DEVICE bool block_any(bool predicate) {
  int result;
  asm volatile("{ .reg .pred p, q; setp.ne.s32 p, %1, 0; bar.red.or.pred q, 0, p; selp.s32 %0, 1, 0, q; }"
      : "=r"(result)
      : "r"((int)predicate)
      : "memory");
  return result;
}
DEVICE void warp_sync() { asm volatile("bar.warp.sync 0xffffffff;" ::: "memory"); }

// *target = max(*target, value). Non-negative floats compare as their bits, with NaN the largest. The order of calls
// does not change the result.
DEVICE void max_to(uint32_t* target, uint32_t value) {
  asm volatile("red.global.max.u32 [%0], %1;" ::"l"(target), "r"(value) : "memory");
}

// ---- Elementary functions in float64, for there is no libdevice. Relative errors are a few 2^-53. ----

DEVICE double multiply_add(double a, double b, double c) { return __nvvm_fma_rn_d(a, b, c); }
DEVICE double round_even(double x) {
  double y;
  asm("cvt.rni.f64.f64 %0, %1;" : "=d"(y) : "d"(x));
  return y;
}

DEVICE double exponential(double x) {  // x <= 700; below -700 it is 0
  if (x < -700.0) return 0;
  double n = round_even(x * 1.4426950408889634);
  double r = multiply_add(-n, 1.90821492927058770002e-10, multiply_add(-n, 6.93147180369123816490e-01, x));
  double p = 1.0 / 6227020800.0;
  p = multiply_add(p, r, 1.0 / 479001600.0);
  p = multiply_add(p, r, 1.0 / 39916800.0);
  p = multiply_add(p, r, 1.0 / 3628800.0);
  p = multiply_add(p, r, 1.0 / 362880.0);
  p = multiply_add(p, r, 1.0 / 40320.0);
  p = multiply_add(p, r, 1.0 / 5040.0);
  p = multiply_add(p, r, 1.0 / 720.0);
  p = multiply_add(p, r, 1.0 / 120.0);
  p = multiply_add(p, r, 1.0 / 24.0);
  p = multiply_add(p, r, 1.0 / 6.0);
  p = multiply_add(p, r, 0.5);
  p = multiply_add(p, r, 1.0);
  p = multiply_add(p, r, 1.0);
  return __builtin_bit_cast(double, __builtin_bit_cast(long, p) + ((long)n << 52));
}

DEVICE double logarithm(double x) {  // x positive and normal
  long bits = __builtin_bit_cast(long, x);
  long above = bits - 0x3fe6a09e667f3bcdl;  // sqrt(1/2), so that the rest lies in [sqrt(1/2), sqrt(2))
  long exponent = above >> 52;
  double m = __builtin_bit_cast(double, bits - (exponent << 52));
  double f = (m - 1) / (m + 1), s = f * f;
  double p = 1.0 / 21;
  p = multiply_add(p, s, 1.0 / 19);
  p = multiply_add(p, s, 1.0 / 17);
  p = multiply_add(p, s, 1.0 / 15);
  p = multiply_add(p, s, 1.0 / 13);
  p = multiply_add(p, s, 1.0 / 11);
  p = multiply_add(p, s, 1.0 / 9);
  p = multiply_add(p, s, 1.0 / 7);
  p = multiply_add(p, s, 1.0 / 5);
  p = multiply_add(p, s, 1.0 / 3);
  double low = multiply_add(2 * f * s, p, (double)exponent * 1.90821492927058770002e-10);
  return multiply_add((double)exponent, 6.93147180369123816490e-01, 2 * f + low);
}

struct alignas(16) Int4 {
  int x, y, z, w;
};
struct alignas(16) Float4 {
  float x, y, z, w;
};
struct alignas(8) Int2 {
  int x, y;
};

// Vector loads of memory that the kernel does not write. They are assembly because the compiler splits loads of structs
// and merges the pieces with those of other branches, so that one load waits for another.
DEVICE Float4 load_four(const float* from) {
  Float4 v;
  asm("ld.global.nc.v4.f32 {%0, %1, %2, %3}, [%4];" : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w) : "l"(from));
  return v;
}
DEVICE Int4 load_four_words(const void* from) {
  Int4 v;
  asm("ld.global.nc.v4.s32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(from));
  return v;
}
DEVICE uint32_t load_byte(const void* from) {
  uint32_t v;
  asm("ld.global.nc.u8 %0, [%1];" : "=r"(v) : "l"(from));
  return v;
}
DEVICE uint32_t load_word(const void* from) {
  uint32_t v;
  asm("ld.global.nc.u32 %0, [%1];" : "=r"(v) : "l"(from));
  return v;
}
DEVICE Int2 load_two(const void* from) {
  Int2 v;
  asm("ld.global.nc.v2.s32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(from));
  return v;
}
// Eight values at `from`, which is aligned to 16 bytes, as they lie in memory.
template <class T> struct Packed {
  uint32_t words[2 * sizeof(T)];
};
template <class T> DEVICE Packed<T> load_eight(const T* from) {
  Packed<T> p;
#pragma unroll
  for (int i = 0; i < (int)sizeof(T) / 2; i++) {
    Int4 v = load_four_words((const char*)from + 16 * i);
    p.words[4 * i] = v.x, p.words[4 * i + 1] = v.y, p.words[4 * i + 2] = v.z, p.words[4 * i + 3] = v.w;
  }
  return p;
}
// Entry j of them.
DEVICE float value(const Packed<float>& p, int j) { return as_float((int)p.words[j]); }
DEVICE float value(const Packed<BFloat>& p, int j) {
  return j % 2 ? high_bf16(p.words[j / 2]) : low_bf16(p.words[j / 2]);
}
// Loads four aligned values that the kernel may write as well. They stay packed until they are used.
struct FourFloats {
  uint32_t words[4];
  DEVICE_MEMBER float operator[](int j) const { return as_float((int)words[j]); }
};
struct FourBFloats {
  uint32_t words[2];
  DEVICE_MEMBER float operator[](int j) const { return j % 2 ? high_bf16(words[j / 2]) : low_bf16(words[j / 2]); }
};
DEVICE FourFloats load_four_of(const float* from) {
  Int4 v = *(const Int4*)from;
  FourFloats f{{(uint32_t)v.x, (uint32_t)v.y, (uint32_t)v.z, (uint32_t)v.w}};
  for (uint32_t& word : f.words) fence_operand(word);
  return f;
}
DEVICE FourBFloats load_four_of(const BFloat* from) {
  Int2 v = *(const Int2*)from;
  FourBFloats f{{(uint32_t)v.x, (uint32_t)v.y}};
  for (uint32_t& word : f.words) fence_operand(word);
  return f;
}

// Writes eight values, aligned to 16 bytes.
DEVICE void store_eight(float* to, const float (&x)[8]) {
  *(Float4*)to = Float4{x[0], x[1], x[2], x[3]};
  *(Float4*)(to + 4) = Float4{x[4], x[5], x[6], x[7]};
}
DEVICE void store_eight(BFloat* to, const float (&x)[8]) {
  *(Int4*)to = Int4{
      (int)pack_bf16(x[0], x[1]), (int)pack_bf16(x[2], x[3]), (int)pack_bf16(x[4], x[5]), (int)pack_bf16(x[6], x[7])};
}

// Writes four values, aligned to 16 or 8 bytes.
DEVICE void store_four_of(float* to, const float (&x)[4]) { *(Float4*)to = Float4{x[0], x[1], x[2], x[3]}; }
DEVICE void store_four_of(BFloat* to, const float (&x)[4]) {
  *(Int2*)to = Int2{(int)pack_bf16(x[0], x[1]), (int)pack_bf16(x[2], x[3])};
}

// Asynchronous copies from global to shared memory. A thread sees what it copied after it has waited for the group.
DEVICE uint32_t shared_address(const void* pointer) {
  uint32_t address;
  asm("{ .reg .u64 q; cvta.to.shared.u64 q, %1; cvt.u32.u64 %0, q; }" : "=r"(address) : "l"(pointer));
  return address;
}
template <int kBytes> DEVICE void copy_async(uint32_t to, const void* from) {
  if constexpr (kBytes == 16)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(to), "l"(from), "n"(kBytes) : "memory");
}
template <int kBytes> DEVICE void copy_async(void* to, const void* from) {
  copy_async<kBytes>(shared_address(to), from);
}
// The same with zeros in place of what is not there.
template <int kBytes> DEVICE void copy_async_or_zero(uint32_t to, const void* from, bool there) {
  int bytes = there ? kBytes : 0;
  if constexpr (kBytes == 16)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(to), "l"(from), "n"(kBytes), "r"(bytes)
        : "memory");
}
DEVICE void copies_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int kPending> DEVICE void copies_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// Separates four words of eight nibbles into four planes: bit 4 n + k of plane b is bit b of nibble n of word k.
DEVICE void separate(uint32_t (&x)[4]) {
  constexpr uint32_t k5 = 0x55555555, k3 = 0x33333333;
  uint32_t a0 = (x[0] & k5) | (x[1] << 1 & ~k5), a1 = (x[0] >> 1 & k5) | (x[1] & ~k5);
  uint32_t b0 = (x[2] & k5) | (x[3] << 1 & ~k5), b1 = (x[2] >> 1 & k5) | (x[3] & ~k5);
  x[0] = (a0 & k3) | (b0 << 2 & ~k3), x[2] = (a0 >> 2 & k3) | (b0 & ~k3);
  x[1] = (a1 & k3) | (b1 << 2 & ~k3), x[3] = (a1 >> 2 & k3) | (b1 & ~k3);
}

// What changes from step to step. Kernels read it when they run.
constexpr int kMaxSurvivors = 16;
struct Scalars {
  uint32_t seed[2], step[2];
  uint32_t micro;
  uint32_t signs[5];  // [alive]: bit p tells whether the rank-weighted sum of the pattern p of values is not negative
  float sums[5][16];    // [alive][pattern]: the rank-weighted sum itself
  double tau, mix, grad_scale, learning_rate, correction1, correction2;
  double weights[kMaxSurvivors + 1][kMaxSurvivors];  // [alive][rank], of sum 1
  double muon_rate, decay, muon_decay;
};
