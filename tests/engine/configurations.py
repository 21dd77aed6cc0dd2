#!/usr/bin/env python3
"""Models that between them vary every field of config.json and every way weights are stored, against transformers.

  configurations.py TEMPER [--learner TEMPER_LEARNER] [--only NAME ...] [--keep DIR] [--seed N]

Each row builds transformers' own model (5.18, FP32) with random weights, writes it as a checkpoint in the row's form (BF16, F16, FP32,
FP8 blocks with FP32, power-of-two or E8M0 multipliers, experts stacked or not, shards that part a matrix from its scales, old and new
RoPE spellings), and prints how far `temper probe logits` is from it: logits and every MTP layer's as a share of their range, experts
and greedy tokens where the reference's own gap exceeds 1e-5; with --learner also `probe grad` from transformers' autograd, as a share of
each tensor's largest gradient. Bars: 1e-4, no difference, 1e-4. Exit 1 if one is missed.

What transformers' classes lack is patched in here: moe_layer_freq (a dense MLP where the published code has one), MTP layers
(DecoderLayer with their own projection and norms).
"""
import argparse, json, shutil, subprocess, sys, tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import DeepseekV2Config, DeepseekV2ForCausalLM, DeepseekV3Config, DeepseekV3ForCausalLM
from transformers.models.deepseek_v2 import modeling_deepseek_v2 as v2
from transformers.models.deepseek_v3 import modeling_deepseek_v3 as v3

TOKENIZER = Path(__file__).resolve().parents[2] / "configs/tokenizers/bytes"
V3 = dict(architectures=["DeepseekV3ForCausalLM"], model_type="deepseek_v3", vocab_size=259, hidden_size=60, intermediate_size=100,
          moe_intermediate_size=40, num_hidden_layers=3, num_nextn_predict_layers=1, first_k_dense_replace=1, moe_layer_freq=1,
          num_attention_heads=3, num_key_value_heads=3, q_lora_rank=36, kv_lora_rank=20, qk_nope_head_dim=18, qk_rope_head_dim=8,
          v_head_dim=14, n_routed_experts=8, num_experts_per_tok=3, n_shared_experts=1, n_group=4, topk_group=2, topk_method="noaux_tc",
          scoring_func="sigmoid", norm_topk_prob=True, routed_scaling_factor=2.5, hidden_act="silu", rms_norm_eps=1e-6,
          rope_theta=10000.0, rope_scaling=None, max_position_embeddings=4096, attention_bias=False, tie_word_embeddings=False,
          bos_token_id=0, eos_token_id=1)
V2 = {**V3, "architectures": ["DeepseekV2ForCausalLM"], "model_type": "deepseek_v2", "topk_method": "greedy", "scoring_func": "softmax",
      "norm_topk_prob": False, "routed_scaling_factor": 1.0, "n_group": 1, "topk_group": 1, "q_lora_rank": None, "n_shared_experts": 2}
del V2["num_nextn_predict_layers"]
YARN = dict(type="yarn", factor=40, original_max_position_embeddings=64, beta_fast=32, beta_slow=1, mscale=1.0, mscale_all_dim=1.0)
ROWS = {
    # name: (base, changes, how it is stored)
    "v3": (V3, {}, {}),
    "v3-no-q-lora-bias": (V3, dict(q_lora_rank=None, attention_bias=True, n_group=1, topk_group=1, norm_topk_prob=False,
                                   routed_scaling_factor=1.0), dict(dtype="f32")),
    "v3-q-lora-bias-tied": (V3, dict(attention_bias=True, tie_word_embeddings=True, num_attention_heads=5, num_key_value_heads=5,
                                     n_shared_experts=3), dict(shards=3)),
    "v3-yarn": (V3, dict(rope_scaling=YARN, first_k_dense_replace=2, max_position_embeddings=163840), {}),
    "v3-yarn-amplitude": (V3, dict(rope_scaling={**YARN, "mscale": 0.707, "mscale_all_dim": 1.3, "beta_fast": 16, "beta_slow": 2, "factor": 8},
                                   rope_theta=50000.0), dict(rope_parameters=True)),
    "v3-yarn-no-mscale": (V3, dict(rope_scaling={k: v for k, v in YARN.items() if "mscale" not in k}, rms_norm_eps=1e-5), {}),
    "v3-fp8": (V3, dict(hidden_size=144, moe_intermediate_size=130, intermediate_size=300, kv_lora_rank=132, q_lora_rank=140,
                        attention_bias=True), dict(dtype="fp8", shards=4, part=True)),
    "v3-fp8-pow2": (V3, dict(hidden_size=144, qk_nope_head_dim=128, v_head_dim=128, q_lora_rank=None), dict(dtype="fp8", pow2=True)),
    "v3-fp8-e8m0": (V3, dict(hidden_size=144, moe_intermediate_size=128), dict(dtype="fp8", pow2=True, e8m0=True)),
    "v3-stacked": (V3, dict(n_routed_experts=12, num_experts_per_tok=5, n_group=3, topk_group=2), dict(stacked=True)),
    "v3-stacked-fp8": (V3, dict(hidden_size=136, moe_intermediate_size=128), dict(stacked=True, dtype="fp8", shards=3)),
    "v3-freq-2-mtp-2": (V3, dict(moe_layer_freq=2, num_hidden_layers=5, num_nextn_predict_layers=2), {}),
    "v3-freq-3-mtp-3": (V3, dict(moe_layer_freq=3, num_hidden_layers=4, first_k_dense_replace=0, num_nextn_predict_layers=3),
                        dict(dtype="f16", stacked=True)),
    "v3-dense": (V3, dict(first_k_dense_replace=3, num_nextn_predict_layers=0), {}),
    "v3-negative-scores": (V3, dict(num_nextn_predict_layers=0, n_group=4, topk_group=1, num_experts_per_tok=2), dict(router_bias=-2.0)),
    "v2": (V2, {}, dict(dtype="f16")),
    "v2-greedy-groups-ignored": (V2, dict(n_group=4, topk_group=2, first_k_dense_replace=0, norm_topk_prob=False), {}),
    "v2-group": (V2, dict(topk_method="group_limited_greedy", n_group=4, topk_group=2, routed_scaling_factor=16.0, q_lora_rank=28,
                          attention_bias=True), {}),
    "v2-yarn-tied": (V2, dict(rope_scaling={**YARN, "mscale": 0.707, "mscale_all_dim": 0.707}, tie_word_embeddings=True, rms_norm_eps=1e-5),
                     dict(rope_parameters=True)),
    "v2-fp8": (V2, dict(hidden_size=144, intermediate_size=171, moe_intermediate_size=88, moe_layer_freq=2, num_hidden_layers=4),
               dict(dtype="fp8", stacked=False)),
}
BLOCK = 128


def is_moe(c, i):
    return i >= c["first_k_dense_replace"] and i % c["moe_layer_freq"] == 0


def blocks_of(w):
    """[n, k] as zero-padded [n/128, 128, k/128, 128]."""
    n, k = w.shape
    p = torch.zeros(-(-n // BLOCK) * BLOCK, -(-k // BLOCK) * BLOCK)
    p[:n, :k] = w
    return p.view(p.shape[0] // BLOCK, BLOCK, p.shape[1] // BLOCK, BLOCK)


def quantise(w, pow2):
    t = blocks_of(w.float())
    s = t.abs().amax(dim=(1, 3)).clamp(min=1e-12) / 448
    if pow2:
        s = torch.exp2(torch.ceil(torch.log2(s.double()))).float()
    q = (t / s[:, None, :, None]).clamp(-448, 448).to(torch.float8_e4m3fn)
    n, k = w.shape
    back = (q.float() * s[:, None, :, None]).reshape(q.shape[0] * BLOCK, -1)[:n, :k].contiguous()
    return q.view(q.shape[0] * BLOCK, -1)[:n, :k].contiguous(), s, back


class Model:
    """transformers' model with the row's fields, random weights and its MTP layers."""

    def __init__(self, c, form, seed):
        torch.manual_seed(seed)
        self.c, self.form = c, form
        own = {k: v for k, v in c.items() if k not in ("architectures", "model_type")}
        third = c["model_type"] == "deepseek_v3"
        lib = v3 if third else v2
        # Fields that the class does not know become attributes without effect; rope in the new spelling.
        rope = {"rope_theta": own.pop("rope_theta"), "rope_type": "default"}
        if own["rope_scaling"]:
            rope |= {("rope_type" if k == "type" else k): v for k, v in own["rope_scaling"].items()}
        own.pop("rope_scaling")
        config = (DeepseekV3Config if third else DeepseekV2Config)(**own, rope_parameters=rope, attn_implementation="eager")
        config._experts_implementation = "eager"  # grouped_mm wants widths in multiples of 16 bytes
        self.lm = (DeepseekV3ForCausalLM if third else DeepseekV2ForCausalLM)(config).float().eval()
        decoder = lib.DeepseekV3DecoderLayer if third else lib.DeepseekV2DecoderLayer
        dense = lib.DeepseekV3MLP if third else lib.DeepseekV2MLP
        for i, layer in enumerate(self.lm.model.layers):
            if not is_moe(c, i):
                layer.mlp = dense(config).float()
        self.mtp = []
        L, H = c["num_hidden_layers"], c["hidden_size"]
        for j in range(c.get("num_nextn_predict_layers", 0)):
            layer = decoder(config, L - 1).float().eval()
            if not is_moe(c, L + j):
                layer.mlp = dense(config).float()
            elif not hasattr(layer.mlp, "experts"):
                layer.mlp = (lib.DeepseekV3MoE if third else lib.DeepseekV2Moe)(config).float()
            norm = lib.DeepseekV3RMSNorm if third else lib.DeepseekV2RMSNorm
            m = dict(layer=layer, eh_proj=torch.nn.Linear(2 * H, H, bias=False))
            for n in ("enorm", "hnorm", "head_norm"):
                m[n] = norm(H, c["rms_norm_eps"])
            self.mtp.append(m)
        self.disk = {}
        self.fill(self.lm, "")
        for j, m in enumerate(self.mtp):
            p = f"model.layers.{L + j}."
            self.fill(m["layer"], p)
            for n, name in (("enorm", "enorm"), ("hnorm", "hnorm"), ("head_norm", "shared_head.norm"), ("eh_proj", "eh_proj")):
                self.fill(m[n], p + name + ".")

    def fill(self, module, prefix):
        with torch.no_grad():
            for name, p in [*module.named_parameters(), *module.named_buffers()]:
                if "inv_freq" in name or (name == "lm_head.weight" and self.c["tie_word_embeddings"]):
                    continue
                x = torch.randn(p.shape)
                full = prefix + name
                if "norm" in full: x = 1 + 0.15 * x
                elif "e_score" in full: x = 0.1 * x + self.form.get("router_bias", 0.0)
                elif full.endswith("bias"): x = 0.3 * x
                elif "embed" in full: pass
                elif "lm_head" in full: x = x * 3 / p.shape[-1] ** 0.5
                else: x = x * torch.exp2(torch.rand(*p.shape[:-1], 1) * 2 - 1) * 1.2 / p.shape[-1] ** 0.5
                p.copy_(self.store(full, x))

    def store(self, name, x):
        """Puts the tensor into the checkpoint; gives what its stored form stands for."""
        dtype = self.form.get("dtype", "bf16")
        expert = name.endswith(("experts.gate_up_proj", "experts.down_proj"))
        if "e_score" in name:
            self.disk[name] = x
            return x
        if expert and not self.form.get("stacked"):
            parts = []
            for e, w in enumerate(x):
                base = name.rsplit(".", 1)[0] + f".{e}."
                if name.endswith("gate_up_proj"):
                    g, u = w.chunk(2, 0)
                    parts.append(torch.cat((self.store(base + "gate_proj.weight", g), self.store(base + "up_proj.weight", u))))
                else:
                    parts.append(self.store(base + "down_proj.weight", w))
            return torch.stack(parts)
        linear = "_proj" in name and not name.endswith("bias") and "eh_proj" not in name
        if dtype == "fp8" and linear:
            each = [quantise(w, self.form.get("pow2")) for w in (x if expert else x[None])]
            q, s, back = (torch.stack([a[i].view(torch.uint8) if i == 0 else a[i] for a in each]) for i in range(3))
            q, s, back = (q, s, back) if expert else (q[0], s[0], back[0])
            self.disk[name] = q.view(torch.float8_e4m3fn)
            self.disk[name + "_scale_inv"] = s.to(torch.float8_e8m0fnu) if self.form.get("e8m0") else s
            return back
        self.disk[name] = x.to({"bf16": torch.bfloat16, "fp8": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}[dtype])
        return self.disk[name].float()

    def write(self, folder):
        c = dict(self.c)
        if self.form.get("rope_parameters"):
            scaling = c.pop("rope_scaling") or {}
            c["rope_parameters"] = {("rope_type" if k == "type" else k): v for k, v in scaling.items()} | {"rope_theta": c.pop("rope_theta")}
            c["rope_parameters"].setdefault("rope_type", "default")
        if self.form.get("dtype") == "fp8":
            c["quantization_config"] = dict(quant_method="fp8", fmt="e4m3", activation_scheme="dynamic", weight_block_size=[128, 128])
            if self.form.get("pow2"): c["quantization_config"]["scale_fmt"] = "ue8m0"
        (folder / "config.json").write_text(json.dumps(c))
        for f in TOKENIZER.iterdir():
            shutil.copy(f, folder)
        n = self.form.get("shards", 1)
        names = sorted(self.disk, key=lambda k: (k.endswith("_scale_inv"), k)) if self.form.get("part") else list(self.disk)
        if n == 1:
            save_file({k: self.disk[k].contiguous() for k in names}, folder / "model.safetensors", {"format": "pt"})
            return
        where = {}
        for i in range(n):
            part = names[i * len(names) // n:(i + 1) * len(names) // n]
            file = f"model-{i + 1:05d}-of-{n:05d}.safetensors"
            save_file({k: self.disk[k].contiguous() for k in part}, folder / file, {"format": "pt"})
            where |= {k: file for k in part}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))

    def gap(self, gate, out):
        """Distance of the router's scores from another choice."""
        c, logits = self.c, out[0].double()
        sigmoid = c["scoring_func"] == "sigmoid"
        score = logits.sigmoid() + gate.e_score_correction_bias.double() if sigmoid else logits.softmax(-1)
        gap = torch.full(score.shape[:1], float("inf"), dtype=torch.double)
        if c["topk_method"] != "greedy":
            g = score.view(len(score), c["n_group"], -1)
            g = g.topk(2, -1).values.sum(-1) if sigmoid else g.amax(-1)
            order = g.sort(-1, descending=True)
            if c["topk_group"] < c["n_group"]:
                gap = order.values[:, c["topk_group"] - 1] - order.values[:, c["topk_group"]]
            keep = torch.zeros_like(g).scatter_(1, order.indices[:, :c["topk_group"]], 1).bool()
            score = score.masked_fill(~keep.repeat_interleave(score.shape[1] // c["n_group"], 1), float("-inf"))
        best = score.sort(-1, descending=True).values
        return torch.minimum(gap, best[:, c["num_experts_per_tok"] - 1] - best[:, c["num_experts_per_tok"]]).float()

    @torch.no_grad()
    def forward(self, ids):
        """logits, experts and gaps [moe layers, T, k], logits of each MTP layer."""
        ids, seen, hooks = torch.tensor(ids), {}, []
        for i, layer in enumerate(self.lm.model.layers):
            if is_moe(self.c, i):
                hooks.append(layer.mlp.gate.register_forward_hook(lambda g, _, o, i=i: seen.__setitem__(i, (g, o))))
        h = self.lm.model(ids[None], use_cache=False).last_hidden_state
        for hook in hooks: hook.remove()
        logits = self.lm.lm_head(h)[0]
        experts = [o[2].sort(-1).values for _, o in (seen[i] for i in sorted(seen))]
        gaps = [self.gap(g, o) for g, o in (seen[i] for i in sorted(seen))]
        mtp = []
        for j, m in enumerate(self.mtp):
            n = len(ids) - 1 - j
            if n < 1:
                mtp.append(torch.zeros(0, logits.shape[1]))
                continue
            e = self.lm.model.embed_tokens(ids[j + 1:][None])
            z = m["eh_proj"](torch.cat((m["enorm"](e), m["hnorm"](h[:, :n])), -1))
            position = torch.arange(n)[None]
            mask = torch.full((n, n), float("-inf")).triu(1)[None, None]
            rotary = self.lm.model.rotary_emb(z, position_ids=position)
            z = m["layer"](z, position_embeddings=rotary, attention_mask=mask, position_ids=position, past_key_values=None)
            h = m["head_norm"](z)
            mtp.append(self.lm.lm_head(h)[0])
        return logits, experts, gaps, mtp

    @torch.no_grad()
    def greedy(self, ids, count):
        out, gaps = list(ids), []
        for _ in range(count):
            top = self.lm(torch.tensor([out])).logits[0, -1].topk(2)
            out.append(int(top.indices[0])); gaps.append(float(top.values[0] - top.values[1]))
        return out[len(ids):], gaps

    def gradients(self, ids, mask):
        self.lm.zero_grad()
        ones, loss = sum(map(sum, mask)), 0
        for s, m in zip(ids, mask):
            if any(m):
                logp = self.lm(torch.tensor([s])).logits[0, :-1].log_softmax(-1).gather(1, torch.tensor(s[1:])[:, None])[:, 0]
                loss = loss - (logp * torch.tensor(m[1:])).sum() / ones
        loss.backward()
        out = {}
        for name, p in self.lm.named_parameters():
            g = torch.zeros_like(p) if p.grad is None else p.grad
            for e in range(len(g) if ".experts." in name else 0):
                base = name.rsplit(".", 1)[0] + f".{e}."
                if name.endswith("gate_up_proj"):
                    out[base + "gate_proj.weight"], out[base + "up_proj.weight"] = g[e].chunk(2, 0)
                else:
                    out[base + "down_proj.weight"] = g[e]
            if ".experts." not in name: out[name] = g
        return out


def of_range(got, want):
    return 0.0 if want.numel() == 0 else float((got - want).abs().max() / (want.max() - want.min()))


def run_row(name, folder, args):
    base, changes, form = ROWS[name]
    model = Model({**base, **changes}, form, args.seed + len(name))
    model.write(folder)
    rng = np.random.default_rng(args.seed)
    ids = [rng.integers(0, 259, n).tolist() for n in (1, 2, 3, 17, 90, 300)]
    (folder / "ids.json").write_text(json.dumps(ids))
    run = lambda *a: subprocess.run([str(x) for x in a], check=True, capture_output=True, text=True).stdout
    run(args.temper, "probe", "logits", "--model", folder, "--ids", folder / "ids.json", "--out", folder / "o.st", "--threads", 2)
    got = load_file(folder / "o.st")
    logits = mtp = 0.0
    wrong = rows = differ = tokens = 0
    for i, s in enumerate(ids):
        want, experts, gaps, drafts = model.forward(s)
        logits = max(logits, of_range(got[f"logits.{i}"], want))
        for layer, (e, gap) in enumerate(zip(experts, gaps)):
            sure = gap > 1e-5
            wrong += int((got[f"experts.{i}"][layer] != e).any(-1)[sure].sum()); rows += int(sure.sum())
        for j, d in enumerate(drafts):
            mtp = max(mtp, of_range(got[f"mtp{j + 1 if j else ''}_logits.{i}"], d))
    prompts = ids[2:4]
    (folder / "p.jsonl").write_text("".join(json.dumps({"ids": s}) + "\n" for s in prompts))
    lines = run(args.temper, "generate", "--model", folder, "--prompts", folder / "p.jsonl", "--temperature", 0, "--max-new-tokens", 24,
                "--json", "--threads", 2).splitlines()
    for s, line in zip(prompts, map(json.loads, lines)):
        want, gaps = model.greedy(s, len(line["ids"]))
        for a, b, gap in zip(line["ids"], want, gaps):
            if gap <= 1e-5: break
            differ += a != b; tokens += 1
            if a != b: break
    grad, worst = 0.0, ""
    if args.learner:
        mask = [[0] + [int(rng.random() < 0.6) for _ in s[1:]] for s in ids]
        (folder / "mask.json").write_text(json.dumps(mask))
        run(args.learner, "probe", "grad", "--model", folder, "--ids", folder / "ids.json", "--mask", folder / "mask.json", "--out", folder / "g.st")
        ours, theirs = load_file(folder / "g.st"), model.gradients(ids, mask)
        ours.pop("loss")
        if ours.keys() != theirs.keys():
            sys.exit(f"{name}: gradients of other tensors: {sorted(ours.keys() ^ theirs.keys())[:5]}")
        for k, g in theirs.items():
            off = float((ours[k] - g).abs().max() / g.abs().max().clamp(min=1e-12))
            if off > grad: grad, worst = off, k
    bad = logits > 1e-4 or mtp > 1e-4 or wrong or differ or grad > 1e-4
    print(f"{name:26} logits {logits:.0e}  experts {wrong}/{rows}  greedy {differ}/{tokens}  mtp {mtp:.0e}"
          + (f"  grad {grad:.0e} {worst}" if args.learner else "") + ("  MISSED" if bad else ""), flush=True)
    return bool(bad)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("temper", type=Path)
    parser.add_argument("--learner", type=Path)
    parser.add_argument("--only", nargs="*", default=list(ROWS))
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(2)
    missed = 0
    for name in args.only:
        with tempfile.TemporaryDirectory() as tmp:
            folder = args.keep / name if args.keep else Path(tmp)
            folder.mkdir(parents=True, exist_ok=True)
            try:
                missed += run_row(name, folder, args)
            except subprocess.CalledProcessError as e:
                print(f"{name:26} {e.stderr.strip()}")
                missed += 1
    print("all within the bars" if not missed else f"{missed} missed")
    return int(missed > 0)


sys.exit(main())
