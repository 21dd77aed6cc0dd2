#!/usr/bin/env python3
"""What rewards cost of a GRPO step: runs CONFIG for STEPS steps and reads each process's CPU time.

  bench/reward_share.py TEMPER CONFIG OUT [STEPS] [--set k=v]...

Prints a JSON object: CPU seconds of the reward worker with its zygote and sandboxes over the CPU seconds of all processes of
the run, between the first and the last look (steps 3 to the end), and the steps' own `timing_s`.
"""
import json, os, subprocess, sys, time
from pathlib import Path


def threads_cpu(pid):
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        total += int((task / "schedstat").read_text().split()[0])
    return total * 1e-9


def tree(root):
    """CPU seconds of root's descendants by role and pid; sandboxes count as the reward worker."""
    parents, names = {}, {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            names[int(entry.name)] = (entry / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            pass
    found = {}
    for pid in parents:
        chain, at = [], pid
        while at in parents and at != root:
            chain.append(at)
            at = parents[at]
        if at != root:
            continue
        words = " ".join(" ".join(names[p][:2]) for p in chain) if chain else "supervisor"
        role = next((r for r in ("reward-worker", "actor", "temper-learner") if r in words), "supervisor")
        if role == "reward-worker":
            role += "/" + ("zygote" if "reward-zygote" in names[pid][1:2] else "host") if len(chain) < 3 else "/sandbox"
        try:
            found[(role, pid)] = threads_cpu(pid)
        except OSError:
            pass
    return found


def main():
    temper, config, out = sys.argv[1:4]
    steps = int(sys.argv[4]) if len(sys.argv) > 4 else 60
    extra = sys.argv[5:]
    run = subprocess.Popen([temper, "grpo", config, "--set", f"output_dir={out}", "--set", f"grpo.max_steps={steps}",
                            "--set", "grpo.save_steps=0"] + extra, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    metrics, first, last = Path(out) / "metrics.jsonl", None, None

    def done():
        return metrics.read_text().count("\n") if metrics.exists() else 0
    while run.poll() is None:
        n = done()
        if n >= 3:
            look = (n, time.monotonic(), tree(run.pid))
            if any(r.startswith("reward") for r, _ in look[2]):
                first = first or look
                last = look
        time.sleep(0.05)
    used = {}
    for key, cpu in last[2].items():
        used[key[0]] = used.get(key[0], 0) + cpu - first[2].get(key, 0)
    n = last[0] - first[0]
    lines = [json.loads(l) for l in metrics.read_text().splitlines()][first[0]:last[0]]
    mean = lambda k: sum(l[k] for l in lines) / len(lines)
    total = sum(used.values())
    reward = sum(v for k, v in used.items() if k.startswith("reward"))
    print(json.dumps({"steps": n, "cpu_ms_a_step": {k: round(v / n * 1e3, 2) for k, v in sorted(used.items())},
                      "reward_share_of_cpu": round(reward / total, 4),
                      "timing_ms": {k[9:]: round(mean(k) * 1e3, 2) for k in lines[0] if k.startswith("timing_s/")}}))
    return run.returncode


sys.exit(main())
