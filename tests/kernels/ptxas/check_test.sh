#!/bin/sh
# check.sh on made-up logs and PTX of one kernel: a good build passes, and every kind of problem is seen.
# usage: check_test.sh
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/tests/kernels/ptxas" "$work/logs"
cp "$here/check.sh" "$work/tests/kernels/ptxas/"
touch "$work/logs/op_cuda.cu.o"

# The kernel as ptxas reports it and as nvcc writes it, after the edits that are asked for.
log=$work/logs/op_cuda.cu.o.ptxas
write_log() { # SED_SCRIPT
  sed -e "$1" >"$log" <<'LOG'
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_ZN6retort7kernels12simt_on_cuda13op_row_kernelIfEEvPKT_' for 'sm_90a'
ptxas info    : Function properties for _ZN6retort7kernels12simt_on_cuda13op_row_kernelIfEEvPKT_
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 1024 bytes smem
LOG
}
cat >"$work/extract" <<'SH'
#!/bin/sh
sed -e "$(cat "$(dirname "$0")/ptx.sed")" >"$2.sm_90a.ptx" <<'PTX'
.visible .entry _ZN6retort7kernels12simt_on_cuda13op_row_kernelIfEEvPKT_(
	ld.global.nc.v4.f32 {%f1, %f2, %f3, %f4}, [%rd1];
	wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%f1}, %rd2, %rd3, p, 1, 1, 0, 0;
	ex2.approx.f32 %f5, %f6;
PTX
SH
chmod +x "$work/extract"

check() { sh "$work/tests/kernels/ptxas/check.sh" "$work/logs" "$work/extract" "$@" 2>&1; }
write_ptx() { # SED_SCRIPT
  echo "$1" >"$work/ptx.sed"
  rm -rf "$work/logs/ptx"
}
fails() { # WHAT_IT_SAYS
  if out=$(check) || ! printf '%s' "$out" | grep -q "$1"; then
    echo "expected a failure that says '$1', got:"
    printf '%s\n' "$out"
    exit 1
  fi
}

write_log ''
write_ptx ''
check --update >/dev/null
grep -q '^sm_90a 40 0 1024 op_row_kernel$' "$work/tests/kernels/ptxas/budget.txt"
grep -q '^sm_90a 1 0 0 1 1 0 0 0 op_row_kernel<float>$' "$work/tests/kernels/ptxas/instructions.txt"
check >/dev/null

echo "ptxas info    : (C7515) Potential Performance Loss: wgmma.mma_async instructions are serialized due to insufficient register resources for the wgmma pipeline in function 'op'" >>"$log"
fails C7515
write_log ''
echo "ptxas warning : Registers are spilled to local memory in function 'op'" >>"$log"
fails 'Registers are spilled'
write_log ''
echo 'kernels/op/op.cuh(12): warning #177-D: variable "x" was declared but never referenced' >>"$log"
fails '177-D'
write_log 's/0 bytes spill stores/8 bytes spill stores/'
fails SPILLS
write_log 's/Used 40/Used 41/'
fails 'REGISTERS OVER 40'
write_log 's/0 bytes stack/16 bytes stack/'
fails 'STACK OVER 0'
write_log 's/1024 bytes smem/2048 bytes smem/'
fails 'SHARED OVER 1024'
write_log ''
echo 'sm_90a 231424 op_row_kernel' >"$work/tests/kernels/ptxas/dynamic.txt"
check >/dev/null
echo 'sm_90a 231425 op_row_kernel' >"$work/tests/kernels/ptxas/dynamic.txt"
fails 'SHARED AND DYNAMIC OVER 232448'
echo 'sm_90a 1 op_old_kernel' >"$work/tests/kernels/ptxas/dynamic.txt"
fails 'in dynamic.txt and gone: sm_90a op_old_kernel'
: >"$work/tests/kernels/ptxas/dynamic.txt"
write_log ''
write_ptx 's/v4\.f32/f32/'
fails 'ld16 0, EXPECTED 1'
write_ptx '/wgmma/d'
fails 'wgmma 0, EXPECTED 1'
write_ptx '/ex2/p'
fails 'ex2 2, EXPECTED 1'
write_log 's/op_row_kernel/op_new_kernel/'
write_ptx 's/op_row_kernel/op_new_kernel/'
fails 'expected and gone: sm_90a op_row_kernel<float>'
write_log ''
write_ptx ''
check >/dev/null
echo "every planted problem was seen"
