#!/usr/bin/env python3
"""Prints engine/unicode_additions.cc's table (development only): characters whose category `tokenizers` (Oniguruma, Unicode 16)
knows and Unicode 14 (PCRE2 10.42, Python 3.11) does not.  Usage: unicode_additions.py"""
import unicodedata

from tokenizers import Regex, pre_tokenizers

assert unicodedata.unidata_version == "14.0.0"
CATEGORIES = "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Co".split()
CHARS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
TEXT = "".join(map(chr, CHARS))
rows = []
for cat in CATEGORIES:
    got = [True] * len(CHARS)
    for _, (a, b) in pre_tokenizers.Split(Regex(f"\\p{{{cat}}}+"), "removed").pre_tokenize_str(TEXT):
        got[a:b] = [False] * (b - a)
    for c, g in zip(CHARS, got):
        if g and unicodedata.category(chr(c)) != cat:
            if rows and rows[-1][2] == cat and rows[-1][1] == c - 1:
                rows[-1][1] = c
            else:
                rows.append([c, c, cat])
        if not g and unicodedata.category(chr(c)) == cat:
            print(f"// moved: U+{c:04X} was {cat}")
for lo, hi, cat in rows:
    print(f'    {{0x{lo:04X}, 0x{hi:04X}, "{cat}"}},')
