#!/usr/bin/env python3
"""Writes v3_small/: a random DeepSeek-V3 checkpoint (BF16, two shards, MTP layer) and what transformers computes with it.

  make_v3_small.py [OUT_DIR, default beside this file]      transformers 5.18.0, torch 2.13.0, safetensors

golden.safetensors, for each sequence i: tokens.i I32 [T]; logits.i F32 [T,V]; experts.i I32 [moe layers,T,k] ascending and
gap.i F32 [moe layers,T], the distance of the router's scores from another choice; mtp_logits.i F32 [T-1,V].
"""
import json, sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from transformers import DeepseekV3Config, DeepseekV3ForCausalLM
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3DecoderLayer, DeepseekV3RMSNorm

out = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "v3_small")
out.mkdir(parents=True, exist_ok=True)
L, V, H = 2, 203, 56
raw = dict(architectures=["DeepseekV3ForCausalLM"], model_type="deepseek_v3", vocab_size=V, hidden_size=H, intermediate_size=88,
           moe_intermediate_size=24, num_hidden_layers=L, num_nextn_predict_layers=1, first_k_dense_replace=1, moe_layer_freq=1,
           num_attention_heads=3, num_key_value_heads=3, q_lora_rank=36, kv_lora_rank=20, qk_nope_head_dim=18, qk_rope_head_dim=8,
           v_head_dim=14, n_routed_experts=8, num_experts_per_tok=3, n_shared_experts=1, n_group=4, topk_group=2,
           topk_method="noaux_tc", scoring_func="sigmoid", norm_topk_prob=True, routed_scaling_factor=2.5, hidden_act="silu",
           rms_norm_eps=1e-6, rope_theta=10000, rope_scaling=dict(type="yarn", factor=40, original_max_position_embeddings=4096,
           beta_fast=32, beta_slow=1, mscale=1.0, mscale_all_dim=1.0), max_position_embeddings=163840, attention_bias=False,
           tie_word_embeddings=False, bos_token_id=0, eos_token_id=1, torch_dtype="bfloat16")
torch.manual_seed(20)
config = DeepseekV3Config(**{k: v for k, v in raw.items() if k not in ("architectures", "model_type", "torch_dtype")})
model = DeepseekV3ForCausalLM(config).float().eval()
mtp = DeepseekV3DecoderLayer(config, L - 1).float().eval()  # index L - 1: a MoE layer
extra = {"enorm.weight": H, "hnorm.weight": H, "shared_head.norm.weight": H}


@torch.no_grad()
def randomise(name, p):
    x = torch.randn(p.shape)
    if "norm" in name: x = 1 + 0.15 * x
    elif "bias" in name: x = 0.1 * x
    elif "embed" in name: pass
    else: x = x * (3.0 if "lm_head" in name else 1.2) / p.shape[-1] ** 0.5
    p.copy_(x if "bias" in name else x.bfloat16().float())


for n, p in [*model.named_parameters(), *model.named_buffers()]:
    if "inv_freq" not in n: randomise(n, p)
for n, p in [*mtp.named_parameters(), *mtp.named_buffers()]:
    if "inv_freq" not in n: randomise(n, p)
norms = {n: torch.ones(d) for n, d in extra.items()}
for n, p in norms.items(): randomise(n, p)
eh = torch.empty(H, 2 * H); randomise("eh_proj", eh)


def on_disk(state, prefix=""):
    """Stacked experts become one tensor each, as published."""
    r = {}
    for k, v in state.items():
        if k.endswith("mlp.experts.gate_up_proj"):
            for e in range(v.shape[0]):
                g, u = v[e].chunk(2, 0)
                r[prefix + k.replace("experts.gate_up_proj", f"experts.{e}.gate_proj.weight")] = g
                r[prefix + k.replace("experts.gate_up_proj", f"experts.{e}.up_proj.weight")] = u
        elif k.endswith("mlp.experts.down_proj"):
            for e in range(v.shape[0]): r[prefix + k.replace("experts.down_proj", f"experts.{e}.down_proj.weight")] = v[e]
        else:
            r[prefix + k] = v
    return r


p = f"model.layers.{L}."
tensors = on_disk(model.state_dict())
tensors |= on_disk(mtp.state_dict(), p)
tensors |= {p + n: v for n, v in norms.items()} | {p + "eh_proj.weight": eh}
tensors |= {p + "embed_tokens.weight": tensors["model.embed_tokens.weight"], p + "shared_head.head.weight": tensors["lm_head.weight"]}
tensors = {k: (v if "bias" in k else v.bfloat16()).clone().contiguous() for k, v in tensors.items()}
names = sorted(tensors)
shards = {f"model-0000{i + 1}-of-00002.safetensors": names[i::2] for i in range(2)}
for f, ns in shards.items(): save_file({n: tensors[n] for n in ns}, out / f, metadata={"format": "pt"})
(out / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": {n: f for f, ns in shards.items() for n in ns}}))
(out / "config.json").write_text(json.dumps(raw, indent=1) + "\n")

golden, gen = {}, torch.Generator().manual_seed(4)
rms = lambda x, w: w * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))
with torch.no_grad():
    for i, T in enumerate((1, 2, 23, 70)):
        ids = torch.randint(0, V, (T,), generator=gen)
        record = []
        hooks = [l.mlp.gate.register_forward_hook(lambda m, a, o: record.append((m, a[0], o))) for l in model.model.layers[1:]]
        hidden = model.model(ids[None], use_cache=False).last_hidden_state
        for h in hooks: h.remove()
        golden[f"tokens.{i}"], golden[f"logits.{i}"] = ids.int(), model.lm_head(hidden)[0]
        experts, gaps = [], []
        for gate, x, o in record:
            experts.append(o[2].sort(-1).values.int())
            b = (x.reshape(-1, H) @ gate.weight.T).sigmoid() + gate.e_score_correction_bias
            gs = b.view(T, 4, 2).sum(-1)
            so = gs.sort(-1, descending=True).values
            keep = torch.zeros_like(gs).scatter(1, gs.topk(2, -1).indices, 1).bool().repeat_interleave(2, 1)
            bo = b.masked_fill(~keep, -1e9).sort(-1, descending=True).values
            gaps.append(torch.minimum(so[:, 1] - so[:, 2], bo[:, 2] - bo[:, 3]))
        golden[f"experts.{i}"], golden[f"gap.{i}"] = torch.stack(experts), torch.stack(gaps)
        if T > 1:
            e = model.model.embed_tokens(ids[1:])
            z = torch.cat((rms(e, norms["enorm.weight"]), rms(hidden[0, :-1], norms["hnorm.weight"])), -1) @ eh.T
            pos = torch.arange(T - 1)[None]
            mask = torch.full((T - 1, T - 1), float("-inf")).triu(1)[None, None]
            y = mtp(z[None], position_embeddings=model.model.rotary_emb(z[None], position_ids=pos), attention_mask=mask,
                    position_ids=pos, past_key_values=None)
            y = (y[0] if isinstance(y, tuple) else y)
            golden[f"mtp_logits.{i}"] = model.lm_head(rms(y.reshape(T - 1, H), norms["shared_head.norm.weight"]))
save_file({k: v.contiguous() for k, v in golden.items()}, out / "golden.safetensors")
print(sum(f.stat().st_size for f in out.iterdir()) // 1024, "KiB in", out.name)
