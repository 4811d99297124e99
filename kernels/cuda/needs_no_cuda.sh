#!/bin/sh
# Fails if a binary needs libcuda to start: binaries with CUDA must run on machines without a driver.
# Usage: needs_no_cuda.sh BINARY...
set -eu
for binary; do
  dynamic=$(readelf -d "$binary")
  if printf '%s' "$dynamic" | grep -q 'NEEDED.*libcuda'; then
    echo "$binary needs libcuda to start: kernels/cuda/cushim must provide every driver symbol it links" >&2
    exit 1
  fi
done
