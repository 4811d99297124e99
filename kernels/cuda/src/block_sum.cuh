#pragma once

// The sum over a block of 256 threads, in every thread. `room` is shared memory for 8 values; two sums in a row need
// two rooms.
DEVICE double block_sum(double value, double* room) {
  value = warp_sum(value);
  if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = value;
  block_sync();
  double sum = 0;
#pragma unroll
  for (int i = 0; i < 8; i++) sum += room[i];
  return sum;
}

// The sum of squares of a lane's values, in float64.
template <int kFours> DEVICE double sum_squares(const FourFloats (&value)[kFours]) {
  double squares = 0;
#pragma unroll
  for (int i = 0; i < kFours; i++)
#pragma unroll
    for (int j = 0; j < 4; j++) squares = multiply_add((double)value[i][j], (double)value[i][j], squares);
  return squares;
}
