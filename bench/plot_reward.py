#!/usr/bin/env python3
"""Draws the reward of GRPO runs as an SVG: plot_reward.py OUT.svg LABEL=RUN/metrics.jsonl ...   (no packages needed)

Thin line: the step's mean reward (sampled at temperature 1); thick: its mean over ten steps.
"""
import json, sys

W, H, LEFT, RIGHT, TOP, BOTTOM = 720, 300, 48, 12, 16, 36
COLOURS = ("#1b6ca8", "#c4572e", "#4f8a3c", "#7a4fa3")


def line(points, colour, width, opacity):
    text = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{text}" fill="none" stroke="{colour}" stroke-width="{width}" stroke-opacity="{opacity}"/>'


runs = []
for argument in sys.argv[2:]:
    label, path = argument.split("=", 1)
    runs.append((label, [json.loads(row)["reward"] for row in open(path)]))
steps = max(len(r) for _, r in runs)
x = lambda i: LEFT + (W - LEFT - RIGHT) * i / max(1, steps - 1)
y = lambda v: H - BOTTOM - (H - TOP - BOTTOM) * v
out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{W}" height="{H}" font-family="sans-serif" font-size="12">',
       f'<rect width="{W}" height="{H}" fill="white"/>']
for v in (0, .2, .4, .6, .8, 1):
    out.append(f'<line x1="{LEFT}" x2="{W - RIGHT}" y1="{y(v):.1f}" y2="{y(v):.1f}" stroke="#ddd"/>'
               f'<text x="{LEFT - 6}" y="{y(v) + 4:.1f}" text-anchor="end">{v:g}</text>')
for i in range(0, steps, 25):
    out.append(f'<text x="{x(i):.1f}" y="{H - 18}" text-anchor="middle">{i}</text>')
out.append(f'<text x="{(LEFT + W) / 2}" y="{H - 3}" text-anchor="middle">GRPO step</text>')
for k, (label, reward) in enumerate(runs):
    colour = COLOURS[k % len(COLOURS)]
    mean = [sum(reward[max(0, i - 9):i + 1]) / len(reward[max(0, i - 9):i + 1]) for i in range(len(reward))]
    out.append(line([(x(i), y(v)) for i, v in enumerate(reward)], colour, 1, .3))
    out.append(line([(x(i), y(v)) for i, v in enumerate(mean)], colour, 2.2, 1))
    out.append(f'<text x="{W - RIGHT - 8}" y="{H - BOTTOM - 12 - 16 * (len(runs) - 1 - k)}" text-anchor="end" fill="{colour}">{label}</text>')
open(sys.argv[1], "w").write("\n".join(out + ["</svg>"]) + "\n")
