"""Training steps of SALT by saltworks.torch and torch.optim.AdamW, against saltworks' own NumPy classes.

    python benches/torch_modules.py [--model vit_tiny_patch16_224] [--batch 16] [--rounds 5] [--steps 4]

Both train the same sizes on the same images, in turn. Printed are milliseconds a step: the minimum and the
median of the rounds. Needs the Python package of this repository, and torch.
"""

import argparse
import statistics
import time

import numpy as np
import torch

import saltworks
import saltworks.torch


def numpy_way(name, batch):
    model = saltworks.SALT(name, seed=0)
    optimizer = saltworks.AdamW(model.parameters(), lr=1e-4)

    def step():
        optimizer.zero_grad()
        model(batch).backward()
        optimizer.step()

    return step


def torch_way(name, batch, fused):
    model = saltworks.torch.SALT(name, seed=0)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, fused=fused)
    batch = torch.from_numpy(batch)

    def step():
        optimizer.zero_grad()
        model(batch).loss.backward()
        optimizer.step()

    return step


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="vit_tiny_patch16_224")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4)
    options = parser.parse_args()
    batch = np.random.default_rng(0).normal(size=(options.batch, 3, 224, 224)).astype(np.float32)
    ways = {
        "NumPy": numpy_way(options.model, batch),
        "torch": torch_way(options.model, batch, False),
        "torch, fused": torch_way(options.model, batch, True),
    }
    times = {name: [] for name in ways}
    for step in ways.values():
        step()
    for _ in range(options.rounds):
        for name, step in ways.items():
            begin = time.perf_counter()
            for _ in range(options.steps):
                step()
            times[name].append((time.perf_counter() - begin) / options.steps * 1e3)
    base = times["NumPy"]
    for name, taken in times.items():
        least, middle = min(taken), statistics.median(taken)
        share = f"{least / min(base):.2f} ({middle / statistics.median(base):.2f})"
        print(f"{name:14s} {least:8.1f} ms, median {middle:8.1f} ms, times NumPy's: {share}")


if __name__ == "__main__":
    main()
