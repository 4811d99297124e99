#!/bin/sh
# Fails if a binary needs libcuda or NCCL to start: binaries with CUDA must run on machines without them.
# Usage: needs_no_cuda.sh BINARY...
set -eu
for binary; do
  dynamic=$(readelf -d "$binary")
  if printf '%s' "$dynamic" | grep -q 'NEEDED.*libcuda'; then
    echo "$binary needs libcuda to start: kernels/cuda/cushim must provide every driver symbol it links" >&2
    exit 1
  fi
  if printf '%s' "$dynamic" | grep -q 'NEEDED.*libnccl'; then
    echo "$binary needs NCCL to start: kernels/cuda/nccl must load all of it" >&2
    exit 1
  fi
done
