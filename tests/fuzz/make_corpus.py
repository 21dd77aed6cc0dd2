#!/usr/bin/env python3
"""Writes tests/fuzz/corpus: the hostile files of tests/engine/goldens/families and small good ones (run once; its output is committed)."""
import json
from pathlib import Path

HERE = Path(__file__).parent
FAMILIES = HERE.parent / "engine" / "goldens" / "families" / "families.jsonl"
TEMPLATES = HERE.parent / "engine" / "goldens" / "templates"


def put(target, name, data):
    folder = HERE / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


def safetensors(header, data):
    return len(header).to_bytes(8, "little") + header + data


def main():
    count = {}
    for line in FAMILIES.read_text().split("\n")[:-1]:
        f = json.loads(line)
        kind = f["kind"]
        if "hex" in f:
            data = bytes.fromhex(f["hex"])
        elif "text" in f:
            data = f["text"].encode()
        elif "header" in f:
            header = f["header"].encode()
            length = int(f.get("length", len(header)))
            data = length.to_bytes(8, "little") + header + b"d" * f["data"]
        else:
            continue
        if len(data) > 2000:
            continue
        n = count[kind] = count.get(kind, 0) + 1
        put(kind, f"{f['family']}-{n:03}", data)
    put("safetensors", "good", safetensors(b'{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"BF16","shape":[1,2],"data_offsets":[8,12]},"c":{"dtype":"I64","shape":[1],"data_offsets":[12,20]}}', bytes(20)))
    put("index", "good", b'{"metadata":{"total_size":8},"weight_map":{"a.b":"model-1.safetensors","c.d":"model-2.safetensors"}}')
    config = {"model_type": "deepseek_v3", "vocab_size": 101, "hidden_size": 72, "intermediate_size": 100, "moe_intermediate_size": 40, "num_hidden_layers": 3,
              "num_attention_heads": 3, "n_routed_experts": 8, "num_experts_per_tok": 4, "n_group": 4, "topk_group": 2, "n_shared_experts": 1,
              "first_k_dense_replace": 1, "q_lora_rank": 20, "kv_lora_rank": 24, "qk_nope_head_dim": 20, "qk_rope_head_dim": 8, "v_head_dim": 18,
              "routed_scaling_factor": 2.5, "norm_topk_prob": True, "rms_norm_eps": 1e-6, "max_position_embeddings": 512, "rope_theta": 10000.0,
              "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128, "mscale": 1.0, "mscale_all_dim": 1.0, "beta_fast": 32, "beta_slow": 1},
              "eos_token_id": 1, "bos_token_id": 0, "tie_word_embeddings": False}
    put("config", "good", json.dumps(config).encode())
    letters = [chr(c) for c in range(33, 127)] + ["Ġ", "Ċ", "ab", "Ġab", "12"]
    tokenizer = {"added_tokens": [{"id": len(letters), "content": "<x>", "special": True, "normalized": False}], "normalizer": None,
                 "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                     {"type": "Split", "pattern": {"Regex": "\\p{N}{1,3}| ?[\\p{L}\\p{M}]+|\\s+(?!\\S)|\\s+"}, "behavior": "Isolated", "invert": False},
                     {"type": "Digits", "individual_digits": True}, {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}]},
                 "decoder": {"type": "ByteLevel"}, "model": {"type": "BPE", "vocab": {t: i for i, t in enumerate(letters)}, "merges": ["a b", "Ġ ab", ["1", "2"]]}}
    put("tokenizer", "good", json.dumps(tokenizer, ensure_ascii=False).encode())
    tokenizer["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Prepend", "prepend": "a"}, {"type": "NFD"},
        {"type": "Replace", "pattern": {"Regex": "[0-9]+|x"}, "content": "b"}, {"type": "Replace", "pattern": {"String": " "}, "content": "!"},
        {"type": "Strip", "strip_left": True, "strip_right": False}]}
    put("tokenizer", "normalizer", json.dumps(tokenizer, ensure_ascii=False).encode())
    for f in TEMPLATES.glob("*.jinja"):
        put("template", f.stem, f.read_bytes())
    for i, line in enumerate((TEMPLATES / "language.jsonl").read_text().split("\n")[1:-1]):
        put("template", f"language-{i:03}", json.loads(line)["source"].encode())
    put("rows", "good", b'{"prompt":"p","answer":"4"}\n{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"a"}],"tools":[{}]}\n{"prompt":[{"role":"user","content":"x"}],"completion":[{"role":"assistant","content":"y"}],"reward_model":{"ground_truth":7}}\n{"ids":[1,2]}\n')
    for i, text in enumerate(["", "hello world 123", "漢字かなカナ 한국어", "don't  \n\n x\t", "👩‍👩‍👧 é́ \u2028", "<｜begin▁of▁sentence｜>a"]):
        put("text", f"{i}", text.encode())
    put("text", "bytes", bytes(range(256)))


main()
