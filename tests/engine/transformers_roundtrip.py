#!/usr/bin/env python3
"""Holds our model folders against transformers, both ways (development only; transformers 5.18).

  transformers_roundtrip.py TEMPER

For several architectures (q_lora or not, tied or not, YaRN in both spellings, MTP, sharded, fp32 and bf16):
  1. `temper init` writes a model; transformers loads it with no missing, unexpected or mismatched key and the dtype of the file;
     every parameter equals the file's tensor; the tokenizer gives our ids.
  2. transformers saves it again; `temper probe logits` reads both folders and gives the same bytes (MTP apart, which it drops).
"""
import json, subprocess, sys, tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file as load_np
from safetensors.torch import load_file
from transformers import AutoTokenizer, DeepseekV3ForCausalLM

TEMPER = sys.argv[1]
TOKENIZER = Path(__file__).parents[2] / "configs/tokenizers/bytes"
BASE = dict(architectures=["DeepseekV3ForCausalLM"], model_type="deepseek_v3", attention_bias=False, bos_token_id=0, eos_token_id=1,
            first_k_dense_replace=1, hidden_act="silu", hidden_size=64, initializer_range=0.1, intermediate_size=96, kv_lora_rank=32,
            max_position_embeddings=4096, moe_intermediate_size=32, moe_layer_freq=1, n_group=2, n_routed_experts=8, n_shared_experts=1,
            norm_topk_prob=True, num_attention_heads=4, num_experts_per_tok=2, num_hidden_layers=3, num_key_value_heads=4,
            num_nextn_predict_layers=0, q_lora_rank=24, qk_nope_head_dim=16, qk_rope_head_dim=8, rms_norm_eps=1e-6, rope_theta=10000,
            rope_scaling=None, routed_scaling_factor=2.5, scoring_func="sigmoid", tie_word_embeddings=False, topk_group=1,
            topk_method="noaux_tc", torch_dtype="float32", v_head_dim=16, vocab_size=264)
YARN = dict(factor=40, original_max_position_embeddings=4096, beta_fast=32, beta_slow=1, mscale=1.0, mscale_all_dim=1.0)
CASES = {
    "plain": ({}, "fp32"),
    "bf16": ({}, "bf16"),
    "no q_lora, tied": ({"q_lora_rank": None, "tie_word_embeddings": True}, "fp32"),
    "yarn": ({"max_position_embeddings": 163840, "rope_scaling": {**YARN, "type": "yarn"}}, "bf16"),
    "yarn, new spelling": ({"max_position_embeddings": 163840, "rope_theta": None,
                            "rope_parameters": {**YARN, "rope_type": "yarn", "rope_theta": 10000}}, "fp32"),
    "mtp": ({"num_nextn_predict_layers": 1}, "bf16"),
    "no mtp field": ({"num_nextn_predict_layers": None}, "fp32"),
}


def run(*args):
    r = subprocess.run([TEMPER, *map(str, args)], capture_output=True, text=True)
    if r.returncode:
        sys.exit(f"temper {' '.join(map(str, args))}: {r.returncode}: {r.stderr}")


def logits(model, tmp):
    ids = Path(tmp, "ids.json")
    ids.write_text(json.dumps([[0, 5, 60, 7, 258, 33, 90], [100]]))
    out = Path(tmp, "out.safetensors")
    run("probe", "logits", "--model", model, "--ids", ids, "--out", out, "--dtype", "fp32")
    return {k: v for k, v in load_np(out).items() if not k.startswith("mtp")}


bad = 0
for name, (change, dtype) in CASES.items():
    with tempfile.TemporaryDirectory() as tmp:
        c = {k: v for k, v in {**BASE, **change}.items() if v is not None or k in ("q_lora_rank", "rope_scaling")}
        arch, ours, theirs = Path(tmp, "arch.json"), Path(tmp, "ours"), Path(tmp, "theirs")
        arch.write_text(json.dumps(c))
        run("init", "--arch", arch, "--tokenizer", TOKENIZER, "--seed", 3, "--dtype", dtype, "--out", ours)
        DeepseekV3ForCausalLM._keys_to_ignore_on_load_unexpected = [r"model\.layers\.3\..*"]
        m, info = DeepseekV3ForCausalLM.from_pretrained(ours, dtype="auto", output_loading_info=True)
        problems = [k for k in ("missing_keys", "unexpected_keys", "mismatched_keys") if info.get(k)]
        if m.dtype != {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]:
            problems.append(f"dtype {m.dtype}")
        text = "caf\u00e9 \U0001f600\n"
        if AutoTokenizer.from_pretrained(ours)(text).input_ids != [0] + [3 + b for b in text.encode()]:
            problems.append("tokenizer")
        m.save_pretrained(theirs)
        a, b = load_file(ours / "model.safetensors"), load_file(theirs / "model.safetensors")
        a = {k: v for k, v in a.items() if not k.startswith("model.layers.3.")}
        if set(a) != set(b):
            problems.append(f"names {sorted(set(a) ^ set(b))[:4]}")
        problems += [k for k in a if k in b and (a[k].dtype != b[k].dtype or not torch.equal(a[k], b[k]))]
        x, y = logits(ours, tmp), logits(theirs, tmp)
        problems += [k for k in x if k not in y or x[k].tobytes() != y[k].tobytes()]
        with torch.no_grad():
            want = m.float()(torch.tensor([[0, 5, 60, 7, 258, 33, 90]])).logits[0].numpy()
        worst = float(np.abs(x["logits.0"] - want).max() / (want.max() - want.min()))
        if worst > 1e-4:
            problems.append("logits")
        print(f"{name} ({dtype}): {len(a)} tensors, logits off by {worst:.1e} of the range: {problems or 'good'}")
        bad += bool(problems)
sys.exit(bad != 0)
