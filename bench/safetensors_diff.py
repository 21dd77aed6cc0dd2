#!/usr/bin/env python3
"""Holds our safetensors reader against the reference: of many mutated files, we take none that it rejects.

  safetensors_diff.py PROGRAM [--files 1000000] [--seed 1]     needs the package safetensors

PROGRAM is build/bin/safetensors_diff (target of that name).  Prints how many both take, both refuse, and each alone; exit 1 if ours
alone takes one.  What the reference alone takes is counted by our reason.
"""
import argparse, json, random, subprocess, sys, tempfile
from collections import Counter

from safetensors import SafetensorError, deserialize

DTYPES = ["F32", "BF16", "F16", "F8_E4M3", "I32", "I64", "U8", "F64", "BOOL", "U16", "F4", "F6_E2M3", "F8_E5M2", "C64", "f32", ""]
SIZES = {"F32": 4, "BF16": 2, "F16": 2, "F8_E4M3": 1, "I32": 4, "I64": 8, "U8": 1, "F64": 8, "BOOL": 1, "U16": 2, "F8_E5M2": 1, "C64": 8}
WORDS = [b"0", b"-1", b"1e3", b"1.0", b"18446744073709551615", b"18446744073709551616", b"9223372036854775808", b"4294967296", b"null", b"true", b'""', b"[]", b"{}",
         b'"x"', b"\\u0061", b"\\ud800", b"\xff", b"\xc3\xa9", b" ", b"\n", b"\x00", b",", b":", b'"dtype"', b'"shape"', b'"data_offsets"', b'"__metadata__"', b"[0,0]",
         b'"extra":1,', b"}", b"{", b"]", b"[", b"\t", b"\xef\xbb\xbf", b"-0", b"00", b"0x1", b"1E2", b"NaN"]

KINDS = ["is not supported", "duplicate key", "must start with '{'", "dimensions: at most", "must be an integer in", "overflows 64 bits", "nested deeper", "a NUL byte"]


def good(r):
    """A valid file, most of the time."""
    header, at = {}, 0
    if r.random() < 0.3:
        header["__metadata__"] = {"format": "pt", "k": "v" * r.randrange(5)}
    for i in range(r.randrange(0, 4)):
        dtype = r.choice(DTYPES[:8] if r.random() < 0.9 else DTYPES)
        shape = [r.choice([0, 1, 2, 3]) for _ in range(r.randrange(0, 4))]
        n = SIZES.get(dtype, 1)
        for d in shape:
            n *= d
        header[r.choice(["a", "b", "é", "x.y", ""]) + str(i)] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + n]}
        at += n
    text = json.dumps(header, separators=r.choice([(",", ":"), (", ", ": ")]), ensure_ascii=r.random() < 0.5).encode()
    text += b" " * r.choice([0, 0, 0, -len(text) % 8])
    return text, bytes(r.randrange(256) for _ in range(at))


def mutated(r):
    header, data = good(r)
    for _ in range(r.choice([0, 1, 1, 1, 2, 3])):
        at = r.randrange(len(header) + 1)
        n = r.randrange(0, 8)
        k = r.randrange(9)
        if k == 0 and at < len(header):
            header = header[:at] + bytes([header[at] ^ (1 << r.randrange(8))]) + header[at + 1:]
        elif k == 1:
            header = header[:at] + header[at + n:]
        elif k == 2:
            header = header[:at] + r.choice(WORDS) + header[at:]
        elif k == 3:
            header = header[:at] + r.choice(WORDS) + header[at + n:]
        elif k == 4:                             # another number somewhere
            digits = [i for i, c in enumerate(header) if 48 <= c < 58]
            if digits:
                i = r.choice(digits)
                header = header[:i] + str(r.choice([0, 1, 2, 3, 4, 5, 8, 12, 16, 255, 2**31, 2**32, 2**53 + 1, 2**63, 2**64 - 1])).encode() + header[i + 1:]
        elif k == 5:
            header = header[:at] + header[at:at + 30] + header[at:]
        elif k == 6:
            data = data[: r.randrange(len(data) + 1)]
        elif k == 7:
            data += bytes(r.randrange(1, 9))
        else:                                    # offsets moved together
            header = header.replace(b"[0,", b"[" + str(r.randrange(5)).encode() + b",", 1)
    length = len(header)
    if r.random() < 0.05:
        length = r.choice([0, 1, length - 1, length + 1, length + len(data), 2**63, 2**64 - 1, 100_000_001, 8])
    out = max(length, 0).to_bytes(8, "little") + header + data
    return out[: r.randrange(len(out) + 1)] if r.random() < 0.02 else out


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("program")
    ap.add_argument("--files", type=int, default=1_000_000)
    ap.add_argument("--seed", type=int, default=1)
    a = ap.parse_args()
    r, count, over, under = random.Random(a.seed), Counter(), [], Counter()
    for start in range(0, a.files, 50_000):
        files = [mutated(r) for _ in range(min(50_000, a.files - start))]
        with tempfile.NamedTemporaryFile() as f:
            for x in files:
                f.write(len(x).to_bytes(4, "little") + x)
            f.flush()
            run = subprocess.run([a.program, f.name], capture_output=True, check=True)
        ours, reasons = run.stdout.decode().strip(), iter(run.stderr.decode().split("\n"))
        assert len(ours) == len(files)
        for x, o in zip(files, ours):
            reason = next(reasons) if o == "0" else ""
            try:
                deserialize(x)
                theirs = True
            except SafetensorError:
                theirs = False
            count[o == "1", theirs] += 1
            if o == "1" and not theirs:
                over.append(x)
            elif o == "0" and theirs:
                kind = next((k for k in KINDS if k in reason), reason)
                under[kind] += 1
    print(f"{a.files} files: both take {count[True, True]}, both refuse {count[False, False]}, reference alone {count[False, True]} {dict(under.most_common(12))}, ours alone {count[True, False]}")
    for x in over[:10]:
        print("ours alone:", x[:300])
    return 1 if over else 0


sys.exit(main())
