"""Scores of transformers' DeepseekV3ForSequenceClassification for a random reward model that `temper init` makes.

Needs torch, transformers and a built temper; writes reward_model.json beside this file.
    python tests/reward/data/reward_model.py build/bin/temper
"""
import json
import pathlib
import subprocess
import sys
import tempfile

import torch
from transformers import AutoTokenizer, DeepseekV3ForSequenceClassification

HERE = pathlib.Path(__file__).parent
TOKENIZER = HERE.parents[2] / "configs" / "tokenizers" / "bytes"
SEED = 5
GROUPS = [
    ("17+25=", ["42", "41", "", "The sum of seventeen and twenty-five is 42.", "4" * 60]),
    ("", ["x", "y" * 100]),
    ("What is the capital of France? " * 4, ["Paris", "Paris.", "Caf\u00e9 \u4f60\u597d"]),
]

with tempfile.TemporaryDirectory() as folder:
    model_dir = folder + "/model"
    command = [sys.argv[1], "init", "--arch", HERE / "reward_arch.json", "--tokenizer", TOKENIZER]
    subprocess.run([*command, "--seed", str(SEED), "--dtype", "fp32", "--out", model_dir], check=True)
    model = DeepseekV3ForSequenceClassification.from_pretrained(
        model_dir, torch_dtype=torch.float32, attn_implementation="eager").eval()
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    groups = []
    for prompt, completions in GROUPS:
        scores, ids = [], []
        for completion in completions:
            row = tokenizer(prompt + completion, add_special_tokens=False)["input_ids"]
            if json.loads((TOKENIZER / "tokenizer_config.json").read_text())["add_bos_token"]:
                row = [tokenizer.bos_token_id] + row
            with torch.no_grad():
                scores.append(model(torch.tensor([row])).logits[0, 0].item())
            ids.append(row)
        groups.append({"prompt": prompt, "completions": completions, "ids": ids, "scores": scores})
(HERE / "reward_model.json").write_text(json.dumps({"seed": SEED, "groups": groups}) + "\n")
print([g["scores"] for g in groups])
