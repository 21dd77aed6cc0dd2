#!/usr/bin/env python3
"""Writes normalizers.json: ids and decoded texts of Hugging Face's `tokenizers` under each normalizer (development only)."""
import json, random
from pathlib import Path

from tokenizers import Tokenizer

HERE = Path(__file__).parent


def replace(content, **pattern):
    return {"type": "Replace", "pattern": pattern, "content": content}


def sequence(*parts):
    return {"type": "Sequence", "normalizers": list(parts)}


NFC, NFD = {"type": "NFC"}, {"type": "NFD"}
STRIP = {"type": "Strip", "strip_left": True, "strip_right": True}
NORMALIZERS = {
    "nfc": NFC, "nfd": NFD, "strip": STRIP, "strip_left": {**STRIP, "strip_right": False}, "strip_right": {**STRIP, "strip_left": False},
    "literal": replace("▁", String=" "), "literals": replace("", String="aa"), "regex": replace("<>", Regex="[0-9]{2}|\\s+$"),
    "prepend": {"type": "Prepend", "prepend": "ab "},
    "nested": sequence(sequence(), NFC, sequence(replace("é", String="e"), sequence({"type": "Prepend", "prepend": " e"}, NFD)), STRIP),
}
TEXTS = ["", " ", "Hello world", "  a\u3000b \x1c\u00a0", "aaaaa baab", "1234567 89 \n ", "<｜begin▁of▁sentence｜> x <｜end▁of▁sentence｜>  ", "  néw ne\u0301w é e\u0301 éé",
         "a\u0301\u0323\u0302 a\u0323\u0302\u0301 \u1ead\u0301", "\u212b\u2126\uf900\U0002f800\u0958\u0344", "각\u1100\u1161\u11a8가\u11a8\uac01\u11a8\u1100\u1161\u11a7", "\u0301\u0300x\u0301",
         "\U0001d15e \u0915\u093c \u0f73\u0f71\u0f72 \u2add\u0338", "e\u0327\u0301 \u1e9b\u0323 q\u0307\u0323 \U000110a5\U000110ba \U00011131\U00011127", "漢字かか\u3099は\u309aﾊﾟ"]


def main():
    t = json.loads((HERE / "tokenizer" / "tokenizer.json").read_text())
    flags = dict(single_word=False, lstrip=False, rstrip=False, special=False)
    added = [{**flags, "id": 700, "content": "née", "normalized": True}, {**flags, "id": 701, "content": "é1", "normalized": False}]
    r = random.Random(5)
    marks = [chr(c) for c in (0x300, 0x301, 0x302, 0x323, 0x327, 0x331, 0x338, 0x345, 0x5b0, 0x64b, 0x3099, 0x1161, 0x11a8)]
    texts = TEXTS + ["x née ne\u0301e é1 e\u03011 1"] + ["".join(r.choice(["a", "e", "é", " ", "ạ", "ㅏ", "가", "か", "ך", "س", *marks, *marks]) for _ in range(40)) for _ in range(6)]
    out = {}
    for name, normalizer in NORMALIZERS.items():
        theirs = Tokenizer.from_str(json.dumps({**t, "normalizer": normalizer, "added_tokens": t["added_tokens"] + added}))
        cases = []
        for text in texts:
            ids = theirs.encode(text, add_special_tokens=False).ids
            cases.append({"text": text, "ids": ids, "decoded": theirs.decode(ids, skip_special_tokens=False)})
        out[name] = {"normalizer": normalizer, "cases": cases}
    lines = [json.dumps({"name": k, **{**v, "cases": None}})[:-6] + "[\n" + ",\n".join(json.dumps(c) for c in v["cases"]) + "]}" for k, v in out.items()]
    (HERE / "normalizers.json").write_text('{"added": ' + json.dumps(added) + ', "variants": [\n' + ",\n".join(lines) + "]}\n")


main()
