#!/usr/bin/env python3
"""Holds `temper probe fp8` against the quantisation of torch and numpy, over random matrices with everything that hurts.

  fp8_check.py TEMPER [--runs 5000] [--seed N]      two matrices a run; codes and multipliers must be equal bit for bit
  fp8_check.py --golden FILE.safetensors            writes the seeded sample that engine_test replays

Sizes with blocks that end early, blocks of zeros, of subnormals, around 448 times a power of two, ties between codes, single
outliers, -0, values to the ends of FP32. Multipliers and codes come from torch's float8_e4m3fn and numpy's float32 division and
frexp; products are held against float64: |y - exact| <= 2^-17 of the sum of magnitudes (and underflow). Exit 1 on the first difference. Needs torch,
numpy and safetensors.
"""
import argparse, subprocess, sys, tempfile
from pathlib import Path
import numpy as np
import torch
from safetensors.torch import load_file, save_file


def scale_of(amax, pow2):
    q = np.maximum(amax.astype(np.float32), np.float32(1e-12)) / np.float32(448)
    if not pow2:
        return q
    mantissa, exponent = np.frexp(q)  # q = mantissa * 2^exponent, mantissa in [0.5, 1)
    return np.ldexp(np.float32(1), np.where(mantissa == 0.5, exponent - 1, exponent)).astype(np.float32)


def codes_of(values, scale):
    q = torch.from_numpy((values / scale).astype(np.float32)).clamp(-448, 448)
    return q.to(torch.float8_e4m3fn).view(torch.uint8).numpy()


def quantise(a, block_rows, pow2):
    """codes and multipliers of blocks [block_rows, 128], the last ones smaller."""
    rows, columns = a.shape
    codes = np.zeros(a.shape, np.uint8)
    scales = np.zeros((-(-rows // block_rows), -(-columns // 128)), np.float32)
    for i in range(scales.shape[0]):
        for j in range(scales.shape[1]):
            part = np.s_[i * block_rows:(i + 1) * block_rows, j * 128:(j + 1) * 128]
            scales[i, j] = scale_of(np.abs(a[part]).max(), pow2)
            codes[part] = codes_of(a[part], scales[i, j])
    return codes, scales


def matrix(rng, rows, columns):
    a = rng.standard_normal((rows, columns)).astype(np.float32) * np.float32(2.0 ** rng.integers(-20, 8))
    for _ in range(rng.integers(0, 4)):
        r, c = rng.integers(0, rows), rng.integers(0, columns)
        part = np.s_[r:r + rng.integers(1, 140), c:c + rng.integers(1, 140)]
        shape, kind = a[part].shape, rng.integers(0, 8)
        if kind == 0: a[part] = 0
        elif kind == 1: a[part] = -0.0
        elif kind == 2: a[part] = rng.standard_normal(shape) * 2.0 ** -149 * rng.integers(1, 1 << 20)  # FP32 subnormals
        elif kind == 3: a[part] = rng.integers(-17, 18, shape) / 2.0 ** rng.integers(0, 12)  # ties under a power of two
        elif kind == 4: a[part] = rng.choice([448, -448, 464, 432, 447.99997, 448.00003], shape)
        elif kind == 5: a[r, c] = 10.0 ** rng.integers(-15, 15)  # an outlier alone; the product of two multipliers stays finite
        elif kind == 6: a[part] = np.ldexp(1 + rng.integers(0, 16, shape) / 16, rng.integers(-12, 9))  # halfway between codes
        else: a[part] *= np.float32(1e-13)
    return a.astype(np.float32)


def check(got, x, w, pow2):
    for name, a, rows in (("x", x, 1), ("w", w, 128)):
        codes, scales = quantise(a, rows, pow2)
        found = got[name + "_scale"].numpy()
        if found.tobytes() != scales.tobytes():
            return f"{name}_scale: {found} instead of {scales}"
        bad = np.argwhere(got[name + "_q"].view(torch.uint8).numpy() != codes)
        if len(bad):
            return f"{name}_q: {len(bad)} codes differ, the first at {bad[0]}: {a[tuple(bad[0])]!r}"
    value = lambda n: got[n + "_q"].double().numpy()
    spread = lambda s, rows, shape: np.repeat(np.repeat(s.double().numpy(), rows, 0), 128, 1)[:shape[0], :shape[1]]
    wd, xd = value("w") * spread(got["w_scale"], 128, w.shape), value("x") * spread(got["x_scale"], 1, x.shape)
    for name, left in (("y_w8a8", xd), ("y_w8a16", x.astype(np.float64))):
        size = np.abs(left) @ np.abs(wd).T
        inside = size < 1e37  # the others overflow in FP32
        off = np.abs(got[name].double().numpy() - left @ wd.T)[inside]
        underflow = 2.0 ** -149 * 256 * x.shape[1] * max(1.0, float(got["w_scale"].max()))  # of products below FP32's smallest
        if not (off <= 2.0 ** -17 * size[inside] + underflow).all():
            return f"{name}: off by {off.max()}"
    return ""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("temper", nargs="?")
    parser.add_argument("--runs", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--golden", type=Path)
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    if args.golden:
        out = {}
        for i, (m, n, k) in enumerate([(1, 1, 1), (3, 130, 40), (5, 20, 257), (4, 128, 128), (7, 16, 150)]):
            x, w = matrix(rng, m, k), matrix(rng, n, k)
            out |= {f"x.{i}": x, f"w.{i}": w}
            for recipe in ("fp32", "pow2"):
                for name, a, rows in (("x", x, 1), ("w", w, 128)):
                    out[f"{name}_q.{recipe}.{i}"], out[f"{name}_scale.{recipe}.{i}"] = quantise(a, rows, recipe == "pow2")
        save_file({k: torch.from_numpy(v.copy()) for k, v in out.items()}, args.golden)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        given, out = Path(folder, "in.safetensors"), Path(folder, "out.safetensors")
        for run in range(args.runs):
            m, n, k = rng.integers(1, 20), rng.integers(1, 300), rng.choice([rng.integers(1, 400), 128, 256, 192])
            x, w = matrix(rng, m, k), matrix(rng, n, k)
            recipe = ("fp32", "pow2")[run % 2]
            save_file({"x": torch.from_numpy(x), "w": torch.from_numpy(w)}, given)
            subprocess.run([args.temper, "probe", "fp8", "--in", given, "--out", out, "--scale", recipe], check=True)
            wrong = check(load_file(out), x, w, recipe == "pow2")
            if wrong:
                print(f"run {run} ({recipe}, M {m}, N {n}, K {k}): {wrong}")
                return 1
    print(f"equal: {2 * args.runs} matrices")
    return 0


sys.exit(main())
