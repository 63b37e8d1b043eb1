#!/usr/bin/env bash
# On a machine with an NVIDIA GPU, in one command of under 9 minutes (a build before it takes what it takes: on a
# machine lent by the minute, --pack elsewhere): the device tests on the real plug-in, the emulator against the
# GPU, compute-sanitizer on the small kernel tests, distill_bench and PyTorch's kernels, whole steps beside
# PyTorch's and a short training on CIFAR-10. Each part has its share of the time and leaves the next what it did
# not use. Writes bench/results/<device>/, eight files at most: gpu_check.json (device, driver, commit, how each
# step went, the last lines of what failed, ratios), distill_bench.json or what a run that was cut off left of it
# (distill_bench.partial.jsonl), kernels_pytorch.jsonl, steps.jsonl, steps_pytorch.jsonl, training.json, failed.log.
#
# usage: bench/gpu_check.sh                  builds into build/gpu, then checks
#        bench/gpu_check.sh --with FOLDER    uses binaries in FOLDER/bin and FOLDER/lib: a build folder, or one packed
#        bench/gpu_check.sh --pack FOLDER    builds on a machine without a GPU and packs what --with needs
#        --part A,B   of tests, sanitizers, bench, steps: these alone share the time (before or after --with)
#        RETORT_BUILD names the build folder (build/gpu, build/gpu-pack)
#        RETORT_CIFAR10 names the folder with CIFAR-10's binary files, all of them or some (default: cifar10 in
#        RETORT_DATA or shared/data); the last training file is the test set where there is none
#        RETORT_PEER_PYTHON is a Python with PyTorch (python3); RETORT_RESULTS another folder than bench/results;
#        RETORT_GPU_SECONDS another limit than 520 s for everything
# exit:  0 all passed, 1 something failed or did not finish, 2 usage, 77 no GPU here
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2

readonly limit=${RETORT_GPU_SECONDS:-520} # for everything after the build, so that 9 minutes hold
readonly programs=(kernels_tests engine_tests nn_tests distill_tests simt_tests conformance_emulated conformance_cuda plugin_check distill_bench step_bench kdtrain)
declare -A share=([tests]=190 [sanitizers]=110 [bench]=110 [steps]=110) # of the time, in the order that they run
usage() {
  sed -n '/^# usage/,/^# exit/s/^# \{0,1\}//p' "$0"
  exit 2
}
folder=
pack=
parts=tests,sanitizers,bench,steps
while [ $# -gt 0 ]; do
  [ -n "${2:-}" ] || usage
  case $1 in
  --with) folder=$2 ;;
  --pack) pack=$2 ;;
  --part) parts=$2 ;;
  *) usage ;;
  esac
  shift 2
done
chosen=()
for part in tests sanitizers bench steps; do
  case ,$parts, in *,"$part",*) chosen+=("$part") ;; esac
done
for part in ${parts//,/ }; do [ -n "${share[$part]:-}" ] || usage; done

build() { # FOLDER [cmake options]: only what the check runs
  local into=$1
  shift
  local launcher=()
  if command -v ccache >/dev/null; then launcher=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache); fi
  cmake -S . -B "$into" -G Ninja -DRETORT_CUDA=ON "${launcher[@]}" "$@" | grep -E '^-- (CUDA backend|Retort)' || return 1
  local wanted=() known
  known=$(ninja -C "$into" -t targets all | sed -n 's/: .*//p')
  for program in "${programs[@]}" retort_cuda retort_cuda_emulated; do
    if grep -qx "$program" <<<"$known"; then wanted+=("$program"); fi
  done
  ninja -C "$into" "${wanted[@]}"
}

if [ -n "$pack" ]; then
  # Without oneDNN: it is large, and the CPU side is only the reference here.
  from=${RETORT_BUILD:-build/gpu-pack}
  if [ -n "${RETORT_BUILD:-}" ]; then build "$from" || exit 1; else build "$from" -DRETORT_ONEDNN=OFF || exit 1; fi
  mkdir -p "$pack/bin" "$pack/lib"
  for program in "${programs[@]}"; do
    if [ -x "$from/bin/$program" ]; then cp "$from/bin/$program" "$pack/bin/"; fi
  done
  cp "$from/lib/libretort.so.0" "$from/lib/libretort_cuda.so" "$from/lib/libretort_cuda_emulated.so" "$pack/lib/"
  # Everything else they load, but for the C library and what belongs to CUDA.
  ldd "$pack"/bin/* "$pack"/lib/* | awk '$2 == "=>" && $3 ~ /^\// { print $3 }' | sort -u |
    grep -vE '/(libc|libm|libdl|librt|libpthread|ld-linux[^/]*)\.so|libretort|libcublas|libcudnn|libnccl|libcuda' | xargs -r cp -t "$pack/lib/"
  strip --strip-debug "$pack"/bin/* "$pack"/lib/* 2>/dev/null
  git rev-parse HEAD >"$pack/COMMIT" 2>/dev/null
  echo "packed $(du -sh "$pack" | cut -f1) into $pack"
  exit 0
fi

gpu=
if command -v nvidia-smi >/dev/null; then gpu=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -1); fi
if [ -z "$gpu" ]; then
  echo "skipped: no NVIDIA GPU answers on this machine (nvidia-smi)"
  exit 77
fi
driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader | head -1)
clocks=$(nvidia-smi --query-gpu=clocks.sm,clocks.mem,power.limit --format=csv,noheader 2>/dev/null | head -1)
device=$(tr '[:upper:] ' '[:lower:]_' <<<"$gpu" | tr -cd 'a-z0-9_.-')

if [ -z "$folder" ]; then
  folder=${RETORT_BUILD:-build/gpu}
  build "$folder" || { echo "FAIL: the build failed" && exit 1; }
fi
if [ ! -e "$folder/lib/libretort_cuda.so" ]; then
  echo "FAIL: $folder/lib/libretort_cuda.so is missing: configure with -DRETORT_CUDA=ON"
  exit 1
fi
folder=$(cd "$folder" && pwd)
SECONDS=0
commit=$(git rev-parse HEAD 2>/dev/null || cat "$folder/COMMIT" 2>/dev/null || echo unknown)
if [ -n "$(git status --porcelain 2>/dev/null)" ]; then commit="$commit (with changes)"; fi
results=${RETORT_RESULTS:-bench/results}/$device
mkdir -p "$results"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The CUDA libraries may lie beside the toolkit or in Python's wheels. PyTorch finds its own: of ours it might
# load another version.
wheels=$(python3 -c 'import glob,site,sysconfig
for d in {sysconfig.get_paths()["purelib"], *site.getsitepackages()}:
    for p in sorted(glob.glob(d + "/nvidia/*/lib")): print(p)' 2>/dev/null | paste -sd: -)
libraries="$folder/lib:/usr/local/cuda/lib64:/usr/local/cuda/lib:$wheels:${LD_LIBRARY_PATH:-}"
export RETORT_CUDA_LIBRARY="$folder/lib/libretort_cuda.so"

steps=
failures=0
part_end=$limit
: >"$work/failed.log"
# Runs it within the time that is left to the part and records how it went. --peer: without our libraries' path.
step() { # NAME SECONDS [--peer] [VARIABLE=VALUE...] COMMAND...
  local name=$1 most=$2 environment=("LD_LIBRARY_PATH=$libraries")
  shift 2
  while :; do
    case $1 in
    --peer) environment=() ;;
    *=*) environment+=("$1") ;;
    *) break ;;
    esac
    shift
  done
  local left=$((part_end - SECONDS)) status detail rc start=$SECONDS
  if [ ! -x "$1" ] && ! command -v "$1" >/dev/null; then
    echo "== $name: skipped, $1 is not there"
    record "$name" skipped 0 "$1 is not there"
    return 0
  fi
  if [ "$left" -lt 3 ]; then
    echo "== $name: not run, its part's time is used up"
    record "$name" not_run 0 "the time is used up"
    failures=$((failures + 1))
    return 1
  fi
  if [ "$most" -gt "$left" ]; then most=$left; fi
  echo "== $name"
  timeout -k 5 "$most" env "${environment[@]}" "$@" >"$work/$name.log" 2>&1
  rc=$?
  detail=$(grep -E '^\[  (PASSED|FAILED)  \] [0-9]+ test|ERROR SUMMARY|RACECHECK SUMMARY|probes, |^skipped|^left out|cases left out' "$work/$name.log" | tail -4 | paste -sd';' -)
  case $rc in
  0) status=passed ;;
  77) status=skipped ;;
  124 | 137) status=timed_out ;;
  *) status=failed ;;
  esac
  if [ "$status" = failed ] || [ "$status" = timed_out ]; then
    failures=$((failures + 1))
    tail -40 "$work/$name.log"
    { echo "==== $name: $status" && tail -400 "$work/$name.log"; } >>"$work/failed.log"
    record "$name" "$status" $((SECONDS - start)) "$detail" "$(tail -30 "$work/$name.log" | tail -c 3000)"
  else
    record "$name" "$status" $((SECONDS - start)) "$detail"
  fi
  echo "   $status in $((SECONDS - start)) s${detail:+: $detail}"
  [ "$status" = passed ]
}
json() { # TEXT as the inside of a JSON string
  LC_ALL=C tr '\n\t' '\001 ' <<<"$1" | LC_ALL=C tr -cd '\001\040-\176' | sed 's/\\/\\\\/g; s/"/\\"/g; s/\x01$//; s/\x01/\\n/g'
}
record() { # NAME STATUS SECONDS DETAIL [LAST_LINES]
  steps="$steps${steps:+,}
    {\"step\": \"$1\", \"status\": \"$2\", \"seconds\": $3, \"detail\": \"$(json "$4")\"${5:+, \"last_lines\": \"$(json "$5")\"}}"
}
# What a step that was cut off has written by then is kept, and said to be a part.
partial() { # STEP FILE
  if [ -s "$2" ]; then
    local lines
    lines=$(grep -c . "$2")
    echo "   kept of $1: $lines line(s) in $(basename "$2")"
    partial_files="$partial_files${partial_files:+, }{\"step\": \"$1\", \"file\": \"$(basename "$2")\", \"lines\": $lines}"
  fi
}
partial_files=

# "resnet18_train graph 1.2 ms" for every line of a file of steps, the peer's lines marked.
step_lines() { # FILE
  [ -r "$1" ] || return 0
  sed -n 's/.*"case": *"\([^"]*\)", *"who": *"\([a-z]*\)[^"]*", *"mode": *"\([^"]*\)".*"ms": *\([0-9.]*\).*/\2|\1|\3|\4/p' "$1"
}
# One object a case and mode of ours: its time, and each peer's time over it.
step_ratios() {
  { step_lines "$results/steps.jsonl" && step_lines "$results/steps_pytorch.jsonl"; } | awk -F'|' '
    $1 == "retort" { ours[++n] = $2; mode[n] = $3; ms[n] = $4 }
    $1 != "retort" { peer[++m] = $2; peer_mode[m] = $3; peer_ms[m] = $4 }
    END {
      for (i = 1; i <= n; ++i) {
        text = sprintf("{\"case\": \"%s\", \"mode\": \"%s\", \"ms\": %s", ours[i], mode[i], ms[i])
        for (j = 1; j <= m; ++j)
          if (peer[j] == ours[i] && ms[i] > 0)
            text = text sprintf(", \"pytorch %s / ours\": %.3f", peer_mode[j], peer_ms[j] / ms[i])
        printf "%s\n    %s}", (i > 1 ? "," : ""), text
      }
    }'
}

# The same of kernels: distill_bench's records, one a line, and kernels_pytorch.jsonl.
kernel_ratios() {
  {
    cat "$results/distill_bench.json" "$results/distill_bench.partial.jsonl" 2>/dev/null |
      sed -n 's/.*"name": *"\([^"]*\)", *"device": *"cuda", *"dtype": *"\([^"]*\)", *"median_ms": *\([0-9.e-]*\).*/retort|\1|\2||\3/p'
    sed -n 's/.*"case": *"\([^"]*\)", *"dtype": *"\([^"]*\)", *"who": *"\([a-z]*\)[^"]*", *"variant": *"\([^"]*\)", *"ms": *\([0-9.e-]*\).*/\3|\1|\2|\4|\5/p' "$results/kernels_pytorch.jsonl" 2>/dev/null
  } | awk -F'|' '
    { key = $2 "|" $3 }
    $1 == "retort" { ms[key] = $5; next }
    !(key in text) { keys[++n] = key }
    { text[key] = text[key] sprintf(", \"pytorch %s ms\": %s", $4, $5); if (ms[key] > 0) text[key] = text[key] sprintf(", \"pytorch %s / ours\": %.3f", $4, $5 / ms[key]) }
    END {
      for (i = 1; i <= n; ++i) {
        split(keys[i], name, "|")
        printf "%s\n    {\"case\": \"%s\", \"dtype\": \"%s\", \"ms\": %s%s}", (i > 1 ? "," : ""), name[1], name[2], (ms[keys[i]] > 0 ? ms[keys[i]] : "null"), text[keys[i]]
      }
    }'
}

# A few epochs on whatever part of CIFAR-10 there is.
train_on_cifar() { # SECONDS
  local data=${RETORT_CIFAR10:-} place
  for place in ${RETORT_DATA:+"$RETORT_DATA/cifar10"} shared/data/cifar10; do
    if [ -z "$data" ] && [ -d "$place" ]; then data=$place; fi
  done
  local files=() tests=() file
  for file in "${data:-/nowhere}"/data_batch_*.bin* "${data:-/nowhere}"/test_batch*.bin*; do
    if [ ! -e "$file" ]; then continue; fi
    file=$(basename "${file%.xz}")
    case $file in data_*) files+=("$file") ;; *) tests+=("$file") ;; esac
  done
  if [ ${#tests[@]} -eq 0 ] && [ ${#files[@]} -ge 2 ]; then
    tests=("${files[-1]}")
    unset 'files[-1]'
  fi
  if [ ${#files[@]} -eq 0 ] || [ ${#tests[@]} -eq 0 ]; then
    echo "== training: skipped, no part of CIFAR-10 (a training file and another) in ${data:-RETORT_CIFAR10, RETORT_DATA or shared/data}"
    record training skipped 0 "no CIFAR-10 data"
    return 0
  fi
  local train_list test_list
  train_list=$(printf '"%s",' "${files[@]}")
  test_list=$(printf '"%s",' "${tests[@]}")
  step training "$1" "$folder/bin/kdtrain" run bench/gpu_check.toml "data.root=$data" "data.train_files=[${train_list%,}]" \
    "data.test_files=[${test_list%,}]" --device cuda --out "$work/training" || return 1
  cp "$work/training/results.json" "$results/training.json"
  local accuracy
  accuracy=$(grep '"split":"test"' "$work/training/metrics.jsonl" | tail -1 | sed -n 's/.*"accuracy":\([0-9.]*\).*/\1/p')
  echo "   accuracy $accuracy on ${tests[*]} after training on ${files[*]}"
  training="{\"train_files\": [${train_list%,}], \"test_files\": [${test_list%,}], \"accuracy\": ${accuracy:-null}}"
}
training=null

# The sanitizers slow kernels down much: small tests, in four shares beside each other. Stopped, it still shows
# what each share said.
cat >"$work/shards.sh" <<'SHARDS'
pids=()
rc=0
show() { for i in 0 1 2 3; do echo "-- share $i" && cat "${0%.sh}.$i"; done; }
trap 'kill "${pids[@]}" 2>/dev/null; show; exit 124' TERM
for i in 0 1 2 3; do
  GTEST_TOTAL_SHARDS=4 GTEST_SHARD_INDEX=$i "$@" >"${0%.sh}.$i" 2>&1 &
  pids+=($!)
done
for pid in "${pids[@]}"; do
  wait "$pid" || rc=$?
done
show
exit $rc
SHARDS
# One test or two of every kernel with loops over shared memory or whole rows, at sizes of a few blocks.
small_tests='*hand_checked*:*empty_batch*:DistillLossKernel.rows_*:DistillLossKernel.gradient_padding*:Conv2dAlgorithm.*equals*'
small_tests+=':Conv2dKernel.statistics_are*:Conv2dKernel.epilogue_keeps*:BatchNorm.given*:BatchNorm.nan*:Bias.*:Gemm.relu*:GradNorm.*'
small_tests+=':Pool.the_first*:Reduce.edge*:AdamW.a_skipped*:Sgd.a_skipped*:Shortcut.equals*:StepStatistics.*:Mse.*:ImageBatch.every*'

run_tests() {
  step conformance 60 sh tests/conformance/run.sh "$folder/bin/conformance_emulated" "$folder/bin/conformance_cuda" "$work"
  for room in kernels engine nn distill; do # with the hand-written convolutions, which the programs ask for
    step "${room}_tests" 90 "$folder/bin/${room}_tests" --gtest_brief=1
  done
  for room in kernels engine; do # and with what is fastest: tests that this may not pass skip themselves
    step "${room}_conv2d_measured" 60 RETORT_CONV2D=measure "RETORT_CACHE=$work" "$folder/bin/${room}_tests" \
      --gtest_brief=1 --gtest_filter='Conv2dKernel.*:Conv2dOp.*'
  done
}
run_sanitizers() {
  local sanitizer tool left=3
  sanitizer=$(command -v compute-sanitizer || find /usr/local/cuda/bin /usr/local/cuda/compute-sanitizer /opt/nvidia -name compute-sanitizer -type f -perm -u+x 2>/dev/null | head -1)
  if [ -z "$sanitizer" ]; then
    echo "== compute-sanitizer: skipped, neither on the PATH nor in /usr/local/cuda"
    record compute-sanitizer skipped 0 "not found"
    return
  fi
  for tool in memcheck racecheck synccheck; do
    step "$tool" $(((part_end - SECONDS) / left)) bash "$work/shards.sh" \
      "$sanitizer" --tool "$tool" --error-exitcode 9 --print-limit 20 "$folder/bin/kernels_tests" --gtest_brief=1 "--gtest_filter=$small_tests"
    left=$((left - 1))
  done
}
run_bench() {
  local seconds=$(((part_end - SECONDS) * 6 / 10)) report="$results/distill_bench.json"
  # The roofs are measured before and after the cases that the budget is for.
  step distill_bench "$seconds" "$folder/bin/distill_bench" --device cuda --budget $((seconds * 3 / 4)) --seconds 0.2 --json "$report"
  if [ -e "$report.partial" ]; then mv "$report.partial" "$results/distill_bench.partial.jsonl"; fi
  partial distill_bench "$results/distill_bench.partial.jsonl"
  seconds=$((part_end - SECONDS))
  step kernels_pytorch "$seconds" --peer "${RETORT_PEER_PYTHON:-python3}" bench/peers/kernels_cuda.py \
    --seconds 0.2 --deadline $((seconds * 8 / 10)) --json "$results/kernels_pytorch.jsonl" \
    --bench "env LD_LIBRARY_PATH='$libraries' '$folder/bin/distill_bench'"
}
run_steps() {
  local seconds=$(((part_end - SECONDS) * 35 / 100))
  if ! step steps "$seconds" "$folder/bin/step_bench" --device cuda --seconds 2 --json "$results/steps.jsonl"; then
    partial steps "$results/steps.jsonl"
  fi
  train_on_cifar $(((part_end - SECONDS) * 4 / 10))
  seconds=$((part_end - SECONDS))
  if [ -s "$results/steps.jsonl" ] &&
    ! step steps_pytorch "$seconds" --peer "${RETORT_PEER_PYTHON:-python3}" bench/peers/steps_cuda.py \
      --seconds 2 --deadline $((seconds * 9 / 10)) --json "$results/steps_pytorch.jsonl"; then
    partial steps_pytorch "$results/steps_pytorch.jsonl"
  fi
}

echo "GPU: $gpu, driver $driver; commit $commit"
rm -f "$results"/{distill_bench.json,distill_bench.json.partial,distill_bench.partial.jsonl,kernels_pytorch.jsonl,steps.jsonl,steps_pytorch.jsonl,training.json,failed.log,*.failed.log}
# Without a plug-in that computes, every device test would skip itself and pass.
if step plugin 60 "$folder/bin/plugin_check"; then
  weight=0
  for part in "${chosen[@]}"; do weight=$((weight + share[$part])); done
  for part in "${chosen[@]}"; do
    part_end=$((SECONDS + (limit - SECONDS) * share[$part] / weight))
    weight=$((weight - share[$part]))
    "run_$part"
  done
fi
if [ -s "$work/failed.log" ]; then tail -c 1000000 "$work/failed.log" >"$results/failed.log"; fi

cat >"$results/gpu_check.json" <<JSON
{
  "device": "$(json "$gpu")",
  "driver": "$(json "$driver")",
  "clocks": "$(json "$clocks")",
  "commit": "$(json "$commit")",
  "date": "$(date -u +%Y-%m-%dT%H:%M:%SZ)",
  "seconds": $SECONDS,
  "failures": $failures,
  "parts": "${chosen[*]}",
  "partial": [$partial_files],
  "kernels": [$(kernel_ratios)
  ],
  "whole_steps": [$(step_ratios)
  ],
  "training": $training,
  "steps": [$steps
  ]
}
JSON
echo "wrote $results/gpu_check.json: $failures failure(s) in $SECONDS s"
[ "$failures" -eq 0 ]
