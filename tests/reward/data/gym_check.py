"""Holds our scorers to reasoning-gym's on 5,000 answers: right, nearly right and wrong ones.

Scores must be equal to the last bit; of countdown only the full mark counts (its 0.05 and 0.01 for answers that are
wrong say whether sympy could read them).

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
LIBRARY = pathlib.Path(__file__).parents[3] / "reward" / "library"
# Its default scorer: an answer inside a longer text earns the share that it fills.
CONTAINED = """function score(s)
  local at = s.completion:find(s.answer, 1, true)
  return at and #s.answer / #s.completion or 0
end"""
SCRIPTS = {
    "countdown": "function score(s) return rules.countdown(s.completion, nil, {numbers = s.row.numbers, target = s.row.target}) end",
    "base_conversion": CONTAINED,
    "spell_backward": (LIBRARY / "spell_backward.lua").read_text(),
    "basic_arithmetic": CONTAINED,
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
                score = data.score_answer(candidate, entry)
                if task == "countdown":
                    score = float(score >= 1.0)
                row = {k: v for k, v in entry["metadata"].items() if k in ("numbers", "target")} if task == "countdown" else {"answer": str(entry["answer"])}
                cases.append({"name": f"{task} {index}: {candidate}", "completion": candidate, "row": row, "tolerance": 0, "expect": {"score": score}})
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
