#!/usr/bin/env python3
"""A model, not a measurement: what a step of many GPUs would take, by latency and bandwidth.

usage: cost_model.py                  the table, as bench/README.md holds it
       cost_model.py --check FILE     1 if the table in FILE is another
       cost_model.py --all            more tables: bf16 on the wire, ResNet, slow cards

The step is Retort's: sums in fixed order go to their owners in two levels (all-to-all inside a node, then between equal
places of all nodes), owners update, what was updated goes to all. What it rests on (H: others measured it, A: assumed):

  NVLink 4, one direction, what NCCL reaches outside all-reduce     370 GB/s  H nccl-tests #212
  NVLS all-reduce on 8 x H200, bus bandwidth                        475 GB/s  H nccl-tests #272
  one 400 Gb/s card for each GPU; all-to-all sees one                48 GB/s  H nccl-tests #267, #290
  all-reduce over many nodes, bus bandwidth                         350 GB/s  H nccl-tests #283
  start of a collective 8.4 us, step over NVLink 3.4 us, over the network 14 us  H NCCL's tuning table
  one more message of a group to another node                         2 us   A
  memory 4.0 TB/s; AdamW 28 bytes a parameter, its norm 2                     A
  messages slow what runs beside them down by 12 % of their time              A
  a step of DistilBERT from BERT-base takes 1.0 ms + 0.977 us a token, of which the teacher 37.5 %, the student's forward
  pass 20.8 %, and the update comes on top                                    A: goals, not measurements
"""
import math
import sys

NVLINK, CARD, NVLS, NETWORK_ALL_REDUCE = 370e9, 48e9, 475e9, 350e9
START, STEP, NETWORK_STEP, POST = 8.4e-6, 3.4e-6, 14e-6, 2e-6
MEMORY, BESIDE = 4.0e12, 0.12
GPUS_OF_A_NODE = 8
COUNTS = [2**k for k in range(11)]


def levels(gpus):
    return min(gpus, GPUS_OF_A_NODE), max(1, gpus // GPUS_OF_A_NODE)


def exchange(bytes_in_all, gpus, card):
    """One direction, in seconds."""
    inside, nodes = levels(gpus)
    seconds = 0.0
    if inside > 1:
        seconds += START + STEP + bytes_in_all * (inside - 1) / inside / NVLINK
    if nodes > 1:
        seconds += START + NETWORK_STEP + POST * (nodes - 1) + bytes_in_all / inside * (nodes - 1) / nodes / card
    return seconds


def adding(n, gpus):
    inside, nodes = levels(gpus)
    seconds = 0.0
    if inside > 1:
        seconds += (n + n / inside) * 4 / MEMORY + 3e-6
    if nodes > 1:
        seconds += (n / inside + n / inside / nodes) * 4 / MEMORY + 3e-6
    return seconds


def all_reduce(bytes_in_all, gpus, card):
    """NCCL's best, in seconds."""
    if gpus == 1:
        return 0.0
    bus = NVLINK if gpus < 8 else NVLS if gpus == 8 else min(NETWORK_ALL_REDUCE, 8 * card)
    latency = START + 6 * STEP + (2 * math.log2(gpus / 8) * NETWORK_STEP if gpus > 8 else 0)
    return latency + bytes_in_all * 2 * (gpus - 1) / gpus / bus


class Work:
    """n parameters; seconds of a step of so many units, without the update; shares of it; `late`: share of the gradient
    that is complete only when the backward pass ends."""

    def __init__(self, n, seconds, teacher, forward, late):
        self.n, self.seconds, self.teacher, self.forward, self.late = n, seconds, teacher, forward, late


BERT = Work(66.4e6, lambda tokens: 1.0e-3 + 0.977e-6 * tokens, 0.375, 0.208, 0.35)
# The first order of the step: nothing of the exchange beside backward, all of it beside the next batch's teacher.
BERT_FIRST_ORDER = Work(BERT.n, BERT.seconds, BERT.teacher, BERT.forward, 1.0)
RESNET = Work(11.2e6, lambda images: 0.5e-3 + 28e-3 / 1024 * images, 20 / 29, 3 / 29, 0.02)


def step(work, gpus, units, teacher=True, wire=4, card=CARD):
    """Milliseconds: the step, and what of it is the exchange, hidden or not."""
    compute = work.seconds(units)
    backward = compute * (1 - work.teacher - work.forward)
    of_teacher = compute * work.teacher
    if not teacher:
        compute, of_teacher = compute - of_teacher, 0.0
    update = work.n * 30 / MEMORY / gpus + 5e-6
    if gpus == 1:
        return (compute + update) * 1e3, 0.0
    early, late = work.n * (1 - work.late), work.n * work.late
    first = exchange(early * wire, gpus, card) + adding(early, gpus)  # beside backward
    second = exchange(late * wire, gpus, card) + adding(late, gpus) + update + exchange(work.n * wire, gpus, card)
    hidden = min(first, backward) + min(second, of_teacher)
    total = compute + first + second - hidden + BESIDE * hidden
    return total * 1e3, (first + second - update) * 1e3


def plain(work, gpus, units, card=CARD):
    """The same step with an all-reduce that nothing hides, and every GPU updating all."""
    return (work.seconds(units) + work.n * 30 / MEMORY + all_reduce(work.n * 4, gpus, card)) * 1e3


def efficiency(work, gpus, units, units_of_one, **how):
    one = step(work, 1, units_of_one, **how)[0] / units_of_one
    return 100 * one * units / step(work, gpus, units, **how)[0]


def table():
    rows = [
        "| GPUs | exchange, ms | teacher, 32,768 tokens a GPU: step, eff. | 4,096: first order / with buckets | eff. | "
        "no teacher, 32,768 / 4,096: eff. | teacher, 262,144 tokens in all: step, eff. | all-reduce, no overlap, 4,096: step |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for gpus in COUNTS:
        big, exchanged = step(BERT, gpus, 32768)
        first, buckets = step(BERT_FIRST_ORDER, gpus, 4096)[0], step(BERT, gpus, 4096)[0]
        fixed = step(BERT, gpus, 262144 / gpus)[0]
        rows.append(
            f"| {gpus:,} | {exchanged:.2f} | {big:.1f}, {efficiency(BERT, gpus, 32768, 32768):.0f} "
            f"| {first:.2f} / {buckets:.2f} "
            f"| {efficiency(BERT_FIRST_ORDER, gpus, 4096, 4096):.0f} / {efficiency(BERT, gpus, 4096, 4096):.0f} "
            f"| {efficiency(BERT, gpus, 32768, 32768, teacher=False):.0f} / "
            f"{efficiency(BERT, gpus, 4096, 4096, teacher=False):.0f} "
            f"| {fixed:.2f}, {efficiency(BERT, gpus, 262144 / gpus, 262144):.0f} "
            f"| {plain(BERT, gpus, 4096):.2f} |"
        )
    return "\n".join(rows)


def more_tables():
    for title, work, units, how in [
        ("DistilBERT, 262,144 tokens in all, bf16 on the wire", BERT, lambda g: 262144 / g, {"wire": 2}),
        ("DistilBERT, 32,768 tokens a GPU, one 100 Gb/s card a node", BERT, lambda g: 32768, {"card": 1.4e9}),
        ("ResNet-18 from ResNet-152, 1,024 images a GPU", RESNET, lambda g: 1024, {}),
        ("ResNet-18 from ResNet-152, 1,024 images in all", RESNET, lambda g: 1024 / g, {}),
    ]:
        print(f"\n{title}: GPUs, exchange ms, step ms, efficiency %")
        for gpus in COUNTS:
            if units(gpus) < 1:
                continue
            total, exchanged = step(work, gpus, units(gpus), **how)
            print(f"{gpus:6,} {exchanged:8.2f} {total:8.2f} {efficiency(work, gpus, units(gpus), units(1), **how):6.0f}")


def main(words):
    if words == ["--all"]:
        print(table())
        more_tables()
        return 0
    if len(words) == 2 and words[0] == "--check":
        with open(words[1], encoding="utf-8") as file:
            if table() in file.read():
                return 0
        print(f"{words[1]} does not hold the table that this script prints: paste it anew", file=sys.stderr)
        return 1
    if words:
        print(__doc__, file=sys.stderr)
        return 2
    print(table())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
