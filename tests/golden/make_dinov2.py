"""Makes dialect_dinov2*: an encoder with registers and layer scale, as facebookresearch/dinov2 and transformers save it.

pip install -r requirements.txt
python make_dinov2.py

dialect_hf_dinov2/: Dinov2WithRegistersModel in several files with an index.
dialect_dinov2.pth: a training file of facebookresearch/dinov2 with a student and a teacher. Their blocks are in chunks.
dialect_dinov2_features.safetensors: images [B,C,H,W] (f32, normalised), the tokens of transformers (`hf`), and those of timm,
which converts the names of facebookresearch/dinov2 itself (`teacher`, `student`). Sizes as in make_dialects.py.
"""

import json
import shutil

import timm
import torch
from make_golden import HERE, SMALL_RGB, Pixels, randomise
from safetensors.torch import save_file
from timm.models.vision_transformer import checkpoint_filter_fn
from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

SIZES = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, mlp_ratio=4, image_size=32, patch_size=8)
REGISTERS = 3


def save(value, name):
    # To a file object: the folder in the archive is then "archive" and no path of this machine.
    with open(HERE / name, "wb") as file:
        torch.save(value, file)


def hugging(seed):
    config = Dinov2WithRegistersConfig(**SIZES, num_register_tokens=REGISTERS, layer_norm_eps=1e-6)
    return randomise(Dinov2WithRegistersModel(config), seed).eval()


def facebook(model):
    """The names of facebookresearch/dinov2, models/vision_transformer.py, with a block in each chunk."""
    theirs = model.state_dict()
    names = {"embeddings.cls_token": "cls_token", "embeddings.mask_token": "mask_token"}
    names |= {"embeddings.position_embeddings": "pos_embed", "embeddings.register_tokens": "register_tokens"}
    for kind in ["weight", "bias"]:
        names |= {f"embeddings.patch_embeddings.projection.{kind}": f"patch_embed.proj.{kind}"}
        names |= {f"layernorm.{kind}": f"norm.{kind}"}
    ours = {new: theirs[old] for old, new in names.items()}
    for block in range(SIZES["num_hidden_layers"]):
        def part(names, kind):
            found = [theirs[name] for name in theirs if any(name.endswith(f".{block}.{n}.{kind}") for n in names)]
            return torch.cat(found)

        here = f"blocks.{block}.{block}."
        for kind in ["weight", "bias"]:
            layers = [[f"attention.attention.{n}", f"attention.{n[0]}_proj"] for n in ["query", "key", "value"]]
            ours[f"{here}attn.qkv.{kind}"] = torch.cat([part(names, kind) for names in layers])
            ours[f"{here}attn.proj.{kind}"] = part(["attention.output.dense", "attention.o_proj"], kind)
            for name in ["norm1", "norm2", "mlp.fc1", "mlp.fc2"]:
                ours[f"{here}{name}.{kind}"] = part([name], kind)
        for n in [1, 2]:
            ours[f"{here}ls{n}.gamma"] = part([f"layer_scale{n}"], "lambda1")
    return ours


def timms(ours):
    """The same weights in timm's model."""
    blocks = {n.replace("blocks.0.0.", "blocks.0.").replace("blocks.1.1.", "blocks.1."): v for n, v in ours.items()}
    options = dict(reg_tokens=REGISTERS, no_embed_class=True, init_values=1.0, num_classes=0)
    sizes = dict(img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2)
    model = timm.create_model("vit_tiny_patch16_224", **sizes, **options)
    model.load_state_dict(checkpoint_filter_fn(blocks, model), strict=True)
    return model.eval()


@torch.no_grad()
def main():
    pixels = Pixels(SMALL_RGB, 2, 40).normal(torch.float32)
    features = {"images": pixels}
    parts = {}
    for part, seed in [("teacher", 41), ("student", 42)]:
        ours = facebook(hugging(seed))
        features[part] = timms(ours).forward_features(pixels)
        head = {"dino_head.mlp.0.weight": torch.ones(4, 32)}
        parts[part] = {**{f"backbone.{name}": value for name, value in ours.items()}, **head}
    parts["student"] = {f"module.{name}": value for name, value in parts["student"].items()}
    optimizer = {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.ones(5)}}, "param_groups": [{"lr": 1e-3}]}
    save({**parts, "optimizer": optimizer, "iteration": 9}, "dialect_dinov2.pth")

    model = hugging(41)
    features["hf"] = model(pixels).last_hidden_state
    folder = HERE / "dialect_hf_dinov2"
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder, max_shard_size="60KB")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    save_file({name: value.contiguous() for name, value in features.items()}, HERE / "dialect_dinov2_features.safetensors")


main()
