#!/usr/bin/env python3
"""FP8 against BF16 in fine-tuning, and how many bytes an FP8 policy publishes.

  python3 bench/low_precision.py --quickstart DIR [--temper build/bin/temper] [--steps 2400] [--grpo-steps 12] [--seeds 1,2,3]

DIR is a quickstart's folder. Its fine-tuning runs once in bf16 and once in fp8 (power-of-two scales), a thread each, side by side; the means of
the last fifth of the losses are printed. From the fp8 model GRPO runs at learning rate 1e-6: the share of the published bytes that change.
Then the quickstart's GRPO itself, from its fine-tuned model, in fp32 and in fp8 with each seed: greedy accuracy on the held-out rows.
"""
import argparse
import json
import statistics
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--quickstart", type=Path, required=True)
    p.add_argument("--temper", default=str(ROOT / "build/bin/temper"))
    p.add_argument("--steps", type=int, default=2400)
    p.add_argument("--grpo-steps", type=int, default=12)
    p.add_argument("--seeds", default="1,2,3", help="of the GRPO runs in fp32 and fp8; empty: none")
    a = p.parse_args()
    work = Path(tempfile.mkdtemp(prefix="low-precision-"))

    def start(job, run, *sets):
        command = [a.temper, job, a.quickstart / f"{job}.json", "--set", f"output_dir={work / run}"]
        for s in sets:
            command += ["--set", s]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def lines(run):
        return [json.loads(line) for line in open(work / run / "metrics.jsonl")]

    runs = [start("sft", d, f"dtype={d}", "threads=1", "sft.logging_steps=1", "sft.save_steps=0", f"sft.max_steps={a.steps}")
            for d in ("bf16", "fp8")]
    if any(r.wait() for r in runs):
        raise SystemExit("fine-tuning failed")
    result = {"steps": a.steps}
    for d in ("bf16", "fp8"):
        result[f"loss_{d}"] = round(statistics.mean(line["loss"] for line in lines(d)[-(a.steps // 5):]), 5)
    if start("grpo", "grpo", "dtype=fp8", f"model={work / 'fp8/checkpoints/latest'}", "wire.bind=null", "keep_versions=checkpoints",
             "grpo.learning_rate=1e-6", f"grpo.max_steps={a.grpo_steps}").wait():
        raise SystemExit("GRPO failed")
    grpo = lines("grpo")
    changed = [line["publish/bytes_changed"] for line in grpo]
    result |= {"bytes_changed_first": changed[0], "bytes_changed_then_mean": statistics.mean(changed[1:]), "bytes_changed_then_max": max(changed[1:]),
               "publish_share_of_step": round(statistics.median(line["timing_s/publish"] / line["timing_s/step"] for line in grpo), 4),
               "mismatch_max": max(line["mismatch/logp_abs_diff_max"] for line in grpo)}
    print(json.dumps(result), flush=True)

    def accuracy(dtype, seed):
        run = f"grpo-{dtype}-{seed}"
        if start("grpo", run, f"dtype={dtype}", f"seed={seed}", "wire.bind=null", "keep_versions=checkpoints", "grpo.save_steps=0").wait():
            raise SystemExit(f"GRPO in {dtype} failed")
        reward = json.loads((a.quickstart / "grpo.json").read_text())["rewards"][0]["script"]
        out = subprocess.run([a.temper, "eval", "--model", work / run / "checkpoints/latest", "--data", a.quickstart / "data/heldout.jsonl", "--reward",
                              reward, "--n", "1", "--temperature", "0", "--max-new-tokens", "32", "--dtype", dtype, "--json"],
                             capture_output=True, text=True, check=True).stdout
        return {"dtype": dtype, "seed": seed, "accuracy": json.loads(out.splitlines()[-1])["mean@1"],
                "mismatch_max": max(line["mismatch/logp_abs_diff_max"] for line in lines(run))}

    for seed in [int(s) for s in a.seeds.split(",") if s]:
        for dtype in ("fp32", "fp8"):
            print(json.dumps(accuracy(dtype, seed)), flush=True)


if __name__ == "__main__":
    main()
