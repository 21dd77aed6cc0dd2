#!/usr/bin/env python3
"""Holds our LoRA folders against PEFT, both ways (development only; peft 0.21, transformers 5.18).

  peft_check.py TEMPER

For a query with and without a low rank, plain and rank-stabilised scaling:
  1. `temper sft` trains an adapter; transformers' base model with PEFT's adapter of the checkpoint's folder gives the logits of the
     checkpoint itself, and so does what PEFT merges.
  2. An adapter that PEFT made and saved, merged by `temper convert --adapter`, gives PEFT's logits; a run with lora.adapter begins
     with them.
Prints the largest difference over the range of the logits; the bar is 1e-5.
"""
import json, subprocess, sys, tempfile
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.numpy import load_file
from transformers import DeepseekV3ForCausalLM

TEMPER = sys.argv[1]
ROOT = Path(__file__).parents[2]
ARCH = dict(architectures=["DeepseekV3ForCausalLM"], model_type="deepseek_v3", attention_bias=False, bos_token_id=0, eos_token_id=1,
            first_k_dense_replace=1, hidden_act="silu", hidden_size=64, initializer_range=0.1, intermediate_size=96, kv_lora_rank=32,
            max_position_embeddings=512, moe_intermediate_size=32, moe_layer_freq=1, n_group=2, n_routed_experts=8, n_shared_experts=1,
            norm_topk_prob=True, num_attention_heads=4, num_experts_per_tok=2, num_hidden_layers=3, num_key_value_heads=4,
            num_nextn_predict_layers=0, q_lora_rank=24, qk_nope_head_dim=16, qk_rope_head_dim=8, rms_norm_eps=1e-6, rope_theta=10000,
            rope_scaling=None, routed_scaling_factor=2.5, scoring_func="sigmoid", tie_word_embeddings=False, topk_group=1,
            topk_method="noaux_tc", torch_dtype="float32", v_head_dim=16, vocab_size=264)
IDS = [0, 5, 60, 7, 258, 33, 90, 101, 40, 41, 42]
TARGETS = ["q_proj", "q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj"]


def run(*args):
    r = subprocess.run([TEMPER, *map(str, args)], capture_output=True, text=True)
    if r.returncode:
        sys.exit(f"temper {' '.join(map(str, args))}: {r.returncode}: {r.stderr}")


def ours(model, tmp):
    Path(tmp, "ids.json").write_text(json.dumps([IDS]))
    run("probe", "logits", "--model", model, "--ids", Path(tmp, "ids.json"), "--out", Path(tmp, "out.safetensors"), "--dtype", "fp32")
    return load_file(Path(tmp, "out.safetensors"))["logits.0"]


def theirs(model):
    with torch.no_grad():
        return model(torch.tensor([IDS])).logits[0].numpy()


bad = 0


def compare(what, a, b):
    global bad
    worst = np.abs(a - b).max() / (b.max() - b.min())
    bad += worst > 1e-5
    print(f"{what}: {worst:.1e}{'' if worst <= 1e-5 else '  TOO LARGE'}")


for q_lora, rslora in [(24, False), (None, False), (24, True)]:
    with tempfile.TemporaryDirectory() as tmp:
        name = f"q_lora_rank {q_lora}, use_rslora {rslora}"
        base = Path(tmp, "base")
        Path(tmp, "arch.json").write_text(json.dumps({**ARCH, "q_lora_rank": q_lora}))
        run("init", "--arch", Path(tmp, "arch.json"), "--tokenizer", ROOT / "configs/tokenizers/bytes", "--seed", 3, "--out", base)
        Path(tmp, "rows.jsonl").write_text("".join(json.dumps({"prompt": f"{i};", "completion": f"<{2 * i}>"}) + "\n" for i in range(40)))
        lora = dict(r=4, lora_alpha=8, use_rslora=rslora, target_modules=TARGETS)
        config = dict(output_dir="run", model="base", threads=2, data=dict(train="rows.jsonl"), lora=lora,
                      sft=dict(max_steps=8, learning_rate=3e-2, tokens_per_step=200))
        Path(tmp, "sft.json").write_text(json.dumps(config))
        run("sft", Path(tmp, "sft.json"))
        checkpoint = Path(tmp, "run/checkpoints/latest")
        here, before = ours(checkpoint, tmp), ours(base, tmp)
        assert np.abs(here - before).max() > 1e-2, "the adapter changes nothing"
        load = lambda: DeepseekV3ForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
        adapted = PeftModel.from_pretrained(load(), checkpoint / "adapter").eval()
        compare(f"{name}: ours in PEFT", here, theirs(adapted))
        compare(f"{name}: ours merged by PEFT", here, theirs(adapted.merge_and_unload()))

        torch.manual_seed(5)
        made = get_peft_model(load(), LoraConfig(r=4, lora_alpha=8, use_rslora=rslora, target_modules=TARGETS, init_lora_weights=False)).eval()
        made.save_pretrained(Path(tmp, "theirs"))
        run("convert", "--to", "fp32", "--adapter", Path(tmp, "theirs"), base, Path(tmp, "merged"))
        compare(f"{name}: PEFT's merged by convert", ours(Path(tmp, "merged"), tmp), theirs(made))
        config |= dict(output_dir="on", lora={**lora, "adapter": "theirs"})
        config["sft"] |= dict(max_steps=1, learning_rate=1e-12)
        Path(tmp, "on.json").write_text(json.dumps(config))
        run("sft", Path(tmp, "on.json"))
        compare(f"{name}: a run that begins with it", ours(Path(tmp, "on/checkpoints/latest"), tmp), theirs(made))
sys.exit(bad > 0)
