#!/usr/bin/env python3
"""PyTorch's rates at the shapes of bench/cuda_kernels.cc on device 0: one JSON object. For scripts/gpu-check."""
import json

import torch


def seconds(call, repeats=20):
    call()
    times = []
    for _ in range(repeats):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        call()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end) / 1e3)
    return sorted(times)[len(times) // 2]


def main():
    device, kernels = torch.device("cuda:0"), []
    k, n = 7168, 4096
    for m in (1, 8, 32, 256, 4096):
        x = torch.randn(m, k, device=device, dtype=torch.bfloat16)
        w = torch.randn(n, k, device=device, dtype=torch.bfloat16)
        s = seconds(lambda: x @ w.T)
        kernels.append({"kernel": "matmul BF16", "shape": f"{m} x {n} x {k}", "us": s * 1e6, "gb_s": 2 * n * k / s / 1e9,
                        "tflop_s": 2 * m * n * k / s / 1e12})
    x = torch.randn(32, k, device=device)
    s = seconds(lambda: torch.nn.functional.rms_norm(x, (k,)))
    kernels.append({"kernel": "rms_norm", "shape": f"32 x {k}", "us": s * 1e6, "gb_s": 8 * 32 * k / s / 1e9, "tflop_s": 0.0})
    logits = torch.randn(32, 129280, device=device)
    s = seconds(lambda: torch.log_softmax(logits, -1))
    kernels.append({"kernel": "log_softmax", "shape": "32 x 129280", "us": s * 1e6, "gb_s": 8 * 32 * 129280 / s / 1e9,
                    "tflop_s": 0.0})
    a, b = (torch.randn(8192, 8192, device=device, dtype=torch.bfloat16) for _ in range(2))
    print(json.dumps({"torch": torch.__version__, "device": torch.cuda.get_device_name(0),
                      "gemm_bf16_tflop_s": 2 * 8192**3 / seconds(lambda: a @ b) / 1e12, "kernels": kernels}, indent=1))


if __name__ == "__main__":
    main()
