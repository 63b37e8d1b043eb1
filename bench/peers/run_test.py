"""Tests of the driver that need no PyTorch: its statistics, and a whole run with scripted workers."""
import contextlib
import io
import json
import math
import os
import stat
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import run  # noqa: E402

# Stands for both programs: says what its role and the test's plan tell it to.
FAKE = '''#!/usr/bin/env python3
import json, sys
arguments = sys.argv
plan = json.load(open(PLAN))
def say(**m): print(json.dumps(m), flush=True)
if "-c" in arguments:
    print("9.9.9"); print("built by hand"); sys.exit(0)
if "--list" in arguments:
    print("op/3x4/f32"); print("op/9x9/f32"); print("copy/plain/8/f32"); print("copy/streaming/8/f32"); sys.exit(0)
if "--export" in arguments:
    open(arguments[arguments.index("--export") + 1], "w").close()
    say(digest=[2.0]); sys.exit(0)
peer = "--variant" in arguments
name = arguments[arguments.index("--case") + 1]
ms = plan["peer" if peer else "ours"] if not name.startswith("copy") else 1.0 if "plain" in name else 0.5
say(ready=True, baseline_bytes=100, digest=[plan["digest"]], works=2, calls_per_sample=1, flops=1e6, bytes=2e6, matrix=plan["matrix"])
for line in sys.stdin:
    if line.strip() == "finish": break
    say(ms=[ms] * int(line.split()[1]))
say(peak_rss_bytes=100 + (3 if peer else 1) * 2**20)
'''


class Statistics(unittest.TestCase):
    def test_median(self):
        self.assertEqual(run.median([3, 1, 2]), 2)
        self.assertEqual(run.median([4, 1, 2, 3]), 2.5)

    def test_interval_is_of_order_statistics(self):
        # Five rounds: the extremes hold the median unless all lie on one side, 1 - 2/32.
        self.assertEqual(run.interval_of_median([5, 1, 4, 2, 3]), (1, 5, 1 - 2 / 32))
        # Nine: the second from each end, 1 - 2 (1 + 9) / 512.
        self.assertEqual(run.interval_of_median(list(range(9))), (1, 7, 1 - 20 / 512))
        self.assertEqual(run.interval_of_median([7]), (7, 7, 0))

    def test_difference_is_relative(self):
        self.assertAlmostEqual(run.relative_difference([2.0, 10.0], [2.0, 11.0]), 0.1)
        for bad in ([1.0, float("nan")], [1.0], [1.0, float("inf")]):
            self.assertEqual(run.relative_difference([1.0, 2.0], bad), math.inf)


class WholeRun(unittest.TestCase):
    def drive(self, *arguments, digest=2.0, ours=2.0, peer=5.0, matrix=True, python=None):
        with tempfile.TemporaryDirectory() as folder:
            plan, fake, out = (os.path.join(folder, n) for n in ("plan", "fake", "out.json"))
            Path(plan).write_text(json.dumps({"digest": digest, "ours": ours, "peer": peer, "matrix": matrix}))
            Path(fake).write_text(FAKE.replace("PLAN", repr(plan)))
            os.chmod(fake, os.stat(fake).st_mode | stat.S_IXUSR)
            old, sys.argv = sys.argv, [
                "run.py", "--bench", fake, "--python", python or fake, "--only", "3x4", "--json", out, "--variants", "expert", *arguments]
            text = io.StringIO()
            try:
                with contextlib.redirect_stdout(text):
                    status = run.main()
            finally:
                sys.argv = old
            return status, text.getvalue(), json.loads(Path(out).read_text()) if os.path.exists(out) else None

    def test_ratio_memory_and_json(self):
        status, text, report = self.drive("--rounds", "5")
        self.assertEqual(status, 0)
        (row,) = report["rows"]
        self.assertEqual(row["case"], "op/3x4/f32")
        (peer,) = row["peers"]
        self.assertEqual((peer["ratio"], peer["low"], peer["high"]), (2.5, 2.5, 2.5))
        self.assertEqual(len(peer["round_ratios"]), 5)
        self.assertEqual((row["peak_rss_bytes"], peer["peak_rss_bytes"]), (2**20, 3 * 2**20))
        self.assertIn("2.50x", text)

    def test_what_memory_bounds_is_compared_with_the_faster_copy(self):
        _, text, report = self.drive("--rounds", "2", matrix=False)
        # 2 MB in 2 ms against 2 MB in half a millisecond.
        self.assertEqual(report["rows"][0]["roof"], {"copy_gb_per_s": 4.0, "share": 0.25})
        self.assertIn("25% of a copy's 4.0", text)
        self.assertIsNone(self.drive("--rounds", "1")[2]["rows"][0]["roof"])

    def test_a_peer_that_computes_something_else_fails_the_run(self):
        status, text, _ = self.drive("--rounds", "1", digest=2.1)
        self.assertEqual(status, 1)
        self.assertIn("COMPUTED SOMETHING ELSE", text)
        self.assertEqual(self.drive("--rounds", "1", digest=float("nan"))[0], 1)

    def test_the_lock_is_held_and_given_back(self):
        with tempfile.TemporaryDirectory() as folder:
            log = os.path.join(folder, "log")
            holder = os.path.join(folder, "holder")
            Path(holder).write_text(f'#!/bin/sh\necho take >>{log}\n"$@"\necho give >>{log}\n')
            os.chmod(holder, 0o755)
            self.assertEqual(self.drive("--rounds", "2", "--lock", holder)[0], 0)
            self.assertEqual(Path(log).read_text().split(), ["take", "give"])
            self.assertEqual(self.drive("--rounds", "2", "--lock", holder, "--hold", "0")[0], 0)
            self.assertEqual(Path(log).read_text().split(), ["take", "give"] * 3)

    def test_without_pytorch_it_is_skipped(self):
        status, text, report = self.drive(python="/bin/false")
        self.assertEqual((status, report), (77, None))
        self.assertIn("skipped: no PyTorch in /bin/false", text)


if __name__ == "__main__":
    unittest.main()
