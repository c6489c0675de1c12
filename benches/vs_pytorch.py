"""Compares saltworks' training steps with stable-pretraining's on this machine, in turn, and prints a table.

cargo build --release && python benches/vs_pytorch.py                # every row
cargo build --release && python benches/vs_pytorch.py salt-tiny      # one row; --help lists them
python benches/vs_pytorch.py --precision bf16                        # bf16, against PyTorch's bf16 autocast

Needs tests/golden/requirements.txt. In each round PyTorch as it is (eager), under torch.compile, and saltworks run one
after another, so that a change of the machine's pace meets all alike. Each PyTorch variant has one process for all
rounds of a row, which waits between them: it compiles once. What is compiled is the transformer's block, which takes a
minute; the whole step took over four. Equal work: same sizes, multi-block masks drawn anew for
every step and shared by the batch, AdamW on every trained parameter, images in memory. The table gives the
median (over rounds, of each round's median) and the minimum of seconds per step, PyTorch's better variant over ours
(above 1: ours is faster), what 100 % of the multiply-add peak would give, GFLOP/s and its share of the measured peak,
and peak memory. Any other load on the machine makes the figures worthless: stop it first.
"""

import argparse
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
QUICKSTART = {"patch": 4, "width": 96, "depth": 6, "heads": 3}
ROWS = {
    "salt-tiny": {"stage": "salt", "model": "vit_tiny_patch16_224", "batch": 16},
    "salt-small": {"stage": "salt", "model": "vit_small_patch16_224", "batch": 8},
    "salt-base": {"stage": "salt", "model": "vit_base_patch16_224", "batch": 4},
    "mae-tiny": {"stage": "mae", "model": "vit_tiny_patch16_224", "batch": 16, "trunk": (128, 4, 4)},
    "mae-base": {"stage": "mae", "model": "vit_base_patch16_224", "batch": 4, "trunk": (512, 8, 16)},
    "features-tiny": {"stage": "features", "model": "vit_tiny_patch16_224", "batch": 16},
    "features-base": {"stage": "features", "model": "vit_base_patch16_224", "batch": 4},
    "quickstart-teacher": {"stage": "mae", "batch": 64, "small": QUICKSTART, "trunk": (64, 2, 4)},
    "quickstart-student": {"stage": "salt", "batch": 64, "small": QUICKSTART, "trunk": (64, 2, 4)},
}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}; all if none is given")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=8, help="about how long a process times its steps")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32", help="of activations")
    parser.add_argument("--variants", default="eager,compile", help="of PyTorch")
    parser.add_argument("--saltworks", default=ROOT / "target/release/saltworks", type=Path)
    parser.add_argument("--pytorch", choices=["eager", "compile"], help=argparse.SUPPRESS)  # one process of a round
    options = parser.parse_args()
    for name in options.rows:
        if name not in ROWS:
            parser.error(f"no row {name!r}, expected of {', '.join(ROWS)}")
    if not options.saltworks.is_file():
        parser.error(f"{options.saltworks} is not there. Run: cargo build --release")
    return options


# ---------------------------------------------------------------------------------------------- PyTorch, one process


def encoder_name(row):
    """timm's name of the row's encoder; the quickstart's gets one first."""
    small = row.get("small")
    if not small:
        return row["model"]
    from timm.models import register_model
    from timm.models.vision_transformer import VisionTransformer

    def vit_quickstart(pretrained=False, num_classes=0, dynamic_img_size=False, **_):
        sizes = {"embed_dim": small["width"], "depth": small["depth"], "num_heads": small["heads"]}
        sizes |= {"img_size": 28, "patch_size": small["patch"], "in_chans": 1}
        return VisionTransformer(num_classes=num_classes, dynamic_img_size=dynamic_img_size, **sizes)

    vit_quickstart.__module__ = "timm.models.vision_transformer"
    register_model(vit_quickstart)
    return "vit_quickstart"


def build(row):
    """A function of images that makes the work of one step, and the images' shape."""
    import timm
    import torch
    from stable_pretraining.backbone import MultiBlockMasking
    from stable_pretraining.methods.mae import MAE
    from stable_pretraining.methods.salt import SALT

    name = encoder_name(row)
    if row["stage"] == "features":
        vit = timm.create_model(name, num_classes=0).eval()

        def features(forward, images):
            with torch.inference_mode():
                forward(images)
            return None

        return vit, vit.forward_features, features
    width, depth, heads = row.get("trunk") or ((384, 12, 16) if row["stage"] == "salt" else (512, 8, 16))
    if row["stage"] == "salt":
        model = SALT(name, predictor_embed_dim=width, predictor_depth=depth, predictor_num_heads=heads)
    else:
        trunk = {"decoder_embed_dim": width, "decoder_depth": depth, "decoder_num_heads": heads}
        model = MAE(name, masking=MultiBlockMasking(), **trunk)
    trained = [p for p in model.train().parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, betas=(0.9, 0.95), weight_decay=0.04)

    def step(forward, images):
        optimizer.zero_grad(set_to_none=True)
        out = forward(images)
        out.loss.backward()
        optimizer.step()
        return out

    return model, model, step


def time_pytorch(row, options):
    """Warms up, then times steps for each line of stdin and prints a line of JSON: what they took."""
    os.environ["OMP_NUM_THREADS"] = str(options.threads)  # before torch is imported
    import torch

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    model, forward, step = build(row)
    if options.pytorch == "compile":
        for name, part in model.named_modules():
            if name.split(".")[-1] == "blocks":
                for block in part:
                    block.compile(dynamic=row["stage"] != "features")
    if options.precision == "bf16":
        exact = forward

        def forward(images):
            with torch.autocast("cpu", torch.bfloat16):
                return exact(images)

    vit = next(part for part in model.modules() if hasattr(part, "patch_embed"))
    shape = (row["batch"], vit.patch_embed.proj.in_channels, *vit.patch_embed.img_size)
    for _ in range(6 if options.pytorch == "compile" else 4):
        step(forward, torch.randn(shape))
    for _ in sys.stdin:
        seconds, context, target = [], [], []
        while len(seconds) < 3 or sum(seconds) < options.seconds:
            images = torch.randn(shape)
            start = time.perf_counter()
            out = step(forward, images)
            seconds.append(time.perf_counter() - start)
            if row["stage"] == "salt":
                context.append(out.num_context), target.append(out.num_targets)
            elif row["stage"] == "mae":
                context.append(out.num_visible), target.append(out.num_masked)
        result = {
            "seconds_per_step_median": statistics.median(seconds),
            "seconds_per_step_min": min(seconds),
            "steps": len(seconds),
            "context_tokens": statistics.mean(context) if context else None,
            "target_tokens": statistics.mean(target) if target else None,
            "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            "version": torch.__version__,
        }
        print(json.dumps(result), flush=True)


# ---------------------------------------------------------------------------------------------- rounds


def last_json(command):
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        sys.exit(f"vs_pytorch.py: {' '.join(map(str, command))} ended with {done.returncode}:\n{done.stderr[-4000:]}")
    return json.loads(lines[-1])


class PyTorch:
    """A process that times one variant of a row when it is asked to."""

    def __init__(self, name, variant, options):
        limits = ["--seconds", str(options.seconds), "--threads", str(options.threads)]
        limits += ["--precision", options.precision, "--saltworks", str(options.saltworks)]
        command = [sys.executable, __file__, name, "--pytorch", variant, *limits]
        self.what = f"{name} {variant}"
        self.errors = tempfile.TemporaryFile("w+")
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self.errors}
        self.process = subprocess.Popen(command, cwd=ROOT, text=True, **pipes)

    def time(self):
        try:
            self.process.stdin.write("\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # it ended, which the missing line says below
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        self.errors.seek(0)
        sys.exit(f"vs_pytorch.py: {self.what} ended with {self.process.wait()}:\n{self.errors.read()[-4000:]}")

    def end(self):
        self.process.stdin.close()
        self.process.wait()


def saltworks_command(row, steps, options):
    command = [options.saltworks, "bench", "--json", "--stage", row["stage"], "--batch", row["batch"]]
    command += ["--steps", steps, "--threads", options.threads, "--model", row.get("model", "vit_tiny_patch16_224")]
    settings = ["step.decay_all=true", f"precision='{options.precision}'"]
    if small := row.get("small"):
        settings += ["data.size=28", "data.channels=1", *(f"model.{key}={value}" for key, value in small.items())]
    if trunk := row.get("trunk"):
        what = "predictor" if row["stage"] == "salt" else "decoder"
        settings.append(f"step.{what}={{width={trunk[0]}, depth={trunk[1]}, heads={trunk[2]}}}")
    for setting in settings:
        command += ["--set", setting]
    return [str(part) for part in command]


def compare(name, options):
    """All rounds of a row, and its line of the table."""
    row = ROWS[name]
    variants = options.variants.split(",")
    rounds = {variant: [] for variant in [*variants, "saltworks"]}
    processes = {}
    steps = 3
    for number in range(options.rounds):
        for variant in variants:
            # Started here, not all at once: another variant's warm-up would disturb.
            if variant not in processes:
                processes[variant] = PyTorch(name, variant, options)
            rounds[variant].append(processes[variant].time())
        ours = last_json(saltworks_command(row, steps, options))
        wanted = max(3, round(options.seconds / ours["seconds_per_step_median"]))
        if number == 0 and wanted > steps:
            steps = wanted
            ours = last_json(saltworks_command(row, steps, options))
        rounds["saltworks"].append(ours)
        print(f"{name}: round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
    for process in processes.values():
        process.end()
    times = {
        variant: {
            "median": statistics.median(result["seconds_per_step_median"] for result in results),
            "min": min(result["seconds_per_step_min"] for result in results),
        }
        for variant, results in rounds.items()
    }
    best = min(variants, key=lambda variant: times[variant]["median"])
    ours = rounds["saltworks"]

    def memory(results):
        return min(result["peak_memory_bytes"] for result in results)

    return {
        "row": name,
        "times": times,
        "best": best,
        "ratio_median": times[best]["median"] / times["saltworks"]["median"],
        "ratio_min": min(times[v]["min"] for v in variants) / times["saltworks"]["min"],
        "gflops": statistics.median(result["gflops"] for result in ours),
        "peak_fraction": statistics.median(result["peak_fraction"] for result in ours),
        "ratio_at_peak": times[best]["median"] / times["saltworks"]["median"]
        / statistics.median(result["peak_fraction"] for result in ours),
        "memory_mb": {variant: memory(results) / 1e6 for variant, results in rounds.items()},
        "memory_ratio": memory(ours) / min(memory(rounds[variant]) for variant in variants),
        "tokens": {
            variant: [results[0]["context_tokens"], results[0]["target_tokens"]] for variant, results in rounds.items()
        },
    }


def cpu():
    """The processor's name, family and model, and the instructions that decide the kernels."""
    path = Path("/proc/cpuinfo")
    text = path.read_text() if path.exists() else ""

    def field(name):
        found = re.search(rf"^{name}\s*: (.*)$", text, re.M)
        return found[1] if found else "?"

    sets = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if f" {name}" in text]
    return f"{field('model name')} (family {field('cpu family')}, model {field('model')}: {', '.join(sets)})"


def line(result):
    cells = [result["row"]]
    for times in result["times"].values():
        cells.append(f"{times['median']:.4g} ({times['min']:.4g})")
    cells += [f"{result['ratio_median']:.2f} ({result['ratio_min']:.2f})", f"{result['ratio_at_peak']:.2f}"]
    cells.append(f"{result['gflops']:.0f}")
    cells += [f"{100 * result['peak_fraction']:.0f} %", f"{result['memory_ratio']:.2f}"]
    return "| " + " | ".join(cells) + " |"


def main():
    options = arguments()
    if options.pytorch:
        return time_pytorch(ROWS[options.rows[0]], options)
    print(f"{cpu()}, {options.threads} threads, {options.precision}\n", flush=True)
    variants = [f"PyTorch {variant}" for variant in options.variants.split(",")]
    print(f"| row | {' | '.join(variants)} | saltworks | times as fast | at 100 % of peak | GFLOP/s | of peak | memory |")
    print("|" + "---|" * (len(variants) + 7), flush=True)
    for name in options.rows or ROWS:
        if options.precision != "f32" and ROWS[name]["stage"] == "features":
            print(f"{name}: saltworks computes features in f32", file=sys.stderr)
            continue
        result = compare(name, options)
        print(line(result), flush=True)
        print(json.dumps(result), file=sys.stderr, flush=True)
    print("\nseconds per step: median (minimum); memory: ours over PyTorch's least, whole process")


if __name__ == "__main__":
    main()
