#!/bin/sh
# usage: run.sh CONFORMANCE_EMULATED CONFORMANCE_CUDA|none FOLDER
# The emulator's answers must be the same twice; a GPU's must be the emulator's. 77 without a GPU.
set -eu
mkdir -p "$3"
"$1" --dump "$3/emulated.txt"
RETORT_SIMT_SCHEDULE=reverse "$1" --dump "$3/emulated_reverse.txt"
"$1" --compare "$3/emulated.txt" "$3/emulated_reverse.txt"
if [ "$2" = none ]; then
  echo "skipped: this build has no nvcc"
  exit 77
fi
"$2" --dump "$3/cuda.txt"
"$1" --compare "$3/emulated.txt" "$3/cuda.txt"
