#!/bin/sh
# Fails where a kernel of the plug-in was launched by no kernel test, unless never_launched.txt names it, and where fewer
# than LEAST % of the launched kernels' instructions ran. Prints the kernels with the most instructions that did not.
# usage: coverage.sh FILE ARCHITECTURE LEAST    FILE: as RETORT_PTX_COVERAGE writes it
set -eu
here=$(cd "$(dirname "$0")" && pwd)
demangle=cat
if command -v c++filt >/dev/null; then demangle=c++filt; fi
$demangle <"$1" | awk -F '\t' -v arch="$2" -v least="$3" -v exceptions="$here/never_launched.txt" '
  function short_name(name,    depth, i, c) {
    sub(/^void /, "", name)
    gsub(/retort::|kernels::|simt_on_cuda::|\(bool\)|\(int\)/, "", name); gsub(/, /, ",", name)
    for (i = 1; i <= length(name); ++i) {
      c = substr(name, i, 1)
      if (c == "<") ++depth
      if (c == ">") --depth
      if (c == "(" && depth == 0) break
    }
    return substr(name, 1, i - 1)
  }
  BEGIN {
    while ((getline line < exceptions) > 0)
      if (line !~ /^#/ && line != "") { sub(/ +#.*/, "", line); allowed[line] = 1 }
  }
  {
    name = short_name($1); ++kernels
    if ($2 > 0) {
      ++launched; ran += $2; all += $3
      printf "%d\t%d of %d instructions ran\t%s\n", $3 - $2, $2, $3, name | "sort -rn | head -12 | cut -f2-"
    } else if (!(name in allowed) && !(("sm_" arch " " name) in allowed)) {
      ++missing; printf "no kernel test launches %s\n", name
    } else seen[name] = 1
  }
  END {
    close("sort -rn | head -12 | cut -f2-")
    if (kernels == 0) { print "no kernels in the report"; exit 1 }
    printf "sm_%s: %d of %d kernels launched, %.1f %% of their instructions ran\n", arch, launched, kernels, 100 * ran / all
    exit missing > 0 || 100 * ran < least * all
  }'
