#!/usr/bin/env python3
"""WordPiece: kdtrain tokenize against Hugging Face tokenizers, and nanotoken where it is installed. One thread each.

    python bench/peers/wordpiece.py --kdtrain build/release/bin/kdtrain --vocab bert-base-uncased-vocab.txt \\
        --text pubmed_abstracts.txt.xz [--lines 8000] [--rounds 3] [--json out.json]

Every side gets the same lines; its ids must be those of tokenizers, or it exits with 1. Sides take turns, a ratio is taken
within a round, the table shows the median. Time is processor time (user and system), which other programs on the machine
change little. Ours is the whole program: it starts, reads the vocabulary, reads standard input, writes JSON. The others are
calls in this process, loaded and warm, that give Python lists (tokenizers) or an array (nanotoken, its cache cleared first).
Without tokenizers it says so and exits with 77.
"""
import argparse
import json
import lzma
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"


def tokenizer_json(vocab):
    with open(vocab, encoding="utf-8", newline="\n") as f:
        ids = {line.strip(): i for i, line in enumerate(f)}
    special = [dict(id=ids[t], content=t, single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
               for t in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")]
    return json.dumps(dict(
        version="1.0", truncation=None, padding=None, added_tokens=special,
        normalizer=dict(type="BertNormalizer", clean_text=True, handle_chinese_chars=True, strip_accents=None, lowercase=True),
        pre_tokenizer=dict(type="BertPreTokenizer"), post_processor=None, decoder=None,
        model=dict(type="WordPiece", unk_token="[UNK]", continuing_subword_prefix="##", max_input_chars_per_word=100, vocab=ids)))


def ours(program, tokenizer, texts, folder):
    def run():
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        with open(texts, "rb") as source, open(os.path.join(folder, "ids"), "wb") as out:
            subprocess.run([program, "tokenize", "--tokenizer", tokenizer], stdin=source, stdout=out, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        with open(os.path.join(folder, "ids"), encoding="ascii") as f:
            return seconds, [json.loads(line) for line in f]
    return run


def in_process(call, ids_of, prepare=lambda: None):
    def run():
        prepare()
        start = time.process_time()
        result = call()
        seconds = time.process_time() - start
        return seconds, ids_of(result)
    return run


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kdtrain", default="build/release/bin/kdtrain")
    parser.add_argument("--vocab", required=True)
    parser.add_argument("--text", required=True)
    parser.add_argument("--lines", type=int, default=0, help="the first so many; 0: all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json")
    args = parser.parse_args()
    try:
        import tokenizers
    except ImportError:
        print("tokenizers is not installed: nothing to compare with")
        return 77
    reader = lzma.open if args.text.endswith(".xz") else open
    with reader(args.text, "rt", encoding="utf-8", newline="\n") as f:
        lines = [line.rstrip("\n") for _, line in zip(range(args.lines or sys.maxsize), f)]
    size = sum(len(line.encode()) + 1 for line in lines)
    with tempfile.TemporaryDirectory() as folder:
        model, texts = os.path.join(folder, "tokenizer.json"), os.path.join(folder, "texts")
        text = tokenizer_json(args.vocab)
        with open(model, "w", encoding="utf-8") as f:
            f.write(text)
        with open(texts, "w", encoding="utf-8", newline="\n") as f:
            f.writelines(line + "\n" for line in lines)
        hf = tokenizers.Tokenizer.from_str(text)
        theirs = "tokenizers " + tokenizers.__version__
        sides = {
            theirs: in_process(lambda: [e.ids for e in hf.encode_batch_fast(lines, add_special_tokens=False)], lambda r: r),
            "kdtrain tokenize": ours(args.kdtrain, model, texts, folder),
        }
        try:
            import importlib.metadata
            import nanotoken
            nano = nanotoken.Tokenizer.from_json(text)
            sides["nanotoken " + importlib.metadata.version("nanotoken")] = in_process(
                lambda: nano.encode_batch(lines, add_special_tokens=False, parallel=False),
                lambda r: [list(map(int, r[i])) for i in range(len(lines))], nano.clear_cache)
        except ImportError:
            pass
        seconds = {name: [] for name in sides}
        for _ in range(args.rounds):
            want = None
            for name, run in sides.items():
                spent, ids = run()
                seconds[name].append(spent)
                want = ids if want is None else want
                if ids != want:
                    wrong = next((i for i, (a, b) in enumerate(zip(ids, want)) if a != b), len(want))
                    print(f"{name}: other ids than {theirs} from line {wrong + 1} on")
                    return 1
    count = sum(map(len, want))
    print(f"{len(lines)} lines, {size / 1e6:.1f} MB, {count} ids, {args.rounds} rounds; all ids equal")
    print(f"{'':20} {'MB/s':>8} {'times':>8}")
    report = dict(lines=len(lines), bytes=size, ids=count, sides={})
    for name, spent in seconds.items():
        ratio = statistics.median(t / s for t, s in zip(seconds[theirs], spent))
        rate = size / 1e6 / statistics.median(spent)
        report["sides"][name] = dict(cpu_seconds=spent, mb_per_s=rate, times=ratio)
        print(f"{name:20} {rate:8.1f} {ratio:8.1f}")
    if args.json:
        with open(args.json, "w", encoding="utf-8") as f:
            json.dump(report, f, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
