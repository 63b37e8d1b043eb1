"""Kernels of distill_bench in PyTorch on a GPU: the distillation loss, AdamW, SGD and batch norm, eager and
under torch.compile, as torch_cases.py and torch_kernels.py write them. With --bench the toys of distill_bench
on the same device come first: PyTorch computes them from ours' inputs and must find ours' digests. What is
timed has inputs made here, of the same shapes and distributions (gigabytes to hand over otherwise), and
every variant must give the first one's numbers. Timed by events around enough calls, over works that take turns so that caches are cold, as distill_bench does.
One JSON line a case and variant, written as soon as it is known.

usage: kernels_cuda.py [--device cuda|cpu] [--json FILE] [--only TEXT]... [--variants A,B] [--seconds S]
                       [--deadline S] [--bench COMMAND] [--smoke]
exit:  0 done (what the deadline left out is named), 1 a variant failed or computed something else,
       77 no PyTorch or no such device here
"""
import argparse
import json
import math
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
try:
    import torch
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)
import tensor_file  # noqa: E402
import torch_cases  # noqa: E402
import torch_kernels  # noqa: E402

TOLERANCE = {"f32": 2e-3, "bf16": 5e-2}
COLD_BYTES = 256e6  # as cold_bytes of bench/harness/session.cpp
MOST_WORKS = 64


def normal(shape, dtype, device, scale=1.0, shift=0.0):
    return torch.randn(shape, device=device).mul_(scale).add_(shift).to(torch.bfloat16 if dtype == "bf16" else torch.float32)


class Loss:
    variants = ("users", "expert", "compile", "manual")

    def __init__(self, rows, classes, dtype):
        self.name = f"distill_loss/forward_kl/{rows}x{classes}"
        self.rows, self.classes, self.dtype = rows, classes, dtype
        self.bytes = 3 * rows * classes * (2 if dtype == "bf16" else 4)

    def make(self, variant, device):
        shape = (self.rows, self.classes)
        tensors = {"student": normal(shape, self.dtype, device, 3), "teacher": normal(shape, self.dtype, device, 3),
                   "targets": torch.randint(0, self.classes, (self.rows,), device=device)}
        return torch_cases.Loss(variant, self.dtype, tensors, None, self.rows, self.classes)


class Update:
    variants = ("users", "expert")

    def __init__(self, kind, n):
        self.kind, self.n, self.dtype = kind, n, "f32"
        self.name = f"adamw/{n}" if kind == "adamw" else f"sgd/momentum/{n}"
        self.bytes = (28 if kind == "adamw" else 20) * n

    def make(self, variant, device):
        names = ("parameter", "gradient", "m") + (("v",) if self.kind == "adamw" else ())
        tensors = {name: normal((self.n,), "f32", device, 0.1) for name in names}
        if "v" in tensors:
            tensors["v"].square_()
        return torch_cases.Update(variant, "f32", tensors, self.kind, self.n)


class BatchNorm:
    variants = ("users", "expert", "compile")

    def __init__(self, rows, channels, dtype, residual, backward):
        middle = ("_add" if residual else "") + "_relu" + ("_backward" if backward else "")
        self.name = f"batch_norm{middle}/{rows}x{channels}"
        self.rows, self.channels, self.dtype = rows, channels, dtype
        self.residual, self.backward = residual, backward
        size = rows * channels * (2 if dtype == "bf16" else 4)
        self.bytes = ((5 if residual else 3) if backward else (3 if residual else 2)) * size

    def make(self, variant, device):
        names = ["x"] + (["residual"] if self.residual else []) + (["dy"] if self.backward else [])
        tensors = {name: normal((self.rows, self.channels), self.dtype, device) for name in names}
        tensors["weight"] = normal((self.channels,), "f32", device, 0.5, 1)
        tensors["bias"] = normal((self.channels,), "f32", device)
        return torch_kernels.BatchNorm(variant, self.dtype, tensors, self.residual, self.backward, self.rows, self.channels)


def cases(smoke):
    if smoke:
        return [Loss(2, 1100, "f32"), Update("adamw", 37), Update("sgd", 37)] + [
            BatchNorm(128, 5, dtype, residual, backward)
            for dtype in ("f32", "bf16") for residual in (False, True) for backward in (False, True)]
    goals = [Loss(8192, v, "bf16") for v in (30522, 50257, 128256)] + [Update("adamw", 66362880), Update("sgd", 66362880)]
    return goals + [BatchNorm(1024 * side * side, channels, "bf16", residual, backward)
                    for side, channels in ((32, 64), (8, 256)) for residual in (False, True) for backward in (False, True)] + [
        Loss(65536, 1000, "bf16"), Loss(8192, 30522, "f32"), Update("adamw", 11173962), Update("sgd", 11173962)]


def difference(got, want):
    """The largest relative one; infinite where a number is missing or not finite."""
    if len(got) != len(want) or not all(map(math.isfinite, list(got) + list(want))):
        return math.inf
    return max(abs(a - b) / max(abs(b), 1e-12) for a, b in zip(got, want))


def check_against_ours(args, wanted):
    """Ours and PyTorch on the same inputs at toy sizes; 1 if they differ."""
    worker = shlex.split(args.bench) + ["worker", "--smoke", "--device", args.device]
    listed = subprocess.run(worker + ["--list"], capture_output=True, text=True)
    if listed.returncode:
        print(f"FAILED: {args.bench}: {listed.stderr.strip()}", flush=True)
        return 1
    status, agreed, worst = 0, 0, 0
    for name in listed.stdout.split():
        kind, numbers, dtype = torch_cases.kind_of(name)
        if kind not in (torch_cases.Loss, torch_cases.Update, torch_kernels.BatchNorm):
            continue
        with tempfile.TemporaryDirectory() as folder:
            file = os.path.join(folder, "inputs.safetensors")
            ours = subprocess.run(worker + ["--case", name, "--export", file], capture_output=True, text=True)
            if ours.returncode:
                print(f"FAILED: {name}: {ours.stderr.strip()}", flush=True)
                status = 1
                continue
            want = json.loads(ours.stdout.splitlines()[-1])["digest"]
            for variant in kind.variants:
                if variant not in wanted or variant == "compile":  # compiling a toy takes as long as any
                    continue
                tensors = {key: tensor.to(args.device) for key, tensor in tensor_file.load(file).items()}
                try:
                    got = kind(variant, dtype, tensors, *numbers).digest()
                except torch_kernels.Unavailable:
                    continue
                apart = difference(got, want)
                agreed, worst = agreed + (apart <= TOLERANCE[dtype]), max(worst, apart)
                if not apart <= TOLERANCE[dtype]:
                    print(f"COMPUTED SOMETHING ELSE: {name}, {variant}: {got}, ours {want}", flush=True)
                    status = 1
    print(f"agrees with ours on its inputs: {agreed} toys and variants, the worst to {worst:.0e}", flush=True)
    return status if agreed else 1


class Timer:
    """Milliseconds between two marks: events on a GPU, the clock elsewhere."""

    def __init__(self, device):
        self.events = [torch.cuda.Event(enable_timing=True) for _ in range(2)] if device == "cuda" else None

    def time(self, calls):
        if not self.events:
            begin = time.perf_counter()
            calls()
            return 1e3 * (time.perf_counter() - begin)
        torch.cuda.synchronize()
        self.events[0].record()
        calls()
        self.events[1].record()
        self.events[1].synchronize()
        return self.events[0].elapsed_time(self.events[1])


def captured(calls):
    """`calls` as one CUDA graph, or None: what its launches cost is then no part of the time."""
    try:
        graph = torch.cuda.CUDAGraph()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            calls()
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        with torch.cuda.graph(graph):
            calls()
        graph.replay()
        torch.cuda.synchronize()
        return graph.replay
    except Exception as reason:  # PyTorch raises several kinds
        print(f"  not captured: {str(reason).splitlines()[0] if str(reason) else type(reason).__name__}", flush=True)
        torch.cuda.synchronize()
        return None


def measure(case, variant, args):
    torch.manual_seed(1)
    device = args.device
    count = 2 if args.smoke else int(min(MOST_WORKS, max(1, math.ceil(COLD_BYTES / case.bytes))))
    begin = time.perf_counter()
    works = []
    for i in range(count):
        works.append(case.make(variant, device))
        if i == 0:
            digest = works[0].digest()
        else:
            works[i].run()
    first_s = time.perf_counter() - begin
    timer, at = Timer(device), 0

    def calls(n):
        nonlocal at
        for _ in range(n):
            works[at].run()
            at = (at + 1) % len(works)

    for _ in range(2):
        calls(len(works))
    guess = timer.time(lambda: calls(len(works))) / len(works)
    turns = 1 if args.smoke else max(1, math.ceil(0.5 / (guess * len(works))))  # half a millisecond
    each = turns * len(works)
    run, how = (lambda: calls(each)), "launches"
    if device == "cuda" and guess < 0.1:
        replay = captured(lambda: calls(each))
        if replay:
            run, how = replay, "graph"
    samples, end = [], time.perf_counter() + (0 if args.smoke else args.seconds)
    while len(samples) < (2 if args.smoke else 5) or time.perf_counter() < end:
        samples.append(timer.time(run) / each)
    samples.sort()
    median = statistics.median(samples)
    return {"case": case.name, "dtype": case.dtype, "who": "pytorch " + torch.__version__, "variant": variant, "ms": median,
            "ms_least": samples[0], "ms_most": samples[-1], "gb_per_s": case.bytes / median / 1e6, "samples": len(samples),
            "calls": each, "timed_as": how, "works": count, "first_s": first_s, "digest": digest}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--json")
    parser.add_argument("--only", action="append", default=[], metavar="TEXT", help="cases whose name holds TEXT")
    parser.add_argument("--seconds", type=float, default=0.3, help="of samples a case and variant")
    parser.add_argument("--deadline", type=float, default=120, help="seconds: nothing is begun after them")
    parser.add_argument("--variants", help="comma list (default: all; with --smoke: all but compile, which takes minutes)")
    parser.add_argument("--bench", metavar="COMMAND", help="distill_bench: compare with ours at toy sizes first")
    parser.add_argument("--smoke", action="store_true", help="toy sizes")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        print("skipped: PyTorch sees no CUDA device here")
        return 77
    every = ["users", "expert", "manual"] + ([] if args.smoke else ["compile"])
    wanted = args.variants.split(",") if args.variants else every
    begin, status = time.perf_counter(), 0
    if args.bench:
        status = check_against_ours(args, wanted)
    file = open(args.json, "w") if args.json else None
    for case in cases(args.smoke):
        if args.only and not any(text in case.name for text in args.only):
            continue
        want = None
        for variant in case.variants:
            if variant not in wanted:
                continue
            label = f"{case.name}/{case.dtype}, {variant}"
            if time.perf_counter() - begin > args.deadline:
                print(f"left out by the deadline: {label}", flush=True)
                continue
            if variant == "compile" and hasattr(torch, "compiler"):
                torch.compiler.reset()  # else the second shape is compiled for any size
            if args.device == "cuda":
                torch.cuda.empty_cache()
            try:
                result = measure(case, variant, args)
            except torch_kernels.Unavailable as reason:
                print(f"{label}: {reason}", flush=True)
                continue
            except Exception as reason:  # such as out of memory: the next ones may do
                print(f"{label}: FAILED: {type(reason).__name__}: {reason}", flush=True)
                status = 1
                continue
            want = want or result["digest"]
            if not difference(result["digest"], want) <= TOLERANCE[case.dtype]:
                print(f"COMPUTED SOMETHING ELSE: {label}: {result['digest']}, {case.variants[0]} {want}", flush=True)
                status = 1
            line = json.dumps(result)
            print(line, flush=True)
            if file:
                print(line, file=file, flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
