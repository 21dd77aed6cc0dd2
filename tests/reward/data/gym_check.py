"""Holds our scorers to reasoning-gym's on 5,000 answers: right, nearly right and wrong ones.

In spell_backward reasoning-gym gives 1.0 to the right word with a letter more (it adds 1/n for each letter in
place): those about 50 are its rounding, ours give 0.

Needs reasoning-gym (pip install reasoning-gym) and a built temper.
    python tests/reward/data/gym_check.py build/bin/temper
"""
import json
import pathlib
import random
import subprocess
import sys
import tempfile

import reasoning_gym

rng = random.Random(11)
SCRIPTS = {
    "countdown": "function score(s) return rules.countdown(s.completion, nil, {numbers = s.row.numbers, target = s.row.target}) end",
    "base_conversion": "function score(s) return rules.exact(s) end",
    "spell_backward": "function score(s) return rules.exact(s, nil, {ignore_case = true}) end",
    "basic_arithmetic": "function score(s) return rules.exact(s) end",
}


def expression(numbers):
    parts = [str(n) for n in numbers]
    while len(parts) > 1:
        a, b = parts.pop(rng.randrange(len(parts))), parts.pop(rng.randrange(len(parts)))
        parts.append(f"({a} {rng.choice('+-*/')} {b})")
    return parts[0]


def candidates(task, entry):
    answer = str(entry["answer"])
    if task == "countdown":
        numbers = entry["metadata"]["numbers"]
        yield entry["metadata"]["expression"]
        yield expression(numbers)
        yield expression(numbers[:-1])
        yield f"({entry['metadata']['expression']})*1"
        yield str(entry["metadata"]["target"])
    else:
        yield answer
        yield answer.upper()
        yield answer[:-1] if len(answer) > 1 else answer + "0"
        yield answer[::-1]
        yield answer + "1"


def main():
    total = wrong = 0
    for task, script in SCRIPTS.items():
        data = reasoning_gym.create_dataset(task, size=250, seed=3)
        cases = []
        for index, entry in enumerate(data):
            for candidate in candidates(task, entry):
                full = data.score_answer(candidate, entry) >= 1.0
                row = {k: v for k, v in entry["metadata"].items() if k in ("numbers", "target")} if task == "countdown" else {"answer": str(entry["answer"])}
                cases.append({"name": f"{task} {index}: {candidate}", "completion": candidate, "row": row, "expect": {"score": float(full)}})
        with tempfile.TemporaryDirectory() as folder:
            lua, jsonl = pathlib.Path(folder, "s.lua"), pathlib.Path(folder, "c.jsonl")
            lua.write_text(script)
            jsonl.write_text("".join(json.dumps(c) + "\n" for c in cases))
            out = subprocess.run([sys.argv[1], "reward", "test", str(lua), "--cases", str(jsonl), "--json"], capture_output=True, text=True).stdout.splitlines()
        for line in map(json.loads, out):
            if line.get("ok") is False:
                print(line["name"], line["message"])
        last = json.loads(out[-1])
        total += last["passed"] + last["failed"]
        wrong += last["failed"]
        print(task, last)
    print(f"{total - wrong} of {total} agree")
    return wrong > 0


sys.exit(main())
