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

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent

# What ours and the peer must agree in, relative: the digest of the first run.
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
FOREIGN = 0.10  # share of the machine used by others above which a round is repeated


class Failure(Exception):
    pass


def median(values):
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def interval_of_median(values):
    """Widest-needed order statistics around the median, and the chance that they hold it."""
    ordered, n = sorted(values), len(values)
    cumulative, term = 0.0, 0.5**n
    low = 0
    for k in range(n // 2):
        cumulative += term  # P(Binomial(n, 1/2) <= k)
        if 2 * cumulative > 0.05:
            break
        low = k
        term = term * (n - k) / (k + 1)
    outside, term = 0.0, 0.5**n
    for k in range(low + 1):
        outside += term
        term = term * (n - k) / (k + 1)
    return ordered[low], ordered[n - 1 - low], 1 - 2 * outside


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
        self.process = subprocess.Popen(
            command, env={**os.environ, **environment}, cwd=HERE, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self.log, text=True)
        self.hello = self.read()
        self.missing = self.hello.get("unavailable")
        if self.missing:
            self.kill()

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.log.seek(0)
            raise Failure(f"{self.label} stopped ({self.process.returncode}):\n{self.log.read()[-3000:]}")
        return json.loads(line)

    def ask(self, text):
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()
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
            self.holder = subprocess.Popen(
                self.command + ["sh", "-c", "echo held; exec cat >/dev/null"], stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, text=True)
            if self.holder.stdout.readline().strip() != "held":
                raise Failure(f"--lock: '{' '.join(self.command)}' did not run its arguments")

    def __exit__(self, *_):
        if self.command:
            self.holder.communicate()


class Peer:
    """One Python with PyTorch."""

    def __init__(self, python):
        self.python = python
        probe = subprocess.run(
            [python, "-c", "import torch; print(torch.__version__); print(torch.__config__.show())"],
            capture_output=True, text=True)
        self.found = probe.returncode == 0
        if self.found:
            self.version, _, self.build = probe.stdout.partition("\n")
            self.debian = self.version.startswith("1.13")
            self.name = "torch " + self.version.split("+")[0]

    def environment(self, variant):
        """What is set for a variant: nothing for users, who run it as installed."""
        kind, _, name = variant.partition("+")
        name = name or ("installed" if kind == "users" else "tuned")
        if name == "installed":
            return {}
        return {**ENVIRONMENTS[name], **(DEBIAN if self.debian else {})}


def cases_of(bench, patterns, smoke):
    command = [bench, "worker", "--list"] + (["--smoke"] if smoke else [])
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    if not patterns and smoke:
        patterns = SMOKE
    if not patterns:
        patterns = ["step/", "distill_loss/forward_kl/1024x28996/f32", "sgd/momentum/11173962/f32", "adamw/11173962/f32"]
    return [c for c in out if any(p in c or fnmatch.fnmatch(c, p) for p in patterns)]


def relative_difference(ours, theirs):
    """The largest; infinite where a number is not finite or missing."""
    if len(ours) != len(theirs) or not all(map(math.isfinite, ours + theirs)):
        return math.inf
    return max(abs(a - b) / max(abs(a), 1e-12) for a, b in zip(ours, theirs))


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
        if exported.returncode:
            raise Failure(exported.stderr)
        digest = json.loads(exported.stdout.splitlines()[-1])["digest"]
        us = Worker("ours", ours, {"OMP_NUM_THREADS": threads}, inputs)
        self.workers.append(us)
        if not us.hello["matrix"]:
            for name in cases_of(o.bench, COPIES, o.smoke):
                command = [o.bench, "worker", "--case", name, "--threads", threads] + (["--smoke"] if o.smoke else [])
                self.roofs.append(Worker(name, command, {"OMP_NUM_THREADS": threads}, inputs))
        for peer in self.peers:
            for variant in o.variants:
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
                    self.notes.append(f"{label}: {worker.missing}")
                    continue
                difference = relative_difference(digest, worker.hello["digest"])
                worker.difference = difference
                if not difference <= TOLERANCE[self.case.rsplit("/", 1)[1]]:
                    self.failed = True
                    self.notes.append(f"{label} COMPUTED SOMETHING ELSE: {worker.hello['digest']}, ours {digest}")
                self.workers.append(worker)

    def measure(self):
        o = self.options
        calls = self.workers[0].hello["calls_per_sample"]
        for worker in self.workers + self.roofs:  # how many samples fill a turn
            calls = worker.hello.get("calls_per_sample", calls)
            worker.samples = max(1, min(500, int(o.seconds * 1e3 / (median(worker.round(1)[0]) * calls))))
        done = 0
        while done < o.rounds:
            with Lock(o.lock):
                end = time.monotonic() + o.hold
                while True:
                    self.round(done)
                    done += 1
                    if done == o.rounds or time.monotonic() > end:
                        break
        for worker in self.workers:
            end = worker.finish()
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
        return {"copy_gb_per_s": median(copies), "share": median([a / b for a, b in zip(own, copies)])}

    def round(self, i):
        """Every worker in turn, forwards and backwards by turns; again if others were busy."""
        for attempt in range(4):
            order = self.workers[:1] + self.roofs + self.workers[1:]
            if (i + attempt) % 2:
                order.reverse()
            results = {worker: worker.round(worker.samples) for worker in order}
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
                "peer": worker.label, "median_ms": worker.ms, "ratio": median(ratios), "low": low, "high": high,
                "coverage": coverage, "round_ratios": ratios, "samples_ms": worker.times, "foreign": worker.foreign,
                "peak_rss_bytes": worker.peak, "digest_difference": worker.difference})
        return {
            "case": self.case, "roof": self.roof(), "ours_ms": us.ms, "samples_ms": us.times, "foreign": us.foreign, "flops": us.hello["flops"],
            "bytes": us.hello["bytes"], "matrix": us.hello["matrix"], "peak_rss_bytes": us.peak, "memory": us.end, "peers": entries, "notes": self.notes}

    def kill(self):
        for worker in self.workers + self.roofs:
            if worker.process.returncode is None:
                worker.kill()


def show(result):
    mib = 1 << 20
    what, unit = (result["flops"], "GFLOP/s") if result["matrix"] else (result["bytes"], "GB/s")
    rate = f"{what / result['ours_ms'] / 1e6:.1f} {unit}"
    if result["roof"]:
        rate += f", {result['roof']['share']:.0%} of a copy's {result['roof']['copy_gb_per_s']:.1f}"
    print(f"{result['case']}")
    print(f"  {'ours':<29}{result['ours_ms']:>11.4f} ms{'':>29}{result['peak_rss_bytes'] / mib:>9.0f} MiB   {rate}")
    for p in result["peers"]:
        print(f"  {p['peer']:<29}{p['median_ms']:>11.4f} ms   {p['ratio']:>6.2f}x [{p['low']:.2f}, {p['high']:.2f}]"
              f"{'':>4}{p['peak_rss_bytes'] / mib:>9.0f} MiB   agrees to {p['digest_difference']:.0e}")
    foreign = max([f for p in result["peers"] for f in p["foreign"]] + result["foreign"])
    if foreign > FOREIGN:
        print(f"  unquiet: others used up to {foreign:.0%} of the machine in a round kept")
    for note in result["notes"]:
        print(f"  {note}")
    sys.stdout.flush()


def summary(results, coverage):
    print(f"\nratio = median of a round's (peer / ours), [ ] holds it with {coverage:.0%}; fastest: least median of the "
          "tuned variants;\nas installed: 'users' variant, nothing set; memory: peak resident above the start, ours, the fastest peer's, the "
          "least of all;\nof copy: GB/s as a share of what a copy moves, in turn with it")
    print(f"{'case':<42}{'ours ms':>10}  {'fastest peer':<28}{'ratio':>7}  {'interval':<15}{'as installed':>13}  "
          f"{'MiB ours':>8}{'peer':>7}{'least':>7}{'of copy':>9}")
    for r in results:
        tuned = [p for p in r["peers"] if not p["peer"].endswith(" users")] or r["peers"]
        users = [p["ratio"] for p in r["peers"] if p["peer"].endswith(" users")]
        if not tuned:
            continue
        best = min(tuned, key=lambda p: p["median_ms"])
        least = min(p["peak_rss_bytes"] for p in r["peers"])
        installed = "/".join(f"{x:.1f}x" for x in users)
        share = f"{r['roof']['share']:.0%}" if r["roof"] else ""
        print(f"{r['case']:<42}{r['ours_ms']:>10.4f}  {best['peer']:<28}{best['ratio']:>6.2f}x  "
              f"[{best['low']:.2f}, {best['high']:.2f}]{'':<3}{installed:>11}  {r['peak_rss_bytes'] / 2**20:>8.0f}"
              f"{best['peak_rss_bytes'] / 2**20:>7.0f}{least / 2**20:>7.0f}{share:>9}")


def run_on_cuda(o):
    """The kernels that have a peer on a GPU: one process each Python, no turns with ours."""
    command = [str(HERE / "kernels_cuda.py"), "--device", "cuda", "--seconds", str(o.seconds)] + (["--smoke"] if o.smoke else [])
    for text in o.only:
        command += ["--only", text]
    if o.json:
        command += ["--json", o.json]
    return max(subprocess.call([python] + command) for python in o.python)


def parse():
    p = argparse.ArgumentParser(prog="run.sh", description=__doc__)
    p.add_argument("--only", action="append", default=[], metavar="TEXT", help="cases whose name holds TEXT")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--seconds", type=float, default=1.0, help="of samples per worker and round")
    p.add_argument("--python", action="append", default=[], help="a Python that has PyTorch; may be given twice")
    p.add_argument("--variants", default=None, help="of expert, nchw, users, compile, jit, manual; expert+malloc, +thp, +jemalloc, +installed: in another environment")
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="cuda: PyTorch's kernels alone (kernels_cuda.py)")
    p.add_argument("--bench", default=str(ROOT / "build/release/bin/distill_bench"))
    p.add_argument("--json", metavar="FILE")
    p.add_argument("--lock", metavar="COMMAND", help="runs its arguments when it has the machine: 'flock /tmp/bench'")
    p.add_argument("--hold", type=float, default=30, help="seconds after which the lock is given back between rounds")
    p.add_argument("--smoke", action="store_true", help="toy sizes: do both still compute the same?")
    p.add_argument("--list", action="store_true")
    o = p.parse_args()
    o.variants = (o.variants or ("expert" if o.smoke else "expert,users")).split(",")
    unknown = {v.partition("+")[2] or "tuned" for v in o.variants} - set(ENVIRONMENTS)
    if unknown:
        p.error(f"no environment {', '.join(unknown)}: {', '.join(ENVIRONMENTS)}")
    if o.smoke:
        o.rounds, o.seconds, o.threads = 1, 0.001, 1
    if not o.python:
        o.python = [os.environ.get("RETORT_PYTHON", "python3")]
    if o.rounds < 1:
        p.error("--rounds must be at least 1")
    return o


def main():
    options = parse()
    if options.device == "cuda":
        return run_on_cuda(options)
    if not shutil.which(options.bench):
        print(f"{options.bench} is not there: build the target distill_bench, or name it by --bench", file=sys.stderr)
        return 2
    options.bench = os.path.abspath(options.bench)
    cases = cases_of(options.bench, options.only, options.smoke)
    if options.list or not cases:
        print("\n".join(cases))
        return 0 if cases else 2
    peers = [peer for peer in map(Peer, options.python) if peer.found]
    if not peers:
        print(f"skipped: no PyTorch in {', '.join(options.python)} (RETORT_PYTHON or --python names one)")
        return 77
    for peer in peers:
        settings = " ".join(f"{k}={v}" for k, v in peer.environment("expert").items())
        print(f"{peer.name}: {peer.python}; tuned: {settings} OMP_NUM_THREADS={options.threads}")
    results, status, coverage = [], 0, 0
    for case in cases:
        row = Row(case, options, peers)
        with tempfile.TemporaryDirectory() as folder:
            try:
                row.start(folder)
                row.measure()
            except Failure as reason:
                print(f"{case}: {reason}", file=sys.stderr)
                status = 1
                continue
            finally:
                row.kill()
        result = row.result()
        status = max(status, int(row.failed))
        coverage = result["peers"][0]["coverage"] if result["peers"] else coverage
        show(result)
        results.append(result)
    summary(results, coverage)
    if options.json:
        stamp = {
            "program": "bench/peers", "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "threads": options.threads, "rounds": options.rounds,
            "peers": [{"name": p.name, "version": p.version, "build": p.build, "tuned": p.environment("expert")}
                      for p in peers], "rows": results}
        Path(options.json).write_text(json.dumps(stamp) + "\n")
    return status


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
