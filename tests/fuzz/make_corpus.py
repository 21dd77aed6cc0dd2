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
    wire()


def frames(kind, header, *arrays):
    """Input of wire_fuzz: flag 1 asks it to make lengths and checksum right."""
    header = json.dumps(dict(header, **({"arrays": [[d, len(b) // w] for d, w, b in arrays]} if arrays else {}))).encode()
    parts = [b"TMPR" + bytes([2, 0, kind, 0]) + bytes(8), header] + [b for _, _, b in arrays]
    return b"\1" + b"".join(len(p).to_bytes(4, "little") + p for p in parts)


def wire():
    def ints(width, *values):
        return b"".join(v.to_bytes(width, "little") for v in values)

    def array(dtype, *values):
        width = {"u8": 1, "u64": 8}.get(dtype, 4)
        return dtype, width, ints(width, *values)

    def text(data):
        return "u8", 1, data

    session = "00000000000000ff"
    held = [array("u64", 41, 42), array("i32", 0, 1)]
    messages = {
        "hello": frames(1, {"role": "actor", "name": "a1", "instance": "01", "pid": 7, "temper_version": "0.1.0", "numerics": ["canon-1/fp32/cache-fp32"],
                            "rows": 8, "session": session, "run": "arith"}, *held),
        "welcome": frames(2, {"session": session, "run": "arith", "peer_timeout_s": 300, "numerics": "n", "model_dir": "/m", "valid_ids": 99, "files": ["r.lua"]},
                          text(b"{}"), text(b"{}"), text(b"return 1")),
        "heartbeat": frames(3, {}), "heartbeat-held": frames(3, {}, *held),
        "goodbye": frames(4, {"reason": "the run is over", "failed": False}),
        "refuse": frames(5, {"code": "not_taken", "reason": "late", "grp": 1, "sample": 2, "attempt": 3}),
        "pull": frames(11, {"version": 3, "offset": 4096, "length": 1024, "delta": True}),
        "chunk": frames(12, {"version": 3, "offset": 0}, text(b"weights")),
        "loaded": frames(13, {"session": session, "version": 3, "canary": 77}),
        "grant": frames(20, {"session": session, "version": 3, "seed": 7, "max_new_tokens": 8, "temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0},
                        array("u64", 41), array("i32", 0), array("u32", 2), array("i32", 5, 6), array("u32", 2), array("u32", 0, 1), array("i32", 1)),
        "rollout": frames(21, {"session": session, "grp": 41, "sample": 0, "attempt": 0, "finish": "stop", "version": 3}, array("i32", 5, 1),
                          ("f32", 4, bytes(8)), array("u32", 3, 4)),
        "ack": frames(22, {}, array("u64", 41), array("u32", 0), array("i32", 0)),
        "request": frames(30, {"id": "01", "grp": 41, "step": 1, "has_answer": True, "finishes": ["stop"]}, text(b'"p"'), text(b"{}"), text(b"4"), array("u32", 0),
                          array("u32", 3), text(b"\0"), array("u32", 2), text(b"hi"), array("u32", 1), array("i32", 5)),
        "result": frames(31, {"id": "01", "grp": 41}, text(b'[{"sample":0,"status":"ok","score":1.0,"parts":[{"name":"r","weight":1.0,"status":"ok","micros":5,"value":1.0}]}]')),
        "scripts": frames(32, {"files": ["r.lua"]}, text(b"return 1")),
    }
    for name, data in messages.items():
        put("wire", name, data)
    put("wire", "bad-checksum", b"\0" + messages["ack"][1:])
    tensors = [{"name": "a", "dtype": "F32", "shape": [2, 2], "begin": 0, "end": 16, "sha256": "0" * 64, "delta": [1, 0, 5]},
               {"name": "b", "dtype": "BF16", "shape": [2], "begin": 16, "end": 20, "sha256": "1" * 64, "delta": [2, 5, 9]},
               {"name": "c", "dtype": "F8_E4M3", "shape": [4], "begin": 20, "end": 24, "sha256": "2" * 64, "delta": [0, 9, 9]}]
    head = {"session": session, "version": 4, "bytes": 24}
    full = [{k: v for k, v in t.items() if k != "delta"} for t in tensors]
    put("manifest", "full", json.dumps(head).encode() + b"\n" + json.dumps(full).encode() + b"\n")
    delta = json.dumps(dict(head, base=3, delta_bytes=9)).encode() + b"\n" + json.dumps(tensors).encode() + b"\n"
    for name, patch in {"one": b"\0abcd", "two": b"\3abcd\x05efgh", "last": b"\x3fabcd", "past": b"\x40abcd", "long": b"\x80\x80\x01abcd", "half": b"\0ab"}.items():
        put("manifest", f"delta-{name}", delta + patch)


main()
