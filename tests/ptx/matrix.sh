#!/usr/bin/env bash
# The kernel tests on the interpreted device, under every combination of architecture, schedule, completion, fusing
# and approximation: 48 runs. ctest runs a pairwise cover of them (CMakeLists.txt).
# usage: matrix.sh BUILD_FOLDER [GTEST_FILTER]
set -euo pipefail
build=$(cd "$1" && pwd)
filter=${2:-*}
export RETORT_CUDA_LIBRARY="$build/lib/libretort_cuda_interpreted.so" RETORT_NUM_THREADS=1
failed=0
for arch in 80 90; do
  for schedule in forward reverse shuffle; do
    for late in 0 1; do
      for fuse in 0 1; do
        for ulps in 0 2; do
          if RETORT_PTX_ARCH=$arch RETORT_PTX_SCHEDULE=$schedule RETORT_PTX_LATE=$late RETORT_PTX_FUSE=$fuse RETORT_PTX_ULPS=$ulps \
            "$build/bin/kernels_tests" --gtest_brief=1 --gtest_filter="$filter" >"$build/ptx_matrix.log" 2>&1; then
            result=passed
          else
            result=FAILED
            failed=$((failed + 1))
          fi
          echo "sm_$arch $schedule late=$late fuse=$fuse ulps=$ulps: $result"
          [ "$result" = passed ] || grep -E '^\[  FAILED|PTX line' "$build/ptx_matrix.log" | head -20
        done
      done
    done
  done
done
[ "$failed" -eq 0 ]
