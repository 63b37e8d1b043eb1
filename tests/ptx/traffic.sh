#!/bin/sh
# Fails where a kernel moves more than traffic.txt says: 32-byte sectors of global memory, or passes over the banks of
# shared memory, as multiples of the least that its accesses could take, over all kernel tests. Kernels that are not in
# the table must not need more than no odd shape explains: 4 times the sectors, 2 times the passes.
# usage: traffic.sh FILE [--table]    FILE: as RETORT_PTX_TRAFFIC writes it; --table: prints the table that it would be
set -eu
here=$(cd "$(dirname "$0")" && pwd)
demangle=cat
if command -v c++filt >/dev/null; then demangle=c++filt; fi
$demangle <"$1" | awk -F '\t' -v table="$here/traffic.txt" -v print_table="${2:-}" '
  BEGIN {
    while ((getline line < table) > 0)
      if (line !~ /^#/ && line != "") { split(line, part, " "); sectors[part[3]] = part[1]; passes[part[3]] = part[2] }
  }
  {
    name = $1
    sub(/^void /, "", name); gsub(/retort::|kernels::|simt_on_cuda::/, "", name); sub(/[<(].*/, "", name)
    seen[name] = 1
    if ($6 ~ /global/) { global[name] += $4; global_least[name] += $5 }
    else { shared[name] += $4; shared_least[name] += $5 }
  }
  function ratio(units, least) { return least > 0 ? units / least : 0 }
  function check(name, what, got, most) {
    if (got <= most * 1.03 + 0.005) return
    ++worse
    printf "%s takes %.2f times the %s it could, %s\n", name, got, what, name in sectors ? most " by traffic.txt" : "and is not in traffic.txt"
  }
  END {
    for (name in seen) {
      ++kernels
      g = ratio(global[name], global_least[name]); s = ratio(shared[name], shared_least[name])
      if (print_table != "") printf "%.2f %.2f %s\n", g, s, name | "sort -k3"
      check(name, "sectors", g, name in sectors ? sectors[name] : 4)
      check(name, "passes", s, name in passes ? passes[name] : 2)
    }
    if (kernels == 0) { print "no kernels in the report"; exit 1 }
    if (print_table == "") printf "%d kernels, %d take more than they may\n", kernels, worse
    exit worse > 0
  }'
