#!/usr/bin/env python3
"""Makes wordpiece.json: texts and the ids that two other programs give them.

    python3 tests/golden/wordpiece.py --bert BERT/tokenization.py

BERT is a checkout of google-research/bert (the file needs no TensorFlow here); Python 3.11 for its Unicode 14.0.0, and
tokenizers 0.23. Vocabularies hold every character of the texts, so that ids tell what became of each.
"""
import argparse
import importlib.util
import json
import pathlib
import random
import sys
import types
import unicodedata

TEXTS = [
    "", " ", "unaffable words, un affable", "The [MASK] is [UNK] text", "a-b_c'd`e^f$g~h|i", "x" * 100, "x" * 101, "x" * 200, "x" * 201,
    "caf\u00e9 cafe\u0301 \u00c5ngstr\u00f6m \u212b \u1e69", "\u0130stanbul I\u0307 \u0131", "\u03a3 \u03b1\u03a3 \u03a3\u03b1 \u03b1\u03a3. \u03b1'\u03a3' \u03b1\u03a3\u0301\u03b1 \u03b1\u00ad\u03a3 \u03b1\u4e2d\u03a3 "
    "\u039f\u0394\u03a5\u03a3\u03a3\u0395\u03a5\u03a3", "\u4e2d\u6587and\u65e5\u672c\u8a9e", "\uf900\ufa30\U0002f800", "\U0002b81f\U0002b820\U0002b91f\U0002b920",
    "\ud55c\uad6d\uc5b4 \uac00\uac01", "a\u0000b\ufffdc\u0007d\u200be\ufefff", "tab\tnl\u00a0nbsp\u3000wide\u2028ls\u2029ps\u0085nel\u001cfs\u000bvt", "\ue000private\U000f0000",
    "\u037e \u1fef \u0387 \u2024 \u2e43 \u061d \u2e52", "\u0345\u0344\u0f73 \u1e9e \ufb01 \u1f88", "\U0001d15e \u302e\U0001d165 \u302e\u0941\U0001d165 \U0001d16d\U0001d165\u302e",
    "\u0897\u0898 \u1885 \ua7cb \U00016ea0 \U00011938", "\u1b44\u302e\u1b44 \u0b95\u0bca", "emoji \U0001f600\u200d\U0001f52c \u2764\ufe0f", "e\u0327\u0301\u0323 \u0301lone", "##a ## #",
]
ADDED_TEXTS = [
    "a [MASK] b", "a[MASK]b", "[MASK][MASK]", "  [MASK]  x", "x  [CLS]  y", "new york New  York new york", "New York!", "in NEW YORK", "<one> <one>a b<one> .<one>.",
    "<on <one <on> <on   e", "aa aaa aaaa aa. \u00e9aa aa\u00e9 aa\u0301 aa\u203f", "CAFE caf\u00e9 Caf\u00e9s cafe", "  e  e x", "\u4e2daa\u4e2d", "a\u3000<on\u00a0\u2028b", "[mask] [CLS", "\u0085[MASK]\u001c",
]


def reference(path):
    stub = types.ModuleType("tensorflow")
    six = types.ModuleType("six")
    six.PY3, six.PY2 = True, False
    sys.modules.update(tensorflow=stub, six=six)
    spec = importlib.util.spec_from_file_location("tokenization", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def random_texts():
    draw = random.Random(1)
    scalars = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    odd = [c for c in scalars[:0x20000] if unicodedata.category(chr(c)) in ("Mn", "Mc", "Cf", "Zs", "Po", "Lu", "Lt", "Lm", "Sk")]
    pick = [lambda: draw.choice(scalars), lambda: draw.choice(odd), lambda: draw.choice(odd), lambda: draw.randrange(32, 127)]
    return ["".join(chr(draw.choice(pick)()) for _ in range(draw.randrange(1, 16))) for _ in range(60)]


def of_reference(t, texts):
    split = {lower: [t.BasicTokenizer(do_lower_case=lower).tokenize(x) for x in texts] for lower in (False, True)}
    letters = sorted({c for all_ in split.values() for words in all_ for w in words for c in w})
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "un", "##aff", "##able"] + letters + ["##" + c for c in letters]
    ids = {w: i for i, w in enumerate(vocab)}
    piece = t.WordpieceTokenizer(vocab=ids)
    cases = [{"text": x, **{name: [ids[p] for w in split[lower][i] for p in piece.tokenize(w)] for name, lower in (("cased", False), ("uncased", True))}}
             for i, x in enumerate(texts)]
    return {"vocab": vocab, "cases": cases}


def added(content, **on):
    return dict(id=0, content=content, **{**dict(single_word=False, lstrip=False, rstrip=False, normalized=False, special=False), **on})


def of_tokenizers(texts, post, **flags):
    from tokenizers import Tokenizer, normalizers
    flags = {**dict(clean_text=True, handle_chinese_chars=True, strip_accents=None, lowercase=True), **flags}
    normalize = normalizers.BertNormalizer(**flags).normalize_str
    letters = sorted({c for x in texts for c in normalize(x)} - {"\0", " "})
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + letters + ["##" + c for c in letters]
    ids = {w: i for i, w in enumerate(vocab)}
    tokens = [added(x, special=True, lstrip=x == "[MASK]") for x in vocab[:5]] + [
        added("<one>", single_word=True, normalized=True), added("<on", rstrip=True), added("New York", normalized=True, lstrip=True, rstrip=True),
        added("aa", single_word=True), added("aaa", normalized=True, single_word=True, rstrip=True), added("Caf\u00e9", normalized=True),
        added("e", single_word=True, lstrip=True, rstrip=True)]
    next_id = len(vocab)
    for token in tokens:
        token["id"] = ids.get(token["content"], next_id)
        next_id += token["id"] == next_id
    data = dict(version="1.0", truncation=dict(direction="Right", max_length=7, strategy="LongestFirst", stride=0),
                padding=None, added_tokens=tokens, normalizer=dict(type="BertNormalizer", **flags),
                pre_tokenizer=dict(type="BertPreTokenizer"), post_processor=post, decoder=dict(type="WordPiece", prefix="##", cleanup=True),
                model=dict(type="WordPiece", unk_token="[UNK]", continuing_subword_prefix="##", max_input_chars_per_word=100, vocab=ids))
    tokenizer = Tokenizer.from_str(json.dumps(data))
    tokenizer.no_truncation()
    cases = [{"text": x, "ids": tokenizer.encode(x, add_special_tokens=False).ids} for x in texts]
    pairs = []
    for first, second in (("a b c d", "e f"), ("a", "b c d e f"), ("a b c", "a b c"), ("", "x"), ("a b c d e f g", "a b c d e f")):
        for strategy in ("longest_first", "only_first", "only_second"):
            for most in (0, 3, 4, 5, 6, 7, 9):
                tokenizer.no_truncation()
                if most:
                    tokenizer.enable_truncation(most, strategy=strategy)
                case = dict(first=first, second=second, max_length=most, truncation=strategy)
                try:
                    e = tokenizer.encode(first, second)
                    case.update(ids=e.ids, types=e.type_ids)
                except Exception:  # the text to truncate is too short
                    case.update(refused=True)
                pairs.append(case)
    return {"tokenizer": data, "cases": cases, "pairs": pairs}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bert", required=True)
    args = parser.parse_args()
    assert unicodedata.unidata_version == "14.0.0"
    texts = TEXTS + random_texts()
    special = {name: dict(id=name, ids=[i], tokens=[name]) for name, i in (("[CLS]", 2), ("[SEP]", 3))}
    piece = lambda name, kind: {"Sequence": dict(id=name, type_id=kind)} if len(name) == 1 else {"SpecialToken": dict(id=name, type_id=kind)}
    template = dict(type="TemplateProcessing", special_tokens=special, single=[piece("[CLS]", 0), piece("A", 0), piece("[SEP]", 0)],
                    pair=[piece("[CLS]", 0), piece("A", 0), piece("[SEP]", 0), piece("B", 1), piece("[SEP]", 1)])
    bert = dict(type="BertProcessing", sep=["[SEP]", 3], cls=["[CLS]", 2])
    golden = {
        "reference": of_reference(reference(args.bert), texts),
        "tokenizers": [
            of_tokenizers(texts + ADDED_TEXTS, template),
            of_tokenizers(TEXTS[:16] + ADDED_TEXTS, bert, lowercase=False),
            of_tokenizers(TEXTS[8:] + ADDED_TEXTS, None, clean_text=False, handle_chinese_chars=False, strip_accents=True, lowercase=False),
            of_tokenizers(TEXTS[8:] + ADDED_TEXTS, template, strip_accents=False, clean_text=False),
        ],
    }
    out = pathlib.Path(__file__).with_suffix(".json")
    out.write_text(json.dumps(golden, separators=(",", ":")) + "\n")
    print(out.name, out.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
