#!/usr/bin/env python3
"""Writes fp8.txt beside it: codes, values and scales as torch's float8_e4m3fn gives them.

Inputs of the large cases come from a generator of integers that the test repeats, so only results are stored.
"""
from pathlib import Path

import numpy as np
import torch

E4M3 = torch.float8_e4m3fn


def floats(seed, count, low, span):
    """Floats of random sign and mantissa with biased exponents low .. low + span - 1."""
    out, state = np.empty(count, dtype=np.uint32), seed
    for i in range(count):
        state = (state * 1664525 + 1013904223) % 2**32
        mantissa = state >> 9
        state = (state * 1664525 + 1013904223) % 2**32
        out[i] = (state & 0x80000000) | ((low + (state >> 8) % span) << 23) | mantissa
    return torch.from_numpy(out.view(np.float32).copy())


def bits(t):
    return t.contiguous().numpy().view(np.uint32).reshape(-1)


def scale(amax, pow2):
    s = torch.clamp(amax, min=1e-12) / torch.tensor(448.0)
    if pow2:
        b = s.numpy().view(np.uint32)
        s = torch.from_numpy(((b + 0x7FFFFF) & 0x7F800000).astype(np.uint32).view(np.float32))
    return s


def quantise(x, rows, pow2):
    """Blocks of rows x 128, edges zero-padded: codes and multipliers."""
    n, k = x.shape
    padded = torch.zeros(-(-n // rows) * rows, -(-k // 128) * 128)
    padded[:n, :k] = x
    blocks = padded.view(padded.shape[0] // rows, rows, padded.shape[1] // 128, 128)
    s = scale(blocks.abs().amax(dim=(1, 3)), pow2)
    q = torch.clamp(blocks / s[:, None, :, None], -448, 448).to(E4M3)
    return q.view(torch.uint8).view(padded.shape)[:n, :k], s


def main():
    parts = []

    def put(name, values, digits):
        parts.append(f"{name} {len(values)}")
        words = [f"{int(v):0{digits}x}" for v in values]
        step = 160 // (digits + 1)
        parts.extend(" ".join(words[i:i + step]) for i in range(0, len(words), step))

    values = torch.arange(256, dtype=torch.uint8).view(E4M3).float()
    put("values", bits(torch.nan_to_num(values)), 8)  # the NaN codes as 0
    finite = values[:127]
    middle = (finite[1:] + finite[:-1]) / 2
    below, above = (torch.from_numpy((bits(middle).astype(np.int64) + d).astype(np.uint32).view(np.float32)) for d in (-1, 1))
    x = torch.cat([finite, middle, below, above, torch.tensor([449.0, 463.9, 464.0, 1e30, 1e-10, 1e-40])])
    x = torch.cat([x, -x])
    put("encode_in", bits(x), 8)
    put("encode_out", torch.clamp(x, -448, 448).to(E4M3).view(torch.uint8).numpy().reshape(-1), 2)
    for name, seed, n, k, rows, low, span in [("x", 1, 7, 300, 1, 100, 20), ("w", 2, 150, 140, 128, 110, 14),
                                              ("tiny", 3, 2, 130, 1, 80, 12), ("zero", 0, 1, 128, 1, 0, 1)]:
        m = floats(seed, n * k, low, span).view(n, k) if name != "zero" else torch.zeros(n, k)
        for pow2 in (False, True):
            q, s = quantise(m, rows, pow2)
            put(f"{name}_{'pow2' if pow2 else 'fp32'}_codes", q.numpy().reshape(-1), 2)
            put(f"{name}_{'pow2' if pow2 else 'fp32'}_scales", bits(s), 8)
    b = torch.cat([floats(4, 400, 60, 120), torch.tensor([0.0, float("inf"), 3.4e38, 1e-41])])
    put("bf16_in", bits(b), 8)
    put("bf16_out", b.to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16), 4)
    Path(__file__).with_name("fp8.txt").write_text("\n".join(parts) + "\n")


if __name__ == "__main__":
    main()
