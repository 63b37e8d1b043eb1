#!/usr/bin/env python3
"""Processes against threads: 1 process x 1 thread, 1 x 2, 2 x 1 in turns, on the CPU of this machine.

usage: scaling.py KDTRAIN MPIRUN [--rounds 5] [--steps 40] [--json FILE] [--smoke]

Each round runs all three, so that what else the machine does meets them alike. Printed for each: CPU seconds of its
busiest process for 1,000 samples, which load hardly changes; samples a second (median and range), which load does; the
share of its time that a rank moves bytes of steps or waits for others. Ratios are of medians, and of one run only: a
speed-up in seconds means something where nothing else ran, and a warning says where something did. All three leave the
same weights, or it ends with 1. --smoke: one round of two steps, for tests.
"""
import argparse
import hashlib
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time

WAYS = [(1, 1), (1, 2), (2, 1)]  # processes x threads
BATCH = 128
HERE = os.path.dirname(os.path.abspath(__file__))


def make_images(folder):
    draw = random.Random(1)
    for name, count in (("train.bin", 256), ("test.bin", 16)):
        with open(os.path.join(folder, name), "wb") as file:
            for i in range(count):
                file.write(bytes([i % 10]) + draw.randbytes(3072))


def busy_cores(seconds=1.0):
    """Cores that others keep busy just now."""

    def ticks():
        with open("/proc/stat", encoding="ascii") as file:
            numbers = [int(word) for word in file.readline().split()[1:]]
        return sum(numbers) - numbers[3] - numbers[4]

    before = ticks()
    time.sleep(seconds)
    return (ticks() - before) / os.sysconf("SC_CLK_TCK") / seconds


def run(options, work, ranks, threads, number):
    out = os.path.join(work, f"{ranks}x{threads}-{number}")
    train = [
        options.kdtrain, "run", os.path.join(HERE, "scaling.toml"), f"data.root={work}", f"train.steps={options.steps}",
        f"train.log_steps={options.steps}", "--device", "cpu", "--threads", str(threads), "--out", out,
    ]
    # The shell's own clock: of each process alone, whoever started it.
    command = ["bash", "-c", 'TIMEFORMAT="cpu %U %S"; time "$@"', "bash"] + train
    if ranks > 1:
        command = [options.mpirun, "-np", str(ranks)] + command
    environment = dict(os.environ, OMP_WAIT_POLICY="passive", OMPI_MCA_rmaps_base_oversubscribe="1")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    cpu = [float(user) + float(system) for user, system in re.findall(r"^cpu ([0-9.]+) ([0-9.]+)$", done.stderr, re.M)]
    if len(cpu) != ranks:
        sys.exit(f"expected the times of {ranks} processes:\n{done.stderr}")
    line = {}
    with open(os.path.join(out, "metrics.jsonl"), encoding="utf-8") as file:
        for text in file:
            one = json.loads(text)
            if one["arm"] == "kd" and one["split"] == "train":
                line = one
    with open(os.path.join(out, "arms", "kd", "seed1", "model.safetensors"), "rb") as file:
        weights = hashlib.sha256(file.read()).hexdigest()
    return {
        "cpu_s_per_1000": 1000 * max(cpu) / (options.steps * BATCH),
        "samples_per_s": line["samples_per_s"],
        "share_exchange": line.get("share_exchange", 0.0),
        "weights": weights,
    }


def main():
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("kdtrain")
    parse.add_argument("mpirun")
    parse.add_argument("--rounds", type=int, default=5)
    parse.add_argument("--steps", type=int, default=40)
    parse.add_argument("--json")
    parse.add_argument("--smoke", action="store_true")
    options = parse.parse_args()
    if options.smoke:
        options.rounds, options.steps = 1, 2
    busy = busy_cores()
    found = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as work:
        make_images(work)
        for number in range(options.rounds):
            for way in WAYS:
                found[way].append(run(options, work, *way, number))
    weights = {one["weights"] for runs in found.values() for one in runs}
    if len(weights) != 1:
        sys.exit("the weights differ: they should depend on neither processes nor threads")
    median = {way: {key: statistics.median(one[key] for one in runs) for key in runs[0] if key != "weights"}
              for way, runs in found.items()}
    print("processes x threads | CPU s of the busiest process, 1,000 samples | samples/s: median (range) | exchange, share")
    for way, runs in found.items():
        rates = [one["samples_per_s"] for one in runs]
        print(f"{way[0]} x {way[1]} | {median[way]['cpu_s_per_1000']:.3f} | {median[way]['samples_per_s']:.0f} "
              f"({min(rates):.0f} to {max(rates):.0f}) | {median[way]['share_exchange']:.3f}")
    ratio = lambda key, a, b: median[a][key] / median[b][key]
    print(f"the same weights in all {3 * options.rounds} runs")
    print(f"CPU seconds of the busiest process, 2 x 1 over 1 x 1: {ratio('cpu_s_per_1000', (2, 1), (1, 1)):.2f}")
    print(f"samples/s, 2 x 1 over 1 x 1: {ratio('samples_per_s', (2, 1), (1, 1)):.2f}; "
          f"1 x 2 over 1 x 1: {ratio('samples_per_s', (1, 2), (1, 1)):.2f}; "
          f"2 x 1 over 1 x 2: {ratio('samples_per_s', (2, 1), (1, 2)):.2f}")
    if busy > 0.1:
        print(f"WARNING: {busy:.1f} cores were busy with other things before this began: ratios of samples/s say little")
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"busy_cores": busy, "runs": {f"{r}x{t}": runs for (r, t), runs in found.items()}}, file)


if __name__ == "__main__":
    main()
