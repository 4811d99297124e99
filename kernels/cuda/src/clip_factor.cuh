#pragma once

// The factor that scales gradients down to max_norm; squared_norm may be null. A norm that is NaN makes the gradients
// NaN.
DEVICE float clip_factor(const float* squared_norm, double max_norm) {
  if (!squared_norm) return 1;
  double clip = max_norm / (__builtin_sqrt((double)*squared_norm) + 1e-6);
  if (!(clip < 1)) clip = clip >= 1 ? 1 : clip;
  return (float)clip;
}
