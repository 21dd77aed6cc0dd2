#!/usr/bin/env python3
"""Holds our tokenizer against Hugging Face's `tokenizers`, id by id and byte by byte (development only).

  tokenizer_check.py PROGRAM DIR [--lines 10000] [--seed 1] [--normalizer JSON]

PROGRAM is `temper`; DIR holds a tokenizer.json.  Lines are a mix: words, code, digits, CJK, emoji, combining marks, runs of white
space, added tokens inside text, every assigned character once, random characters.  Exit 1 at the first ten differences.
"""
import argparse, json, random, subprocess, sys, tempfile
from pathlib import Path

from tokenizers import Tokenizer

WORDS = """the of and to in is was for it with as his on be at by had not are but from or have an they which one you were her all
don't I'll we've 's it's ünïcödé naïve Straße ελληνικά русский язык العربية עברית हिन्दी ไทย 日本語 中文字符 한국어 ひらがな カタカナ""".split()
CODE = ["def f(x):\n    return x**2\n", "#include <vector>\n", "for (int i=0;i<n;++i){a[i]+=b[i];}\n", "<div class=\"x\">&nbsp;</div>",
        "\t\tif x != y and z >= 3.14e-10:", "SELECT * FROM t WHERE a='b';\r\n", "$\\frac{1}{2}\\sum_{i=0}^{n}$", "// ---- 1234567890 ----\n"]
SPACES = [" ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", " \n ", "\u00a0", "\u3000", "\u2003", "\u180e", "\u200b", "\u0085", "\u2028", "\x0b", "\x1c", "\ufeff"]
EMOJI = ["😀", "👩‍👩‍👧‍👦", "🇩🇪", "✈️", "é", "ẹ́", "à́̂", "ﬁ", "Ⅷ", "①", "½", "٣٤", "१२३", "𝟘𝟙", "𠀀𠀁", "\U0010fffd", "\ue000", "\x00", "\x7f"]


def char(r):
    while True:
        c = r.choice([r.randrange(0x20, 0x7F), r.randrange(0x80, 0x800), r.randrange(0x800, 0x10000), r.randrange(0x10000, 0x110000)])
        if not 0xD800 <= c < 0xE000:
            return chr(c)


def lines(n, seed, added):
    r = random.Random(seed)
    every = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    for i in range(0, len(every), 64):                       # each character between others and alone after a space
        yield "a ".join(every[i:i + 64])
    for c in range(0, 0x3400):                               # doubled and beside a letter, a digit, punctuation and white space
        if not 0xD800 <= c < 0xE000:
            yield f"{chr(c)}x{chr(c)}{chr(c)}1{chr(c)}! {chr(c)} \n{chr(c)}\r\n"
    for _ in range(n):
        out = []
        for _ in range(r.randrange(1, 60)):
            k = r.random()
            if k < 0.45:
                out.append(r.choice(WORDS)); out.append(r.choice(["", " ", " ", " ", ", ", ". "]))
            elif k < 0.55:
                out.append(r.choice(CODE))
            elif k < 0.65:
                out.append(str(r.randrange(10 ** r.randrange(1, 12))))
            elif k < 0.75:
                out.append(r.choice(SPACES) * r.randrange(1, 5))
            elif k < 0.85:
                out.append(r.choice(EMOJI))
            elif k < 0.88 and added:
                out.append(r.choice(added)[: r.randrange(1, 40)])
            elif k < 0.96:
                out.append(char(r))
            else:
                out.append("".join(r.choice("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~ab1 \n") for _ in range(r.randrange(1, 30))))
        yield "".join(out)
    yield ""
    yield " " * 100000
    yield "a" * 100000
    yield "".join(r.choice("abcdefgh") for _ in range(50000))
    yield "\n" * 50000 + "x"
    yield "<" * 50000
    for i in range(n // 200):                                # long pieces of few characters: encoded window by window
        few = "".join(r.choice("abcdefghijklmnopqrstuvwxyzабвгдежзαβγδקראش的一是不了人我在有他") for _ in range(r.randrange(1, 12)))
        yield "".join(r.choice(few) for _ in range(r.randrange(200, 4000)))
    for _ in range(n // 10):                                 # random bytes, each as the character of its number
        yield bytes(r.randrange(256) for _ in range(r.randrange(1, 200))).decode("latin-1")
    for i in range(0, len(added), 20):
        yield " ".join(added[i:i + 20])
    for a in added:                                          # white space around added tokens, and parts of them
        for b in added[:8]:
            yield f"x \u3000{a}\t {b} \n{a}{b}{a[:-1]} {a[1:]}"


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("program")
    ap.add_argument("dir", type=Path)
    ap.add_argument("--lines", type=int, default=10000)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--normalizer", help="in place of the file's")
    a = ap.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if a.normalizer:
            changed = json.loads((a.dir / "tokenizer.json").read_text())
            changed["normalizer"] = json.loads(a.normalizer)
            a.dir = Path(folder)
            (a.dir / "tokenizer.json").write_text(json.dumps(changed))
        check(a)


def check(a):
    theirs = Tokenizer.from_file(str(a.dir / "tokenizer.json"))
    added = [t["content"] for t in json.loads((a.dir / "tokenizer.json").read_text())["added_tokens"]]
    texts = list(lines(a.lines, a.seed, added))
    stdin = "".join(json.dumps(t) + "\n" for t in texts)
    run = subprocess.run(a.program.split() + ["probe", "tokens", "--model", str(a.dir)], input=stdin, capture_output=True, text=True)
    ours = [json.loads(x) for x in run.stdout.split("\n")[:-1]]
    if len(ours) != len(texts):
        sys.exit(f"{len(ours)} answers for {len(texts)} lines: {run.stderr[-500:]}")
    bad = returned = 0
    for text, o in zip(texts, ours):
        ids = theirs.encode(text, add_special_tokens=False).ids
        want = {"ids": ids, "text": theirs.decode(ids, skip_special_tokens=False)}
        returned += want["text"] == text
        if {k: o.get(k) for k in want} != want:
            bad += 1
            if bad <= 10:
                where = next((i for i, (x, y) in enumerate(zip(ids, o.get("ids", []))) if x != y), None)
                print(f"DIFFERENT at {where}: {text[:80]!r}\n  ours   {str(o)[:200]}\n  theirs {str(want)[:200]}")
    print(f"{len(texts)} lines, {sum(len(o.get('ids', [])) for o in ours)} tokens, {bad} different, {returned} decode to themselves")
    sys.exit(bad != 0)


main()
