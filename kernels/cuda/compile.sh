#!/bin/sh
# Compiles src/*.cu to ptx/*.ptx with clang 22 and no CUDA toolkit, and records which sources the result belongs to.
# Usage: compile.sh           needs clang-22
#        compile.sh --check   verifies that ptx/ is current for src/; needs only sha256sum
set -eu
cd "$(dirname "$0")"
if [ "${1:-}" = --check ]; then
  sha256sum --quiet -c ptx/SHA256SUMS || { echo 'kernels/cuda: ptx/ does not belong to src/: run kernels/cuda/compile.sh and commit ptx/' >&2; exit 1; }
  exit 0
fi
mkdir -p ptx
compile() { # name, architecture, PTX version
  clang-22 -x cuda --cuda-device-only -nocudainc -nocudalib --cuda-gpu-arch="$2" -Xclang -target-feature -Xclang "+ptx$3" \
    -O3 -std=c++20 -ffp-contract=off -fno-exceptions -include src/prelude.cuh -S -o - "src/$1.cu" |
    grep -v '^[[:space:]]*//' > "ptx/$1.ptx"
}
for source in src/*.cu; do
  name=$(basename "$source" .cu)
  case $name in
    *wgmma*) compile "$name" sm_90a 80 ;;
    attention_dense) compile "$name" sm_80 78 ;;
    *) compile "$name" sm_80 71 ;;
  esac
done
sha256sum compile.sh src/*.cu src/*.cuh ptx/*.ptx > ptx/SHA256SUMS
