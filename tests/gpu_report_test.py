#!/usr/bin/env python3
"""The report of scripts/gpu-check on made-up results: with a device, without one, with files that are broken."""
import json
import pathlib
import subprocess
import sys
import tempfile

SOURCE = pathlib.Path(__file__).resolve().parent.parent
REPORT = SOURCE / "bench" / "gpu_report.py"


def run(*arguments):
    return subprocess.run([sys.executable, str(REPORT), *map(str, arguments)], capture_output=True, text=True)


def report(folder):
    done = run(folder)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "gpu-report.json").read_text()), (folder / "gpu-report.md").read_text()


def doctor(verdict, found):
    return json.dumps({"findings": [{"name": "GPU", "verdict": verdict, "found": found, "remedy": "" if verdict == "ok" else "no driver"}]})


def kernel(name, us, copy_share, gemm_share=0.0):
    return {"kernel": name, "shape": "32 x 128 x 4096", "us": us, "gb_s": 2000 * copy_share, "tflop_s": 1000 * gemm_share,
            "copy_share": copy_share, "gemm_share": gemm_share}


def with_device(folder):
    (folder / "steps.tsv").write_text("build\tpassed\t100\tlinked\nkernels\tfailed\t7\tone | two\ntorch\tskipped\t0\tno PyTorch\n")
    (folder / "doctor.json").write_text(doctor("ok", "built with CUDA 13.0 for 90a; cuda:0 NVIDIA H100"))
    (folder / "kernels.json").write_text(json.dumps({
        "device": "NVIDIA H100", "copy_gb_s": 2800.0, "gemm_tflop_s": 1200.0,
        "kernels": [kernel("MlaAttentionTensor decode FP8", 40, 0.83), kernel("MlaAttentionTensor decode BF16", 70, 0.7),
                    kernel("Fp8GroupedGemm", 200, 0.1, 1.0)]}))
    (folder / "decode.jsonl").write_text('noise\n{"numerics": "cuda-1/fp8/cache-bf16", "batch": 8, "prefill_tok_s": '
                                         '{"median": 5000}, "decode_tok_s": [1, 900, 2000]}\n')
    data, page = report(folder)
    assert data["device"] == "NVIDIA H100" and len(data["steps"]) == 3
    assert [t["met"] for t in data["targets"]] == [True, False, True], data["targets"]
    assert "| kernels | failed | 7 | one / two |" in page
    assert "| MlaAttentionTensor decode FP8 | 32 x 128 x 4096 | 40.0 | 1660 | 83 % |" in page, page
    assert "| cuda-1/fp8/cache-bf16 | 8 | 5000 | 900 |" in page, page
    assert "Nothing was measured" not in page
    assert run("--usable", folder / "doctor.json").returncode == 0


def without_device(folder):
    (folder / "steps.tsv").write_text("build\tpassed\t100\t\nkernels\tskipped\t0\tno device\n")
    (folder / "doctor.json").write_text(doctor("note", "built with CUDA 13.0 for 90a"))
    (folder / "kernels.json").write_text("{torn")
    data, page = report(folder)
    assert data["device"] is None and data["targets"] == []
    assert "# GPU report: no device" in page and "Nothing was measured on a device" in page
    assert run("--usable", folder / "doctor.json").returncode == 1
    assert run("--usable", folder / "none.json").returncode == 1


def main():
    assert run().returncode == 1
    for case in (with_device, without_device):
        with tempfile.TemporaryDirectory() as folder:
            case(pathlib.Path(folder))
    print("passed")


if __name__ == "__main__":
    main()
