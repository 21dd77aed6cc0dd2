#!/usr/bin/env python3
"""Actor and learner give the same bytes: `temper probe logprobs` over modes, caches, batches, chunks, threads, packing and instruction sets.

  tests/learner/logprobs_sweep.py --temper build/bin/temper --model DIR [--model DIR ...] [--isa avx512,avx2,scalar] [--quick] [--seed 1]

Sequences of random ids, some behind a common prompt, which the learner then computes once. For each mode and cache the learner's file is
taken once for each packing, thread count and instruction set, the actor's for each batch, chunk and thread count; all must be equal byte for byte.
Exit 1 where two differ, and where the control does not: a file of other ids must differ.
"""
import argparse
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--temper", default="build/bin/temper")
    p.add_argument("--model", type=Path, action="append", required=True)
    p.add_argument("--isa", default="avx512,avx2,scalar")
    p.add_argument("--quick", action="store_true", help="a seeded fifth of the combinations")
    p.add_argument("--seed", type=int, default=1)
    a = p.parse_args()
    work = Path(tempfile.mkdtemp(prefix="sweep-"))
    draw = random.Random(a.seed)
    pairs = different = 0

    for model in a.model:
        c = json.loads((model / "config.json").read_text())
        word = lambda n: [draw.randrange(c["vocab_size"]) for _ in range(n)]
        prompt = word(11)
        ids = [prompt + word(5), prompt + word(1), prompt + word(40), prompt, word(1), word(300), word(17)]
        lens = [11, 11, 11, 11, 1, 256, 9]
        (work / "ids.json").write_text(json.dumps(ids))
        other = [row[:] for row in ids]
        other[5][150] = (other[5][150] + 1) % c["vocab_size"]
        (work / "other.json").write_text(json.dumps(other))

        def run(side, isa, threads, *more, of="ids.json"):
            out = work / "o.safetensors"
            subprocess.run([a.temper, "probe", "logprobs", "--side", side, "--model", model, "--ids", work / of, "--out", out,
                            "--threads", str(threads), *map(str, more)], check=True, env={**os.environ, "TEMPER_ISA": isa})
            return out.read_bytes()

        for dtype, cache, scale in [(d, k, s) for d in ("fp32", "bf16", "fp8", "fp8-w8a8") for k in ("fp32", "bf16", "fp8")
                                    for s in (("pow2", "fp32") if d.startswith("fp8") else ("pow2",))]:
            mode = ["--dtype", dtype, "--cache-dtype", cache, "--fp8-scale", scale]
            want = run("learner", a.isa.split(",")[0], 2, *mode)
            if run("learner", a.isa.split(",")[0], 2, *mode, of="other.json") == want:
                sys.exit(f"{model} {dtype}: other ids gave the same bytes; the check could not fail")
            ways = [("learner", isa, threads, *packing) for isa, threads, packing in itertools.product(
                a.isa.split(","), (1, 2), ((), ("--prompt-lens", json.dumps(lens))))]
            ways += [("actor", isa, threads, "--batch", batch, "--chunk", chunk, *packing) for isa, threads, batch, chunk, packing in
                     itertools.product(a.isa.split(","), (1, 2), (1, 3, 8), (1, 7, 512), ((), ("--prompt-lens", json.dumps(lens))))]
            if a.quick:
                ways = draw.sample(ways, len(ways) // 5)
            for side, isa, threads, *more in ways:
                pairs += 1
                if run(side, isa, threads, *mode, *more) != want:
                    different += 1
                    print(f"differs: {model} {dtype} cache {cache} scale {scale}: {side} {isa} threads {threads} {more}", flush=True)
            print(f"{model.name} {dtype} cache {cache} scale {scale}: {pairs} pairs, {different} different", file=sys.stderr, flush=True)
    print(json.dumps({"pairs": pairs, "different": different, "models": len(a.model), "isa": a.isa}))
    sys.exit(1 if different else 0)


if __name__ == "__main__":
    main()
