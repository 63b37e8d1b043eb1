#!/usr/bin/env python3
"""Writes unicode_tables.cpp: what WordPiece needs to know of Unicode.

    python3 nn/text/make_unicode_tables.py            # writes the file
    python3 nn/text/make_unicode_tables.py --check    # exit 1 if the file would change, 77 if it cannot be made here

The base is Unicode 14.0.0 as Python 3.11's unicodedata holds it: what Google's reference tokenizer sees. The Rust
tokenizers library mixes three other versions of Unicode (its categories are of 8.0, its decompositions of 12, its lower
case is of the compiler's); what it does differently is observed here, one scalar at a time (tokenizers 0.23), and written
as a difference. Needs that Python and that library; the build needs neither.
"""
import pathlib
import sys
import unicodedata

OUT = pathlib.Path(__file__).with_name("unicode_tables.cpp")
SCALARS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]


def category(c):
    return unicodedata.category(chr(c))


def base_tables():
    """Unicode 14.0.0, by the rules of google-research/bert tokenization.py."""
    t = {}
    t["control"] = {c for c in SCALARS if c in (0, 0xFFFD) or category(c) in ("Cc", "Cf") and chr(c) not in "\t\n\r"}
    t["punctuation"] = {
        c for c in SCALARS
        if 33 <= c <= 47 or 58 <= c <= 64 or 91 <= c <= 96 or 123 <= c <= 126 or category(c)[0] == "P"}
    nfd = {c: [ord(x) for x in unicodedata.normalize("NFD", chr(c))] for c in SCALARS}
    order = {c: unicodedata.combining(chr(c)) for c in SCALARS}
    t["strip"] = {c: [x for x in nfd[c] if category(x) != "Mn"] for c in SCALARS}
    t["barrier"] = {c for c in SCALARS if not t["strip"][c] and any(order[x] == 0 for x in nfd[c])}
    t["order"] = {c: order[c] for c in SCALARS if order[c] and t["strip"][c] == [c]}
    t["mark"] = {c for c in SCALARS if not t["strip"][c]}
    t["lower"] = {c: [ord(x) for x in chr(c).lower()] for c in SCALARS}
    # Python's final sigma looks past case-ignorable characters for a cased one.
    t["cased"] = {c for c in SCALARS if ("a\u03a3" + chr(c)).lower()[1] == "\u03c3"}
    t["ignorable"] = {c for c in SCALARS if ("a" + chr(c) + "\u03a3").lower()[-1] == "\u03c2"} - t["cased"]
    return t


def observed_tables():
    """What tokenizers 0.23 does, asked for every scalar."""
    import tokenizers
    from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

    if not tokenizers.__version__.startswith("0.23."):
        raise ImportError("tokenizers 0.23 is needed, this is " + tokenizers.__version__)

    def bert(**on):
        flags = dict(clean_text=False, handle_chinese_chars=False, strip_accents=False, lowercase=False)
        return normalizers.BertNormalizer(**{**flags, **on}).normalize_str

    clean, strip, lower, nfd = bert(clean_text=True), bert(strip_accents=True), bert(lowercase=True), normalizers.NFD().normalize_str
    split = pre_tokenizers.BertPreTokenizer().pre_tokenize_str
    t = {"control": {c for c in SCALARS if clean("a" + chr(c) + "b") == "ab"}}
    t["punctuation"] = {c for c in SCALARS if [p for p, _ in split("a" + chr(c) + "b")] == ["a", chr(c), "b"]}
    t["strip"] = {c: [ord(x) for x in strip("a" + chr(c) + "b")[1:-1]] for c in SCALARS}
    t["lower"] = {c: [ord(x) for x in lower(chr(c))] for c in SCALARS}
    # Combining class: how a character sorts against one known character of each class. A class whose
    # first member the library does not know has no other member that it knows.
    known = {}
    for c in SCALARS:
        if unicodedata.combining(chr(c)):
            known.setdefault(unicodedata.combining(chr(c)), chr(c))
    order = {}
    for c in SCALARS:
        x = chr(c)
        if nfd(x) == x and (nfd(x + known[1]) != x + known[1] or nfd(known[240] + x) != known[240] + x):
            same = {k for k, r in known.items() if nfd(x + r) == x + r and nfd(r + x) == r + x}
            order[c] = unicodedata.combining(x) or sorted(same)[0]
            assert order[c] in same, hex(c)
    t["barrier"] = {c for c in SCALARS if not t["strip"][c] and any(ord(x) not in order for x in nfd(chr(c)))}
    t["order"] = {c: k for c, k in order.items() if t["strip"][c] == [c]}
    t["mark"] = {c for c in SCALARS if not t["strip"][c]}
    # \w of the regex crate, as single_word uses it.
    probe = Tokenizer(models.WordLevel({"u": 0}, unk_token="u"))
    probe.add_tokens([AddedToken("<X>", single_word=True, normalized=False)])
    x = probe.token_to_id("<X>")
    t["word"] = {c for c in SCALARS if x not in probe.encode(chr(c) + "<X>").ids}
    return t


def run_lengths(members):
    """{5, 6, 9} -> [5, 2, 2, 1]: so many outside, so many inside, and so on."""
    out, at = [], 0
    for c in sorted(members):
        if out and at == c:
            out[-1] += 1
        else:
            out += [c - at, 1]
        at = c + 1
    return out


def mapping(changes):
    """{c: [x, ...]} -> singles as runs (gap, count, step of c, first x - c, step of x), the rest as (c, n, x...)."""
    runs, several = [], []
    for c in sorted(changes):
        to = changes[c]
        if len(to) != 1:
            several += [c, len(to), *to]
            continue
        x = to[0]
        if runs:
            r = runs[-1]
            if r["n"] == 1 and c - r["c"] <= 2 and 0 <= x - r["x"] <= 2:
                r.update(n=2, dc=c - r["c"], dx=x - r["x"])
                continue
            if r["n"] > 1 and c == r["c"] + r["n"] * r["dc"] and x == r["x"] + r["n"] * r["dx"]:
                r["n"] += 1
                continue
        runs.append(dict(c=c, x=x, n=1, dc=1, dx=1))
    flat, at = [], 0
    for r in runs:
        flat += [r["c"] - at, r["n"], r["dc"], r["x"] - r["c"], r["dx"]]
        at = r["c"]
    return flat, several


def changed(table):
    """What a table does to characters, without marks (a set of their own) and Hangul (arithmetic)."""
    return {c: x for c, x in table.items() if x not in ([], [c]) and not 0xAC00 <= c <= 0xD7A3}


def order_runs(order):
    """{c: class} -> (gap, count, class, ...)."""
    flat, at, last = [], 0, None
    for c, k in sorted(order.items()):
        if last == (c - 1, k):
            flat[-2] += 1
        else:
            flat += [c - at, 1, k]
            at = c
        last = (c, k)
    return flat


def array(name, values):
    text, line = f"constexpr std::int32_t {name}[] = {{\n", "   "
    for v in values:
        if len(line) + len(str(v)) + 2 > 100:
            text, line = text + line + "\n", "   "
        line += f" {v},"
    return text + line + "\n};\n"


def main():
    if unicodedata.unidata_version != "14.0.0":
        print("skipped: this Python has Unicode", unicodedata.unidata_version, "and not 14.0.0")
        return 77
    try:
        hf = observed_tables()
    except ImportError as e:
        print("skipped:", e)
        return 77
    base = base_tables()
    arrays, fields = [], []

    def emit(field, values):
        name = "k" + "".join(w.capitalize() for w in field.split("_"))
        if values:
            arrays.append(array(name, values))
        fields.append(f"    {name if values else '{}'},  // {field}")

    for name in ("control", "punctuation", "mark", "barrier"):
        emit(name, run_lengths(base[name]))
        emit(name + "_rust", run_lengths(base[name] ^ hf[name]))
    for name in ("strip", "lower"):
        runs, several = mapping(changed(base[name]))
        emit(name, runs)
        emit(name + "_several", several)
        runs, several = mapping({c: x for c, x in hf[name].items() if x and x != (base[name][c] or [c])})
        emit(name + "_rust", runs)
        emit(name + "_rust_several", several)
    for name, table in (("order", base), ("order_rust", hf)):
        emit(name, order_runs(table["order"]))
    emit("cased", run_lengths(base["cased"]))
    emit("ignorable", run_lengths(base["ignorable"]))
    emit("word_rust", run_lengths(hf["word"]))

    text = ("// Made by make_unicode_tables.py; do not edit.\n"
            "// Unicode 14.0.0, and what tokenizers 0.23 does otherwise.\n"
            '#include "nn/text/unicode_tables.h"\n\nnamespace retort::nn::detail {\nnamespace {\n\n// clang-format off\n'
            + "\n".join(arrays) + "// clang-format on\n\n}  // namespace\n\nconst UnicodeTables& unicode_tables() {\n"
            "  // clang-format off\n  static const UnicodeTables tables = {\n" + "\n".join(fields)
            + "\n  };\n  // clang-format on\n  return tables;\n}\n\n}  // namespace retort::nn::detail\n")
    if "--check" in sys.argv:
        same = OUT.exists() and OUT.read_text() == text
        print("same" if same else f"{OUT.name} would change")
        return 0 if same else 1
    OUT.write_text(text)
    print(f"{OUT.name}: {len(text)} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
