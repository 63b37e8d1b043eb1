#!/usr/bin/env bash
# Faults from outside, again and again: one of several ranks, drawn anew each time, is killed, stopped, asked to stop by
# each signal, or finds its disk full, at a moment that is drawn, too. Each time all must have left before a generous limit, the
# run must not say that it is done, whom it names must be the one, and what is left must go on, on one rank, to the bytes of a run that nobody
# met. Ranks that make other calls, or leave out an agreement, are pulse_program's.
# usage: faults.sh BUILD_FOLDER [REPEATS, else 50] [FAULT ...]
set -euo pipefail
build=$(cd "$1" && pwd)
repeats=${2:-50}
shift; shift || true
faults=${*:-KILL STOP TERM HUP USR1 INT QUIT full skip calls}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
. "$(dirname "$0")/common.sh"
make_data
make_recipes
words="$work/long.toml --device cpu --threads 1"
"$kdtrain" run $words --out "$work/one" >"$work/log" 2>&1
want=$(content_at_end "$work/one")
lines=$(wc -l <"$work/one/metrics.jsonl")
state() { sed -E 's/.*"state":"([a-z]+)".*/\1/' "$work/some/status.json"; }

once_in_a_program() { # skip and calls: of 4 ranks
  RETORT_RANKS_LOG=$work/said timeout 60 "$launcher" -np 4 "$build/bin/pulse_program" "$fault" $((RANDOM % 4)) 4 >"$work/log" 2>&1 && return 1
  [ $? -ne 124 ] && grep -q "ranks made different calls: rank" "$work/said"
}

once() {
  case $fault in skip | calls) once_in_a_program; return ;; esac
  local ranks=$((2 << (RANDOM % 2))) rank pid after status=0 begin=$SECONDS
  rank=$((RANDOM % ranks)) after=$((4 + RANDOM % (lines / 2)))
  [ "$fault" = full ] && rank=0
  rm -rf "$work/some"
  timeout 120 "$launcher" -np $ranks "$kdtrain" run $words --out "$work/some" >"$work/log" 2>&1 &
  local job=$!
  until [ "$(cat "$work/some/metrics.jsonl" 2>/dev/null | wc -l)" -ge $after ]; do
    kill -0 $job 2>/dev/null || break
    sleep 0.01
  done
  pid=$(process_of $rank "$work/some")
  [ -n "$pid" ] || { wait $job || true; missed=$((missed + 1)); return 0; } # over before it was met
  if [ "$fault" = full ]; then prlimit --pid "$pid" --fsize=1:1; else kill -"$fault" "$pid" 2>/dev/null || true; fi
  wait $job || status=$?
  [ $status -ne 124 ] || { echo "the launcher hung"; return 1; }
  for ((r = 0; r < ranks; r++)); do
    while [ -n "$(process_of $r "$work/some")" ]; do
      [ $((SECONDS - begin)) -lt 120 ] || { echo "rank $r is still there"; return 1; }
      sleep 0.05
    done
  done
  [ "$(state)" = done ] && { missed=$((missed + 1)); return 0; } # its last step was behind it
  case $fault in
  KILL) grep -qE "signal 9|was not heard of|left after an error|KILLED" "$work/log" || { echo "nobody is named"; return 1; } ;;
  STOP) grep -qE "error\[RT0799\]: rank $rank \(.*was not heard of" "$work/log" || { echo "rank $rank is not named"; return 1; } ;;
  full) grep -q "error\[RT04" "$work/log" || { echo "no error of a full disk"; return 1; } ;;
  *) [ "$(state)" = stopped ] || { echo "state $(state), not stopped"; return 1; } ;;
  esac
  "$kdtrain" run $words --out "$work/some" --resume >>"$work/log" 2>&1 || { echo "it does not go on"; return 1; }
  [ "$(content_at_end "$work/some")" = "$want" ] || { echo "other bytes"; return 1; }
}

failed=0
for launcher in "${launchers[@]}"; do
  for fault in $faults; do
    missed=0 bad=0
    for ((i = 0; i < repeats; i++)); do
      rm -f "$work/said"
      if ! why=$(once; echo $missed >"$work/missed"); then
        bad=$((bad + 1))
        echo "$launcher $fault, repeat $i: FAILED: $why"
        tail -5 "$work/log" | cut -c1-200
      fi
      missed=$(cat "$work/missed" 2>/dev/null || echo $missed)
    done
    echo "$launcher $fault: $((repeats - bad)) of $repeats passed, $missed of them over before they were met"
    failed=$((failed + bad))
  done
done
[ $failed -eq 0 ]
