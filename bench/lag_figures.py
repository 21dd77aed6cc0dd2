#!/usr/bin/env python3
"""Asynchronous GRPO against synchronous: accuracy, lags, idle shares, and replays of what an asynchronous run stored.

  python3 bench/lag_figures.py --quickstart DIR [--temper build/bin/temper] [--lags 0,1,4] [--seeds 1,2,3] [--steps 200] [--replays 500]

DIR is a quickstart's folder. Its GRPO runs from its fine-tuned model with two actors, once for each max_lag and seed; a line each: greedy accuracy on
the held-out rows, seconds, the trained rollouts by their lag, the share of the time that the learner waits for rollouts, and that the actors use no
processor. The run with the largest lag and first seed keeps every version; `--replays` random rollouts of it are generated again, also with TEMPER_ISA=avx2.
"""
import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TICK = os.sysconf("SC_CLK_TCK")


def actor_seconds(parent):
    """Processor seconds so far of each actor whose parent is this process."""
    used = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
            words = (stat.parent / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if int(fields[1]) == parent and b"actor" in words:
            used[int(stat.parent.name)] = (int(fields[11]) + int(fields[12])) / TICK
    return used


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--quickstart", type=Path, required=True)
    p.add_argument("--temper", default=str(ROOT / "build/bin/temper"))
    p.add_argument("--lags", default="0,1,4")
    p.add_argument("--seeds", default="1,2,3")
    p.add_argument("--steps", type=int, default=200)
    p.add_argument("--replays", type=int, default=500)
    a = p.parse_args()
    work = Path(tempfile.mkdtemp(prefix="lag-"))
    lags, seeds = [int(x) for x in a.lags.split(",")], [int(x) for x in a.seeds.split(",")]
    reward = json.loads((a.quickstart / "grpo.json").read_text())["rewards"][0]["script"]

    def query(run, sql):
        out = subprocess.run([a.temper, "runs", "query", run, sql], capture_output=True, text=True, check=True).stdout
        return [json.loads(line) for line in out.splitlines()]

    def train(lag, seed, keep):
        run = work / f"lag{lag}-seed{seed}"
        sets = {"output_dir": run, "seed": seed, "actors.count": 2, "actors.threads": 1, "grpo.max_lag": lag, "grpo.max_steps": a.steps, "grpo.save_steps": 0,
                "keep_versions": "all" if keep else "checkpoints", "wire.bind": "null"}
        command = [a.temper, "grpo", a.quickstart / "grpo.json"] + [x for k, v in sets.items() for x in ("--set", f"{k}={v}")]
        began, used = time.time(), {}
        job = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while job.poll() is None:
            used |= actor_seconds(job.pid)
            time.sleep(0.1)
        seconds = time.time() - began
        if job.returncode:
            raise SystemExit(f"max_lag {lag}, seed {seed}: exit {job.returncode}")
        out = subprocess.run([a.temper, "eval", "--model", run / "checkpoints/latest", "--data", a.quickstart / "data/heldout.jsonl", "--reward", reward,
                              "--n", "1", "--max-new-tokens", "32"], capture_output=True, text=True, check=True).stdout
        steps = [json.loads(line) for line in open(run / "metrics.jsonl")]
        mismatch = [s["mismatch/logp_abs_diff_max"] for s in steps if "mismatch/logp_abs_diff_max" in s]
        print(json.dumps({
            "max_lag": lag, "seed": seed, "accuracy": json.loads(out.splitlines()[-1])["mean@1"], "seconds": round(seconds, 1),
            "lags": {r["lag"]: r["n"] for r in query(run, "SELECT lag, count(*) AS n FROM rollout WHERE state = 'trained' GROUP BY 1 ORDER BY 1")},
            "over_max_lag": query(run, f"SELECT count(*) AS n FROM rollout WHERE lag > {lag}")[0]["n"],
            "spanning_versions": query(run, "SELECT count(versions) AS n FROM rollout")[0]["n"],
            "learner_waits": round(statistics.mean(s["idle_ratio/trainer"] for s in steps), 3),
            "actors_idle": round(1 - sum(used.values()) / (2 * seconds), 3),
            "mismatch_max": max(mismatch) if mismatch else None}), flush=True)
        return run

    replayed = None
    for lag in lags:
        for seed in seeds:
            keep = lag == max(lags) and seed == seeds[0]
            run = train(lag, seed, keep)
            replayed = run if keep else replayed
    for isa in ("", "avx2"):
        out = subprocess.run([a.temper, "runs", "replay", replayed, "--count", str(a.replays), "--seed", "7", "--json"], capture_output=True, text=True,
                             env=os.environ | ({"TEMPER_ISA": isa} if isa else {})).stdout
        print(json.dumps({"isa": isa or "of this machine"} | json.loads(out.splitlines()[-1])), flush=True)


if __name__ == "__main__":
    main()
