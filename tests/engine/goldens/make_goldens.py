#!/usr/bin/env python3
"""Writes the goldens of the file readers (development only): transformers' RoPE numbers, `tokenizers`' ids, safetensors' bytes.

  make_goldens.py DEEPSEEK_TOKENIZER_JSON

The tokenizer is DeepSeek-V3's, cut to its first 700 ids and the merges that stay inside.
"""
import copy, json, sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import DeepseekV3Config
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3Attention, DeepseekV3RotaryEmbedding

HERE = Path(__file__).parent
BASE = dict(architectures=["DeepseekV3ForCausalLM"], model_type="deepseek_v3", vocab_size=64, hidden_size=64, intermediate_size=48,
            moe_intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2, n_shared_experts=1,
            n_routed_experts=4, routed_scaling_factor=2.5, kv_lora_rank=16, q_lora_rank=None, qk_rope_head_dim=64, v_head_dim=128,
            qk_nope_head_dim=128, n_group=1, topk_group=1, num_experts_per_tok=2, first_k_dense_replace=1, max_position_embeddings=4096,
            num_nextn_predict_layers=0, bos_token_id=0, eos_token_id=1)
YARN = dict(type="yarn", factor=40, original_max_position_embeddings=4096, beta_fast=32, beta_slow=1)
ROPE = {
    "none": {"rope_theta": 10000.0},
    "theta": {"rope_theta": 500000.0, "rope_scaling": None, "qk_rope_head_dim": 16},
    "v3": {"rope_theta": 10000.0, "max_position_embeddings": 163840, "rope_scaling": {**YARN, "mscale": 1.0, "mscale_all_dim": 1.0}},
    "v2": {"rope_theta": 10000.0, "max_position_embeddings": 163840, "rope_scaling": {**YARN, "mscale": 0.707, "mscale_all_dim": 0.707}},
    "plain yarn": {"rope_theta": 10000.0, "max_position_embeddings": 163840, "rope_scaling": YARN},
    "mscale alone": {"rope_theta": 10000.0, "max_position_embeddings": 163840, "rope_scaling": {**YARN, "mscale": 0.707}},
    "mscale differs": {"rope_theta": 10000.0, "max_position_embeddings": 163840, "rope_scaling": {**YARN, "mscale": 1.0, "mscale_all_dim": 0.707}},
    "new spelling": {"max_position_embeddings": 163840, "qk_rope_head_dim": 32,
                     "rope_parameters": {"rope_type": "yarn", "rope_theta": 50000.0, "factor": 8.0, "original_max_position_embeddings": 2048,
                                         "beta_fast": 16, "beta_slow": 2, "mscale": 1.0, "mscale_all_dim": 1.0}},
    "new default": {"rope_parameters": {"rope_type": "default", "rope_theta": 12345.0}},
}


def rope():
    out = {}
    for name, change in ROPE.items():
        c = {**BASE, **change}
        config = DeepseekV3Config(**copy.deepcopy(c))
        config._attn_implementation = "eager"
        emb = DeepseekV3RotaryEmbedding(config)
        out[name] = {"config": c, "inv_freq": emb.inv_freq.double().tolist(), "amplitude": float(emb.attention_scaling),
                     "scale": float(DeepseekV3Attention(config, 0).scaling)}
    (HERE / "rope.json").write_text(json.dumps(out, indent=1) + "\n")


def split(regex):
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}


def byte_level(use_regex):
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


TEXTS = ["", " ", "Hello, world!", "The quick brown fox doesn't jump; it's 12345678 o'clock.", "x=1\n\n\ty  = 22\r\n  z\r\n",
         "  leading", "trailing   ", "   \n   \n", "a\u3000b\u00a0c\u180ed\u0085e\u2028f", "你好，世界 日本語カタカナ 한국어", "naïve Straße ẹ́ ﬁ Ⅷ ½ ٣٤ १२३",
         "😀👩‍👩‍👧 🇩🇪✈️", "<｜begin▁of▁sentence｜>user<｜end▁of▁sentence｜> x", "<｜begin▁of▁sentence", "\x00\x7f\ufeff", "don't I'll WE'VE 'Tis",
         "\U000105c0\u1c89\ua7cb\U00031350 \u2ffc", "http://a.b/c?d=e&f=%20#g", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
         "the " * 40, "1234567890" * 7, "!?!?!? ...---___ \n\n\n\n", "\t\t\tdef f(x):\n\t\t\t\treturn x**2  # done\n", "qab qabcx<｜x  xq \t qab\n"]


def tokens(source):
    t = json.loads(Path(source).read_text())
    m = t["model"]
    m["vocab"] = {k: v for k, v in m["vocab"].items() if v < 700}
    merges = [x.split(" ") if isinstance(x, str) else x for x in m["merges"]]
    merges = [x for x in merges if x[0] in m["vocab"] and x[1] in m["vocab"] and x[0] + x[1] in m["vocab"]]
    m["merges"] = [" ".join(x) for x in merges]
    t["added_tokens"] = [a for a in t["added_tokens"] if a["id"] < 700]
    (HERE / "tokenizer" / "tokenizer.json").write_text(json.dumps(t, ensure_ascii=False, indent=0) + "\n")
    (HERE / "tokenizer" / "tokenizer_config.json").write_text(json.dumps(
        {"add_bos_token": True, "bos_token": {"__type": "AddedToken", "content": "<｜begin▁of▁sentence｜>"},
         "eos_token": "<｜end▁of▁sentence｜>", "pad_token": None}, ensure_ascii=False, indent=1) + "\n")
    flags = dict(single_word=False, lstrip=False, rstrip=False, normalized=False, special=False)
    changes = {
        "published": {},
        "v2": {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            split("[\r\n]"), split("\\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳ]+"), split("\\s?[!-/:-~！-／：-～‘-‟　-。]+"), split("\\s+$"),
            split("[一-龥ࠀ-一가-퟿]+"), {"type": "Digits", "individual_digits": True}, byte_level(False)]}},
        "gpt2": {"pre_tokenizer": byte_level(True)},
        "digits": {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": False}, byte_level(True)]}},
        "odd": {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [split("\\P{L}$|(?<=a)b*|\\d"), split("x*"), split("\\u0061+"), byte_level(False)]}},
        "added": {"added_tokens": [{**a, "lstrip": a["id"] == 0, "rstrip": a["id"] == 1} for a in t["added_tokens"]] + [
            {**flags, "id": 700 + i, "content": c, "normalized": i % 2 == 0, "lstrip": i == 3} for i, c in enumerate(["<｜", "qab", "qabcx", "a qb", "  xq"])]},
        "pairs": {"model": {**m, "merges": merges}},
        "ignore_merges": {"model": {**m, "ignore_merges": True, "merges": m["merges"][:40]}},
    }
    variants = {}
    for name, change in changes.items():
        theirs = Tokenizer.from_str(json.dumps({**t, **change}))
        variants[name] = {"change": {k: v for k, v in change.items() if k != "model"},
                          "cases": [{"text": x, "ids": theirs.encode(x, add_special_tokens=False).ids} for x in TEXTS]}
    theirs = Tokenizer.from_str(json.dumps(t))
    ids = [[0, 5, 1], [160, 258], [160, 255, 160], [699, 698, 3], list(range(3, 259)), [161, 242], [5000, 4], [2, 2]]
    decode = [{"ids": i, "skip": s, "text": theirs.decode(i, skip_special_tokens=s)} for i in ids for s in (False, True)]
    (HERE / "tokens.json").write_text(json.dumps({"variants": variants, "decode": decode}, indent=0) + "\n")


def safetensors():
    f16 = torch.tensor([0x0000, 0x8000, 0x0001, 0x03FF, 0x0400, 0x3C00, 0xC000, 0x7BFF], dtype=torch.int32).to(torch.int16).view(torch.float16)
    save_file({"f32": torch.tensor([[1.5, -2.25, 1e-40], [3.4e38, 0.0, -0.0]]), "bf16": torch.tensor([1.0, -3.140625, 1e30]).bfloat16(), "f16": f16,
               "i32": torch.tensor([-1, 2**31 - 1], dtype=torch.int32), "i64": torch.tensor([[7, -2**31]]), "u8": torch.tensor([0, 255], dtype=torch.uint8),
               "big": torch.tensor([2**40]), "empty": torch.zeros(0, 5), "scalar": torch.tensor(4.0)}, HERE / "hf.safetensors", metadata={"format": "pt"})


rope()
tokens(sys.argv[1])
safetensors()
