#!/bin/sh
# What the compiler made of every CUDA kernel, without a GPU: a table per kernel and architecture.
#
#   registers, stack, static shared memory, spills   from what ptxas said while the plug-in was built
#                                                     (kept by tools/cmake/keep_ptxas_log.sh)
#   16-byte loads and stores of global memory, mma, wgmma, ex2, cp.async, bulk copies, cluster
#   barriers                                          from the PTX in the objects (tools/ptx/extract.cpp)
#
# Fails on a warning of nvcc or ptxas, on a remark about lost performance (such as C7515, where ptxas
# serializes wgmma), on a spill, on more registers, stack or shared memory than budget.txt grants, on fewer
# of the instructions (more of ex2) than instructions.txt expects, and where the static shared memory and the
# most dynamic of dynamic.txt do not fit into a block's. Instructions are counted in the text:
# what a loop repeats counts once. check_test.sh plants one of each.
# usage: check.sh FOLDER_OF_OBJECTS EXTRACT [--update]    --update rewrites both files: review the difference
set -eu
here=$(cd "$(dirname "$0")" && pwd)
if [ "${1:-none}" = "none" ]; then
  echo "skipped: this build has no nvcc"
  exit 77
fi
folder=$1
extract=$2
update=${3:-}
logs=$(find "$folder" -name '*_cuda.cu.o.ptxas' | sort)
if [ -z "$logs" ]; then
  echo "no ptxas logs below $folder: build retort_cuda first"
  exit 1
fi
remarks=$(cat $logs | grep -iE 'potential performance loss|warning' || true)
if [ -n "$remarks" ]; then
  echo "nvcc or ptxas warns:"
  printf '%s\n' "$remarks"
  exit 1
fi
demangle="cat"
if command -v c++filt >/dev/null; then demangle=c++filt; fi

# "void retort::kernels::simt_on_cuda::kernel<int, true>(args)" -> "kernel<int,true>"
short_names='
  function short_name(name,    depth, i, c) {
    sub(/^void /, "", name)
    gsub(/retort::|kernels::|simt_on_cuda::/, "", name); gsub(/, /, ",", name)
    depth = 0
    for (i = 1; i <= length(name); ++i) {
      c = substr(name, i, 1)
      if (c == "<") ++depth
      if (c == ">") --depth
      if (c == "(" && depth == 0) break
    }
    name = substr(name, 1, i - 1)
    gsub(/ /, "_", name)
    return name
  }'

# ---- sm registers stack shared spilled kernel
resources=$(for log in $logs; do cat "$log"; done | $demangle | awk "$short_names"'
  /Compiling entry function/ {
    sm = $0; sub(/.* for .sm_/, "sm_", sm); sub(/.$/, "", sm)
    name = $0; sub(/.*Compiling entry function ./, "", name); sub(/. for .sm_.*/, "", name)
    name = short_name(name)
    stack = spilled = 0
  }
  /bytes stack frame/ { stack = $1; spilled = $5 + $9 }
  /Used [0-9]+ registers/ {
    registers = $0; sub(/.*Used /, "", registers); sub(/ .*/, "", registers)
    shared = 0
    if (match($0, /[0-9]+ bytes smem/)) shared = substr($0, RSTART, RLENGTH) + 0
    print sm, registers, stack, shared, spilled, name
  }' | LC_ALL=C sort -k6 -k1,1)
architectures=$(printf '%s\n' "$resources" | cut -d' ' -f1 | sort -u)

# ---- PTX, one file per op and architecture
ptx=$folder/ptx
mkdir -p "$ptx"
for log in $logs; do
  object=${log%.ptxas}
  to=$ptx/$(basename "$object" _cuda.cu.o)
  [ "$to.sm_90a.ptx" -nt "$object" ] || "$extract" "$object" "$to"
done

# ---- sm ld16 st16 mma wgmma ex2 cp.async bulk cluster kernel
instructions=$(for sm in $architectures; do
  cat "$ptx"/*."$sm".ptx | $demangle | awk -v sm="$sm" "$short_names"'
    function flush() {
      if (name != "") print sm, n["ld16"] + 0, n["st16"] + 0, n["mma"] + 0, n["wgmma"] + 0, n["ex2"] + 0, n["async"] + 0, n["bulk"] + 0, n["cluster"] + 0, name
      split("", n); name = ""
    }
    /^(\.visible |\.weak )?\.entry / {
      flush()
      name = $0; sub(/.*\.entry /, "", name); sub(/\($/, "", name); name = short_name(name)
    }
    /^\.(visible |weak )?\.?func/ { flush() }
    {
      op = $1; if (op ~ /^@/) op = $2
      if (op ~ /^ld\.global.*\.(v4\.[a-z]32|v2\.[a-z]64)$/) ++n["ld16"]
      else if (op ~ /^st\.global.*\.(v4\.[a-z]32|v2\.[a-z]64)$/) ++n["st16"]
      else if (op ~ /^mma\.sync/) ++n["mma"]
      else if (op ~ /^wgmma\.mma_async/) ++n["wgmma"]
      else if (op ~ /^ex2\.approx/) ++n["ex2"]
      else if (op ~ /^cp\.async\.c[ag]/) ++n["async"]
      else if (op ~ /^cp\.async\.bulk\.shared/) ++n["bulk"]
      else if (op ~ /^barrier\.cluster\.wait/) ++n["cluster"]
    }
    END { flush() }'
done | LC_ALL=C sort -k10 -k1,1)

if [ "$update" = "--update" ]; then
  {
    echo "# What each kernel may use at most, over all its instantiations: architecture, registers a thread,"
    echo "# bytes of stack a thread, bytes of static shared memory a block, kernel. Written by"
    echo "# tests/kernels/ptxas/check.sh --update (registers rounded up to 8, as they are allocated); a line"
    echo "# that grew is a question for its author. 'default' is for kernels not listed."
    echo "default 128 0 49152"
    printf '%s\n' "$resources" | awk '
      {
        name = $6; sub(/<.*/, "", name); key = $1 " " name
        r = int(($2 + 7) / 8) * 8
        if (r > registers[key]) registers[key] = r
        if ($3 > stack[key]) stack[key] = $3
        if ($4 > shared[key]) shared[key] = $4
      }
      END { for (key in registers) { split(key, f, " "); print f[1], registers[key], stack[key] + 0, shared[key] + 0, f[2] } }' |
      LC_ALL=C sort -k5 -k1,1
  } >"$here/budget.txt"
  {
    echo "# Instructions in the PTX of each kernel that has any of them: architecture, 16-byte loads and stores"
    echo "# of global memory, mma, wgmma, ex2, cp.async, bulk copies, cluster barriers, kernel. The test wants"
    echo "# at least as many (of ex2: at most). Written by tests/kernels/ptxas/check.sh --update."
    printf '%s\n' "$instructions" | awk '$2 + $3 + $4 + $5 + $6 + $7 + $8 + $9 > 0'
  } >"$here/instructions.txt"
  echo "wrote $here/budget.txt and $here/instructions.txt"
fi

{
  printf '%s\n' "$instructions" | sed 's/^/I /'
  printf '%s\n' "$resources" | sed 's/^/R /'
} | awk -v budget="$here/budget.txt" -v expected="$here/instructions.txt" -v dynamics="$here/dynamic.txt" '
  function limit(what, have, most) { if (have > most) wrong = wrong "  " what " OVER " most }
  BEGIN {
    while ((getline line <budget) > 0) {
      if (line ~ /^#/ || line == "") continue
      split(line, f, " ")
      if (f[1] == "default") { most["r"] = f[2]; most["t"] = f[3]; most["s"] = f[4]; continue }
      key = f[1] " " f[5]; registers[key] = f[2]; stack[key] = f[3]; shared[key] = f[4]
    }
    block["sm_80"] = 166912; block["sm_90a"] = 232448
    while ((getline line <dynamics) > 0) {
      if (line ~ /^#/ || line == "") continue
      split(line, f, " ")
      dynamic[f[1] " " f[3]] = unlaunched[f[1] " " f[3]] = f[2]
    }
    split("ld16 st16 mma wgmma ex2 cp.async bulk cluster", label, " ")
    while ((getline line <expected) > 0) {
      if (line ~ /^#/ || line == "") continue
      split(line, f, " ")
      for (k = 1; k <= 8; ++k) want[f[1] " " f[10], k] = f[k + 1]
      listed_instructions[f[1] " " f[10]] = 1
    }
    printf "%-7s %9s %5s %6s %7s %5s %5s %5s %6s %5s %9s %5s %8s  %s\n", "arch", "registers", "stack", "shared", "spilled", "ld16", "st16", "mma", "wgmma", "ex2", "cp.async", "bulk", "cluster", "kernel"
  }
  $1 == "I" { for (k = 1; k <= 8; ++k) have[$2 " " $11, k] = $(k + 2); next }
  {
    short = $7; sub(/<.*/, "", short)
    key = $2 " " short; full = $2 " " $7; wrong = ""
    listed = key in registers
    if ($6 > 0) wrong = "  SPILLS"
    limit("REGISTERS", $3, listed ? registers[key] : most["r"])
    limit("STACK", $4, listed ? stack[key] : most["t"])
    limit("SHARED", $5, listed ? shared[key] : most["s"])
    if ($2 in block) limit("SHARED AND DYNAMIC", $5 + dynamic[key], block[$2])
    delete unlaunched[key]
    for (k = 1; k <= 8; ++k)
      if (label[k] == "ex2" ? have[full, k] > want[full, k] : have[full, k] < want[full, k]) wrong = wrong "  " label[k] " " have[full, k] + 0 ", EXPECTED " want[full, k] + 0
    delete listed_instructions[full]
    printf "%-7s %9d %5d %6d %7d %5d %5d %5d %6d %5d %9d %5d %8d  %s%s%s\n", $2, $3, $4, $5, $6, have[full, 1], have[full, 2], have[full, 3], have[full, 4], have[full, 5], have[full, 6], have[full, 7], have[full, 8], $7, listed ? "" : " (not listed)", wrong
    ++count
    if (wrong != "") ++failures
  }
  END {
    for (full in listed_instructions) { print "expected and gone: " full; ++failures }
    for (key in unlaunched) { print "in dynamic.txt and gone: " key; ++failures }
    printf "%d kernels, %d with a problem\n", count, failures
    exit failures > 0
  }'
