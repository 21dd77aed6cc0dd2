#!/usr/bin/env python3
"""What the compiler says of the CUDA kernels, and what an H100 could give them at most.

  python3 bench/cuda_report.py [build-cuda/libkernels_cuda.a] [--toolkit build-toolkit]

Two tables in Markdown, for docs/kernels.md. Nothing runs on a device: registers, spills, shared memory and instructions
are read from the machine code, the limits are bytes and operations divided by the H100's data sheet (SXM: 3.35 TB/s;
67 TFLOP/s FP32, 989 dense BF16, 1,979 dense FP8). Exit 1 where a kernel of our own spills, or the FP8 GEMM has no QGMMA.
"""
import argparse
import re
import subprocess
import sys

BANDWIDTH, FP32, BF16, FP8 = 3.35e12, 67e12, 989e12, 1979e12
REGISTERS, SHARED, THREADS, BLOCKS = 65536, 228 * 1024, 2048, 32  # of a multiprocessor

# DeepSeek-V3: hidden 7168, 128 heads, 256 experts of width 2048, 8 a token, vocabulary 129280.
B, T, D, H, L, R, E, K, V, W = 32, 4096, 7168, 128, 512, 64, 256, 8, 129280, 2048

# Kernel: threads a block, dynamic shared bytes at the shape, text of the shape, bytes, operations, peak.
SHAPES = {
    "RmsNormKernel": (256, 4 * D, f"{B} x {D}", B * D * 8 + 4 * D, 4 * B * D, FP32),
    "RopeKernel": (256, 0, f"{B} x {H} x {R}", B * H * R * 8, 3 * B * H * R, FP32),
    "GatedEntry>(": (256, 0, f"{B * K} x {W}, codes", B * K * W * 9, 25 * B * K * W, FP32),
    "PlainEntry>(": (256, 0, f"{B} x {D}, codes", B * D * 5, 10 * B * D, FP32),
    "StoreCacheKernel": (256, 0, f"{B} rows, FP8", B * (4 * (L + R) + 656), 10 * B * (L + R), FP32),
    "RouteKernel": (32, 9 * E + 32, f"{B} x {E}", B * E * 4, B * E * (30 + 2 * K), FP32),
    "CountKernel": (256, 0, f"{B * K} ids", B * K * 4, B * K * E, FP32),
    "PlaceKernel": (256, 0, f"{B * K} ids", B * K * 12, B * K * E, FP32),
    "ScanKernel": (1, 0, f"{E} experts", E * 8, E, FP32),
    "GatherKernel": (256, 0, f"{B * K} x {D} codes", B * K * D * 2, 0, FP32),
    "CombineKernel": (256, 0, f"{B} x {K} x {D}", B * D * 4 * (K + 2), 2 * B * K * D, FP32),
    "::ChunkKernel": (128, 0, f"{B} x {V}", B * V * 4, 25 * B * V, FP32),
    "::MergeKernel(LogSoftmaxArgs)": (32, 0, f"{B} x 127", B * 127 * 8, 50 * B * 127, FP32),
    "EntropyChunkKernel": (128, 0, f"{B} x {V}", B * V * 4, 25 * B * V, FP32),
    "EntropyMergeKernel": (32, 0, f"{B} x 127", B * 127 * 4, B * 127, FP32),
    "SampleKernel": (256, 4 * 506, f"{B} x {V}", 2 * B * V * 4, 60 * B * V, FP32),
    "LinearKernel<(WeightType)2, 1>": (256, 56 * 64, f"1 x 4096 x {D} FP8", 4096 * D, 2 * 4096 * D, FP32),
    "LinearKernel<(WeightType)2, 4>": (256, 56 * 256, f"4 x 4096 x {D} FP8", 4096 * D, 8 * 4096 * D, FP32),
    "LinearKernel<(WeightType)1, 1>": (256, 56 * 64, f"1 x 4096 x {D} BF16", 8192 * D, 2 * 4096 * D, FP32),
    "LinearKernel<(WeightType)1, 4>": (256, 56 * 256, f"4 x 4096 x {D} BF16", 8192 * D, 8 * 4096 * D, FP32),
    "LinearKernel<(WeightType)0, 1>": (256, 56 * 64, f"1 x 4096 x {D} FP32", 16384 * D, 2 * 4096 * D, FP32),
    "LinearKernel<(WeightType)0, 4>": (256, 56 * 256, f"4 x 4096 x {D} FP32", 16384 * D, 8 * 4096 * D, FP32),
    "AttentionKernel": (256, 4 * (2 * L + R), f"{B} x {H} heads x {T}, BF16", B * T * 2 * (L + R),
                        2 * B * H * T * (2 * L + R), FP32),
    # mma.sync takes E4M3 as half floats on Hopper.
    "Fp8GemmKernel<1, 1>": (256, 4096, f"8 x 4096 x {D}", 4096 * D + 8 * D, 2 * 8 * 4096 * D, BF16),
    "Fp8GemmKernel<1, 2>": (256, 8192, f"16 x 4096 x {D}", 4096 * D + 16 * D, 2 * 16 * 4096 * D, BF16),
    "Fp8GemmKernel<1, 4>": (256, 16384, f"32 x 4096 x {D}", 4096 * D + 32 * D, 2 * 32 * 4096 * D, BF16),
    "Fp8GemmKernel<1, 8>": (256, 32768, f"64 x 4096 x {D}", 4096 * D + 64 * D, 2 * 64 * 4096 * D, BF16),
    "::MergeKernel(AttentionArgs": (256, 0, f"{B} x {H} x {T // 256} splits", B * H * (T // 256) * 2056,
                                    4 * B * H * (T // 256) * L, FP32),
    "TensorInputsKernel": (256, 0, f"{B} x {D}", B * D * 8, 4 * B * D, FP32),
    "EmbedKernel": (256, 0, f"{B} x {D}, BF16", B * D * 6, 0, FP32),
    "AddBiasKernel": (256, 0, f"{B} x {D}", B * D * 8, B * D, FP32),
    "AddBlockKernel": (256, 0, f"{B} x {D}", B * D * 12, B * D, FP32),
    "CopyColumnsKernel": (256, 0, f"{B} x {H} x {R}", B * H * R * 8, 0, FP32),
    "ScatterKernel": (256, 0, f"{B} places", B * 16, 0, FP32),
    "DescribeKernel": (128, 0, f"{E} groups", E * 100, 0, FP32),
    "device_kernel": (384, 214 * 1024, f"4096 x 4096 x {D}", 4096 * D * 2 + 4 * 4096 * 4096, 2 * 4096 * 4096 * D, FP8),
}
for cache, name, row in ((1, "BF16", 2 * (L + R)), (2, "FP8", 656)):
    for tiles, heads in ((1, 16), (4, H)):
        shared = 16 * tiles * (1168 + 80 + 132 + 28) + (37376 + 41984 if cache == 2 else 74752 + 16)
        for kernel, queries in (("SplitKernel", B), ("RowKernel", B)):
            SHAPES[f"{kernel}<(CacheType){cache}, {tiles}>"] = (
                256, shared, f"{queries} x {heads} heads x {T}, {name}", queries * (T * row + heads * 4 * (2 * L + R)),
                2 * queries * heads * T * (2 * L + R), BF16)


for kind, name, size in ((1, "BF16", 2), (2, "FP8", 1)):
    for low, inputs in (("true", "FP32 inputs"), ("false", "exact inputs")):
        for tiles in (1, 2, 4):
            m, terms = 8 * tiles, 2 if low == "true" else 1
            SHAPES[f"TensorLinearKernel<(WeightType){kind}, {low}, {tiles}>"] = (
                256, 8192 * tiles, f"{m} x 4096 x {D} {name}, {inputs}", 4096 * D * size + 2 * terms * m * D + 4 * m * 4096,
                2 * terms * m * 4096 * D, BF16)


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def resources(cuobjdump, library):
    """(kernel, registers, stack bytes, static shared bytes) of each kernel, names demangled."""
    text = run(cuobjdump, "-res-usage", library)
    found = re.findall(r"Function (\S+?):\s*\n\s*REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", text)
    names = subprocess.run(["c++filt"], input="\n".join(f[0] for f in found), capture_output=True, text=True,
                           check=True).stdout.split("\n")
    for name, (_, registers, stack, shared, local) in zip(names, found):
        name = name.replace("temper::kernels::cuda::", "").replace("temper::kernels::", "")
        name = name.replace("(anonymous namespace)", "")
        # 1 KiB of every block is the system's own; some kernels report it.
        yield name, int(registers), int(stack) + int(local), int(shared) % 1024 if int(shared) < 2048 else int(shared) - 1024


LABELS = {"GatedEntry>(": "EntriesKernel (SwiGLU)", "PlainEntry>(": "EntriesKernel (quantise)", "::ChunkKernel": "ChunkKernel",
          "::MergeKernel(LogSoftmaxArgs)": "MergeKernel (log-softmax)", "::MergeKernel(AttentionArgs": "MergeKernel (MLA)",
          "device_kernel": "CUTLASS grouped GEMM"}


def label_of(key):
    types = key.replace("(WeightType)0", "FP32").replace("(WeightType)1", "BF16").replace("(WeightType)2", "FP8")
    types = types.replace(", true,", ", two terms,").replace(", false,", ", one term,")
    return LABELS.get(key, types.replace("(CacheType)1", "BF16").replace("(CacheType)2", "FP8"))


def shape_of(name):
    fits = [key for key in SHAPES if key in name]
    return max(fits, key=len) if fits else None


def blocks_of(threads, registers, shared):
    registers_a_warp = -(-registers * 32 // 256) * 256
    warps = -(-threads // 32)
    return min(BLOCKS, THREADS // threads, REGISTERS // (registers_a_warp * warps), SHARED // (shared + 1024))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", nargs="?", default="build-cuda/libkernels_cuda.a")
    parser.add_argument("--toolkit", default="build-toolkit")
    options = parser.parse_args()
    cuobjdump = options.toolkit + "/bin/cuobjdump"
    rows, spills, unknown = {}, [], []
    for name, registers, stack, shared in resources(cuobjdump, options.library):
        key = shape_of(name)
        if key is None:
            unknown.append(name)
            continue
        rows[key] = (registers, stack, shared)
        if stack > 0:
            spills.append(key)
    print("| kernel | registers | spilled bytes | shared KiB | threads | blocks a multiprocessor | warps of 64 |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for key, (registers, stack, static) in sorted(rows.items()):
        threads, dynamic = SHAPES[key][:2]
        blocks = blocks_of(threads, registers, static + dynamic)
        print(f"| {label_of(key)} | {registers} | {stack} | {(static + dynamic) / 1024:.1f} | {threads} | {blocks} | "
              f"{blocks * -(-threads // 32)} |")
    print("\n| kernel | shape | MB | GFLOP | flop a byte | limit us | bound by |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for key in sorted(rows):
        _, _, text, size, flop, peak = SHAPES[key]
        memory, compute = size / BANDWIDTH * 1e6, flop / peak * 1e6
        print(f"| {label_of(key)} | {text} | {size / 1e6:.3g} | {flop / 1e9:.3g} | {flop / size:.3g} | "
              f"{max(memory, compute):.3g} | {'memory' if memory >= compute else 'arithmetic'} |")
    code = run(cuobjdump, "-sass", options.library)
    counts = {op: len(re.findall(rf"\b{op}\.", code)) for op in ("QGMMA", "UTMALDG", "HMMA", "LDSM", "LDGSTS")}
    print("\nInstructions: " + ", ".join(f"{n} {op}" for op, n in counts.items()))
    for name in unknown:
        print(f"no shape for {name}", file=sys.stderr)
    for key in spills:
        print(f"{key} spills", file=sys.stderr)
    sys.exit(1 if spills or unknown or counts["QGMMA"] == 0 else 0)


if __name__ == "__main__":
    main()
