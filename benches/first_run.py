#!/usr/bin/env python3
"""Trains on folders of images as a new user would, and prints the accuracies as a Markdown table.

    cargo build --release
    python3 benches/image_sets.py sets
    python3 benches/first_run.py sets/* --minutes 10 --seeds 0 1 2 --out runs/first

Runs that are finished are not repeated, so the same command continues after an interruption. Others
are begun again.
Further options of `saltworks pretrain` follow a `--`.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

METRICS = ["knn_mean", "knn_cls", "linear_mean", "linear_cls"]


def train(program: str, images: Path, out: Path, options: list[str]) -> None:
    """Trains, unless the run in `out` is finished. The log is `out`.log, the time `out`.seconds."""
    if Path(f"{out}.seconds").is_file():
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    command = [program, "pretrain", str(images), "--out", str(out), "--overwrite", *options]
    began = time.monotonic()
    with open(f"{out}.log", "w") as log:
        done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed, see {out}.log")
    Path(f"{out}.seconds").write_text(f"{time.monotonic() - began:.0f}\n")


def show(name: str, seed: int, out: Path) -> None:
    rows = json.loads((out / "probes.json").read_text())
    steps = [f"{stage['name']} {stage['steps']}" for stage in
             json.loads((out / "plan.json").read_text())["stages"]]
    if not rows:
        sys.exit(f"{out} has no accuracies: the images have no classes")
    seconds = Path(f"{out}.seconds").read_text().strip()
    for row in rows:
        shares = ["-" if row[name] is None else f"{100 * row[name]:.1f}" for name in METRICS]
        print(f"| {name}, seed {seed} | {row['features']} | {' | '.join(shares)} |")
    verdict = [line for line in Path(f"{out}.log").read_text().splitlines()
               if line.startswith("The student is") or line.startswith("  Its class token is")]
    train_images, images = rows[0]["train_images"], rows[0]["images"]
    print(f"| | {seconds} s; {train_images} + {images} images probed; steps: {', '.join(steps)}; "
          f"{' '.join(line.strip() for line in verdict)} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="+", type=Path, help="folders of images")
    parser.add_argument("--minutes", default="10")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/first"))
    parser.add_argument("--saltworks", default="target/release/saltworks", help="the program")
    words = sys.argv[1:]
    end = words.index("--") if "--" in words else len(words)
    arguments, further = parser.parse_args(words[:end]), words[end + 1 :]
    print("| images | features | kNN mean | kNN CLS | linear mean | linear CLS |")
    print("|---|---|---|---|---|---|")
    for seed in arguments.seeds:
        for images in arguments.images:
            out = arguments.out / f"{images.name}-{seed}"
            options = ["--minutes", arguments.minutes, "--set", f"seed={seed}", *further]
            train(arguments.saltworks, images, out, options)
            show(images.name, seed, out)
            sys.stdout.flush()


if __name__ == "__main__":
    main()
