"""Fine-tune a pretrained encoder in timm.

    python examples/finetune_timm.py RUN/student/encoder.safetensors      # needs torch and timm

Without a file it pretrains a small one first, as pretrain_embed_classify.py does.

Output for the encoder of pretrain_embed_classify.py, two shared cores:

    from scratch: 50.3 % after 150 steps
    pretrained: 53.9 % after 150 steps
"""

import json
import sys
import tempfile
from pathlib import Path

import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import saltworks
from pretrain_embed_classify import PIXELS, SHORTER

STEPS, BATCH = 150, 64


def timm_model(path, pretrained=True):
    """The encoder in the file as timm's model, with a new head of 10 classes."""
    with safe_open(path, "pt") as file:
        sizes = json.loads(file.metadata()["model"])
    model = timm.create_model(
        "vit_tiny_patch16_224",
        img_size=tuple(sizes["image"][1:]),
        patch_size=sizes["patch"][1],
        in_chans=sizes["channels"],
        embed_dim=sizes["width"],
        depth=sizes["depth"],
        num_heads=sizes["heads"],
        mlp_ratio=sizes["hidden"] / sizes["width"],
        num_classes=10,
    )
    if pretrained:
        left = model.load_state_dict(load_file(path), strict=False)
        assert left.unexpected_keys == [] and set(left.missing_keys) == {"head.weight", "head.bias"}
    return model


def batches():
    """Shuffled batches of the first 9,000 images, for ever; the last 1,000 test."""
    images, labels = everything()
    images, labels = images[:-1000], labels[:-1000]
    generator = torch.Generator().manual_seed(0)
    while True:
        for chosen in torch.randperm(len(images), generator=generator).split(BATCH):
            yield images[chosen], labels[chosen]


def everything():
    loader = saltworks.Loader("builtin:fashion-mnist", batch=10_000, **PIXELS)
    images, labels = next(iter(loader))
    return torch.from_numpy(images), torch.from_numpy(labels).long()


def finetuned(model):
    """Share of the test images that the model classifies rightly after training."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    for _, (images, labels) in zip(range(STEPS), batches()):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    images, labels = everything()
    with torch.no_grad():
        return (model.eval()(images[-1000:]).argmax(1) == labels[-1000:]).float().mean().item()


def main():
    if len(sys.argv) > 1:
        path = sys.argv[1]
    else:
        out = Path(tempfile.mkdtemp(prefix="saltworks-"))
        path = saltworks.pretrain(out=out / "run", set=SHORTER)["encoders"]["student"]
    torch.manual_seed(0)
    for name, pretrained in [("from scratch", False), ("pretrained", True)]:
        accuracy = finetuned(timm_model(path, pretrained))
        print(f"{name}: {100 * accuracy:.1f} % after {STEPS} steps")


if __name__ == "__main__":
    main()
