#!/bin/sh
# Compiles src/*.cu to ptx/*.ptx with clang 22 and no CUDA toolkit, writes the kernels' launchers in Go (ptx2go), and
# records which sources the result belongs to.
# Usage: compile.sh           needs clang-22 and Go
#        compile.sh --check   verifies that ptx/ and the launchers are current for src/; needs sha256sum and Go, neither
#                             clang nor a GPU
set -eu
cd "$(dirname "$0")"
if [ "${1:-}" = --check ]; then
  sha256sum --quiet -c ptx/SHA256SUMS || {
    echo 'kernels/cuda: ptx/ does not belong to src/: run kernels/cuda/compile.sh and commit what it writes' >&2
    exit 1
  }
  exec go run ./ptx2go -check
fi
mkdir -p ptx
compile() { # name, architecture, PTX version
  clang-22 -x cuda --cuda-device-only -nocudainc -nocudalib --cuda-gpu-arch="$2" \
    -Xclang -target-feature -Xclang "+ptx$3" -O3 -std=c++20 -ffp-contract=off -fno-exceptions -include src/prelude.cuh -S -o - "src/$1.cu" |
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
go run ./ptx2go
sha256sum compile.sh src/*.cu src/*.cuh ptx/*.ptx kernels_generated.go > ptx/SHA256SUMS
