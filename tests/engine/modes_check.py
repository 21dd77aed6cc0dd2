#!/usr/bin/env python3
"""Holds `temper probe logits` in every mode against a float64 forward with the same rounding points.

  modes_check.py TEMPER MODEL_DIR [--seed 0] [--lens 1,17,64] [--modes fp32/fp32,bf16/bf16,...]

The forward here is written from the DeepSeek papers and docs/formats.md (naive attention, dense loops) in torch float64. It
rounds what a mode rounds, and nothing else: weights (BF16, or E4M3 blocks of 128 x 128), what a block adds to the
residual stream (BF16), latent rows as the cache stores them, and in fp8-w8a8 the inputs of FP8 matrices. Routing is compared
where the reference's gap is above 2e-3, the logits with the engine's own choice of experts.
A value near the middle of two BF16 numbers falls to the other side in FP32 arithmetic now and then; that moves its row and all
later ones by some 1e-3 of the range, while rows before it agree to 1e-6. Hence two bars: the median row 1e-3 of the logit
range, the worst row 5e-3 (5e-2 in fp8-w8a8, whose steps are 16 times as wide; fp32, where nothing is rounded: every row
1e-5). Needs torch and safetensors.
"""
import argparse, json, math, random, subprocess, sys, tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

BLOCK = 128


def bf16(x):
    return x.to(torch.float32).to(torch.bfloat16).to(torch.float64)


def scale_of(amax, pow2):
    s = amax.float().clamp(min=1e-12) / 448
    return torch.exp2(torch.ceil(torch.log2(s.double()))).float() if pow2 else s


def e4m3(x, s):
    return (x.float() / s).clamp(-448, 448).to(torch.float8_e4m3fn).double() * s.double()


def quantize_weight(w, pow2):
    n, k = w.shape
    t = F.pad(w, (0, -k % BLOCK, 0, -n % BLOCK))
    t = t.view(t.shape[0] // BLOCK, BLOCK, t.shape[1] // BLOCK, BLOCK)
    s = scale_of(t.abs().amax((1, 3), keepdim=True), pow2)
    return e4m3(t, s).view(t.shape[0] * BLOCK, -1)[:n, :k]


def quantize_rows(x, pow2):
    k = x.shape[-1]
    t = F.pad(x, (0, -k % BLOCK)).view(*x.shape[:-1], -1, BLOCK)
    return e4m3(t, scale_of(t.abs().amax(-1, keepdim=True), pow2)).view(*x.shape[:-1], -1)[..., :k]


def is_fp8(name):
    return name.endswith("_proj.weight") and "eh_proj" not in name or name.endswith("kv_a_proj_with_mqa.weight")


class Model:
    def __init__(self, folder, mode, cache):
        self.c = json.loads((folder / "config.json").read_text())
        self.mode, self.cache = mode, cache
        raw = {}
        for f in sorted(folder.glob("*.safetensors")):
            raw |= load_file(f)
        self.w = {}
        for name, t in raw.items():
            if name.endswith("_scale_inv"):
                continue
            if t.dtype == torch.float8_e4m3fn:
                s = raw[name + "_scale_inv"]
                n, k = t.shape
                v = t.double() * s.double().repeat_interleave(BLOCK, 0)[:n].repeat_interleave(BLOCK, 1)[:, :k]
                keep = mode.startswith("fp8")  # codes and scales unchanged
                self.w[name] = v if keep or mode == "fp32" else bf16(v)
            elif mode == "fp32" or name.endswith("e_score_correction_bias"):
                self.w[name] = t.double()
            elif mode.startswith("fp8") and is_fp8(name):
                self.w[name] = quantize_weight(t.double(), True)
            else:
                self.w[name] = bf16(t.double())

    def lin(self, x, name, quantize=True):
        if self.mode == "fp8-w8a8" and quantize and is_fp8(name + ".weight"):
            x = quantize_rows(x, True)
        return x @ self.w[name + ".weight"].T

    def round(self, x):
        return x if self.mode == "fp32" else bf16(x)

    def norm(self, x, name, eps):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * self.w[name + ".weight"]

    def rope(self, x, positions):
        c = self.c
        d = c["qk_rope_head_dim"]
        inv = 1.0 / (c["rope_theta"] ** (torch.arange(0, d, 2, dtype=torch.float64) / d))
        a = positions.double()[:, None] * inv
        cos, sin = a.cos()[:, None], a.sin()[:, None]
        e, o = x[..., 0::2], x[..., 1::2]
        return torch.stack((e * cos - o * sin, o * cos + e * sin), -1).flatten(-2)

    def stored(self, latent, rope):
        """What attention reads of a latent row."""
        if self.cache == "bf16":
            return bf16(latent), bf16(rope)
        if self.cache == "fp8":
            return quantize_rows(latent, True), bf16(rope)
        return latent, rope

    def attention(self, x, p):
        c, t = self.c, x.shape[0]
        heads, nope, rope, v, rank = (c[k] for k in ("num_attention_heads", "qk_nope_head_dim", "qk_rope_head_dim",
                                                     "v_head_dim", "kv_lora_rank"))
        at = torch.arange(t)
        if c["q_lora_rank"] is None:
            q = self.lin(x, p + "q_proj")
        else:
            q = self.lin(self.norm(self.lin(x, p + "q_a_proj"), p + "q_a_layernorm", 1e-6), p + "q_b_proj")
        q = q.view(t, heads, nope + rope)
        kv = self.lin(x, p + "kv_a_proj_with_mqa")
        latent, k_rope = self.stored(self.norm(kv[:, :rank], p + "kv_a_layernorm", 1e-6),
                                     self.rope(kv[:, None, rank:], at)[:, 0])
        b = self.lin(latent, p + "kv_b_proj", quantize=False).view(t, heads, nope + v)
        s = torch.einsum("qhd,khd->hqk", q[..., :nope], b[..., :nope])
        s = (s + torch.einsum("qhd,kd->hqk", self.rope(q[..., nope:], at), k_rope)) / math.sqrt(nope + rope)
        s = s.masked_fill(torch.ones(t, t, dtype=torch.bool).triu(1), -math.inf).softmax(-1)
        return self.lin(torch.einsum("hqk,khd->qhd", s, b[..., nope:]).reshape(t, -1), p + "o_proj")

    def mlp(self, x, p):
        return self.lin(F.silu(self.lin(x, p + "gate_proj")) * self.lin(x, p + "up_proj"), p + "down_proj")

    def moe(self, x, p, chosen):
        """(output, rows where the reference is sure and disagrees)"""
        c = self.c
        logits = x @ self.w[p + "gate.weight"].T
        v3 = c["model_type"] == "deepseek_v3"
        s = logits.sigmoid() if v3 else logits.softmax(-1)
        b = s + self.w[p + "gate.e_score_correction_bias"] if v3 else s
        k, n = c["num_experts_per_tok"], b.shape[1]
        sure = torch.full((len(b),), math.inf, dtype=torch.float64)
        if c["topk_method"] != "greedy" and c["topk_group"] < c["n_group"]:
            g = b.view(len(b), c["n_group"], -1)
            score = g.topk(2, -1).values.sum(-1) if v3 else g.amax(-1)
            top = score.sort(-1, descending=True)
            sure = top.values[:, c["topk_group"] - 1] - top.values[:, c["topk_group"]]
            keep = torch.zeros_like(score).scatter_(1, top.indices[:, : c["topk_group"]], 1).bool()
            b = b.masked_fill(~keep.repeat_interleave(n // c["n_group"], 1), -math.inf)
        top = b.sort(-1, descending=True)
        if k < n:
            sure = torch.minimum(sure, top.values[:, k - 1] - top.values[:, k])
        own = top.indices[:, :k].sort(-1).values
        wrong = int(((own != chosen).any(-1) & (sure > 2e-3)).sum())
        weight = s.gather(1, chosen)
        if c["norm_topk_prob"]:
            weight = weight / (weight.sum(-1, keepdim=True) + 1e-20)
        weight = weight * c["routed_scaling_factor"]
        y = self.mlp(x, p + "shared_experts.")
        for e in range(n):
            rows, j = torch.where(chosen == e)
            if len(rows):
                y.index_add_(0, rows, self.mlp(x[rows], f"{p}experts.{e}.") * weight[rows, j, None])
        return y, wrong

    def logits(self, ids, experts):
        c, eps, wrong, moe = self.c, self.c["rms_norm_eps"], 0, 0
        x = self.w["model.embed_tokens.weight"][torch.tensor(ids)]
        for i in range(c["num_hidden_layers"]):
            p = f"model.layers.{i}."
            x = x + self.round(self.attention(self.norm(x, p + "input_layernorm", eps), p + "self_attn."))
            h = self.norm(x, p + "post_attention_layernorm", eps)
            if i < c["first_k_dense_replace"]:
                y = self.mlp(h, p + "mlp.")
            else:
                y, bad = self.moe(h, p + "mlp.", experts[moe].long())
                wrong, moe = wrong + bad, moe + 1
            x = x + self.round(y)
        head = "model.embed_tokens" if c.get("tie_word_embeddings") else "lm_head"
        return self.norm(x, "model.norm", eps) @ self.w[head + ".weight"].T, wrong


@torch.no_grad()
def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("temper")
    a.add_argument("model", type=Path)
    a.add_argument("--seed", type=int, default=0)
    a.add_argument("--lens", default="1,17,64")
    a.add_argument("--modes", default="fp32/fp32,bf16/fp32,bf16/bf16,fp8/fp32,fp8/bf16,fp8/fp8,fp8-w8a8/bf16")
    o = a.parse_args()
    rng = random.Random(o.seed)
    vocab = json.loads((o.model / "config.json").read_text())["vocab_size"]
    ids = [[rng.randrange(vocab) for _ in range(int(n))] for n in o.lens.split(",")]
    bad = 0
    for both in o.modes.split(","):
        mode, cache = both.split("/")
        with tempfile.TemporaryDirectory() as tmp:
            Path(tmp, "ids.json").write_text(json.dumps(ids))
            subprocess.run([o.temper, "probe", "logits", "--model", o.model, "--ids", tmp + "/ids.json", "--out",
                            tmp + "/o.safetensors", "--dtype", mode, "--cache-dtype", cache], check=True)
            got = load_file(tmp + "/o.safetensors")
        model = Model(o.model, mode, cache)
        worst, wrong, rows = 0, 0, []
        for i, seq in enumerate(ids):
            want, w = model.logits(seq, got[f"experts.{i}"])
            wrong += w
            off = (got[f"logits.{i}"].double() - want).abs().amax(1) / (want.max() - want.min())
            worst, rows = max(worst, float(off.max())), rows + off.tolist()
        median = sorted(rows)[len(rows) // 2]
        bar = {"fp32": 1e-5 if cache == "fp32" else 5e-3, "fp8-w8a8": 5e-2}.get(mode, 5e-3)
        good = wrong == 0 and median <= 1e-3 and worst <= bar
        bad += not good
        print(f"{mode:9s} cache {cache:5s} logits off by {worst:.1e} of the range (median row {median:.1e}), experts wrong {wrong}{'' if good else '   <- over a bar'}")
    sys.exit(bad > 0)


main()
