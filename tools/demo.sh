#!/usr/bin/env bash
# From a clone to a distilled student: installs what is missing, builds kdtrain in release mode and runs the
# embedded recipe (sparse parity, no download). Prints the table of steps to 99 % and writes report.html.
# usage: tools/demo.sh [OUTPUT_FOLDER]
set -euo pipefail
cd "$(dirname "$0")/.."

bash tools/install_packages.sh build
start=$SECONDS
out=${1:-runs/demo-$(date +%Y%m%d-%H%M%S)}

# No CUDA plug-in, whatever the machine has: networks this small take longer to launch on a GPU than to run on the
# CPU, which --device auto therefore chooses for parity.
launcher=()
if command -v ccache >/dev/null; then launcher=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache); fi
echo "== building kdtrain"
cmake --preset release -B build/demo -DRETORT_CUDA=OFF -DRETORT_TESTS=OFF -DRETORT_BENCH=OFF \
  -DRETORT_PRECOMPILE=ON -DRETORT_UNITY=ON "${launcher[@]}" >build-demo.log 2>&1 ||
  { cat build-demo.log; exit 1; }
rm -f build-demo.log
cmake --build build/demo -j "$(nproc)" --target kdtrain -- --quiet
echo "== built in $((SECONDS - start)) s; training"
build/demo/bin/kdtrain run parity_extraction --out "$out"
echo "== done in $((SECONDS - start)) s: $out/report.html"
