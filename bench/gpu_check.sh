#!/usr/bin/env bash
# On a machine with an NVIDIA GPU, in one command of under 9 minutes: the device tests on the real plug-in,
# the emulator against the GPU, distill_bench, whole steps beside PyTorch's, a short training on CIFAR-10 and
# compute-sanitizer on the kernel tests. Writes bench/results/<device>/: gpu_check.json, stamped with device,
# driver and commit, and distill_bench.json, steps.jsonl, steps_pytorch.jsonl, training.json.
#
# usage: bench/gpu_check.sh                  builds into build/gpu, then checks
#        bench/gpu_check.sh --with FOLDER    uses binaries in FOLDER/bin and FOLDER/lib: a build folder, or one packed
#        bench/gpu_check.sh --pack FOLDER    builds on a machine without a GPU and packs what --with needs
#        RETORT_BUILD names the build folder (build/gpu, build/gpu-pack)
#        RETORT_CIFAR10 names the folder with CIFAR-10's binary files, all of them or some (default: cifar10 in
#        RETORT_DATA or shared/data); the last training file is the test set where there is none
#        RETORT_PEER_PYTHON is a Python with PyTorch (python3); RETORT_RESULTS another folder than bench/results
# exit:  0 all passed, 1 something failed or did not finish, 2 usage, 77 no GPU here
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2

readonly limit=520 # seconds for everything, so that 9 minutes hold
readonly programs=(kernels_tests engine_tests nn_tests distill_tests simt_tests conformance_emulated conformance_cuda plugin_check distill_bench step_bench kdtrain)
folder=
pack=
case "${1:-}" in
"") ;;
--with) folder=${2:?"usage: gpu_check.sh --with FOLDER"} ;;
--pack) pack=${2:?"usage: gpu_check.sh --pack FOLDER"} ;;
*)
  sed -n '2,15s/^# \{0,1\}//p' "$0"
  exit 2
  ;;
esac

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
SECONDS=0

if [ -z "$folder" ]; then
  folder=${RETORT_BUILD:-build/gpu}
  build "$folder" || { echo "FAIL: the build failed" && exit 1; }
fi
if [ ! -e "$folder/lib/libretort_cuda.so" ]; then
  echo "FAIL: $folder/lib/libretort_cuda.so is missing: configure with -DRETORT_CUDA=ON"
  exit 1
fi
folder=$(cd "$folder" && pwd)
commit=$(git rev-parse HEAD 2>/dev/null || cat "$folder/COMMIT" 2>/dev/null || echo unknown)
if [ -n "$(git status --porcelain 2>/dev/null)" ]; then commit="$commit (with changes)"; fi
results=${RETORT_RESULTS:-bench/results}/$device
mkdir -p "$results"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The CUDA libraries may lie beside the toolkit or in Python's wheels.
wheels=$(python3 -c 'import glob,site,sysconfig
for d in {sysconfig.get_paths()["purelib"], *site.getsitepackages()}:
    for p in sorted(glob.glob(d + "/nvidia/*/lib")): print(p)' 2>/dev/null | paste -sd: -)
export LD_LIBRARY_PATH="$folder/lib:/usr/local/cuda/lib64:/usr/local/cuda/lib:$wheels:${LD_LIBRARY_PATH:-}"
export RETORT_CUDA_LIBRARY="$folder/lib/libretort_cuda.so"

steps=
failures=0
step() { # NAME SECONDS COMMAND...: runs it within the time left and records how it went
  local name=$1 most=$2
  shift 2
  local left=$((limit - SECONDS)) status detail rc start=$SECONDS
  if [ ! -x "$1" ] && ! command -v "$1" >/dev/null; then
    echo "== $name: skipped, $1 is not there"
    record "$name" skipped 0 "$1 is not there"
    return 0
  fi
  if [ "$left" -lt 5 ]; then
    echo "== $name: not run, the time is used up"
    record "$name" not_run 0 "the time is used up"
    failures=$((failures + 1))
    return 1
  fi
  if [ "$most" -gt "$left" ]; then most=$left; fi
  echo "== $name"
  timeout -k 5 "$most" "$@" >"$work/$name.log" 2>&1
  rc=$?
  detail=$(grep -E '^\[  (PASSED|FAILED)  \] [0-9]+ test|ERROR SUMMARY|RACECHECK SUMMARY|probes, |^skipped' "$work/$name.log" | tail -4 | paste -sd';' -)
  case $rc in
  0) status=passed ;;
  77) status=skipped ;;
  124 | 137) status=timed_out ;;
  *) status=failed ;;
  esac
  if [ "$status" = failed ] || [ "$status" = timed_out ]; then
    failures=$((failures + 1))
    tail -40 "$work/$name.log"
    cp "$work/$name.log" "$results/$name.failed.log"
  else
    rm -f "$results/$name.failed.log"
  fi
  echo "   $status in $((SECONDS - start)) s${detail:+: $detail}"
  record "$name" "$status" $((SECONDS - start)) "$detail"
  [ "$status" = passed ]
}
json() { # TEXT as the inside of a JSON string
  tr -d '\000-\037' <<<"$1" | sed 's/\\/\\\\/g; s/"/\\"/g'
}
record() { # NAME STATUS SECONDS DETAIL
  local detail
  detail=$(json "$4")
  steps="$steps${steps:+,}
    {\"step\": \"$1\", \"status\": \"$2\", \"seconds\": $3, \"detail\": \"$detail\"}"
}

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

# A few epochs on whatever part of CIFAR-10 there is.
train_on_cifar() {
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
  step training 90 "$folder/bin/kdtrain" run bench/gpu_check.toml "data.root=$data" "data.train_files=[${train_list%,}]" \
    "data.test_files=[${test_list%,}]" --device cuda --out "$work/training" || return 1
  cp "$work/training/results.json" "$results/training.json"
  local accuracy
  accuracy=$(grep '"split":"test"' "$work/training/metrics.jsonl" | tail -1 | sed -n 's/.*"accuracy":\([0-9.]*\).*/\1/p')
  echo "   accuracy $accuracy on ${tests[*]} after training on ${files[*]}"
  training="{\"train_files\": [${train_list%,}], \"test_files\": [${test_list%,}], \"accuracy\": ${accuracy:-null}}"
}
training=null

# The sanitizers slow kernels down much: the tests run in four shares beside each other.
cat >"$work/shards.sh" <<'SHARDS'
pids=()
for i in 0 1 2 3; do
  GTEST_TOTAL_SHARDS=4 GTEST_SHARD_INDEX=$i "$@" >"${0%.sh}.$i" 2>&1 &
  pids+=($!)
done
rc=0
for i in 0 1 2 3; do
  wait "${pids[$i]}" || rc=$?
  cat "${0%.sh}.$i"
done
exit $rc
SHARDS

echo "GPU: $gpu, driver $driver; commit $commit"
# Without a plug-in that computes, every device test would skip itself and pass.
if step plugin 60 "$folder/bin/plugin_check"; then
  step conformance 60 sh tests/conformance/run.sh "$folder/bin/conformance_emulated" "$folder/bin/conformance_cuda" "$work"
  for room in kernels engine nn distill; do
    step "${room}_tests" 90 "$folder/bin/${room}_tests" --gtest_brief=1
  done
  step distill_bench 120 "$folder/bin/distill_bench" --device cuda --budget 100 --json "$results/distill_bench.json"
  rm -f "$results/steps.jsonl" "$results/steps_pytorch.jsonl" "$results/training.json"
  if step steps 90 "$folder/bin/step_bench" --device cuda --json "$results/steps.jsonl"; then
    step steps_pytorch 120 "${RETORT_PEER_PYTHON:-python3}" bench/peers/steps_cuda.py --deadline 50 --json "$results/steps_pytorch.jsonl"
  fi
  train_on_cifar
  sanitizer=$(command -v compute-sanitizer || find /usr/local/cuda/bin /usr/local/cuda/compute-sanitizer /opt/nvidia -name compute-sanitizer -type f -perm -u+x 2>/dev/null | head -1)
  if [ -z "$sanitizer" ]; then
    echo "== compute-sanitizer: skipped, neither on the PATH nor in /usr/local/cuda"
    record compute-sanitizer skipped 0 "not found"
  else
    for tool in memcheck racecheck synccheck; do
      step "$tool" 150 bash "$work/shards.sh" "$sanitizer" --tool "$tool" --error-exitcode 9 --print-limit 20 "$folder/bin/kernels_tests" --gtest_brief=1
    done
  fi
fi

cat >"$results/gpu_check.json" <<JSON
{
  "device": "$(json "$gpu")",
  "driver": "$(json "$driver")",
  "clocks": "$(json "$clocks")",
  "commit": "$(json "$commit")",
  "date": "$(date -u +%Y-%m-%dT%H:%M:%SZ)",
  "seconds": $SECONDS,
  "failures": $failures,
  "whole_steps": [$(step_ratios)
  ],
  "training": $training,
  "steps": [$steps
  ]
}
JSON
echo "wrote $results/gpu_check.json: $failures failure(s) in $SECONDS s"
[ "$failures" -eq 0 ]
