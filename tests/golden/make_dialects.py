"""Makes dialect_*: one vision transformer each as others save it, with the features of the same images.

pip install -r requirements.txt
python make_dialects.py

dialect_features.safetensors: images [B,C,H,W] (f32, normalised) and, for each file, its encoder's tokens after the final
norm. Sizes: SMALL_RGB of make_golden.py (32 wide, 2 blocks, 2 heads; 32 x 32 images, patches of 8).
"""

import json
import shutil

import torch
from make_golden import HERE, PREDICTOR, DECODER, SMALL_RGB, Pixels, randomise, salt_model, vit
from safetensors.torch import save_file
from stable_pretraining.methods.mae import MAE
from transformers import ViTConfig, ViTMAEConfig, ViTMAEForPreTraining, ViTModel

SIZES = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128, image_size=32, patch_size=8)


def save(value, name):
    # To a file object: the folder in the archive is then "archive" and no path of this machine.
    with open(HERE / name, "wb") as file:
        torch.save(value, file)


def facebook(encoder):
    """The keys of models_mae.py: timm's, its decoder's, the mask token."""
    decoder = {"mask_token": (1, 1, 16), "decoder_pos_embed": (1, 17, 16), "decoder_embed.weight": (16, 32)}
    decoder |= {"decoder_embed.bias": (16,), "decoder_norm.weight": (16,), "decoder_pred.weight": (192, 16)}
    return {**encoder.state_dict(), **{name: torch.ones(shape) for name, shape in decoder.items()}}


def hugging(model, folder):
    """A folder as save_pretrained leaves it; the version of transformers aside, which is in MANIFEST."""
    shutil.rmtree(HERE / folder, ignore_errors=True)
    randomise(model, 21).eval().save_pretrained(HERE / folder)
    config = json.loads((HERE / folder / "config.json").read_text())
    (HERE / folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    (HERE / folder / "generation_config.json").unlink(missing_ok=True)


@torch.no_grad()
def main():
    pixels = Pixels(SMALL_RGB, 2, 20).normal(torch.float32)
    features = {"images": pixels}

    mae = randomise(MAE(vit(SMALL_RGB), masking=torch.nn.Identity(), **DECODER), 22).eval()
    save({"epoch": 3, "state_dict": mae.state_dict()}, "dialect_spt_mae.ckpt")
    features["spt_mae"] = mae.encoder.vit.forward_features(pixels)

    salt = salt_model(SMALL_RGB, 23).eval()
    save({"state_dict": {f"model.{name}": value for name, value in salt.state_dict().items()}}, "dialect_spt_salt.ckpt")
    features["spt_salt"] = salt.student.vit.forward_features(pixels)
    features["spt_salt_teacher"] = salt.teacher.backbone.vit.forward_features(pixels)

    encoder = randomise(vit(SMALL_RGB), 24).eval()
    save({"model": facebook(encoder)}, "dialect_facebook.pth")
    features["facebook"] = encoder.forward_features(pixels)

    model = ViTModel(ViTConfig(**SIZES, layer_norm_eps=1e-6))
    hugging(model, "dialect_hf")
    features["hf"] = model(pixels).last_hidden_state

    decoder = dict(decoder_hidden_size=16, decoder_num_hidden_layers=1, decoder_num_attention_heads=2, decoder_intermediate_size=32)
    model = ViTMAEForPreTraining(ViTMAEConfig(**SIZES, **decoder, layer_norm_eps=1e-6, mask_ratio=0.0))
    hugging(model, "dialect_hf_mae")
    # In the order of the patches, not in that of the noise.
    noise = torch.arange(16.0).expand(2, -1)
    features["hf_mae"] = model.vit(pixels, noise=noise).last_hidden_state
    # transformers 5 names in memory what it names otherwise in files.
    save(model.state_dict(), "dialect_hf_memory.pt")
    features["hf_memory"] = features["hf_mae"].clone()

    save_file({name: value.contiguous() for name, value in features.items()}, HERE / "dialect_features.safetensors")


main()
