"""Ours and PyTorch on the same work, taking turns, in one table of ratios. See README.md."""
import argparse
import ctypes.util
import datetime
import fnmatch
import json
import math
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from table import FOREIGN, interval_of_median, median, relative_difference, show, summary

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent

# What ours and the peer must agree in, relative, of every number of a digest: norms of results and
# gradients, losses. The largest seen were 4e-5 in f32 and, a first update in 1.13, 2e-2 in bf16.
TOLERANCE = {"f32": 2e-3, "bf16": 5e-2}
try:
    AVX512 = " avx512f" in Path("/proc/cpuinfo").read_text()
except OSError:
    AVX512 = False
# glibc's malloc gives large blocks back to the system and faults them in anew at each use; this
# keeps them. On Debian's build also its BLAS and dispatch default to less than the processor has.
MALLOC = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(16 << 30),
    "MALLOC_TOP_PAD_": str(256 << 20),
}
DEBIAN = {
    **({"OPENBLAS_CORETYPE": "SKYLAKEX", "ATEN_CPU_CAPABILITY": "avx512"} if AVX512 else {}),
    "LD_LIBRARY_PATH": "/usr/lib/x86_64-linux-gnu/openblas-openmp",
}
JEMALLOC = {
    "LD_PRELOAD": ctypes.util.find_library("jemalloc") or "",
    "MALLOC_CONF": "background_thread:false,dirty_decay_ms:-1,muzzy_decay_ms:-1,thp:always",
}
# A variant may name the environment it runs in: expert+malloc. Without, the tuned one: jemalloc, where
# it is installed, was 0 to 7 % faster than glibc told to keep memory, and kept less.
ENVIRONMENTS = {
    "tuned": JEMALLOC if JEMALLOC["LD_PRELOAD"] else MALLOC,
    "malloc": MALLOC,
    "thp": {**MALLOC, "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"},
    "jemalloc": JEMALLOC,
    "installed": {},
}
# What the smoke run compares unless told: --smoke --only / takes all.
SMOKE = [
    "distill_loss/forward_kl/2x1100/f32", "adamw/*/f32", "step/six_arms_kd/*", "step/resnet8_forward/*/bf16",
    "batch_norm_add_relu_backward/*/f32",
]
SMOKE_VARIANTS = ["expert", "manual"]  # those that need no compiler
ONLY_IF_ASKED = ["autotune"]  # it compiles for minutes


class Failure(Exception):
    """Of a case or a peer: the others go on."""


class Usage(Exception):
    """Nothing was measured: what was asked for cannot be."""


def busy_seconds():
    """Processor time used on this machine by anyone, stolen time included."""
    fields = [int(x) for x in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


def process_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Worker:
    """A process that times one case when asked."""

    def __init__(self, label, command, environment, inputs):
        self.label, self.times, self.foreign = label, [], []
        self.log = tempfile.TemporaryFile("w+")
        try:
            self.process = subprocess.Popen(
                command, env={**os.environ, **environment}, cwd=HERE, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=self.log, text=True)
        except OSError as reason:
            raise Failure(f"{label}: {reason}") from reason
        try:
            self.hello = self.read()
        except Failure:
            self.kill()
            raise
        self.missing = self.hello.get("unavailable")
        if self.missing:
            self.kill()

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            raise self.stopped()
        try:
            message = json.loads(line)
        except ValueError:
            message = None
        if not isinstance(message, dict):
            raise Failure(f"{self.label} said {line[:200]!r}, which is no message")
        return message

    def stopped(self):
        self.process.wait()
        self.log.seek(0)
        return Failure(f"{self.label} stopped ({self.process.returncode}):\n{self.log.read()[-3000:]}")

    def ask(self, text):
        try:
            self.process.stdin.write(text + "\n")
            self.process.stdin.flush()
        except OSError:  # the pipe is broken: it says why in its log
            raise self.stopped() from None
        return self.read()

    def round(self, samples):
        """Times `samples` calls; returns them and the share of the machine that others used."""
        start, busy, own = time.monotonic(), busy_seconds(), process_seconds(self.process.pid)
        ms = self.ask(f"sample {samples}")["ms"]
        elapsed = time.monotonic() - start
        foreign = busy_seconds() - busy - (process_seconds(self.process.pid) - own)
        return ms, max(0.0, foreign) / max(elapsed * os.cpu_count(), 0.02)

    def finish(self):
        end = self.ask("finish")
        self.kill()
        return end

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        self.log.close()


class Lock:
    """Holds the machine by a command that runs its arguments when it has it, such as "flock FILE"."""

    def __init__(self, command):
        self.command = shlex.split(command) if command else None

    def __enter__(self):
        if self.command:
            try:
                self.holder = subprocess.Popen(
                    self.command + ["sh", "-c", "echo held; exec cat >/dev/null"], stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE, text=True)
            except OSError as reason:
                raise Failure(f"--lock: {reason}") from reason
            if self.holder.stdout.readline().strip() != "held":
                raise Failure(f"--lock: '{' '.join(self.command)}' did not run its arguments")

    def __exit__(self, *_):
        if self.command:
            self.holder.communicate()


class Peer:
    """One Python, and the PyTorch in it, if there is one (`found`)."""

    def __init__(self, python):
        self.python = python
        code = "import torch; print(torch.__version__); print(torch.__file__); print(torch.__config__.show())"
        try:
            probe = subprocess.run([python, "-c", code], capture_output=True, text=True)
        except OSError as reason:
            raise Usage(f"--python {python}: {reason.strerror}") from reason
        self.found = probe.returncode == 0
        self.reason = (probe.stderr.strip().splitlines() or [""])[-1]
        if self.found:
            self.version, place, self.build = (probe.stdout.split("\n", 2) + ["", ""])[:3]
            self.debian = place.startswith("/usr/lib/python3/dist-packages/")
            self.name = "torch " + self.version.split("+")[0]

    def ask_variants(self, cases):
        """Which variants this peer has of each case; none: it has no such case."""
        probe = subprocess.run(
            [self.python, str(HERE / "torch_worker.py"), "--variants-of", *cases], capture_output=True, text=True, cwd=HERE)
        try:
            self.variants = json.loads(probe.stdout)["variants"]
        except (ValueError, KeyError):
            raise Failure(f"{self.name}: {(probe.stderr.strip().splitlines() or ['says nothing'])[-1]}") from None

    def environment(self, variant):
        """What is set for a variant: nothing for users, who run it as installed."""
        kind, _, name = variant.partition("+")
        name = name or ("installed" if kind == "users" else "tuned")
        if name == "installed":
            return {}
        return {**ENVIRONMENTS[name], **(DEBIAN if self.debian else {})}


def cases_of(bench, patterns, smoke):
    command = [bench, "worker", "--list"] + (["--smoke"] if smoke else [])
    listed = subprocess.run(command, capture_output=True, text=True)
    if listed.returncode:
        raise Usage(f"{bench}: {listed.stderr.strip() or listed.returncode}")
    out = listed.stdout.split()
    if not patterns and smoke:
        patterns = SMOKE
    if not patterns:
        patterns = ["step/", "distill_loss/forward_kl/1024x28996/f32", "sgd/momentum/11173962/f32", "adamw/11173962/f32"]
    return [c for c in out if any(p in c or fnmatch.fnmatch(c, p) for p in patterns)]


COPIES = ("copy/plain/", "copy/streaming/")  # the ceiling of cases that memory bounds: the faster


class Row:
    """One case: all workers, their rounds, and the table line."""

    def __init__(self, case, options, peers):
        self.case, self.options, self.peers = case, options, peers
        self.workers, self.roofs, self.notes, self.failed = [], [], [], False

    def start(self, folder):
        o = self.options
        threads = str(o.threads)
        ours = [o.bench, "worker", "--case", self.case, "--threads", threads] + (["--smoke"] if o.smoke else [])
        inputs = os.path.join(folder, "inputs.safetensors")
        exported = subprocess.run(ours + ["--export", inputs], capture_output=True, text=True)
        try:
            digest = json.loads(exported.stdout.splitlines()[-1])["digest"]
        except (ValueError, IndexError, KeyError):
            raise Failure(exported.stderr or f"ours exported nothing ({exported.returncode})") from None
        us = Worker("ours", ours, {"OMP_NUM_THREADS": threads}, inputs)
        self.workers.append(us)
        if not us.hello["matrix"]:
            for name in cases_of(o.bench, COPIES, o.smoke):
                command = [o.bench, "worker", "--case", name, "--threads", threads] + (["--smoke"] if o.smoke else [])
                self.roofs.append(Worker(name, command, {"OMP_NUM_THREADS": threads}, inputs))
        for peer in self.peers:
            for variant in self.variants_of(peer):
                command = [
                    peer.python, str(HERE / "torch_worker.py"), "--case", self.case, "--variant",
                    variant.partition("+")[0], "--inputs", inputs, "--threads", threads, "--works",
                    str(us.hello["works"]), "--calls", str(us.hello["calls_per_sample"])]
                environment = peer.environment(variant)
                if environment:
                    environment["OMP_NUM_THREADS"] = threads
                label = f"{peer.name} {variant}"
                try:
                    worker = Worker(label, command, environment, inputs)
                except Failure as reason:
                    self.failed = True
                    self.notes.append(f"{label}: failed: {str(reason).strip().splitlines()[-1]}")
                    continue
                if worker.missing:
                    self.notes.append(f"{label}: skipped: {worker.missing}")
                    continue
                worker.peer, worker.variant = peer.name, variant
                difference = relative_difference(digest, worker.hello["digest"])
                worker.difference = difference
                if not difference <= TOLERANCE[self.case.rsplit("/", 1)[1]]:
                    self.failed = True
                    self.notes.append(f"{label} COMPUTED SOMETHING ELSE: {worker.hello['digest']}, ours {digest}")
                self.workers.append(worker)

    def variants_of(self, peer):
        """Those asked for, or all, that the peer has of this case."""
        known, asked = peer.variants.get(self.case, []), self.options.variants
        if not known:
            self.notes.append(f"{peer.name}: no peer for this case")
        elif asked and not self.options.smoke:
            missing = [v for v in asked if v.partition("+")[0] not in known]
            if missing:
                self.notes.append(f"{peer.name}: this case has no variant {', '.join(missing)}")
        return [v for v in asked or known if v.partition("+")[0] in known and (asked or v not in ONLY_IF_ASKED)]

    def drop(self, worker, reason):
        """A peer that stopped: the others go on."""
        self.failed = True
        self.notes.append(f"{worker.label}: failed: {str(reason).strip().splitlines()[-1]}")
        self.workers.remove(worker)
        worker.kill()

    def turn(self, worker, samples):
        """The worker's samples, or None: it is a peer and stopped."""
        try:
            return worker.round(samples)
        except Failure as reason:
            if worker is self.workers[0] or worker in self.roofs:
                raise
            self.drop(worker, reason)
            return None

    def measure(self):
        o = self.options
        calls = self.workers[0].hello["calls_per_sample"]
        for worker in self.workers + self.roofs:  # how many samples fill a turn
            calls = worker.hello.get("calls_per_sample", calls)
            first = self.turn(worker, 1)
            if first:
                worker.samples = max(1, min(500, int(o.seconds * 1e3 / (median(first[0]) * calls))))
        done = 0
        while done < o.rounds:
            with Lock(o.lock):
                end = time.monotonic() + o.hold
                while True:
                    self.round(done)
                    done += 1
                    if done == o.rounds or time.monotonic() > end:
                        break
        for worker in list(self.workers):
            try:
                end = worker.finish()
            except Failure as reason:
                if worker is self.workers[0]:
                    raise
                self.drop(worker, reason)
                continue
            worker.end = end
            worker.peak = end["peak_rss_bytes"] - worker.hello["baseline_bytes"]
            worker.ms = median([median(block) for block in worker.times])
        for roof in self.roofs:
            roof.finish()

    def roof(self):
        """GB/s of the faster copy, and the share of it that ours moves: medians over the rounds."""
        if not self.roofs:
            return None
        us = self.workers[0]
        copies = [max(r.hello["bytes"] / median(r.times[i]) / 1e6 for r in self.roofs) for i in range(len(us.times))]
        own = [us.hello["bytes"] / median(block) / 1e6 for block in us.times]
        return {"copy_gb_per_s": median(copies), "ours_gb_per_s": median(own), "share": median([a / b for a, b in zip(own, copies)])}

    def round(self, i):
        """Every worker in turn, forwards and backwards by turns; again if others were busy."""
        for attempt in range(4):
            order = self.workers[:1] + self.roofs + self.workers[1:]
            if (i + attempt) % 2:
                order.reverse()
            results = {worker: self.turn(worker, worker.samples) for worker in order}
            results = {worker: result for worker, result in results.items() if result}
            if max(foreign for _, foreign in results.values()) <= FOREIGN:
                break
        for worker, (ms, foreign) in results.items():
            worker.times.append(ms)
            worker.foreign.append(foreign)

    def result(self):
        us = self.workers[0]
        entries = []
        for worker in self.workers[1:]:
            ratios = [median(t) / median(m) for t, m in zip(worker.times, us.times)]
            low, high, coverage = interval_of_median(ratios)
            entries.append({
                "peer": worker.label, "name": worker.peer, "variant": worker.variant, "median_ms": worker.ms, "ratio": median(ratios), "low": low, "high": high,
                "coverage": coverage, "round_ratios": ratios, "samples_ms": worker.times, "foreign": worker.foreign,
                "peak_rss_bytes": worker.peak, "digest_difference": worker.difference if math.isfinite(worker.difference) else None})
        return {
            "case": self.case, "roof": self.roof(), "ours_ms": us.ms, "samples_ms": us.times, "foreign": us.foreign, "flops": us.hello["flops"],
            "bytes": us.hello["bytes"], "matrix": us.hello["matrix"], "peak_rss_bytes": us.peak, "memory": us.end, "peers": entries, "notes": self.notes}

    def kill(self):
        for worker in self.workers + self.roofs:
            if worker.process.returncode is None:
                worker.kill()


def write_report(path, o, peers, results, complete):
    """After every case: what a run that is cut off leaves. Whole or not at all."""
    stamp = {
        "program": "bench/peers", "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "complete": complete, "threads": o.threads, "rounds": o.rounds,
        "peers": [{"name": p.name, "version": p.version, "build": p.build, "tuned": p.environment("expert")} for p in peers],
        "rows": results}
    try:
        Path(path + ".new").write_text(json.dumps(stamp) + "\n")
        os.replace(path + ".new", path)
    except OSError as reason:
        raise Usage(f"--json {path}: {reason.strerror}") from reason


def named_for(path, python, count):
    """out.json, or with several Pythons out.0.json, ...: each writes its own."""
    if count == 1:
        return path
    stem, dot, end = path.rpartition(".")
    return f"{stem}.{python}.{end}" if dot else f"{path}.{python}"


def run_on_cuda(o):
    """The kernels that have a peer on a GPU: one process each Python, no turns with ours."""
    command = [str(HERE / "kernels_cuda.py"), "--device", "cuda", "--seconds", str(o.seconds)] + (["--smoke"] if o.smoke else [])
    for text in o.only:
        command += ["--only", text]
    if o.variants:
        command += ["--variants", ",".join(o.variants)]
    if shutil.which(o.bench):
        command += ["--bench", shlex.quote(os.path.abspath(o.bench))]
    statuses = []
    for i, python in enumerate(o.python):
        json_file = ["--json", named_for(o.json, i, len(o.python))] if o.json else []
        try:
            statuses.append(subprocess.call([python] + command + json_file))
        except OSError as reason:
            raise Usage(f"--python {python}: {reason.strerror}") from reason
    failed = [status for status in statuses if status not in (0, 77)]
    return failed[0] if failed else min(statuses)  # one that measured outweighs those without PyTorch


def parse():
    p = argparse.ArgumentParser(prog="run.sh", description=__doc__)
    p.add_argument("--only", action="append", default=[], metavar="TEXT", help="cases whose name holds TEXT")
    p.add_argument("--rounds", type=int, help="default 5")
    p.add_argument("--seconds", type=float, default=1.0, help="of samples per worker and round")
    p.add_argument("--python", action="append", default=[], help="a Python that has PyTorch; may be given twice")
    p.add_argument("--variants", default=None, help="of expert, nchw, users, compile, jit, manual (default: all that a case has), autotune; expert+malloc, +thp, +jemalloc, +installed: in another environment")
    p.add_argument("--threads", type=int, help="default: all cores")
    p.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="cuda: PyTorch's kernels alone (kernels_cuda.py)")
    p.add_argument("--bench", default=str(ROOT / "build/release/bin/distill_bench"))
    p.add_argument("--json", metavar="FILE")
    p.add_argument("--lock", metavar="COMMAND", help="runs its arguments when it has the machine: 'flock /tmp/bench'")
    p.add_argument("--hold", type=float, default=30, help="seconds after which the lock is given back between rounds")
    p.add_argument("--smoke", action="store_true", help="toy sizes: do both still compute the same?")
    p.add_argument("--list", action="store_true")
    o = p.parse_args()
    o.variants = o.variants.split(",") if o.variants else SMOKE_VARIANTS if o.smoke and o.device == "cpu" else None
    unknown = {v.partition("+")[2] or "tuned" for v in o.variants or []} - set(ENVIRONMENTS)
    if unknown:
        p.error(f"no environment {', '.join(unknown)}: {', '.join(ENVIRONMENTS)}")
    if o.device == "cuda" and (o.rounds is not None or o.threads is not None or o.lock):
        p.error("--rounds, --threads and --lock are of the turns on a CPU: on a GPU nothing takes turns")
    for name in ("rounds", "threads"):
        if getattr(o, name) is not None and getattr(o, name) < 1:
            p.error(f"--{name} must be at least 1")  # 0 threads is one for ours, all cores for PyTorch
    if not o.seconds > 0:
        p.error("--seconds must be above 0")
    o.rounds, o.threads = o.rounds or 5, o.threads or os.cpu_count()
    if o.smoke:
        o.rounds, o.seconds, o.threads = 1, 0.001, 1
    if not o.python:
        o.python = [os.environ.get("RETORT_PYTHON", "python3")]
    return o


def peers_of(options, cases):
    """The Pythons that have PyTorch; those that have none are named."""
    peers = []
    for peer in map(Peer, options.python):
        if peer.found:
            peer.ask_variants(cases)
            peers.append(peer)
        else:
            print(f"skipped: no PyTorch in {peer.python} (RETORT_PYTHON or --python names one): {peer.reason}")
    return peers


def measured(case, options, peers):
    """The case's result, and whether a peer failed."""
    row = Row(case, options, peers)
    with tempfile.TemporaryDirectory() as folder:
        try:
            row.start(folder)
            row.measure()
        finally:
            row.kill()
    return row.result(), row.failed


def main():
    try:
        return run_all(parse())
    except (Usage, Failure) as reason:
        print(f"run.sh: {reason}", file=sys.stderr)
        return 2 if isinstance(reason, Usage) else 1


def run_all(options):
    if options.device == "cuda":
        return run_on_cuda(options)
    if not shutil.which(options.bench):
        raise Usage(f"{options.bench} is not there: build the target distill_bench, or name it by --bench")
    options.bench = os.path.abspath(options.bench)
    cases = cases_of(options.bench, options.only, options.smoke)
    if not cases:
        raise Usage(f"no case matches {', '.join(options.only)} (--list names them)")
    if options.list:
        print("\n".join(cases))
        return 0
    peers = peers_of(options, cases)
    if not peers:
        return 77
    alone = [case for case in cases if not any(peer.variants.get(case) for peer in peers)]
    if alone:
        print(f"left out, as no peer has them: {', '.join(alone)}")
    cases = [case for case in cases if case not in alone]
    for peer in peers:
        settings = " ".join(f"{k}={v}" for k, v in peer.environment("expert").items())
        print(f"{peer.name}: {peer.python}; tuned: {settings} OMP_NUM_THREADS={options.threads}")
    results, status, coverage = [], 0, 0

    def report(complete):
        if options.json:
            write_report(options.json, options, peers, results, complete)

    report(False)  # that it can be written is known before anything is measured
    try:
        for case in cases:
            try:
                result, failed = measured(case, options, peers)
            except Failure as reason:
                print(f"{case}: {reason}", file=sys.stderr)
                status = 1
                continue
            status = max(status, int(failed))
            coverage = result["peers"][0]["coverage"] if result["peers"] else coverage
            show(result)
            results.append(result)
            report(False)
    except KeyboardInterrupt:
        print(f"stopped after {len(results)} of {len(cases)} cases")
        status = 130
    summary(results, coverage)
    report(status != 130)
    return status


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
