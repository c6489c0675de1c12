"""Makes videomae.safetensors: loss, predictions and all gradients of transformers' VideoMAE with random weights.

pip install torch==2.15.0 transformers==5.23.0 numpy==2.4.6 safetensors==0.8.0
python make_videomae.py          # writes videomae.safetensors and its lines of MANIFEST

Everything runs in float64 and is rounded to float32. Names in the file are those of make_golden.py, so weights and
gradients stand under saltworks' names. VideoMAE differs from saltworks in what no option of either expresses:

* Queries and values have biases, keys have none. Here the keys' part of `attn.qkv.bias` is zero, and so is its gradient.
* The mask token has the decoder's width. Here it is query_proj(mask_token), with a random projection.
* The projection to the decoder has no bias. Here it gets one of zeros, so that there is a gradient of it.
* Positions are fixed tables of one axis. Here the encoder's is a random table that learns, and the decoder's is
  saltworks' table of three axes.
* The decoder's block norms add `layer_norm_eps`, its last norm 1e-5. Here all of them add 1e-5.
* Pixels are normalised back to 0 to 1 before patches are normalised, so 1e-6 is added to another deviation: the loss
  differs by some 1e-6 of itself.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import save_file
from transformers import VideoMAEConfig, VideoMAEForPreTraining

HERE = Path(__file__).parent
NAME = "videomae.safetensors"
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
SIZES = dict(img_size=[4, 12, 16], patch_size=[2, 4, 4], in_chans=3, embed_dim=24, depth=2, num_heads=3, class_token=False)
DECODER = dict(decoder_embed_dim=24, decoder_depth=1, decoder_num_heads=2)
SAMPLES, GRID, MASKED = 2, (2, 3, 4), 16


def config():
    return VideoMAEConfig(
        image_size=(12, 16), patch_size=4, num_channels=3, num_frames=4, tubelet_size=2,
        hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=96, hidden_act="gelu",
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, layer_norm_eps=1e-6, use_mean_pooling=False,
        decoder_hidden_size=24, decoder_num_hidden_layers=1, decoder_num_attention_heads=2,
        decoder_intermediate_size=96, norm_pix_loss=True,
    )  # fmt: skip


def sincos(width, grid):
    """saltworks' fixed table: sines and cosines of time, row and column, a third of the width each."""
    part = 2 * -(-width // 6)
    places = np.stack(np.meshgrid(*map(np.arange, grid), indexing="ij"), -1).reshape(-1, 3)
    angles = places[:, :, None] * 10_000.0 ** (-np.arange(part // 2) / (part // 2))
    table = np.concatenate([np.sin(angles), np.cos(angles)], -1).reshape(len(places), -1)[:, :width]
    return torch.from_numpy(table.astype(np.float32)).double()[None]


def random(rng, *shape, scale=1.0, start=0.0):
    return torch.from_numpy((start + scale * rng.normal(size=shape)).astype(np.float32)).double()


def randomise(model, rng):
    """Every parameter gets values that matter: no zero bias, no norm weight of one, gains of about one."""
    for name, parameter in model.named_parameters():
        shape = parameter.shape
        if len(shape) == 1 or "token" in name:
            is_scale = "norm" in name and name.endswith("weight")
            value = random(rng, *shape, scale=0.2, start=1.0 if is_scale else 0.0)
        else:
            value = random(rng, *shape, scale=np.prod(shape[1:]) ** -0.5)
        with torch.no_grad():
            parameter.copy_(value)


def ours(theirs, values):
    """Their weights, or gradients, under our names."""
    theirs = {name: value for name, value in theirs.items() if name != "mask_token"}
    renamed = {}
    names = {
        "videomae.embeddings.patch_embeddings.projection.": "encoder.vit.patch_embed.proj.",
        "videomae.layernorm.": "encoder.vit.norm.",
        "encoder_to_decoder.": "decoder.transformer.context_proj.",
        "decoder.norm.": "decoder.transformer.final_norm.",
        "decoder.head.": "decoder.transformer.output_proj.",
    }
    blocks = {"videomae.encoder.layer.": "encoder.vit.blocks.", "decoder.decoder_layers.": "decoder.transformer.blocks."}
    parts = {
        "layernorm_before.": "norm1.",
        "layernorm_after.": "norm2.",
        "attention.output.dense.": "attn.proj.",
        "intermediate.dense.": "mlp.fc1.",
        "output.dense.": "mlp.fc2.",
    }
    for name, value in theirs.items():
        block = next((b for b in blocks if name.startswith(b)), None)
        if block is None:
            start = next(n for n in names if name.startswith(n))
            renamed[names[start] + name[len(start):]] = value
            continue
        number, part = name[len(block):].split(".", 1)
        prefix = f"{blocks[block]}{number}."
        start = next((p for p in parts if part.startswith(p)), None)
        if start:
            renamed[prefix + parts[start] + part[len(start):]] = value
        elif part.endswith("query.weight"):
            stem = name[: -len("query.weight")]
            renamed[f"{prefix}attn.qkv.weight"] = torch.cat([theirs[f"{stem}{x}.weight"] for x in ("query", "key", "value")])
            q, v = theirs[f"{stem}query.bias"], theirs[f"{stem}value.bias"]
            renamed[f"{prefix}attn.qkv.bias"] = torch.cat([q, torch.zeros_like(q), v])
    return renamed | values


def make():
    rng = np.random.default_rng(800)
    model = VideoMAEForPreTraining(config()).double().eval()
    model.encoder_to_decoder.bias = torch.nn.Parameter(torch.zeros(24, dtype=torch.float64))
    randomise(model, rng)
    torch.nn.init.zeros_(model.encoder_to_decoder.bias)
    for module in model.decoder.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = 1e-5
    position = random(rng, 1, 24, 24, scale=0.2)
    model.videomae.embeddings.position_embeddings = position
    model.position_embeddings = sincos(24, GRID)
    # token = weight @ mask_token + bias
    weight, token, bias = random(rng, 24, 24, scale=0.2), random(rng, 24), random(rng, 24, scale=0.2)
    with torch.no_grad():
        model.mask_token.copy_((weight @ token + bias).reshape(1, 1, 24))

    pixels = torch.from_numpy(rng.integers(0, 256, (SAMPLES, 3, 4, 12, 16)).astype(np.uint8))
    mean, std = (torch.tensor(x, dtype=torch.float64).reshape(1, 3, 1, 1, 1) for x in (MEAN, STD))
    normal = ((pixels.double() / 255 - mean) / std).transpose(1, 2)  # [B, T, C, H, W]
    target = torch.stack([torch.from_numpy(np.sort(rng.permutation(24)[:MASKED])) for _ in range(SAMPLES)])
    masked = torch.zeros(SAMPLES, 24, dtype=torch.bool).scatter_(1, target, True)
    # VideoMAE detaches its table, so its gradient is taken from the patches that it is added to.
    patches = []
    embeddings = model.videomae.embeddings.patch_embeddings
    embeddings.register_forward_hook(lambda _, __, y: (y.retain_grad(), patches.append(y))[-1])
    out = model(normal, bool_masked_pos=masked)
    out.loss.backward()

    named = dict(model.named_parameters())
    values = {
        "encoder.vit.pos_embed": position,
        "decoder.mask_token": token.reshape(1, 1, 24),
        "decoder.transformer.query_proj.weight": weight,
        "decoder.transformer.query_proj.bias": bias,
    }
    came = model.mask_token.grad.reshape(24)
    gradients = {
        "encoder.vit.pos_embed": patches[0].grad.sum(0, keepdim=True),
        "decoder.mask_token": (weight.T @ came).reshape(1, 1, 24),
        "decoder.transformer.query_proj.weight": came[:, None] * token[None],
        "decoder.transformer.query_proj.bias": came,
    }
    tensors = {
        "input/images": pixels,
        "input/mean": torch.tensor(MEAN),
        "input/std": torch.tensor(STD),
        "input/context": (~masked).nonzero()[:, 1].reshape(SAMPLES, -1),
        "input/target": target,
        "output/loss": out.loss.reshape(1),
        "output/predictions": out.logits.reshape(SAMPLES * MASKED, -1),
    }
    tensors |= {f"weights/{k}": v for k, v in ours({k: p.data for k, p in named.items()}, values).items()}
    tensors |= {f"grad/{k}": v for k, v in ours({k: p.grad for k, p in named.items()}, gradients).items()}
    return tensors, dict(model=SIZES, decoder=DECODER)


def stored(tensor):
    kinds = {torch.int64: torch.int32, torch.float64: torch.float32}
    return tensor.detach().to(kinds.get(tensor.dtype, tensor.dtype)).contiguous().clone()


def main():
    torch.set_num_threads(1)
    tensors, config = make()
    packages = (("torch", torch), ("transformers", transformers), ("numpy", np))
    versions = ", ".join(f"{name} {package.__version__.split('+')[0]}" for name, package in packages)
    made_by = f"make_videomae.py, {versions}"
    save_file({k: stored(v) for k, v in tensors.items()}, HERE / NAME, dict(config=json.dumps(config, sort_keys=True), made_by=made_by))
    manifest = HERE / "MANIFEST"
    lines = [x for x in manifest.read_text().splitlines() if "videomae" not in x]
    lines += [f"# {made_by}", f"{hashlib.sha256((HERE / NAME).read_bytes()).hexdigest()}  {NAME}"]
    manifest.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
