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
import json, os, sys
arguments = sys.argv
plan = json.load(open(PLAN))
def say(**m): print(json.dumps(m), flush=True)
if "-c" in arguments:
    print(plan["version"]); print(plan["place"]); print("built by hand"); sys.exit(0)
if "--variants-of" in arguments:
    say(variants={case: plan["known"] for case in arguments[arguments.index("--variants-of") + 1:]}); sys.exit(0)
if arguments[1].endswith("kernels_cuda.py"):
    json.dump(" ".join(arguments), open(arguments[arguments.index("--json") + 1], "w")); sys.exit(plan["cuda"])
if "--list" in arguments:
    print("op/3x4/f32"); print("op/9x9/f32"); print("copy/plain/8/f32"); print("copy/streaming/8/f32"); sys.exit(0)
if "--export" in arguments:
    open(arguments[arguments.index("--export") + 1], "w").close()
    say(digest=[2.0]); sys.exit(0)
peer = "--variant" in arguments
name = arguments[arguments.index("--case") + 1]
ms = plan["peer" if peer else "ours"] if not name.startswith("copy") else 1.0 if "plain" in name else 0.5
variant = arguments[arguments.index("--variant") + 1] if peer else ""
if variant == "talks": print("a library says hello", flush=True)
if variant == "old": say(unavailable="too old for it"); sys.exit(0)
if variant == "refuses": sys.stdin.close()
say(ready=True, baseline_bytes=100, digest=[plan["digest"]], works=2, calls_per_sample=1, flops=1e6, bytes=2e6, matrix=plan["matrix"])
for line in sys.stdin:
    if line.strip() == "finish": break
    if variant == "dies": print("out of memory", file=sys.stderr); sys.exit(9)
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
    def drive(self, *arguments, digest=2.0, ours=2.0, peer=5.0, matrix=True, python=None, variants="expert", only="3x4", pythons=1,
              **more):
        """The exit status, what was printed, and the report."""
        with tempfile.TemporaryDirectory() as folder:
            plan, fake, out = (os.path.join(folder, n) for n in ("plan", "fake", "out.json"))
            Path(plan).write_text(json.dumps({
                "digest": digest, "ours": ours, "peer": peer, "matrix": matrix, "version": "9.9.9", "place": "/opt/torch/__init__.py",
                "known": ["expert", "talks", "old", "dies", "refuses"], "cuda": 0, **more}))
            Path(fake).write_text(FAKE.replace("PLAN", repr(plan)))
            os.chmod(fake, os.stat(fake).st_mode | stat.S_IXUSR)
            old, sys.argv = sys.argv, [
                "run.py", "--bench", fake, *["--python", python or fake] * pythons, "--only", only, "--json", out,
                *(["--variants", variants] if variants else []), *arguments]
            self.fake = fake
            text = io.StringIO()
            try:
                with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
                    status = run.main()
            except SystemExit as stopped:
                status = stopped.code
            finally:
                sys.argv = old
            self.files = {name: Path(folder, name).read_text() for name in sorted(os.listdir(folder)) if name.startswith("out")}
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
        self.assertEqual(report["rows"][0]["roof"], {"copy_gb_per_s": 4.0, "ours_gb_per_s": 1.0, "share": 0.25})
        self.assertIn("1.0/4.0 25%", text.splitlines()[-1])
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

    def test_a_second_python_without_pytorch_is_named(self):
        status, text, report = self.drive("--rounds", "1", "--python", "/bin/false")
        self.assertEqual((status, len(report["rows"])), (0, 1))
        self.assertIn("skipped: no PyTorch in /bin/false", text)

    def test_what_cannot_be_measured_is_wrong_usage(self):
        for arguments, words in (
                (dict(python="/nope"), "--python /nope: No such file"), (dict(only="zzz"), "no case matches zzz")):
            status, text, report = self.drive(**arguments)
            self.assertEqual((status, report), (2, None), text)
            self.assertIn(words, text)
        for arguments, words in (
                (("--json", "/nope/out.json"), "--json /nope/out.json: No such file"), (("--threads", "0"), "--threads must be at least 1"),
                (("--rounds", "0"), "--rounds must be at least 1"), (("--seconds", "0"), "--seconds must be above 0"),
                (("--variants", "expert+nope"), "no environment nope"), (("--bench", "/bin/false"), "/bin/false: 1")):
            status, text, _ = self.drive(*arguments)
            self.assertEqual(status, 2, text)
            self.assertIn(words, text)

    def test_all_variants_of_a_case_run_unless_told(self):
        names = lambda **given: [p["variant"] for p in self.drive("--rounds", "1", **given)[2]["rows"][0]["peers"]]
        self.assertEqual(names(variants=None, known=["expert", "autotune", "users"]), ["expert", "users"])
        self.assertEqual(names(variants="nchw,expert,expert+malloc"), ["expert", "expert+malloc"])

    def test_a_case_that_no_peer_has_is_named_and_left_out(self):
        status, text, report = self.drive("--rounds", "1", known=[])
        self.assertEqual((status, report["rows"]), (0, []))
        self.assertIn("left out, as no peer has them: op/3x4/f32", text)

    def test_a_variant_that_cannot_run_is_skipped_with_its_reason(self):
        status, text, report = self.drive("--rounds", "1", variants="expert,old,nchw")
        self.assertEqual(status, 0)
        self.assertIn("torch 9.9.9 old: skipped: too old for it", text)
        self.assertIn("torch 9.9.9: this case has no variant nchw", text)
        self.assertTrue(text.rstrip().endswith(" expert"), text)  # the column of variants that ran

    def test_a_peer_that_stops_or_babbles_does_not_end_the_others(self):
        for bad, words in (("talks", "which is no message"), ("dies", "out of memory"), ("refuses", "torch 9.9.9 refuses: failed")):
            status, text, report = self.drive("--rounds", "2", variants=f"{bad},expert")
            self.assertEqual(status, 1, text)
            self.assertIn(words, text)
            self.assertEqual([p["variant"] for p in report["rows"][0]["peers"]], ["expert"])
            self.assertTrue(report["complete"])

    def test_a_stopped_run_keeps_the_cases_it_has(self):
        old, calls = run.measured, []

        def measured(case, *rest):
            if calls:
                raise KeyboardInterrupt
            calls.append(case)
            return old(case, *rest)

        run.measured = measured
        try:
            status, text, report = self.drive("--rounds", "1", only="op/")
        finally:
            run.measured = old
        self.assertEqual((status, report["complete"]), (130, False))
        self.assertEqual([row["case"] for row in report["rows"]], ["op/3x4/f32"])
        self.assertIn("stopped after 1 of 2 cases", text)

    def test_debians_settings_are_for_debians_build(self):
        settings = lambda **plan: self.drive("--rounds", "1", **plan)[2]["peers"][0]["tuned"]
        place = "/usr/lib/python3/dist-packages/torch/__init__.py"
        self.assertIn("LD_LIBRARY_PATH", settings(place=place))
        self.assertNotIn("LD_LIBRARY_PATH", settings(version="1.13.1"))

    def test_on_a_gpu_each_python_writes_its_own_file(self):
        status, _, report = self.drive("--device", "cuda", "--seconds", "2", variants="expert,manual", pythons=2)
        self.assertEqual((status, report, list(self.files)), (0, None, ["out.0.json", "out.1.json"]))
        for words in ("--seconds 2", "--only 3x4", "--variants expert,manual", "--bench " + self.fake):
            self.assertIn(words, self.files["out.1.json"])
        self.assertEqual(self.drive("--device", "cuda", cuda=77)[0], 77)
        self.assertEqual(self.drive("--device", "cuda", cuda=1)[0], 1)
        for flag in ("--rounds", "--threads"):
            self.assertEqual(self.drive("--device", "cuda", flag, "2")[0], 2)


class ExitOnCuda(unittest.TestCase):
    def test_a_skip_hides_neither_success_nor_failure(self):
        class Options:
            seconds, smoke, only, variants, bench, python, json = 1.0, False, [], None, "/nope", ["a", "b"], None

        old = run.subprocess.call
        try:
            for statuses, want in (((0, 77), 0), ((77, 77), 77), ((77, 1), 1), ((0, 1), 1)):
                given = iter(statuses)
                run.subprocess.call = lambda command: next(given)
                self.assertEqual(run.run_on_cuda(Options), want)
        finally:
            run.subprocess.call = old


if __name__ == "__main__":
    unittest.main()
