#!/usr/bin/env bash
# Ours and PyTorch on the same work, taking turns, in one table of ratios. See README.md.
#
# usage: bench/peers/run.sh [--only TEXT]... [--rounds N] [--seconds S] [--python PATH]... [--variants A,B]
#                           [--threads N] [--json FILE] [--lock 'COMMAND'] [--list] [--device cpu|cuda]
# exit:  0 measured, 1 a peer failed or computed something else, 2 usage, 77 no PyTorch here
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
exec "${RETORT_DRIVER_PYTHON:-python3}" "$here/run.py" "$@"
