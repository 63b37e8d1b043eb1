#!/bin/sh
# Fails where a kernel of the plug-in was launched by no kernel test, unless never_launched.txt names it; where fewer
# than LEAST % of the launched kernels' instructions ran, all but those of partly_run.txt together; and where less of one
# of those ran than it says (by 3 in a hundred, which a new instantiation may cost). Prints the kernels with the most instructions that did not run.
# usage: coverage.sh FILE ARCHITECTURE LEAST    FILE: as RETORT_PTX_COVERAGE writes it
set -eu
here=$(cd "$(dirname "$0")" && pwd)
demangle=cat
if command -v c++filt >/dev/null; then demangle=c++filt; fi
$demangle <"$1" | awk -F '\t' -v arch="$2" -v least="$3" -v never="$here/never_launched.txt" -v partly="$here/partly_run.txt" '
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
  function family(name) { sub(/<.*/, "", name); return name }
  BEGIN {
    while ((getline line < never) > 0)
      if (line !~ /^#/ && line != "") { sub(/ +#.*/, "", line); allowed[line] = 1 }
    while ((getline line < partly) > 0)
      if (line !~ /^#/ && line != "") { split(line, part, " "); expected[part[2]] = part[1] }
  }
  {
    name = short_name($1); ++kernels
    if ($2 > 0) {
      ++launched
      f = family(name)
      if (f in expected) { of_ran[f] += $2; of_all[f] += $3 }
      else {
        ran += $2; all += $3
        printf "%d\t%d of %d instructions ran\t%s\n", $3 - $2, $2, $3, name | "sort -rn | head -12 | cut -f2-"
      }
    } else if (!(name in allowed) && !(("sm_" arch " " name) in allowed)) {
      ++missing; printf "no kernel test launches %s\n", name
    }
  }
  END {
    close("sort -rn | head -12 | cut -f2-")
    if (kernels == 0) { print "no kernels in the report"; exit 1 }
    for (f in of_all) {
      share = 100 * of_ran[f] / of_all[f]
      if (share < expected[f] - 3) { ++fewer; printf "%s: %.1f %% of its instructions ran, %s %% by partly_run.txt\n", f, share, expected[f] }
      else if (share >= 95 || expected[f] == 0) printf "%s: %.1f %% ran, and partly_run.txt says %s\n", f, share, expected[f]
    }
    printf "sm_%s: %d of %d kernels launched; %.1f %% of the instructions of those that partly_run.txt does not name ran\n", arch, launched, kernels, (all > 0 ? 100 * ran / all : 0)
    exit missing > 0 || fewer > 0 || 100 * ran < least * all
  }'
