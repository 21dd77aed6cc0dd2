#!/usr/bin/env python3
"""Holds our chat templates against transformers' apply_chat_template (development only; needs transformers).

  template_check.py PROGRAM [--tokenizer DIR] [--templates DIR ...] [--chats 60] [--seed 1] [--write FILE]

PROGRAM is `temper`.  Renders random conversations through tests/engine/goldens/templates/*.jinja and through every *.jinja of the
other folders given; both must give the same text and ids, or both must refuse.  --write keeps the cases of our own templates as
goldens for template_test.cc.  Exit 1 at a difference.
"""
import argparse, json, random, subprocess, sys, tempfile
from pathlib import Path

from transformers import PreTrainedTokenizerFast

HERE = Path(__file__).parent
TEXTS = ["", "Hello", " two  spaces ", "line\nbreak\n", "\n\nstart", "ünïcödé 漢字 👩‍👩‍👧", "{\"json\": [1, 2.5, null]}", "it's \"quoted\" \\ back",
         "<think>\nsteps\n</think>\n\nanswer", "a</think>b</think>c", "<tool_response>x</tool_response>", "{{ not a tag }} {% nor this %}", "tab\there",
         "\x7f\u00a0\u2028 odd", "0", "x" * 300]
TOOLS = [{"type": "function", "function": {"name": "get_weather", "description": "Weather of a place\nnow.", "parameters": {"type": "object", "properties": {
            "place": {"type": "string", "description": "città"}, "unit": {"type": "string", "enum": ["C", "F"]}, "days": {"type": "integer", "default": 3}},
            "required": ["place"]}}},
         {"type": "function", "function": {"name": "noop", "description": "", "parameters": {"type": "object", "properties": {}}}}]


def call(r, number, as_text):
    arguments = r.choice([{}, {"place": "Zürich", "days": 2, "deep": {"a": [1, True, None, 1e-7, 1.5]}}, {"x": "a\"b\n"}])
    return {"type": "function", "id": f"call_{number}", "function": {"name": r.choice(["get_weather", "noop"]),
                                                                    "arguments": json.dumps(arguments) if as_text else arguments}}


def chat(r):
    messages = []
    if r.random() < 0.5:
        messages.append({"role": "system", "content": r.choice(TEXTS)})
    if r.random() < 0.1:
        messages.append({"role": "system", "content": r.choice(TEXTS)})
    as_text, tools = r.random() < 0.7, r.random() < 0.4
    for _ in range(r.randrange(1, 5)):
        messages.append({"role": "user", "content": r.choice(TEXTS)})
        if tools and r.random() < 0.6:
            calls = [call(r, i, as_text) for i in range(r.randrange(1, 4))]
            messages.append({"role": "assistant", "content": r.choice([None, "", "I call:"]), "tool_calls": calls})
            for c in calls:
                messages.append({"role": "tool", "content": r.choice(TEXTS), "name": c["function"]["name"], "tool_call_id": c["id"]})
        if r.random() < 0.8:
            m = {"role": "assistant", "content": r.choice(TEXTS)}
            if r.random() < 0.2:
                m["reasoning_content"] = r.choice(TEXTS)
            if r.random() < 0.1:
                m["prefix"] = True
            messages.append(m)
    if r.random() < 0.3 and messages[-1]["role"] == "assistant":
        messages.pop()
    if r.random() < 0.05:
        messages.append({"role": "narrator", "content": "?"})
    line = {"messages": messages, "add_generation_prompt": r.random() < 0.6}
    if tools:
        line["tools"] = TOOLS[: r.randrange(1, 3)]
    if r.random() < 0.4:
        line["thinking"] = r.random() < 0.5
    if r.random() < 0.2:
        line["enable_thinking"] = r.random() < 0.5
    return line


def theirs(tokenizer, line):
    try:
        kwargs = {k: v for k, v in line.items() if k != "messages"}
        text = tokenizer.apply_chat_template(line["messages"], tokenize=False, **kwargs)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        return {"text": text, "ids": ids}
    except Exception as e:
        return {"error": f"{type(e).__name__}: {e}"}


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("program")
    ap.add_argument("--tokenizer", type=Path, default=HERE / "goldens" / "tokenizer")
    ap.add_argument("--templates", type=Path, nargs="*", default=[])
    ap.add_argument("--chats", type=int, default=60)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--write", type=Path)
    a = ap.parse_args()
    own = HERE / "goldens" / "templates"
    files = sorted(own.glob("*.jinja")) + [f for d in a.templates for f in sorted(d.glob("*.jinja"))]
    total = refused = different = 0
    goldens = []
    for file in files:
        r = random.Random(f"{a.seed} {file.name}")
        lines = [chat(r) for _ in range(a.chats)]
        for line in lines:                       # to be continued
            if line["messages"][-1]["role"] == "assistant" and line["messages"][-1]["content"].strip() and r.random() < 0.3:
                line["add_generation_prompt"] = False
                line["continue_final_message"] = True
        with tempfile.TemporaryDirectory() as d:
            d = Path(d)
            for name in ("tokenizer.json", "tokenizer_config.json"):
                (d / name).write_bytes((a.tokenizer / name).read_bytes())
            (d / "chat_template.jinja").write_bytes(file.read_bytes())
            tokenizer = PreTrainedTokenizerFast.from_pretrained(str(d))
            run = subprocess.run([*a.program.split(), "probe", "template", "--model", str(d)], text=True, capture_output=True,
                                 input="".join(json.dumps(line) + "\n" for line in lines))
        if len(run.stdout.split("\n")[:-1]) != len(lines):
            print(f"{file.name}: {run.stderr.strip() or run.stdout[:300]}")
            different += 1
            continue
        shown = bad = 0
        for line, text in zip(lines, run.stdout.split("\n")[:-1]):
            ours, want = json.loads(text), theirs(tokenizer, line)
            total += 1
            refused += "error" in want
            # A character that the small tokenizer can't spell is refused by ours alone: compare what was asked.
            same = ("error" in ours) == ("error" in want) and ours.get("text") == want.get("text") and ours.get("ids") == want.get("ids")
            if not same:
                bad += 1
                if shown < 2:
                    shown += 1
                    print(f"{file.name}\n  chat   {json.dumps(line, ensure_ascii=False)[:600]}\n  ours   {json.dumps(ours, ensure_ascii=False)[:700]}\n  theirs {json.dumps(want, ensure_ascii=False)[:700]}")
            elif a.write and file.parent == own:
                goldens.append({"template": file.name, "chat": line, "text": want.get("text"), "refused": "error" in want})
        different += bad
        print(f"{file.name}: {len(lines)} chats, {bad} different")
    print(f"{total} chats, {len(files)} templates, {refused} refused by transformers, {different} different")
    if a.write:
        a.write.write_text("".join(json.dumps(g, ensure_ascii=False) + "\n" for g in goldens))
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
