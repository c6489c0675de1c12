"""Makes vjepa2_*.safetensors: SALT on clips with the networks of transformers' VJEPA2 and random weights.

pip install torch==2.15.0 transformers==5.24.0 numpy==2.4.6 safetensors==0.8.0
python make_vjepa2.py            # writes the files and their lines of MANIFEST

transformers has no training step, so its modules are called one by one. Two masks of each clip, one pass of the teacher,
whose tokens go through a layer norm without parameters. The student encodes each context by itself. The loss is L1 over the
targets of each mask, and the mean over both masks (facebookresearch/vjepa2, app/vjepa/train.py, with a frozen teacher).

Everything runs in float64 and is rounded to float32. Names in a file are those of make_golden.py, so weights and gradients
stand under saltworks' names. Queries, keys and values are one weight here.

tiled: rotary positions as in transformers, one mask token for both masks, heads of 24 and 16 values.
interleaved: a rotation, as in V-JEPA 2.1. transformers lacks it, so its function is replaced by `rotation` below. Each mask has
a mask token of its own. Heads of 32 and 8 values.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import save_file
from transformers import VJEPA2Config, VJEPA2Model
from transformers.models.vjepa2 import modeling_vjepa2

HERE = Path(__file__).parent
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
SAMPLES, GRID = 2, (2, 3, 3)
CASES = {
    "tiled": dict(hidden_size=48, num_attention_heads=2, pred_hidden_size=32, pred_num_attention_heads=2, seed=900),
    "interleaved": dict(hidden_size=32, num_attention_heads=1, pred_hidden_size=24, pred_num_attention_heads=3, seed=901),
}
# Targets of each mask of each clip. All others are its context.
TARGETS = [
    [[0, 1, 3, 4, 9, 10, 12, 13], [4, 5, 7, 8, 13, 14, 16, 17]],
    [[0, 1, 2, 3, 4, 5, 6, 9, 10, 11, 12, 13, 14, 15], [1, 2, 4, 5, 6, 7, 8, 10, 11, 13, 14, 15, 16, 17]],
]


def rotation(x, pos):
    """RoFormer (arXiv 2104.09864), eq. 34: both values of a pair have one angle."""
    half = x.shape[-1] // 2
    angle = pos.unsqueeze(-1) * 10_000.0 ** -(torch.arange(half, dtype=x.dtype) / half)
    even, odd = x[..., 0::2], x[..., 1::2]
    turned = torch.stack((even * angle.cos() - odd * angle.sin(), odd * angle.cos() + even * angle.sin()), dim=-1)
    return turned.flatten(-2)


def config(seed, **sizes):
    return VJEPA2Config(
        patch_size=4, crop_size=12, frames_per_clip=4, tubelet_size=2, in_chans=3, num_hidden_layers=2, mlp_ratio=4,
        layer_norm_eps=1e-6, qkv_bias=True, attention_probs_dropout_prob=0.0, drop_path_rate=0.0,
        pred_num_hidden_layers=2, pred_mlp_ratio=4.0, pred_num_mask_tokens=2, **sizes,
    )  # fmt: skip


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
    return model.double().eval()


def encoded(encoder, pixels, context=None):
    """Tokens of the patches in `context` [B, K], or of all."""
    hidden = encoder.embeddings(pixels)
    if context is not None:
        hidden = modeling_vjepa2.apply_masks(hidden, [context])
    for layer in encoder.layer:
        hidden = layer(hidden, context)[0]
    return encoder.layernorm(hidden)


def predicted(predictor, tokens, context, target, mask_index):
    embeddings = predictor.embeddings
    hidden, places = embeddings(tokens, [context], [target], mask_index=mask_index)
    for layer in predictor.layer:
        hidden = layer(hidden, places)[0]
    hidden = predictor.layernorm(hidden)
    return predictor.proj(hidden[:, context.shape[1] :])


def ours(theirs, prefix):
    """Their weights, or gradients, below `prefix` of a model, under our names."""
    names = {
        "encoder.embeddings.patch_embeddings.proj.": "vit.patch_embed.proj.",
        "encoder.layernorm.": "vit.norm.",
        "predictor.embeddings.predictor_embeddings.": "context_proj.",
        "predictor.layernorm.": "final_norm.",
        "predictor.proj.": "output_proj.",
    }
    renamed = {}
    for name, value in theirs.items():
        part = name.split(".", 1)[0]
        blocks = "vit.blocks." if part == "encoder" else "blocks."
        if ".layer." not in name:
            start = next((n for n in names if name.startswith(n)), None)
            if start:
                renamed[prefix + names[start] + name[len(start) :]] = value
            continue
        number, rest = name.split(".layer.")[1].split(".", 1)
        here = f"{prefix}{blocks}{number}."
        if rest.startswith("attention.query."):
            kind = rest.rsplit(".", 1)[1]
            stem = name[: -len(f"query.{kind}")]
            renamed[f"{here}attn.qkv.{kind}"] = torch.cat([theirs[f"{stem}{x}.{kind}"] for x in ("query", "key", "value")])
        elif rest.startswith("attention.proj."):
            renamed[here + rest.replace("attention.", "attn.")] = value
        elif not rest.startswith("attention."):
            renamed[here + rest] = value
    return renamed


def make(case):
    sizes = CASES[case]
    rng = np.random.default_rng(sizes["seed"])
    shared = case == "tiled"
    modeling_vjepa2.rotate_queries_or_keys = TILED if shared else rotation
    teacher, model = (randomise(VJEPA2Model(config(**sizes)), rng) for _ in range(2))
    pixels = torch.from_numpy(rng.integers(0, 256, (SAMPLES, 3, 4, 12, 12)).astype(np.uint8))
    mean, std = (torch.tensor(x, dtype=torch.float64).reshape(1, 3, 1, 1, 1) for x in (MEAN, STD))
    normal = ((pixels.double() / 255 - mean) / std).transpose(1, 2)  # [B, T, C, H, W]
    targets = [torch.tensor(target) for target in TARGETS]
    every = set(range(int(np.prod(GRID))))
    contexts = [torch.tensor([sorted(every - set(row)) for row in target]) for target in TARGETS]

    with torch.no_grad():
        all_tokens = encoded(teacher.encoder, normal)
        assert torch.equal(all_tokens, teacher(normal, skip_predictor=True).last_hidden_state)
        goals = torch.nn.functional.layer_norm(all_tokens, all_tokens.shape[-1:])
    losses, results = [], {}
    for index, (context, target) in enumerate(zip(contexts, targets)):
        tokens = encoded(model.encoder, normal, context)
        prediction = predicted(model.predictor, tokens, context, target, 1 if shared else index)
        goal = modeling_vjepa2.apply_masks(goals, [target])
        losses.append((prediction - goal).abs().mean())
        if shared:
            # The published forward pass, which reads all tokens and gathers the context.
            whole = torch.zeros_like(all_tokens).scatter(1, context[..., None].expand(-1, -1, tokens.shape[-1]), tokens)
            again = model.predictor(whole, [context], [target]).last_hidden_state
            assert torch.allclose(prediction, again, atol=1e-12)
        for name, value in (("context", tokens), ("predictions", prediction), ("targets", goal)):
            results[f"output/{name}/{index}"] = value.reshape(-1, value.shape[-1])
    loss = sum(losses) / len(losses)
    loss.backward()

    tokens = model.predictor.embeddings.mask_tokens
    kept = slice(1, 2) if shared else slice(None)
    tensors = {
        "input/images": pixels,
        "input/mean": torch.tensor(MEAN),
        "input/std": torch.tensor(STD),
        "output/loss": loss.reshape(1),
        "output/teacher": all_tokens.reshape(-1, all_tokens.shape[-1]),
        "weights/predictor.mask_token": tokens.data[kept, 0],
        "grad/predictor.mask_token": tokens.grad[kept, 0],
    } | results
    for index, (context, target) in enumerate(zip(contexts, targets)):
        tensors |= {f"input/context/{index}": context, f"input/target/{index}": target}
    named = dict(model.named_parameters())
    for kind, values in (("weights", {k: p.data for k, p in named.items()}), ("grad", {k: p.grad for k, p in named.items()})):
        for part, prefix in (("encoder", "student."), ("predictor", "predictor.")):
            own = {name: value for name, value in values.items() if name.startswith(part)}
            tensors |= {f"{kind}/{name}": value for name, value in ours(own, prefix).items()}
    theirs = {name: value for name, value in teacher.state_dict().items() if name.startswith("encoder")}
    tensors |= {f"weights/{name}": value for name, value in ours(theirs, "teacher.backbone.").items()}
    width, heads = sizes["hidden_size"], sizes["num_attention_heads"]
    vit = dict(img_size=[4, 12, 12], patch_size=[2, 4, 4], in_chans=3, embed_dim=width, depth=2, num_heads=heads, class_token=False, rope=case)
    predictor = dict(predictor_embed_dim=sizes["pred_hidden_size"], predictor_depth=2, predictor_num_heads=sizes["pred_num_attention_heads"])
    return tensors, dict(model=vit, predictor=predictor)


def stored(tensor):
    kinds = {torch.int64: torch.int32, torch.float64: torch.float32}
    return tensor.detach().to(kinds.get(tensor.dtype, tensor.dtype)).contiguous().clone()


TILED = modeling_vjepa2.rotate_queries_or_keys


def main():
    torch.set_num_threads(1)
    packages = (("torch", torch), ("transformers", transformers), ("numpy", np))
    versions = ", ".join(f"{name} {package.__version__.split('+')[0]}" for name, package in packages)
    made_by = f"make_vjepa2.py, {versions}"
    manifest = HERE / "MANIFEST"
    lines = [x for x in manifest.read_text().splitlines() if "vjepa2" not in x] + [f"# {made_by}"]
    for case in CASES:
        tensors, sizes = make(case)
        path = HERE / f"vjepa2_{case}.safetensors"
        metadata = dict(config=json.dumps(sizes, sort_keys=True), made_by=made_by)
        save_file({k: stored(v) for k, v in tensors.items()}, path, metadata)
        lines.append(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}")
    manifest.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
