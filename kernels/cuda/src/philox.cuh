// The counter-based generator Philox4x32-10 (Salmon et al. 2011), as kernels/number/philox has it.
#pragma once

struct Words4 {
  uint32_t w[4];
};

DEVICE Words4 philox(uint32_t key0, uint32_t key1, uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3) {
#pragma unroll
  for (int round = 0; round < 10; round++) {
    uint64_t p0 = (uint64_t)c0 * 0xD2511F53u, p1 = (uint64_t)c2 * 0xCD9E8D57u;
    c0 = (uint32_t)(p1 >> 32) ^ c1 ^ key0;
    c1 = (uint32_t)p1;
    c2 = (uint32_t)(p0 >> 32) ^ c3 ^ key1;
    c3 = (uint32_t)p0;
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return Words4{{c0, c1, c2, c3}};
}

// One value of the standard Gumbel distribution.
DEVICE double gumbel(uint32_t word) { return -logarithm(-logarithm(((double)word + 0.5) * (1.0 / 4294967296.0))); }
