"""Makes timm_*: encoders of timm that have more than the plain ones, as files hold them, and their features.

pip install -r requirements.txt
python make_timm.py

timm_fine_tuned.pth: a fine-tuned classifier as facebookresearch/mae saves it, with a norm behind the mean of the patches.
timm_NAME.safetensors: the state dict of one of VARIANTS.
timm_dinov2_swiglu.pth: the weights of timm_swiglu under the names of facebookresearch/dinov2.
timm_hf_swiglu/, timm_hf_eps/: Dinov2Model and ViTModel of transformers.
timm_features.safetensors: images [B,C,H,W] (f32, normalised) as `images`, and `wide` for images of 32 x 64. For each file its
tokens (`NAME.tokens`, timm's forward_features or transformers' last_hidden_state), and of timm's also `NAME.pooled`, what goes
into the head (`forward_head(pre_logits=True)`). Sizes: SMALL_RGB of make_golden.py, 32 wide, 2 blocks, 2 heads.
"""

import json
import shutil
from functools import partial

import torch
from make_golden import HERE, SMALL_RGB, Pixels, randomise
from safetensors.torch import save_file
from timm.layers import LayerNorm, SwiGLUPacked
from timm.models.vision_transformer import VisionTransformer
from transformers import Dinov2Config, Dinov2Model, ViTConfig, ViTModel

SIZES = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8)
VARIANTS = {
    # CLIP's: its patches have no bias.
    "pre_norm": dict(pre_norm=True, norm_layer=partial(LayerNorm, eps=1e-5)),
    "eps": dict(norm_layer=partial(LayerNorm, eps=1e-3)),
    # DINOv2's giant.
    "swiglu": dict(mlp_layer=SwiGLUPacked, act_layer=torch.nn.SiLU, mlp_ratio=2.66667 * 2, init_values=1e-5),
    # 4 x 8 patches, and 2 x 8, which are as many as 4 x 4.
    "wide": dict(img_size=(32, 64)),
    "flat": dict(img_size=(16, 64)),
}


def save(value, name):
    # To a file object: the folder in the archive is then "archive" and no path of this machine.
    with open(HERE / name, "wb") as file:
        torch.save(value, file)


def timms(seed, classes=0, **options):
    return randomise(VisionTransformer(**{**SMALL_RGB, **options}, num_classes=classes), seed).eval()


def facebooks(state):
    """Names of facebookresearch/dinov2's SwiGLU."""
    return {name.replace("mlp.fc1", "mlp.w12").replace("mlp.fc2", "mlp.w3"): value for name, value in state.items()}


def hugging(model, seed, name):
    """A folder as save_pretrained leaves it."""
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    randomise(model, seed).eval().save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    (folder / "generation_config.json").unlink(missing_ok=True)
    return model


@torch.no_grad()
def main():
    pixels = Pixels(SMALL_RGB, 2, 60).normal(torch.float32)
    sizes = {"wide": (32, 64), "flat": (16, 64)}
    other = {name: Pixels(SMALL_RGB, 2, 61, size).normal(torch.float32) for name, size in sizes.items()}
    features = {"images": pixels, **other}

    def add(name, model):
        tokens = model.forward_features(other.get(name, pixels))
        features[f"{name}.tokens"] = tokens
        features[f"{name}.pooled"] = model.forward_head(tokens, pre_logits=True)

    tuned = timms(62, classes=5, global_pool="avg")
    save({"model": tuned.state_dict(), "epoch": 99}, "timm_fine_tuned.pth")
    add("fine_tuned", tuned)
    for at, (name, options) in enumerate(VARIANTS.items()):
        model = timms(63 + at, **options)
        save_file(model.state_dict(), HERE / f"timm_{name}.safetensors")
        add(name, model)
        if name == "swiglu":
            theirs = {**facebooks(model.state_dict()), "mask_token": torch.ones(1, 32)}
            save({"teacher": theirs}, "timm_dinov2_swiglu.pth")

    model = Dinov2Model(Dinov2Config(**SIZES, mlp_ratio=4, use_swiglu_ffn=True, layer_norm_eps=1e-6))
    features["hf_swiglu.tokens"] = hugging(model, 70, "timm_hf_swiglu")(pixels).last_hidden_state
    model = ViTModel(ViTConfig(**SIZES, intermediate_size=128, layer_norm_eps=1e-3), add_pooling_layer=False)
    features["hf_eps.tokens"] = hugging(model, 71, "timm_hf_eps")(pixels).last_hidden_state
    save_file({name: value.contiguous() for name, value in features.items()}, HERE / "timm_features.safetensors")


main()
