#!/usr/bin/env python3
"""Training side by side in one run: `temper grpo` and `temper sft` against TRL on the same model, prompts and token counts.

  PYTHON bench/training.py --model DIR --peers DIR [--rounds 3] [--steps 12] [--threads 2]

PYTHON has torch, transformers and trl; --peers holds bench_grpo_trl.py and bench_sft_trl.py, which print a JSON line. The programs take
turns, a round each. GRPO: 8 prompts x 8 samples x 32 tokens, every completion of full length on both sides, FP32, the same rewards, beta 0,
one optimizer step a batch; Temper's synchronous run of real processes (learner, actor, reward worker, database). SFT: 2,048 packed tokens a
step, all trained. FLOPs are those that the step needs (a product of two matrices counts two a multiply-add; a prompt once a group, forward
for generation, forward and twice that backward for training) over what `temper bench` finds the same threads' multiply-adds to do in that
round. Medians over all steps of all rounds but each run's first; mismatch is the largest of all steps.
"""
import argparse
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GROUPS, SAMPLES, NEW, SFT_TOKENS, SFT_LENGTH = 8, 8, 32, 2048, 256


def macs(c, context):
    """Multiply-adds of a token's forward, attention over `context` keys in the absorbed form, with and without the head."""
    h, heads, rope, nope = c["hidden_size"], c["num_attention_heads"], c["qk_rope_head_dim"], c["qk_nope_head_dim"]
    latent, value, q = c["kv_lora_rank"], c["v_head_dim"], c.get("q_lora_rank")
    attention = (h * q + q * heads * (nope + rope)) if q else h * heads * (nope + rope)
    attention += h * (latent + rope) + heads * latent * (nope + value) + heads * value * h
    attention += heads * context * (2 * latent + rope)
    total = 0
    for layer in range(c["num_hidden_layers"]):
        if layer < c["first_k_dense_replace"]:
            mlp = 3 * h * c["intermediate_size"]
        else:
            mlp = h * c["n_routed_experts"] + 3 * h * c["moe_intermediate_size"] * (c["num_experts_per_tok"] + c["n_shared_experts"])
        total += attention + mlp
    return total, h * c["vocab_size"]


def json_lines(command, **more):
    out = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, **more).stdout
    return [json.loads(line) for line in out.splitlines() if line.startswith('{"')]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", type=Path, required=True)
    p.add_argument("--peers", type=Path, required=True)
    p.add_argument("--temper", default=str(ROOT / "build/bin/temper"))
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--steps", type=int, default=12)
    p.add_argument("--threads", type=int, default=2)
    a = p.parse_args()
    work = Path(tempfile.mkdtemp(prefix="training-"))
    c = json.loads((a.model / "config.json").read_text())

    draw = random.Random(0)
    rows = [(draw.randint(10, 99), draw.randint(10, 99)) for _ in range(512)]
    (work / "prompts.jsonl").write_text("".join(json.dumps({"prompt": f"{x}+{y}=", "answer": str(x + y)}) + "\n" for x, y in rows))
    (work / "reward.lua").write_text(
        'function score(s)\n  local c = s.completion:match("^%s*(.-)%s*$")\n'
        "  if c:sub(1, #s.answer) == s.answer then return 1.0 end\n"
        '  return c:find("%d") and 0.1 or 0.0\nend\n')
    texts = "".join(f"{x}+{y}={x + y}\n" for x, y in ((draw.randint(10, 99), draw.randint(10, 99)) for _ in range(a.steps * 2000)))
    # Rows of one length, as TRL's `wrapped` packing cuts the stream: this tokenizer gives a token a byte or fewer, so ids are cut.
    (work / "stream.txt").write_text(texts)

    figures = {}

    def keep(who, **values):
        for name, value in values.items():
            figures.setdefault((who, name), []).extend(value if isinstance(value, list) else [value])

    def config(job, run, section):
        return {"output_dir": str(run), "model": str(a.model), "threads": a.threads, "dtype": "fp32", "cache_dtype": "fp32",
                "keep_versions": "checkpoints", job: {"learning_rate": 1e-4, "max_steps": a.steps, "save_steps": 0, **section}}

    def ours_grpo(r):
        run = work / f"grpo{r}"
        cfg = config("grpo", run, {"groups_per_step": GROUPS, "num_generations": SAMPLES, "max_completion_length": NEW,
                                   "ignore_eos": True, "beta": 0.0})
        cfg |= {"data": {"train": str(work / "prompts.jsonl")}, "rewards": [{"script": str(work / "reward.lua")}]}
        (work / "grpo.json").write_text(json.dumps(cfg))
        for line in json_lines([a.temper, "grpo", work / "grpo.json"])[1:]:
            t = {k.split("/")[1]: v for k, v in line.items() if k.startswith("timing_s/")}
            assert line["completions/min_length"] == NEW
            known = ("weights", "gen", "reward", "forward", "backward", "optimizer", "publish")
            keep("temper grpo", step=t["step"], mismatch=line["mismatch/logp_abs_diff_max"],
                 rest=t["step"] - sum(t[k] for k in known if k in t and k not in ("reward", "weights")),
                 **{k: t[k] for k in known if k in t})
        shutil.rmtree(run)

    def ours_sft(r):
        run = work / f"sft{r}"
        cfg = config("sft", run, {"max_length": SFT_LENGTH, "tokens_per_step": SFT_TOKENS, "completion_only_loss": False})
        cfg["data"] = {"train": str(work / "sft.jsonl")}
        (work / "sft.json").write_text(json.dumps(cfg))
        for line in json_lines([a.temper, "sft", work / "sft.json"])[1:]:
            keep("temper sft", step=line["step_time"], tokens=line["num_tokens"], forward=line["timing_s/forward"],
                 backward=line["timing_s/backward"], optimizer=line["timing_s/optimizer"])
        shutil.rmtree(run)

    def sft_rows():
        """Rows whose ids, EOS included, are exactly SFT_LENGTH long."""
        from transformers import AutoTokenizer
        tokenizer = AutoTokenizer.from_pretrained(a.model)
        with open(work / "sft.jsonl", "w") as out:
            line, at, written = "", 0, 0
            lines = texts.splitlines(keepends=True)
            while written < a.steps * (SFT_TOKENS // SFT_LENGTH) + 8:
                line = ""
                while len(tokenizer(line).input_ids) < SFT_LENGTH - 1:
                    line, at = line + lines[at], at + 1
                while len(tokenizer(line).input_ids) > SFT_LENGTH - 1:
                    line = line[:-1]
                out.write(json.dumps({"text": line}) + "\n")
                written += 1

    def trl(name, **more):
        command = [sys.executable, a.peers / f"bench_{name}_trl.py", "--ckpt", a.model, "--dtype", "f32", "--steps", str(a.steps),
                   "--threads", str(a.threads)]
        for line in json_lines(command):
            keep("trl " + name, step=line["step_s"]["median"], best=line["step_s"]["min"], other=line["other_cores"], **more)
            if name == "grpo":
                keep("trl grpo", generate=line["generate_s"]["median"], train=line["train_s"]["median"])

    sft_rows()
    for r in range(a.rounds):
        print(f"round {r + 1} of {a.rounds}", file=sys.stderr, flush=True)
        trl("grpo")
        ours_grpo(r)
        trl("sft")
        ours_sft(r)
        for line in json_lines([a.temper, "bench", "--model", a.model, "--dtype", "fp32", "--cache-dtype", "fp32", "--batch", "8",
                                "--prompt", "8", "--new", "4", "--runs", "3", "--threads", str(a.threads), "--json"]):
            keep("machine", fma=line["fma_gflop_s"]["median"], isa=line["isa"])
    shutil.rmtree(work)

    def median(who, name):
        values = figures.get((who, name))
        return statistics.median(values) if values else float("nan")

    prompt = 6  # "12+34=": a token a character
    body, head = macs(c, prompt + NEW / 2)
    generated = GROUPS * SAMPLES * NEW
    rows_run = GROUPS * prompt + GROUPS * SAMPLES * (NEW - 1)  # a forward for each token but the last ones
    forward = rows_run * body + generated * head
    grpo_flop = 2 * (forward + 3 * forward)
    sft_body, sft_head = macs(c, SFT_LENGTH / 2)
    sft_flop = 2 * 3 * SFT_TOKENS * (sft_body + sft_head)
    fma = median("machine", "fma") * 1e9
    cpu = next((l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), "?")
    print(f"{cpu}, {figures[('machine', 'isa')][0]}, {a.threads} threads, {fma * 1e-9:.0f} GFLOP/s of multiply-adds; "
          f"TRL beside {median('trl grpo', 'other'):.2f} foreign cores")
    print("GRPO step         " + "  ".join(f"{k} {1e3 * median('temper grpo', k):.1f} ms" for k in (
        "step", "gen", "weights", "reward", "forward", "backward", "optimizer", "publish", "rest") if ("temper grpo", k) in figures))
    print(f"TRL               step {1e3 * median('trl grpo', 'step'):.1f} ms  generate {1e3 * median('trl grpo', 'generate'):.1f} ms  "
          f"train {1e3 * median('trl grpo', 'train'):.1f} ms")
    sft = SFT_TOKENS / median("trl sft", "step")
    ours = median("temper sft", "tokens") / median("temper sft", "step")
    print(f"SFT               {ours:.0f} tok/s; TRL (wrapped) {sft:.0f} tok/s")
    waits = median("temper grpo", "gen") - (median("temper grpo", "weights") if ("temper grpo", "weights") in figures else 0)
    print(json.dumps({
        "grpo_step_ratio": round(median("trl grpo", "step") / median("temper grpo", "step"), 3),
        "generate_ratio": round(median("trl grpo", "generate") / waits, 3),
        "sft_ratio": round(ours / sft, 3),
        "grpo_gflop": round(grpo_flop * 1e-9, 1), "grpo_limit_ms": round(1e3 * grpo_flop / fma, 1),
        "grpo_flop_share": round(grpo_flop / fma / median("temper grpo", "step"), 3),
        "sft_flop_share": round(sft_flop / fma / median("temper sft", "step"), 3),
        "mismatch_max": max(figures[("temper grpo", "mismatch")]), "rounds": a.rounds}))


if __name__ == "__main__":
    main()
