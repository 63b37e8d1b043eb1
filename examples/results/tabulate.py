#!/usr/bin/env python3
"""Prints results.json and the per-epoch curves of a run folder as Markdown: what examples/results/*.md hold.

usage: tabulate.py RUN_FOLDER [baseline]
"""
import collections, json, statistics, sys

folder, baseline = sys.argv[1], (sys.argv[2] if len(sys.argv) > 2 else None)
results = json.load(open(folder + "/results.json"))
baseline = baseline or results["baseline"]
METRICS = [("validation.accuracy", "batch 5 (10,000)", 100), ("test.accuracy", "exact test (1,017)", 100),
           ("validation.loss", "batch 5 loss", 1), ("test.loss", "exact test loss", 1)]


def cell(metric, scale):
    if not metric or not metric["n"]:
        return "-"
    digits = 2 if scale == 100 else 3
    text = f"{scale * metric['mean']:.{digits}f}"
    if metric["n"] > 1:
        text += f" +- {scale * (metric['high95'] - metric['mean']):.{digits}f} (sd {scale * metric['sd']:.{digits}f})"
    return text


print("| arm | n | " + " | ".join(m[1] for m in METRICS) + " | wall time |")
print("|---|---|" + "---|" * (len(METRICS) + 1))
for arm in results["teachers"] + results["arms"]:
    cells = [cell(arm["metrics"].get(m), scale) for m, _, scale in METRICS]
    print(f"| {arm['name']} | {arm['n']} | " + " | ".join(cells) + f" | {arm['wall_s']:.0f} s |")
print(f"\nDifferences to {baseline}, paired by seed (points of accuracy, 95 % interval):\n")
print("| arm | n | batch 5 | exact test |\n|---|---|---|---|")
pairs = {(d["arm"], d["metric"]): d for d in results["paired_differences"]}
for arm in results["arms"]:
    row = [pairs.get((arm["name"], m)) for m in ("validation.accuracy", "test.accuracy")]
    if row[0]:
        print(f"| {arm['name']} | {row[0]['n']} | " +
              " | ".join(f"{100 * d['mean']:+.2f} [{100 * d['low95']:+.2f}, {100 * d['high95']:+.2f}]" if d and d["low95"] is not None else "-" for d in row) + " |")

curves = collections.defaultdict(lambda: collections.defaultdict(list))
lambdas = collections.defaultdict(list)
for line in open(folder + "/metrics.jsonl"):
    r = json.loads(line)
    if r.get("split") == "validation":
        curves[r["arm"]][r["epoch"]].append(r["accuracy"])
    if r.get("split") == "train" and r.get("arm") != "teacher":
        lambdas[r["arm"]].append(r["lambda"])
print("\nMean accuracy on batch 5 (percent) after each epoch:\n")
epochs = sorted({e for name, c in curves.items() if name != "teacher" for e in c})
print("| arm | " + " | ".join(f"{e:g}" for e in epochs) + " |\n|---|" + "---|" * len(epochs))
for arm in results["arms"]:
    print(f"| {arm['name']} | " + " | ".join(f"{100 * statistics.mean(curves[arm['name']][e]):.1f}" if curves[arm["name"]][e] else "-" for e in epochs) + " |")
print("\nLogged lambda (mean, least, greatest): " + "; ".join(f"{a} {statistics.mean(v):.3f}, {min(v):.3f}, {max(v):.3f}" for a, v in lambdas.items()))
