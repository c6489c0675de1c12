"""Compares saltworks' loader with torchvision's on a folder of JPEG files, in turn, and prints a table.

cargo build --release && python benches/vs_torchvision.py photos          # benches/photos.py makes such a folder

Needs tests/golden/requirements.txt. Equal work: class folders, shuffled; decode, RandomResizedCrop(224, scale 0.2 to 1),
RandomHorizontalFlip, batches of 64. torchvision: ImageFolder, ToTensor, Normalize and a DataLoader with as many workers
as saltworks has threads; saltworks normalises while it makes patches, so its batches stay bytes. In each round both go
through the folder once, after a warm-up; the table gives images/s, median and maximum over rounds, and peak memory.
Any other load on the machine makes the figures worthless: stop it first.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BATCH = 64


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2, help="processes of torchvision's, threads of ours")
    parser.add_argument("--saltworks", default=ROOT / "target/release/saltworks", type=Path)
    parser.add_argument("--torchvision", action="store_true", help=argparse.SUPPRESS)  # one process of a round
    return parser.parse_args()


def time_torchvision(options):
    """Prints one line of JSON: images/s of one pass over the folder, and memory."""
    import torch
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    torch.set_num_threads(options.workers)
    change = transforms.Compose([
        transforms.RandomResizedCrop(224, scale=(0.2, 1.0)),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ])  # fmt: skip
    images = ImageFolder(options.photos, change)
    loader = torch.utils.data.DataLoader(
        images, BATCH, shuffle=True, num_workers=options.workers, drop_last=True, persistent_workers=True
    )
    seconds, count = 0.0, 0
    for epoch in range(2):  # the first starts the workers
        start = time.perf_counter()
        count = sum(batch.shape[0] for batch, _ in loader)
        seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss + resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(json.dumps({"images_per_second": count / seconds, "peak_memory_bytes": peak * 1024}))


def last_json(command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        sys.exit(f"vs_torchvision.py: {command} ended with {done.returncode}:\n{done.stderr[-4000:]}")
    return json.loads(lines[-1])


def main():
    options = arguments()
    if options.torchvision:
        return time_torchvision(options)
    theirs = [sys.executable, __file__, options.photos, "--torchvision", "--workers", options.workers]
    ours = [options.saltworks, "bench", "data", options.photos, "--threads", options.workers, "--batch", BATCH, "--json"]
    rounds = {"torchvision": [], "saltworks": []}
    for number in range(options.rounds):
        rounds["torchvision"].append(last_json(theirs))
        result = last_json(ours)
        rounds["saltworks"].append(result["runs"][0])
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
    print("| loader | images/s, median | maximum | peak memory, MB |\n|---|---|---|---|")
    rates = {}
    for name, results in rounds.items():
        rates[name] = [result["images_per_second"] for result in results]
        memory = max(result["peak_memory_bytes"] for result in results) / 1e6
        print(f"| {name} | {statistics.median(rates[name]):.0f} | {max(rates[name]):.0f} | {memory:.0f} |")
    median = statistics.median(rates["saltworks"]) / statistics.median(rates["torchvision"])
    most = max(rates["saltworks"]) / max(rates["torchvision"])
    print(f"\nsaltworks over torchvision: {median:.2f} by medians, {most:.2f} by maxima")


if __name__ == "__main__":
    main()
