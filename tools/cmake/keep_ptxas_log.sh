#!/bin/sh
# Compiler launcher of the CUDA plug-in: runs the compiler and keeps what ptxas reports about each
# kernel in OBJECT.ptxas, for the resource test (tests/kernels/ptxas/check.sh). Everything else, and
# everything of a failed run, is shown.
object=
previous=
for argument in "$@"; do
  if [ "$previous" = "-o" ]; then object=$argument; fi
  previous=$argument
done
[ -n "$object" ] || exec "$@"
log="$object.ptxas"
"$@" 2>"$log"
status=$?
if [ $status -ne 0 ]; then
  cat "$log" >&2
  rm -f "$log"
else
  grep -vE '^ptxas info|^    [0-9]+ bytes stack frame|^$' "$log" >&2
fi
exit $status
