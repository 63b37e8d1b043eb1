"""Times one case in PyTorch on demand: the peer of `distill_bench worker`. Protocol: README.md."""
import argparse
import ctypes
import gc
import json
import os
import sys
import time


# A worker that slept has cold threads: calls shorter than this are preceded by one that is not timed.
WAKE_MS = 200
ALL_ARENAS_PURGE = b"arena.4096.purge"  # MALLCTL_ARENAS_ALL


def status_bytes(key):
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith(key):
                return 1024 * int(line.split()[1])
    return 0


def give_back_unused():
    """Free memory that the allocator keeps goes back to the system: the peak that is reported is that
    of running, not of loading. `distill_bench worker` does the same."""
    gc.collect()
    library = ctypes.CDLL(None)
    try:
        purge = library.mallctl
    except AttributeError:  # no jemalloc
        library.malloc_trim(0)
        return
    purge(b"thread.tcache.flush", None, None, None, 0)
    purge(ALL_ARENAS_PURGE, None, None, None, 0)


def forget_peak():
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        pass


# Lines of the protocol alone go to the driver: what libraries print goes to the log.
protocol = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)


def say(**message):
    print(json.dumps(message), file=protocol, flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--variants-of", nargs="+", metavar="CASE", help="says which variants cases have, no more")
    parser.add_argument("--case")
    parser.add_argument("--variant", default="expert")
    parser.add_argument("--inputs")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--works", type=int, default=1)
    parser.add_argument("--calls", type=int, default=1)
    args = parser.parse_args()

    import torch

    import torch_cases

    if args.threads:
        torch.set_num_threads(args.threads)
    if args.variants_of:
        say(variants={case: torch_cases.variants_of(case) for case in args.variants_of})
        return 0
    torch_cases.load_everything(args.variant)  # code that PyTorch loads on first use is not the case's memory
    give_back_unused()
    baseline = status_bytes("VmRSS")
    try:
        works, first_digest = torch_cases.prepare(args.case, args.variant, args.inputs, args.works)
    except torch_cases.Unavailable as reason:
        say(unavailable=str(reason))
        return 0
    at = 0

    def sample():
        nonlocal at
        begin = time.perf_counter()
        for _ in range(args.calls):
            works[at].run()
            at = (at + 1) % len(works)
        return (time.perf_counter() - begin) * 1e3 / args.calls

    say(ready=True, baseline_bytes=baseline, digest=first_digest, torch=torch.__version__)
    give_back_unused()
    last = sample()
    forget_peak()
    for line in sys.stdin:
        words = line.split()
        if words[0] == "finish":
            break
        if last < WAKE_MS:
            sample()
        ms = [sample() for _ in range(int(words[1]))]
        last = ms[-1]
        say(ms=ms)
    say(peak_rss_bytes=status_bytes("VmHWM"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
