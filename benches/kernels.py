"""Compares the engine's matrix products and attention with PyTorch's on this machine, in turn, and prints a table.

python benches/kernels.py                # needs torch; builds the engine's benchmark first

A round runs `cargo bench -p engine`, then the same shapes in PyTorch, with the same number of threads. Figures are
GFLOP/s of the shortest of 12 runs, the best of all rounds. The share is that of the multiply-add peak, measured in
each round. PyTorch's products are MKL's or oneDNN's. Any other load on the machine makes the figures worthless.
"""

import argparse
import os
import re
import subprocess
import time
from pathlib import Path

from vs_pytorch import cpu

ROOT = Path(__file__).resolve().parent.parent
PRODUCT = re.compile(r"^(linear|grad_input|grad_weight) (\d+)x(\d+)x(\d+) (f32|bf16)$")
ATTENTION = re.compile(r"^(attention|attention backward) (\d+)x(\d+), (\d+) heads of (\d+) (f32|bf16)$")


def engine(threads):
    """Our rates by name, and the peaks of f32 and bf16."""
    env = os.environ | {"RAYON_NUM_THREADS": str(threads)}
    done = subprocess.run(["cargo", "bench", "-p", "engine"], cwd=ROOT, env=env, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    peaks = re.search(r"multiply-add peak (\d+) GFLOP/s, of bf16 (\d+)", done.stdout)
    lines = re.findall(r"^(.*?) +[\d.]+ ms +([\d.]+) GFLOP/s", done.stdout, re.M)
    return {name: float(rate) for name, rate in lines}, [float(peak) for peak in peaks.groups()]


def shortest(run, runs=12):
    best = float("inf")
    for _ in range(runs):
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return best


def product(torch, kind, rows, inputs, outputs, dtype):
    new = lambda *shape: torch.randn(shape).to(dtype)
    x, w, dy, bias = new(rows, inputs), new(outputs, inputs), new(rows, outputs), new(outputs)
    dw, dx, y = new(outputs, inputs), new(rows, inputs), new(rows, outputs)
    runs = {
        "linear": lambda: torch.addmm(bias, x, w.t(), out=y),
        "grad_input": lambda: torch.mm(dy, w, out=dx),
        "grad_weight": lambda: dw.addmm_(dy.t(), x),
    }
    return 2e-9 * rows * inputs * outputs / shortest(runs[kind])


def attention(torch, kind, samples, tokens, heads, width, dtype):
    qkv = torch.randn(3, samples, heads, tokens, width).to(dtype).requires_grad_()
    call = lambda: torch.nn.functional.scaled_dot_product_attention(*qkv.unbind())
    flops = 2e-9 * samples * heads * tokens * tokens * width
    if kind == "attention":
        with torch.no_grad():
            return 2 * flops / shortest(call)
    y = call()
    dy = torch.randn_like(y)
    return 5 * flops / shortest(lambda: torch.autograd.grad(y, qkv, dy, retain_graph=True))


def rate(torch, name):
    for pattern, run in [(PRODUCT, product), (ATTENTION, attention)]:
        if found := pattern.match(name):
            kind, *sizes, dtype = found.groups()
            dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[dtype]
            return run(torch, kind, *map(int, sizes), dtype)
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    import torch

    torch.set_num_threads(options.threads)
    ours, theirs, peaks = {}, {}, [0.0, 0.0]
    for _ in range(options.rounds):
        rates, measured = engine(options.threads)
        peaks = [max(pair) for pair in zip(peaks, measured)]
        for name, value in rates.items():
            ours[name] = max(ours.get(name, 0.0), value)
            other = rate(torch, name)
            if other is not None:
                theirs[name] = max(theirs.get(name, 0.0), other)
    print(f"{cpu()}, {options.threads} threads, torch {torch.__version__}")
    print(f"multiply-add peak {peaks[0]:.0f} GFLOP/s, of bf16 {peaks[1]:.0f}\n")
    print("| kernel | saltworks | of peak | PyTorch | times as fast |\n|---|---|---|---|---|")
    for name, value in ours.items():
        peak = peaks[name.endswith("bf16")]
        share = f"{100 * value / peak:.0f} %"
        other = f"{theirs[name]:.0f} | {value / theirs[name]:.2f}" if name in theirs else "- | -"
        print(f"| {name} | {value:.0f} | {share} | {other} |")


if __name__ == "__main__":
    main()
