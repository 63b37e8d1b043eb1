#!/bin/sh
# distill_bench ptx of planted.cu: every planted bug is told with its file and line, in the text and on the page, and the
# kernels without one are told to have none.
# usage: planted.sh DISTILL_BENCH SOURCE PAGE
set -eu
bench=$1 source=$2 page=$3
name=$(basename "$source")
text=$("$bench" ptx "$source" --html "$page" 2>/dev/null)
problems=0
problem() {
  echo "$1"
  problems=$((problems + 1))
}
says() { printf '%s\n' "$text" | grep -q -e "$1"; }

grep -n '// planted: ' "$source" | sed 's, *\([0-9]*\):.*// planted: ,\1 ,' >"$page.planted"
[ "$(wc -l <"$page.planted")" -ge 9 ] || problem "no planted bugs found in $source"
while read -r line what; do
  printf '%s\n' "$text" | grep "HAZARD.*$name:$line[^0-9]" | grep -q -e "$what" ||
    problem "line $line: no hazard says '$what'"
  grep -q "$name:$line[^0-9]" "$page" || problem "line $line: not on the page"
done <"$page.planted"
grep -n '// conflict: ' "$source" | sed 's, *\([0-9]*\):.*// conflict: ,\1 ,' >"$page.planted"
[ -s "$page.planted" ] || problem "no planted conflicts found in $source"
while read -r line passes; do
  says " $passes\.00x passes .*$name:$line " || problem "line $line: no access takes $passes times the passes"
done <"$page.planted"
rm -f "$page.planted"

right=$(printf '%s\n' "$text" | awk '/^[^ ]/ { kernel = $0 } kernel ~ /^right_/ && /hazards +none/ { ++n } END { print n + 0 }')
[ "$right" = "$(grep -c '^__global__ void right_' "$source")" ] || problem "$right kernels without hazards"
says '^told: no error$' || problem "hazards that are told became errors"
says '^refused: yes$' || problem "cudaDeviceSynchronize does not know of the fault"
says '^taken: no error$' || problem "a fault was told twice"
says ' 0\.0 of 32 lanes' && problem "a kernel ran without lanes"
[ "$problems" = 0 ] || { printf '%s\n' "$text"; exit 1; }
