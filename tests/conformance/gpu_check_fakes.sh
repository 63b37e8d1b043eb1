#!/usr/bin/env bash
# bench/gpu_check.sh on a machine without a GPU: an nvidia-smi that claims one, and programs that answer as
# the real ones do. What is checked is the script: that it runs what is there, measures what failed, and
# that its JSON says so.
# usage: gpu_check_fakes.sh ROOT
set -euo pipefail
root=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/path" "$work/build/bin" "$work/build/lib" "$work/cifar"
fake() { # FILE: its script on stdin
  { echo '#!/usr/bin/env bash'; cat; } >"$1"
  chmod +x "$1"
}
fake "$work/path/nvidia-smi" <<'SH'
case "$*" in
*name*) echo "Fake GPU \"9000\"" ;;
*driver*) echo 999.1 ;;
*) echo "1 MHz, 2 MHz, 3 W" ;;
esac
SH
touch "$work/build/lib/libretort_cuda.so"
fake "$work/build/bin/plugin_check" <<<'exit 0'
fake "$work/build/bin/conformance_emulated" <<<'exit 77'
fake "$work/build/bin/conformance_cuda" <<<'exit 77'
fake "$work/build/bin/kernels_tests" <<'SH'
echo "$LD_LIBRARY_PATH ${RETORT_CONV2D:-}" >>"$(dirname "$0")/../ours"
echo "[  PASSED  ] 3 tests."
SH
fake "$work/build/bin/nn_tests" <<<'printf "expected \"4\"\tgot 5\n[  FAILED  ] 1 test\n"; exit 1'
fake "$work/build/bin/step_bench" <<'SH'
while [ $# -gt 0 ]; do [ "$1" = --json ] && out=$2; shift; done
cat >"$out" <<'JSON'
{"case":"resnet18_train","who":"retort","mode":"eager","batch":2,"dtype":"bf16","ms":4.5,"images_per_s":1.0}
{"case":"resnet18_train","who":"retort","mode":"graph","batch":2,"dtype":"bf16","ms":2,"images_per_s":1.0}
{"case":"kd","who":"retort","mode":"graph, overlap","batch":2,"dtype":"bf16","ms":10.25,"images_per_s":1.0}
JSON
SH
fake "$work/build/bin/distill_bench" <<'SH'
while [ $# -gt 0 ]; do [ "$1" = --json ] && out=$2; shift; done
cat >"$out" <<'JSON'
{"program":"distill_bench","records":[
{"name":"adamw/7","device":"cuda","dtype":"f32","median_ms":0.5,"mad_ms":0}
]}
JSON
SH
fake "$work/path/peer" <<'SH'
echo "${LD_LIBRARY_PATH:-}" >>"$(dirname "$0")/peers"
case $1 in
*kernels_cuda.py)
  while [ $# -gt 0 ]; do [ "$1" = --json ] && out=$2; shift; done
  echo '{"case": "adamw/7", "dtype": "f32", "who": "pytorch 9.9", "variant": "expert", "ms": 1.5, "ms_least": 1.0}' >"$out"
  exit 0
  ;;
esac
while [ $# -gt 0 ]; do [ "$1" = --json ] && out=$2; shift; done
cat >"$out" <<'JSON'
{"case": "resnet18_train", "who": "pytorch 9.9", "mode": "eager", "batch": 2, "dtype": "bf16", "ms": 9.0, "images_per_s": 1.0}
{"case": "resnet18_train", "who": "pytorch 9.9", "mode": "compile", "batch": 2, "dtype": "bf16", "ms": 6.0, "images_per_s": 1.0}
JSON
SH
fake "$work/build/bin/kdtrain" <<'SH'
printf '%s\n' "$@" >"$(dirname "$0")/../arguments"
while [ $# -gt 0 ]; do [ "$1" = --out ] && out=$2; shift; done
mkdir -p "$out"
echo '{"arms":[]}' >"$out/results.json"
echo '{"arm":"alone","seed":1,"epoch":9,"step":9,"split":"test","loss":1.5,"accuracy":0.4}' >"$out/metrics.jsonl"
echo '{"arm":"alone","seed":1,"epoch":10,"step":10,"split":"test","loss":1.5,"accuracy":0.625}' >>"$out/metrics.jsonl"
SH
touch "$work/cifar/data_batch_1.bin.xz" "$work/cifar/data_batch_3.bin"
fake "$work/path/compute-sanitizer" <<<'echo "ERROR SUMMARY: 0 errors"'
run() { # [options of gpu_check.sh]
  local rc=0
  (cd "$work" && env PATH="$work/path:$PATH" RETORT_RESULTS="$work/results" RETORT_PEER_PYTHON=peer RETORT_CIFAR10="$work/cifar" \
    bash "$root/bench/gpu_check.sh" --with "$work/build" "$@") >"$work/log" 2>&1 || rc=$?
  echo "$rc"
}
report="$work/results/fake_gpu_9000/gpu_check.json"
expect() { # TEXT in the report
  if ! grep -qF -- "$1" "$report"; then
    echo "expected in gpu_check.json: $1"
    cat "$work/log" "$report"
    exit 1
  fi
}

expect_none() { # TEXT in the report
  if grep -qF -- "$1" "$report"; then
    echo "not expected in gpu_check.json: $1"
    cat "$work/log" "$report"
    exit 1
  fi
}

[ "$(run)" = 1 ] || { cat "$work/log"; echo "a failed step must fail the check"; exit 1; }
if command -v python3 >/dev/null; then python3 -m json.tool "$report" >/dev/null; fi
expect '"device": "Fake GPU \"9000\""'
expect '"failures": 1'
expect '"step": "kernels_tests", "status": "passed"'
expect '"step": "nn_tests", "status": "failed"'
expect '"last_lines": "expected \"4\" got 5\n[  FAILED  ] 1 test"'
expect '"step": "memcheck", "status": "passed"'
grep -q '==== nn_tests: failed' "$work/results/fake_gpu_9000/failed.log"
expect '"case": "adamw/7", "dtype": "f32", "ms": 0.5, "pytorch expert ms": 1.5, "pytorch expert / ours": 3.000}'
expect '"step": "kernels_conv2d_measured", "status": "passed"'
grep -q ' measure$' "$work/build/ours"
# The libraries of ours are no business of the peers'.
grep -qF "$work/build/lib:" "$work/build/ours"
if grep -qF "$work/build/lib" "$work/path/peers"; then echo "the peers got our library path"; exit 1; fi
[ "$(find "$work/results" -type f | wc -l)" -le 8 ]
expect '"step": "engine_tests", "status": "skipped"'
expect '"case": "resnet18_train", "mode": "graph", "ms": 2, "pytorch eager / ours": 4.500, "pytorch compile / ours": 3.000}'
expect '"case": "kd", "mode": "graph, overlap", "ms": 10.25}'
expect '"train_files": ["data_batch_1.bin"], "test_files": ["data_batch_3.bin"], "accuracy": 0.625}'
grep -qxF 'data.train_files=["data_batch_1.bin"]' "$work/build/arguments"

# Nothing failed, no data, no PyTorch: the check passes and says what is missing.
fake "$work/build/bin/nn_tests" <<<'echo "[  PASSED  ] 1 test."'
rm -f "$work/path/peers"
fake "$work/path/peer" <<<'echo "skipped: no PyTorch"; exit 77'
rm "$work"/cifar/*
[ "$(run)" = 0 ] || { cat "$work/log"; echo "the check must pass"; exit 1; }
expect '"failures": 0'
expect '"step": "steps_pytorch", "status": "skipped"'
expect '"step": "training", "status": "skipped"'
expect '"training": null'
expect '"mode": "graph", "ms": 2}'
[ ! -e "$work/results/fake_gpu_9000/failed.log" ]

# One part alone; no such part.
[ "$(run --part bench)" = 0 ] || { cat "$work/log"; exit 1; }
expect '"parts": "bench"'
expect '"step": "distill_bench", "status": "passed"'
expect_none kernels_tests
expect_none memcheck
expect_none '"step": "steps"'
[ "$(run --part tests,benches)" = 2 ] || { cat "$work/log"; echo "benches is no part"; exit 1; }

# What is stopped keeps what it had: the lines of distill_bench, and what a share under a sanitizer said.
fake "$work/build/bin/distill_bench" <<'SH'
while [ $# -gt 0 ]; do [ "$1" = --json ] && out=$2; shift; done
echo '{"name":"adamw/7","device":"cuda","dtype":"f32","median_ms":0.25,"mad_ms":0}' >"$out.partial"
exec sleep 60
SH
fake "$work/path/compute-sanitizer" <<'SH'
if [ "$2" = racecheck ]; then echo "ERROR SUMMARY: 0 errors" && exit 0; fi
echo "$2 is at share $GTEST_SHARD_INDEX"
exec sleep 60
SH
export RETORT_GPU_SECONDS=20
[ "$(run --part sanitizers,bench)" = 1 ] || { cat "$work/log"; exit 1; }
if command -v python3 >/dev/null; then python3 -m json.tool "$report" >/dev/null; fi
expect '"step": "memcheck", "status": "timed_out"'
expect '-- share 3\nmemcheck is at share 3"'
expect '"step": "racecheck", "status": "passed"'
grep -q 'synccheck is at share 0' "$work/results/fake_gpu_9000/failed.log"
expect '"step": "distill_bench", "status": "timed_out"'
expect '"partial": [{"step": "distill_bench", "file": "distill_bench.partial.jsonl", "lines": 1}]'
[ "$(find "$work/results" -type f | wc -l)" -le 8 ]
echo "gpu_check.sh: every run as expected"
