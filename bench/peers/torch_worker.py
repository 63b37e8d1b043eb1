"""Times one case in PyTorch on demand: the peer of `distill_bench worker`. Protocol: README.md."""
import argparse
import gc
import json
import sys
import time


# A worker that slept has cold threads: calls shorter than this are preceded by one that is not timed.
WAKE_MS = 200


def status_bytes(key):
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith(key):
                return 1024 * int(line.split()[1])
    return 0


def forget_peak():
    """The peak that is reported is of the steady state, not of loading."""
    gc.collect()
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        pass


def say(**message):
    print(json.dumps(message), flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--case", required=True)
    parser.add_argument("--variant", default="expert")
    parser.add_argument("--inputs", required=True)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--works", type=int, default=1)
    parser.add_argument("--calls", type=int, default=1)
    args = parser.parse_args()

    import torch

    import torch_cases

    if args.threads:
        torch.set_num_threads(args.threads)
    torch_cases.load_everything()  # code that PyTorch loads on first use is not the case's memory
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
