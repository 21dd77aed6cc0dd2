#!/usr/bin/env python3
"""Generation side by side in one run: `temper bench`, llama.cpp and transformers on the same weights and prompt.

  PYTHON bench/generation.py --model DIR --peers DIR [--rounds 5] [--batch 1,8,32] [--prompt 256] [--new 128] [--hf-rounds 3] [--hf-new 16]

PYTHON has torch, transformers, gguf and llama-cpp-python; --peers holds bench_generate_llamacpp.py and bench_generate_hf.py, which print a
JSON line a batch. The programs take turns, a round each, so that all meet the machine as it is. llama.cpp runs Q8_0 with its prompt shared,
transformers float32. The peers' memory share: bytes of the weights a token reads over the read rate that `temper bench` measured that round.
transformers computes a prompt once a sample and is slow at large batches: it makes --hf-new tokens there, which flatters it (shorter
contexts). Every figure is a median; the last line says which bars hold.
"""
import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def lines(command):
    out = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    return [json.loads(line) for line in out.splitlines() if line.startswith("{")]


def q8_bytes(path, config, rows):
    """Bytes of the weights that a step of so many rows reads: experts as independent routing chooses them."""
    from gguf import GGUFReader
    experts, chosen = config["n_routed_experts"], config["num_experts_per_tok"]
    hit = 1 - (1 - chosen / experts) ** rows
    total = 0
    for tensor in GGUFReader(path).tensors:
        if tensor.name != "token_embd.weight":
            total += int(tensor.n_bytes) * (hit if "_exps" in tensor.name else 1)
    return total


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", type=Path, required=True)
    p.add_argument("--peers", type=Path, required=True)
    p.add_argument("--temper", default=str(ROOT / "build/bin/temper"))
    p.add_argument("--batch", default="1,8,32")
    p.add_argument("--prompt", type=int, default=256)
    p.add_argument("--new", type=int, default=128)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--hf-rounds", type=int, default=3)
    p.add_argument("--hf-new", type=int, default=16, help="new tokens of transformers at batches above 1")
    p.add_argument("--threads", type=int, default=2)
    a = p.parse_args()
    batches = [int(b) for b in a.batch.split(",")]
    config = json.loads((a.model / "config.json").read_text())
    work = Path(tempfile.mkdtemp(prefix="generation-"))

    import numpy as np
    ids = work / "ids.json"  # the prompt that bench_generate_llamacpp.py draws
    ids.write_text(json.dumps([[int(x) for x in np.random.default_rng(3).integers(3, config["vocab_size"], a.prompt)]]))
    common = ["--prompt", str(a.prompt), "--runs", "1", "--threads", str(a.threads)]
    rates = {}  # (who, batch) -> {figure: [a value a round]}

    def keep(who, batch, **figures):
        for name, value in figures.items():
            rates.setdefault((who, batch), {}).setdefault(name, []).append(value)

    def temper(dtype):
        for b in batches:
            for j in lines([a.temper, "bench", "--model", a.model, "--dtype", dtype, "--batch", str(b), "--ids", ids, "--new", str(a.new),
                            "--speculation", "off"] + common[2:]):
                keep("temper " + dtype, b, decode=j["decode_tok_s"]["median"], prefill=j["prefill_tok_s"]["median"],
                     share=j["limit_share"], flop=j["decode_flop_share"], read=j["read_gb_s"]["median"])
                keep("isa", 0, isa=j["isa"])

    def llama():
        for b in batches:
            for j in lines([sys.executable, a.peers / "bench_generate_llamacpp.py", a.model, "--type", "q8_0", "--batch", str(b),
                            "--new", str(a.new), "--gguf-dir", work] + common):
                gguf = work / f"{a.model.name}-q8_0.gguf"
                read = rates[("temper fp8", b)]["read"][-1]
                keep("llama.cpp q8_0", b, decode=j["decode_tok_s"]["median"], prefill=j["prefill_tok_s"]["median"],
                     share=j["decode_tok_s"]["median"] / b * q8_bytes(gguf, config, b) / read * 1e-9, other=j["other_cores"])

    def transformers():
        for b in batches:
            for j in lines([sys.executable, a.peers / "bench_generate_hf.py", a.model, "--dtype", "f32", "--batch", str(b),
                            "--new", str(a.new if b == 1 else a.hf_new)] + common):
                keep("transformers f32", b, decode=j["decode_tok_s"]["median"], prefill=j["prefill_tok_s"]["median"],
                     other=j["other_cores"])

    for r in range(a.rounds):
        print(f"round {r + 1} of {a.rounds}", file=sys.stderr, flush=True)
        temper("fp8")
        llama()
        if r < a.hf_rounds:
            transformers()

    def median(who, batch, figure):
        values = rates.get((who, batch), {}).get(figure)
        return statistics.median(values) if values else float("nan")

    cpu = next((l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), "?")
    print(f"{cpu}, {rates[('isa', 0)]['isa'][0]}, {a.threads} threads, prompt {a.prompt}, new {a.new}, head in BF16 (llama.cpp: Q8_0)")
    print(f"{'':18} batch  prefill tok/s  decode tok/s   min    max   of the memory limit  of the FMA rate   temper / this")
    for who in ("temper fp8", "llama.cpp q8_0", "transformers f32"):
        for b in batches:
            if (who, b) not in rates:
                continue
            d = rates[(who, b)]["decode"]
            print(f"{who:18} {b:5} {median(who, b, 'prefill'):14.0f} {median(who, b, 'decode'):13.1f} {min(d):6.1f} {max(d):6.1f}"
                  f" {100 * median(who, b, 'share'):16.0f} % {100 * median(who, b, 'flop'):16.0f} %"
                  f" {median('temper fp8', b, 'decode') / median(who, b, 'decode'):14.2f}")
    ratio = {f"{who} {b}": round(median("temper fp8", b, "decode") / median(who, b, "decode"), 3)
             for who in ("llama.cpp q8_0", "transformers f32") for b in batches if (who, b) in rates}
    print(json.dumps({"ratios": ratio, "read_gb_s": median("temper fp8", batches[0], "read"), "rounds": a.rounds,
                      "prefill_over_llama": round(median("temper fp8", batches[0], "prefill") / median("llama.cpp q8_0", batches[0], "prefill"), 3)}))


if __name__ == "__main__":
    main()
