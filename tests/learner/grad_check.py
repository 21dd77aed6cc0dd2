#!/usr/bin/env python3
"""Holds `temper-learner probe grad` against the autograd of transformers on a DeepSeek-V2 or V3 model folder.

  grad_check.py MODEL_DIR [--program build/bin/temper-learner] [--seed N] [--tolerance 1e-5]

Random sequences of ragged lengths with random masks; prints the loss of both and the tensors that are furthest apart,
relative to the norm of transformers' gradient. Exit 1 where one is over the tolerance or a name is missing. Needs torch,
transformers 5 and safetensors (development only).
"""
import argparse, json, random, subprocess, sys, tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file


def load(folder):
    import transformers
    config = json.loads((folder / "config.json").read_text())
    model = getattr(transformers, config["architectures"][0])
    model._keys_to_ignore_on_load_unexpected = [rf"model\.layers\.{config['num_hidden_layers']}\..*"]  # the MTP layer
    return model.from_pretrained(folder, dtype=torch.float32).eval()


def gradients(model):
    """By checkpoint name: transformers stacks the experts of a layer."""
    out = {}
    for name, p in model.named_parameters():
        g = torch.zeros_like(p) if p.grad is None else p.grad
        if name.endswith("experts.gate_up_proj"):
            for e, both in enumerate(g):
                gate, up = both.chunk(2, 0)
                out[name.replace("gate_up_proj", f"{e}.gate_proj.weight")] = gate
                out[name.replace("gate_up_proj", f"{e}.up_proj.weight")] = up
        elif name.endswith("experts.down_proj"):
            for e, down in enumerate(g):
                out[name.replace("down_proj", f"{e}.down_proj.weight")] = down
        else:
            out[name] = g
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--program", default="build/bin/temper-learner")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tolerance", type=float, default=1e-5)
    args = parser.parse_args()

    rng = random.Random(args.seed)
    vocab = json.loads((args.model / "config.json").read_text())["vocab_size"]
    ids = [[rng.randrange(vocab) for _ in range(n)] for n in (rng.choice([1, 2, 5, 17, 41, 300]) for _ in range(7))] + [[3, 5, 8]]
    mask = [[0] + [int(rng.random() < 0.6) for _ in s[1:]] for s in ids]
    mask[-1][2] = 1  # never without a trained token
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        (folder / "ids.json").write_text(json.dumps(ids))
        (folder / "mask.json").write_text(json.dumps(mask))
        subprocess.run([args.program, "probe", "grad", "--model", args.model, "--ids", folder / "ids.json", "--mask",
                        folder / "mask.json", "--out", folder / "grad.safetensors"], check=True)
        ours = load_file(folder / "grad.safetensors")

    model = load(args.model)
    ones, loss = sum(map(sum, mask)), 0
    for s, m in zip(ids, mask):
        if not any(m):
            continue
        logp = torch.log_softmax(model(torch.tensor([s])).logits[0, :-1], -1).gather(1, torch.tensor(s[1:])[:, None])[:, 0]
        loss = loss - (logp * torch.tensor(m[1:])).sum() / ones
    loss.backward()
    theirs = gradients(model)

    print(f"loss: ours {ours.pop('loss').item():.7f}, transformers {loss.item():.7f}")
    if theirs.keys() != ours.keys():
        sys.exit(f"names differ: {sorted(theirs.keys() ^ ours.keys())[:8]}")
    apart = sorted(((ours[k] - g).norm().item() / (g.norm().item() + 1e-12), k) for k, g in theirs.items())
    for distance, name in apart[-4:]:
        print(f"{distance:.2e} {name}")
    sys.exit(int(apart[-1][0] > args.tolerance))


main()
