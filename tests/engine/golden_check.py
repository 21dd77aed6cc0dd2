#!/usr/bin/env python3
"""Holds `temper probe logits` against a golden.safetensors written from transformers (float32).

  golden_check.py TEMPER MODEL_DIR GOLDEN.safetensors

The golden holds, for each sequence i: seq.i.tokens, seq.i.logits [T,V], seq.i.router.L.{idx,gap}, seq.i.greedy(_gap), and
seq.i.mtp_logits [T-1,V] where there is an MTP layer. Bars: |logits - golden| <= 1e-4 of the golden's range; the same experts
and argmax wherever the reference's own gap exceeds 1e-5. Exit 1 if one is missed. Needs numpy and safetensors.
"""
import json, subprocess, sys, tempfile
from pathlib import Path
import numpy as np
from safetensors.numpy import load_file

temper, model, golden = sys.argv[1], sys.argv[2], load_file(sys.argv[3])
n = 0
while f"seq.{n}.tokens" in golden:
    n += 1
bad = 0
with tempfile.TemporaryDirectory() as tmp:
    ids, out = Path(tmp, "ids.json"), Path(tmp, "o.safetensors")
    ids.write_text(json.dumps([golden[f"seq.{i}.tokens"].tolist() for i in range(n)]))
    subprocess.run([temper, "probe", "logits", "--model", model, "--ids", ids, "--out", out, "--threads", "2"], check=True)
    got = load_file(out)
for i in range(n):
    g = golden[f"seq.{i}.logits"]
    worst = np.abs(got[f"logits.{i}"] - g).max() / (g.max() - g.min())
    line = f"seq {i}: T {len(g)}, logits off by {worst:.1e} of the range"
    bad += worst > 1e-4
    top = np.sort(g, -1)
    sure = top[:, -1] - top[:, -2] > 1e-5
    bad += int((got[f"logits.{i}"].argmax(-1) != g.argmax(-1))[sure].sum())
    layers = sorted(int(k.split(".")[3]) for k in golden if k.startswith(f"seq.{i}.router.") and k.endswith(".idx"))
    wrong = rows = 0
    for j, layer in enumerate(layers):
        sure = golden[f"seq.{i}.router.{layer}.gap"] > 1e-5
        wrong += int((got[f"experts.{i}"][j] != golden[f"seq.{i}.router.{layer}.idx"]).any(-1)[sure].sum())
        rows += int(sure.sum())
    line += f"; experts: {wrong} of {rows} rows differ"
    bad += wrong
    if f"seq.{i}.mtp_logits" in golden:
        g = golden[f"seq.{i}.mtp_logits"]
        worst = np.abs(got[f"mtp_logits.{i}"] - g).max() / (g.max() - g.min())
        line += f"; MTP off by {worst:.1e}"
        bad += worst > 1e-4
    print(line)
print("equal" if not bad else f"{bad} differences past the bars")
sys.exit(1 if bad else 0)
