#!/bin/sh
# Makes the cuda.h that gorgonia.org/cu needs to compile, out of the header inside that module: no CUDA toolkit is
# installed.
# Usage: cuda_h.sh DIRECTORY   then   CGO_ENABLED=1 CGO_CFLAGS=-IDIRECTORY go build -tags cuda ./...
set -eu
here=$(cd "$(dirname "$0")" && pwd)
module=$(cd "$here" && go mod download -json gorgonia.org/cu | sed -n 's/^.*"Dir": "\(.*\)".*$/\1/p')
mkdir -p "$1"
{
  echo '#pragma once'
  echo '#include <stdint.h>'
  echo '#include <stdlib.h>'
  echo '#define CU_TRSF_READ_AS_INTEGER 0x01'
  echo '#define CU_TRSF_NORMALIZED_COORDINATES 0x02'
  # The module calls the unversioned names; the driver exports the versioned ones.
  grep -E '_v[23]$' "$here/cushim/symbols.txt" | grep -v BeginCapture | sed -E 's/^(.*)_v([23])$/#define \1 \1_v\2/'
  sed -n '/^typedef uint32_t cuuint32_t;/,$p' "$module/cmd/genlib/cuda.h"
} > "$1/cuda.h"
