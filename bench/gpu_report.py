#!/usr/bin/env python3
"""What scripts/gpu-check found, as gpu-report.json and gpu-report.md in its folder.

  bench/gpu_report.py FOLDER            reads steps.tsv, doctor.json, kernels.json, torch.json, decode.jsonl (what is there)
  bench/gpu_report.py --usable FILE     exit 0 where temper doctor --json's FILE names a device that the build can use
"""
import json
import pathlib
import sys

TARGETS = (("MlaAttentionTensor decode", "copy_share", 0.8), ("Fp8GroupedGemm", "gemm_share", 0.85))


def read(path):
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def gpu_of(doctor):
    for finding in (doctor or {}).get("findings", []):
        if finding["name"] == "GPU":
            return finding
    return None


def usable(doctor):
    gpu = gpu_of(doctor)
    return gpu is not None and gpu["verdict"] == "ok" and "cuda:0" in gpu["found"]


def collect(folder):
    steps = []
    table = folder / "steps.tsv"
    for line in table.read_text().splitlines() if table.exists() else []:
        name, state, seconds, last = (line.split("\t") + [""] * 4)[:4]
        steps.append({"name": name, "state": state, "seconds": int(seconds), "last_line": last})
    doctor, kernels = read(folder / "doctor.json"), read(folder / "kernels.json")
    decode = folder / "decode.jsonl"
    lines = [json.loads(line) for line in decode.read_text().splitlines() if line.startswith("{")] if decode.exists() else []
    report = {"device": kernels["device"] if kernels else None, "gpu": gpu_of(doctor), "steps": steps, "kernels": kernels,
              "torch": read(folder / "torch.json"), "decode": lines, "targets": []}
    for prefix, share, least in TARGETS:
        for k in (kernels or {}).get("kernels", []):
            if k["kernel"].startswith(prefix):
                report["targets"].append({"kernel": k["kernel"], "shape": k["shape"], "share": share, "least": least,
                                          "is": k[share], "met": k[share] >= least})
    return report


def page(report):
    device = report["device"]
    lines = [f"# GPU report: {device or 'no device'}", ""]
    if report["gpu"]:
        lines += [report["gpu"]["found"] + ("; " + report["gpu"]["remedy"] if report["gpu"]["remedy"] else ""), ""]
    if not device:
        lines += ["**Nothing was measured on a device.** What needs none was built and run.", ""]
    lines += ["| step | state | s | last line |", "| --- | --- | --- | --- |"]
    lines += [f"| {s['name']} | {s['state']} | {s['seconds']} | {s['last_line'].replace('|', '/')} |" for s in report["steps"]]
    kernels = report["kernels"]
    if kernels:
        lines += ["", f"Copy {kernels['copy_gb_s']:.0f} GB/s, CUTLASS's FP8 GEMM {kernels['gemm_tflop_s']:.0f} TFLOP/s, same run.", "",
                  "| kernel | shape | us | GB/s | of the copy | TFLOP/s | of the GEMM |", "| --- | --- | --- | --- | --- | --- | --- |"]
        lines += [f"| {k['kernel']} | {k['shape']} | {k['us']:.1f} | {k['gb_s']:.0f} | {100 * k['copy_share']:.0f} % | "
                  f"{k['tflop_s']:.1f} | {100 * k['gemm_share']:.0f} % |" for k in kernels["kernels"]]
    if report["targets"]:
        lines += ["", "| target | shape | share | at least | met |", "| --- | --- | --- | --- | --- |"]
        lines += [f"| {t['kernel']} | {t['shape']} | {100 * t['is']:.0f} % | {100 * t['least']:.0f} % | {'yes' if t['met'] else 'no'} |"
                  for t in report["targets"]]
    torch = report["torch"]
    if torch:
        lines += ["", f"PyTorch {torch['torch']}: BF16 GEMM of 8192: {torch['gemm_bf16_tflop_s']:.0f} TFLOP/s.", "",
                  "| PyTorch | shape | us | GB/s | TFLOP/s |", "| --- | --- | --- | --- | --- |"]
        lines += [f"| {k['kernel']} | {k['shape']} | {k['us']:.1f} | {k['gb_s']:.0f} | {k['tflop_s']:.1f} |" for k in torch["kernels"]]
    if report["decode"]:
        lines += ["", "| numerics | batch | prefill tok/s | decode tok/s |", "| --- | --- | --- | --- |"]
        lines += [f"| {d.get('numerics', '')} | {d.get('batch', '')} | {rate(d.get('prefill_tok_s'))} | {rate(d.get('decode_tok_s'))} |"
                  for d in report["decode"]]
    return "\n".join(lines) + "\n"


def rate(value):
    if isinstance(value, dict):
        value = value.get("median")
    if isinstance(value, list):
        value = sorted(value)[len(value) // 2]
    return f"{value:.0f}" if isinstance(value, (int, float)) else "?"


def main():
    if len(sys.argv) == 3 and sys.argv[1] == "--usable":
        sys.exit(0 if usable(read(pathlib.Path(sys.argv[2]))) else 1)
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = pathlib.Path(sys.argv[1])
    report = collect(folder)
    (folder / "gpu-report.json").write_text(json.dumps(report, indent=1) + "\n")
    (folder / "gpu-report.md").write_text(page(report))


if __name__ == "__main__":
    main()
