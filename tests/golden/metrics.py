"""Writes tests/golden/metrics.json: rows, and what scikit-learn and SciPy say of them.

    pip install numpy scipy scikit-learn && python tests/golden/metrics.py

Made with scikit-learn 1.9.1, SciPy 1.17.1, NumPy 2.4.6.
"""
import json
import pathlib
import warnings

import numpy as np
from scipy.special import log_softmax
from scipy.stats import binomtest
from sklearn import metrics

warnings.simplefilter("ignore")  # classes without predictions, on purpose


def ece(confidence, right, bins=15):
    """Guo et al. 2017, as their temperature_scaling.py bins it: (low, high]."""
    edges = np.linspace(0, 1, bins + 1)
    return sum(
        inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
        for low, high in zip(edges[:-1], edges[1:])
        if (inside := (confidence > low) & (confidence <= high)).any()
    )


def case(name, seed, rows, classes, of_targets, scale):
    """Targets from of_targets; logits lean to them, in steps of 1/16, so that float32 holds them and ties occur."""
    rng = np.random.default_rng(seed)
    targets = rng.choice(of_targets, size=rows)
    logits = rng.normal(size=(rows, classes)) * 1.5
    logits[np.arange(rows), targets] += scale
    logits = np.round(logits * 16) / 16
    log_probs = log_softmax(logits, axis=1)
    predictions = logits.argmax(axis=1)  # the first of equals
    confidence = np.exp(log_probs.max(axis=1))
    want = {
        "accuracy": metrics.accuracy_score(targets, predictions),
        "balanced_accuracy": metrics.balanced_accuracy_score(targets, predictions),
        "macro_f1": metrics.f1_score(targets, predictions, average="macro"),
        "mcc": metrics.matthews_corrcoef(targets, predictions),
        "loss": metrics.log_loss(targets, np.exp(log_probs), labels=np.arange(classes)),
        "calibration_error": ece(confidence, targets == predictions),
    }
    if classes > 5:  # nudged so that equals stand in order of their index, as argmax takes them
        nudged = logits - 1e-6 * np.arange(classes)
        want["top5"] = metrics.top_k_accuracy_score(targets, nudged, k=5, labels=np.arange(classes))
    return {
        "name": name,
        "classes": classes,
        "targets": targets.tolist(),
        "logits": (logits * 16).astype(int).ravel().tolist(),  # in sixteenths
        "want": {key: float(value) for key, value in want.items()},
    }


def interval(k, n):
    test = binomtest(k, n)
    exact, wilson = (test.proportion_ci(0.95, method) for method in ("exact", "wilson"))
    return [k, n, *map(float, (exact.low, exact.high, wilson.low, wilson.high))]


golden = {
    "cases": [
        case("seven classes", 1, 90, 7, [0, 0, 0, 1, 2, 2, 3, 4, 5, 6], 1.5),
        case("yes or no", 2, 166, 2, [0, 1, 1, 1], 1.0),
        case("classes that never occur", 3, 40, 12, [2, 3, 5], 4.0),
        case("one class is the target", 4, 20, 3, [1], 0.5),
    ],
    "intervals": [interval(k, n) for k, n in
                  [(0, 166), (1, 166), (83, 166), (140, 166), (165, 166), (166, 166), (7, 9), (920, 1017),
                   (9123, 10000), (123456, 1000000)]],
}
target = pathlib.Path(__file__).with_suffix(".json")
target.write_text(json.dumps(golden, separators=(",", ":")).replace('{"name"', '\n{"name"') + "\n")
