#!/usr/bin/env python3
"""Activations of a packed batch: peak resident memory of `temper sft` with 8,192 tokens a step less that with a short one.

  python3 bench/memory.py [--temper build/bin/temper] [--tokens 8192]

A random model of about 100 million parameters in DeepSeek-V3's form (16 layers, 16 experts, vocabulary 8,192), rows of 1,024 tokens; weights,
gradients and moments are in both runs. With learner.gradient_checkpointing a layer's activations are computed again.
"""
import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def peak(command):
    """Peak resident bytes of the command's largest process."""
    with open(os.devnull, "w") as null:
        child = subprocess.Popen(command, stdout=null, stderr=subprocess.PIPE)
        error = child.stderr.read().decode()
        _, status, usage = os.wait4(child.pid, 0)
    if status:
        sys.exit(error)
    return usage.ru_maxrss * 1024


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--temper", default=str(ROOT / "build/bin/temper"))
    p.add_argument("--tokens", type=int, default=8192)
    p.add_argument("--row", type=int, default=1024)
    a = p.parse_args()
    work = Path(tempfile.mkdtemp(prefix="memory-"))
    arch = json.loads((ROOT / "configs/arch/v3-grpo.json").read_text())
    arch |= {"hidden_size": 512, "num_hidden_layers": 16, "num_attention_heads": 8, "num_key_value_heads": 8, "q_lora_rank": 256,
             "kv_lora_rank": 128, "qk_rope_head_dim": 32, "qk_nope_head_dim": 64, "v_head_dim": 64, "n_routed_experts": 16,
             "num_experts_per_tok": 4, "n_group": 4, "topk_group": 2, "moe_intermediate_size": 192, "intermediate_size": 1536,
             "vocab_size": 8192, "max_position_embeddings": 4096, "num_nextn_predict_layers": 0}
    (work / "arch.json").write_text(json.dumps(arch))
    subprocess.run([a.temper, "init", "--arch", work / "arch.json", "--tokenizer", ROOT / "configs/tokenizers/bytes", "--seed", "1",
                    "--out", work / "model"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    parameters = sum(f.stat().st_size for f in (work / "model").glob("*.safetensors")) // 4
    draw = random.Random(1)

    def measure(tokens, row, checkpointing):
        (work / "rows.jsonl").write_text("".join(
            json.dumps({"text": "".join(draw.choice("0123456789+= ") for _ in range(row - 2))}) + "\n" for _ in range(2 * tokens // row)))
        cfg = {"output_dir": str(work / "run"), "model": str(work / "model"), "threads": 2, "data": {"train": str(work / "rows.jsonl")},
               "learner": {"gradient_checkpointing": checkpointing},
               "sft": {"max_steps": 2, "max_length": row, "tokens_per_step": tokens, "completion_only_loss": False, "save_steps": 0}}
        (work / "config.json").write_text(json.dumps(cfg))
        shutil.rmtree(work / "run", ignore_errors=True)
        return peak([a.temper, "sft", work / "config.json"])

    result = {"parameters": parameters, "tokens": a.tokens}
    for checkpointing in (True, False):
        base, full = measure(64, 64, checkpointing), measure(a.tokens, a.row, checkpointing)
        result["recompute" if checkpointing else "kept"] = {"activations_gib": round((full - base) / 2**30, 3),
                                                            "peak_gib": round(full / 2**30, 3)}
    shutil.rmtree(work)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
