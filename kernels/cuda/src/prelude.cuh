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

#define DEVICE static __device__ __forceinline__

DEVICE int ceil_div(int a, int b) { return (a + b - 1) / b; }
DEVICE int min(int a, int b) { return a < b ? a : b; }
DEVICE float as_float(int bits) { return __builtin_bit_cast(float, bits); }
DEVICE int as_int(float x) { return __builtin_bit_cast(int, x); }
DEVICE int popcount(uint32_t x) { return __builtin_popcount(x); }

// Lane-to-lane exchange within a full warp.
DEVICE int shuffle_xor(int value, int lane_mask) { return __nvvm_shfl_sync_bfly_i32(0xffffffff, value, lane_mask, 0x1f); }
DEVICE float shuffle_xor(float value, int lane_mask) { return __nvvm_shfl_sync_bfly_f32(0xffffffff, value, lane_mask, 0x1f); }
// Lets the compiler know that a value is the same in all lanes.
DEVICE int warp_uniform(int value) { return __nvvm_shfl_sync_idx_i32(0xffffffff, value, 0, 0x1f); }
DEVICE uint32_t ballot(bool predicate) { return __nvvm_vote_ballot_sync(0xffffffff, predicate); }

// Adds to memory without waiting for the old value.
DEVICE void add_to(int* target, int value) { asm volatile("red.global.add.s32 [%0], %1;" ::"l"(target), "r"(value) : "memory"); }

// Two floats rounded to nearest even as bfloat16, the first in the low half.
DEVICE uint32_t pack_bf16(float low, float high) {
  uint32_t packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}
DEVICE float low_bf16(uint32_t packed) { return as_float((int)(packed << 16)); }
DEVICE float high_bf16(uint32_t packed) { return as_float((int)(packed & 0xffff0000u)); }

struct alignas(16) Int4 { int x, y, z, w; };
struct alignas(16) Float4 { float x, y, z, w; };
struct alignas(8) Int2 { int x, y; };
