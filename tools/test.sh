#!/usr/bin/env bash
# Installs, builds and passes every test: release, ASan + UBSan, TSan (CUDA and oneDNN off). CI runs exactly this.
# usage: tools/test.sh [release|asan|tsan ...]    default: all three
# RETORT_DATA names the folder with real data; tests that need it skip, saying so, without it.
set -euo pipefail
cd "$(dirname "$0")/.."

bash tools/install_packages.sh test
if [ -z "${RETORT_DATA:-}" ] && [ -d ../shared/data ]; then RETORT_DATA=$(cd ../shared/data && pwd); fi
export RETORT_DATA=${RETORT_DATA:-}
echo "data: ${RETORT_DATA:-none (tests on real data are skipped)}"

jobs=${RETORT_JOBS:-$(nproc)}
launcher=()
if command -v ccache >/dev/null; then launcher=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache); fi
configurations=("$@")
[ ${#configurations[@]} -gt 0 ] || configurations=(release asan tsan)

# ctest calls a program passed in which some tests skipped: how many, and why.
print_skipped() { # FILE: the log of ctest
  awk '
    / Skipped$/ && /:[0-9]+:/ { getline reason; ++count[reason]; ++all }
    END {
      printf "%d single tests skipped%s\n", all, all ? ":" : ""
      for (reason in count) printf "  %d: %s\n", count[reason], reason
    }' "$1"
}

for configuration in "${configurations[@]}"; do
  start=$SECONDS
  echo "== $configuration: configure"
  cmake --preset "$configuration" -DRETORT_PRECOMPILE=ON -DRETORT_UNITY=ON "${launcher[@]}" | grep -E '^-- Retort|CUDA backend|MPI plug-ins|warning' || true
  echo "== $configuration: build"
  cmake --build --preset "$configuration" -j "$jobs" -- --quiet
  echo "== $configuration: test ($((SECONDS - start)) s so far)"
  ctest --preset "$configuration" -j "$jobs"
  print_skipped "build/$configuration/Testing/Temporary/LastTest.log"
  echo "== $configuration: passed in $((SECONDS - start)) s"
done
