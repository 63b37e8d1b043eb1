#!/usr/bin/env bash
# The bytes of one rank on 1, 2, 4 and 8 ranks x 1, 2 threads, under each MPI that is here, of every recipe (an MLP by SGD,
# AdamW and extraction; ResNet with batch norm, a curriculum and selective reliance; BERT with masked words; a table), with
# the teacher's cache on and off; and a run stopped on 4 ranks that 2 and 8 resume. ctest runs a cover of it
# (tools/ranks_run_test.cpp).
# usage: matrix.sh BUILD_FOLDER [RECIPE ...]
set -euo pipefail
build=$(cd "$1" && pwd)
shift
recipes=${*:-mlp resnet bert table}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
. "$(dirname "$0")/common.sh"
make_data
make_recipes
runs=0 failed=0
tell() { # WHAT, and the two contents are in $want and $got
  runs=$((runs + 1))
  local result=passed
  [ "$want" = "$got" ] || { result=FAILED; failed=$((failed + 1)); }
  echo "$1: $result"
  [ $result = passed ] || tail -5 "$work/log" | cut -c1-200
}
for recipe in $recipes; do
  for cache in auto off; do
    words="$work/$recipe.toml teacher.cache=$cache --device cpu"
    "$kdtrain" run $words --threads 1 --out "$work/one" >"$work/log" 2>&1
    want=$(content "$work/one")
    for launcher in "${launchers[@]}"; do
      for ranks in 1 2 4 8; do
        for threads in 1 2; do
          rm -rf "$work/some"
          "$launcher" -np $ranks "$kdtrain" run $words --threads $threads --out "$work/some" >"$work/log" 2>&1 || true
          got=$(content "$work/some" 2>&1 || true)
          tell "$recipe cache=$cache $launcher $ranks x $threads"
        done
      done
    done
    rm -rf "$work/one"
  done
done
words="$work/long.toml --device cpu --threads 1"
"$kdtrain" run $words --out "$work/one" >"$work/log" 2>&1
want=$(content_at_end "$work/one")
for launcher in "${launchers[@]}"; do
  for others in 2 8; do
    rm -rf "$work/some"
    "$launcher" -np 4 "$kdtrain" run $words --out "$work/some" >"$work/log" 2>&1 &
    until [ "$(cat "$work/some/metrics.jsonl" 2>/dev/null | wc -l)" -ge 8 ]; do sleep 0.02; done
    pid=$(process_of 2 "$work/some")
    [ -n "$pid" ] && kill -USR1 "$pid"
    wait $! || true
    "$launcher" -np $others "$kdtrain" run $words --out "$work/some" --resume >"$work/log" 2>&1 || true
    got=$(content_at_end "$work/some" 2>&1 || true)
    tell "long $launcher stopped on 4${pid:- (not met)}, resumed on $others"
  done
done
echo "$runs runs, $failed failed"
[ $failed -eq 0 ]
