#!/bin/sh
# Reads what ptxas said about every kernel of the CUDA plug-in (kept by tools/cmake/keep_ptxas_log.sh
# beside the objects), prints a table, and fails on a spill or on more registers or stack than
# budget.txt grants. Needs nvcc, not a GPU.
# usage: check.sh FOLDER_OF_LOGS [--update]     --update rewrites budget.txt from the logs: review it
set -eu
here=$(dirname "$0")
budget="$here/budget.txt"
if [ "${1:-none}" = "none" ]; then
  echo "skipped: this build has no nvcc"
  exit 77
fi
logs=$(find "$1" -name '*_cuda.cu.o.ptxas' | sort)
if [ -z "$logs" ]; then
  echo "no ptxas logs below $1: build retort_cuda first"
  exit 1
fi
demangle="cat"
if command -v c++filt >/dev/null; then demangle=c++filt; fi

# One line per kernel and architecture: sm registers stack shared spilled name
table=$(for log in $logs; do cat "$log"; done | $demangle | awk '
  /Compiling entry function/ {
    sm = $0; sub(/.* for .sm_/, "sm_", sm); sub(/.$/, "", sm)
    name = $0; sub(/.*Compiling entry function ./, "", name); sub(/. for .sm_.*/, "", name)
    # "void a::b::kernel<int, true>(args)" -> "kernel<int, true>"
    sub(/^void /, "", name)
    gsub(/retort::/, "", name); gsub(/kernels::/, "", name); gsub(/simt_on_cuda::/, "", name)
    depth = 0; cut = 0
    for (i = 1; i <= length(name); ++i) {
      c = substr(name, i, 1)
      if (c == "<") ++depth
      if (c == ">") --depth
      if (c == "(" && depth == 0) { cut = i; break }
    }
    if (cut) name = substr(name, 1, cut - 1)
    stack = spilled = 0
  }
  /bytes stack frame/ { stack = $1; spilled = $5 + $9 }
  /Used [0-9]+ registers/ {
    registers = $0; sub(/.*Used /, "", registers); sub(/ .*/, "", registers)
    shared = 0
    if (match($0, /[0-9]+ bytes smem/)) shared = substr($0, RSTART, RLENGTH) + 0
    print sm, registers, stack, shared, spilled, name
  }' | LC_ALL=C sort -k6 -k1,1)

if [ "${2:-}" = "--update" ]; then
  {
    echo "# What each kernel may use at most, over all its instantiations: architecture, registers a thread,"
    echo "# bytes of stack a thread, kernel. Written by tests/kernels/ptxas/check.sh --update (registers"
    echo "# rounded up to 8, as they are allocated); a line that grew is a question for its author."
    echo "# 'default' is for kernels not listed."
    echo "default 128 0"
    printf '%s\n' "$table" | awk '
      {
        name = $6; sub(/<.*/, "", name); key = $1 " " name
        r = int(($2 + 7) / 8) * 8
        if (r > registers[key]) registers[key] = r
        if ($3 > stack[key]) stack[key] = $3
      }
      END { for (key in registers) { split(key, f, " "); print f[1], registers[key], stack[key] + 0, f[2] } }' |
      LC_ALL=C sort -k4 -k1,1
  } >"$budget"
  echo "wrote $budget"
fi

printf '%s\n' "$table" | awk -v budget="$budget" '
  BEGIN {
    most = 128; most_stack = 0
    while ((getline line <budget) > 0) {
      if (line ~ /^#/ || line == "") continue
      split(line, f, " ")
      if (f[1] == "default") { most = f[2]; most_stack = f[3]; continue }
      registers[f[1] " " f[4]] = f[2]; stack[f[1] " " f[4]] = f[3]
    }
    printf "%-8s %9s %6s %7s %7s %6s  %s\n", "arch", "registers", "budget", "stack", "spilled", "shared", "kernel"
  }
  {
    name = $6; for (i = 7; i <= NF; ++i) name = name " " $i
    short = $6; sub(/<.*/, "", short)
    key = $1 " " short
    listed = key in registers
    limit = listed ? registers[key] : most
    stack_limit = listed ? stack[key] : most_stack
    wrong = ""
    if ($5 > 0) wrong = "  SPILLS"
    if ($2 > limit) wrong = wrong "  OVER BUDGET"
    if ($3 > stack_limit) wrong = wrong "  STACK"
    printf "%-8s %9d %6d %7d %7d %6d  %s%s%s\n", $1, $2, limit, $3, $5, $4, name, listed ? "" : " (not listed)", wrong
    ++count
    if (wrong != "") ++failures
  }
  END {
    printf "%d kernels, %d with a problem\n", count, failures
    exit failures > 0
  }'
