"""Times stable-pretraining's training step on random images: masks, forward, backward, AdamW.

python benches/vs_pytorch.py --stage salt --model vit_tiny_patch16_224 --batch 16 --steps 10
One JSON line per step, then one with median and minimum. Needs tests/golden/requirements.txt.
"""

import argparse
import json
import os
import statistics
import time


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stage", choices=["salt", "mae"], default="salt")
    parser.add_argument("--model", default="vit_tiny_patch16_224")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--warmup", type=int, default=2, help="steps before the clock counts")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compile", action="store_true", help="torch.compile the method; give it a longer warmup")
    parser.add_argument("--masking", choices=["multi-block", "random"], default="multi-block", help="of mae")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def build(options):
    """The method with its defaults: SALT's predictor is 384 x 12, MAE's decoder 512 x 8."""
    from stable_pretraining.backbone import MultiBlockMasking
    from stable_pretraining.methods.mae import MAE
    from stable_pretraining.methods.salt import SALT

    if options.stage == "salt":
        return SALT(options.model)
    return MAE(options.model, masking=MultiBlockMasking() if options.masking == "multi-block" else None)


def counts(stage, out):
    """Context and target patches of one sample."""
    if stage == "salt":
        return out.num_context, out.num_targets
    return out.num_visible, out.num_masked


def main():
    options = arguments()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)  # before torch is imported
    import torch

    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    model = build(options).train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, betas=(0.9, 0.95), weight_decay=0.05)
    vit = (model.student if options.stage == "salt" else model.encoder).vit
    channels, (height, width) = vit.patch_embed.proj.in_channels, vit.patch_embed.img_size
    forward = torch.compile(model, dynamic=True) if options.compile else model

    seconds, context, target = [], [], []
    for step in range(-options.warmup, options.steps):
        images = torch.randn(options.batch, channels, height, width)
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        out = forward(images)
        out.loss.backward()
        optimizer.step()
        elapsed = time.perf_counter() - start
        if step < 0:
            continue
        k, m = counts(options.stage, out)
        seconds.append(elapsed), context.append(k), target.append(m)
        line = {"step": step, "seconds": elapsed, "context": k, "target": m, "loss": out.loss.item()}
        print(json.dumps(line), flush=True)

    summary = {
        "seconds_per_step_median": statistics.median(seconds),
        "seconds_per_step_min": min(seconds),
        "images_per_second": options.batch / statistics.median(seconds),
        "context_mean": statistics.mean(context),
        "target_mean": statistics.mean(target),
        "torch": torch.__version__,
        "compile": options.compile,
        "threads": options.threads,
    }
    print(json.dumps(summary), flush=True)


if __name__ == "__main__":
    main()
