"""Makes the golden files of encoders, MAE, SALT, masks and position tables from timm and stable-pretraining.

pip install -r requirements.txt
python make_golden.py            # writes *.safetensors and their lines of MANIFEST
python make_golden.py --check    # makes them again and compares with what is here
python make_golden.py salt mae   # only files whose names start so

Weights and pixels come from numpy's PCG64, masks from the reference's own samplers on a seeded generator. Models run in
float64 and results are rounded to float32, so they hardly depend on the machine; the float32 results of the reference
differ from them by what `float32:` prints. REFERENCE.md says what each tensor means to the reference.

Names in a file: weights/<state dict name>, input/images (u8 [B,C,H,W]), input/mean, input/std [C], input/context and
input/target (int32 [B,K], [B,M], ascending), output/..., grad/<parameter>. Metadata: config (JSON).
"""

import argparse
import hashlib
import json
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import timm
import torch
from loguru import logger
from safetensors import safe_open
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed
from timm.models.vision_transformer import VisionTransformer

logger.remove()
import stable_pretraining  # noqa: E402  (its imports log)
from stable_pretraining.backbone import MaskedEncoder, MultiBlockMasking, PatchMasking  # noqa: E402
from stable_pretraining.backbone.patch_masking import MaskingOutput  # noqa: E402
from stable_pretraining.backbone.pos_embed import (  # noqa: E402
    get_2d_sincos_pos_embed,
    get_3d_sincos_pos_embed,
    interpolate_pos_embed,
)
from stable_pretraining.data.masking import multi_block_mask  # noqa: E402
from stable_pretraining.methods.mae import MAE  # noqa: E402
from stable_pretraining.methods.salt import SALT  # noqa: E402

logger.remove()
HERE = Path(__file__).parent
RGB = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
GRAY = {"mean": [0.286], "std": [0.353]}
SMALL_RGB = dict(img_size=32, patch_size=8, in_chans=3, embed_dim=32, depth=2, num_heads=2)
SMALL_GRAY = dict(img_size=28, patch_size=4, in_chans=1, embed_dim=24, depth=2, num_heads=3)
ADAMW = dict(lr=1e-3, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.05)


# ---------------------------------------------------------------------------------------------- what goes in


def vit(sizes):
    return VisionTransformer(num_classes=0, **sizes)


def randomise(model, seed):
    """Every parameter gets values that matter: no zero bias, no norm weight of one, gains of about one."""
    rng = np.random.default_rng(seed)
    for name, parameter in model.named_parameters():
        value = rng.normal(size=parameter.shape)
        leaf, owner = name.rsplit(".", 1)[-1], name.rsplit(".", 2)[-2] if "." in name else ""
        if leaf == "gamma":
            value = 0.1 * (1 + 0.3 * value)
        elif leaf == "bias" or "token" in leaf or leaf == "pos_embed":
            value = 0.2 * value
        elif "norm" in owner:
            value = 1 + 0.2 * value
        else:
            value = value / np.sqrt(np.prod(parameter.shape[1:]))
        with torch.no_grad():
            parameter.copy_(torch.from_numpy(value.astype(np.float32)))
    return model


class Pixels:
    """u8 images of one model's size, and the same normalised for the reference."""

    def __init__(self, sizes, batch, seed, size=None):
        self.stats = RGB if sizes["in_chans"] == 3 else GRAY
        height, width = size or (sizes["img_size"],) * 2
        shape = (batch, sizes["in_chans"], height, width)
        rng = np.random.default_rng([seed, 1])
        # Noise on a slope: patches differ in mean and in variance.
        slope = np.linspace(0, 1, width) * np.linspace(0.2, 1, height)[:, None]
        self.bytes = torch.from_numpy((slope * rng.integers(0, 256, shape)).astype(np.uint8))

    def normal(self, dtype=torch.float64):
        mean, std = (torch.tensor(self.stats[k], dtype=dtype).view(1, -1, 1, 1) for k in ("mean", "std"))
        return (self.bytes.to(dtype) / 255 - mean) / std

    def tensors(self):
        stats = {f"input/{k}": torch.tensor(v) for k, v in self.stats.items()}
        return {"input/images": self.bytes, **stats}


class Fixed(torch.nn.Module):
    """Stands where the masking module draws: gives the visible patches it was told, [B, K]."""

    def __init__(self, context, count):
        super().__init__()
        self.context, self.count = context, count

    def forward(self, x, grid_h, grid_w):
        assert x.shape[1] == self.count == grid_h * grid_w
        index = self.context.unsqueeze(-1).expand(-1, -1, x.shape[-1])
        mask = torch.ones(x.shape[0], self.count).scatter_(1, self.context, 0.0)
        return MaskingOutput(visible=x.gather(1, index), mask=mask, ids_restore=None, ids_keep=self.context)


def draw(masking, batch, grid, seed):
    """Visible patches [B, K] of the reference's masking, ascending."""
    torch.manual_seed(seed)
    masking.train()
    return masking(torch.zeros(batch, grid * grid, 1), grid, grid).ids_keep.sort(dim=1).values


def draw_salt(batch, grid, seed):
    """Context [B, K] and target [B, M] of SALT's own draw, one for the batch."""
    torch.manual_seed(seed)
    context, target = SALT._generate_masks(SALT_MASKS, grid, grid, torch.device("cpu"))
    return context.expand(batch, -1), target.expand(batch, -1)


SALT_MASKS = SimpleNamespace(
    num_targets=4, context_scale=(0.85, 1.0), target_scale=(0.15, 0.2),
    context_aspect_ratio=(1.0, 1.0), target_aspect_ratio=(0.75, 1.5),
)  # fmt: skip


def others(context, count):
    """Patches [B, N-K] that are not in the context [B, K]."""
    return torch.stack([torch.tensor(sorted(set(range(count)) - set(row.tolist()))) for row in context])


def weights(model, prefix="weights/"):
    """The state dict without the second name of the patch embedding and without the position buffers."""
    state = model.state_dict()
    names = {k for k, _ in model.named_parameters()}
    return {prefix + k: v for k, v in state.items() if k in names}


def gradients(model):
    return {f"grad/{k}": p.grad for k, p in model.named_parameters() if p.grad is not None}


def reset(model):
    """The same weights once more, in float32, for the comparison of precisions."""
    model.float()
    model.zero_grad(set_to_none=True)
    return model


def note_bf16(name, model, pixels, tensors):
    """Prints how far a step under bf16 autocast is from the one in float64, as relative L2 errors."""
    model.zero_grad(set_to_none=True)
    with torch.autocast("cpu", torch.bfloat16):
        out = model.train()(pixels.normal(torch.float32))
    out.loss.backward()
    found, exact = gradients(model), {k: v for k, v in tensors.items() if k.startswith("grad/")}
    join = lambda values: torch.cat([values[k].double().flatten() for k in sorted(exact)])  # noqa: E731
    far = lambda got, want: ((got.double() - want).norm() / want.norm()).item()  # noqa: E731
    errors = far(out.loss, tensors["output/loss"][0]), far(out.predictions, tensors["output/predictions"])
    print(f"{name} under bf16 autocast: loss {errors[0]:.1e}, predictions {errors[1]:.1e}, "
          f"all gradients {far(join(found), join(exact)):.1e}")


# ---------------------------------------------------------------------------------------------- encoders

ENCODERS = {
    "cls": {},
    "registers": dict(reg_tokens=4),
    "no_embed_class": dict(reg_tokens=4, no_embed_class=True),
    "no_class_token": dict(class_token=False, global_pool="avg", fc_norm=False),
    "fc_norm": dict(class_token=False, global_pool="avg"),
    "scale_qk_norm": dict(init_values=0.1, qk_norm=True),
    "gray": SMALL_GRAY,
    "resized": dict(dynamic_img_size=True, reg_tokens=1),
}


def encoder(name, seed):
    """timm's forward_features: all tokens after the norm [B, P+N, D]; and the gradients of mean((y - goal)^2)."""
    sizes = {**SMALL_RGB, **ENCODERS[name]}
    model = randomise(vit(sizes), seed).double().eval()
    pixels = Pixels(sizes, 2, seed)
    features = model.forward_features(pixels.normal())
    goal = torch.from_numpy(np.random.default_rng([seed, 2]).normal(size=features.shape).astype(np.float32))
    loss = (features - goal).pow(2).mean()
    loss.backward()
    with_gradients = name in ("registers", "scale_qk_norm")
    tensors = {
        **weights(model),
        **pixels.tensors(),
        "output/features": features,
        "output/pooled": model.forward_head(features, pre_logits=True),
        **({"input/goal": goal, "output/loss": loss.reshape(1), **gradients(model)} if with_gradients else {}),
    }
    if name == "resized":  # the table of a 4x4 grid read on others, bicubic with antialias
        for size in ((48, 48), (24, 40)):
            other, label = Pixels(sizes, 2, seed, size), f"{size[0]}x{size[1]}"
            tensors[f"input/images/{label}"] = other.bytes
            tensors[f"output/features/{label}"] = model.forward_features(other.normal())
    return tensors, dict(model=sizes, sizes=["48x48", "24x40"] if name == "resized" else [])


def masked_encoder(seed):
    """spt's MaskedEncoder on a part of the patches [B, P+K, D], for one mask per batch and one per sample."""
    sizes = dict(SMALL_GRAY, reg_tokens=2)
    pixels, tensors = Pixels(sizes, 3, seed), {}
    model = MaskedEncoder(randomise(vit(sizes), seed)).double().train()
    for name, masking in (("block", MultiBlockMasking()), ("random", PatchMasking(0.75))):
        context = draw(masking, 3, 7, seed)
        model.masking = Fixed(context, 49)
        tensors[f"input/context/{name}"] = context
        tensors[f"output/features/{name}"] = model(pixels.normal()).encoded
    return {**weights(model), **pixels.tensors(), **tensors}, dict(model=sizes)


# ---------------------------------------------------------------------------------------------- methods

MAES = {
    "block_norm": (SMALL_RGB, dict(norm_pix_loss=True), MultiBlockMasking),
    "block_raw": (dict(SMALL_GRAY, class_token=False, global_pool="avg", fc_norm=False),
                  dict(norm_pix_loss=False), MultiBlockMasking),
    "random_norm": (dict(SMALL_GRAY, reg_tokens=2), dict(norm_pix_loss=True), PatchMasking),
    "random_raw": (dict(SMALL_RGB, embed_dim=24, no_embed_class=True), dict(norm_pix_loss=False), PatchMasking),
}  # fmt: skip
DECODER = dict(decoder_embed_dim=24, decoder_depth=1, decoder_num_heads=2)
PREDICTOR = dict(predictor_embed_dim=24, predictor_depth=2, predictor_num_heads=2)


def mae(name, seed):
    sizes, options, masking = MAES[name]
    model = randomise(MAE(vit(sizes), masking=torch.nn.Identity(), **DECODER, **options), seed).double().train()
    grid = sizes["img_size"] // sizes["patch_size"]
    pixels, context = Pixels(sizes, 3, seed), draw(masking(), 3, grid, seed)
    model.encoder.masking = Fixed(context, grid * grid)
    out = model(pixels.normal())
    out.loss.backward()
    target = model.loss_fn.patchify(pixels.normal())
    if options["norm_pix_loss"]:
        target = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6).sqrt()
    wanted = others(context, grid * grid)
    tensors = {
        **weights(model),
        **pixels.tensors(),
        "input/context": context,
        "input/target": wanted,
        "output/loss": out.loss.reshape(1),
        "output/predictions": out.predictions,
        "output/targets": target,
        **gradients(model),
    }
    # The targets above are a second writing of MAELoss: they must give its loss.
    error = (out.predictions - target).pow(2).mean(-1).gather(1, wanted).mean()
    assert torch.isclose(error, out.loss, rtol=1e-12), (error, out.loss)
    tensors = {k: v.clone() for k, v in tensors.items()}
    note(f"mae_{name}", out.loss, reset(model)(pixels.normal(torch.float32)).loss)
    note_bf16(f"mae_{name}", model, pixels, tensors)
    return tensors, dict(model=sizes, decoder=DECODER, **options, masking=masking.__name__)


SALTS = {
    "plain": SMALL_RGB,
    "registers": dict(SMALL_GRAY, reg_tokens=2, init_values=0.1, qk_norm=True),
}


def salt_model(sizes, seed):
    """SALT takes timm names only: gives it one, and a teacher's state dict."""
    builder = lambda **_: vit(sizes)  # noqa: E731
    original, timm.create_model = timm.create_model, lambda name, **_: builder()
    try:
        state = MaskedEncoder(randomise(vit(sizes), [seed, 3])).state_dict()
        model = SALT("golden", teacher_state_dict=state, **PREDICTOR)
    finally:
        timm.create_model = original
    teacher = {k: v.clone() for k, v in model.teacher.state_dict().items()}
    randomise(model, seed)
    model.teacher.load_state_dict(teacher)
    return model


def fix_salt(model, context, target):
    model._generate_masks = lambda *_: (context[0], target[0])


def salt(name, seed):
    sizes = SALTS[name]
    model = salt_model(sizes, seed).double().train()
    grid = sizes["img_size"] // sizes["patch_size"]
    pixels, (context, target) = Pixels(sizes, 3, seed), draw_salt(3, grid, seed)
    fix_salt(model, context, target)
    seen = {}
    handle = model.predictor.register_forward_pre_hook(
        lambda _, args, kwargs: seen.update(context=kwargs["context"]), with_kwargs=True
    )
    out = model(pixels.normal())
    handle.remove()
    out.loss.backward()
    tensors = {
        **weights(model),
        **pixels.tensors(),
        "input/context": context,
        "input/target": target,
        "output/loss": out.loss.reshape(1),
        "output/context": seen["context"],
        "output/predictions": out.predictions,
        "output/targets": out.targets,
        "output/embedding": out.embedding,
        **gradients(model),
        "output/eval_embedding": model.eval()(pixels.normal()).embedding,
    }
    tensors = {k: v.clone() for k, v in tensors.items()}
    note(f"salt_{name}", out.loss, reset(model).train()(pixels.normal(torch.float32)).loss)
    note_bf16(f"salt_{name}", model, pixels, tensors)
    return tensors, dict(model=sizes, predictor=PREDICTOR)


# ---------------------------------------------------------------------------------------------- ten steps

FINAL = {
    "mae": ["encoder.vit.cls_token", "encoder.vit.pos_embed", "encoder.vit.patch_embed.proj.weight",
            "encoder.vit.blocks.1.mlp.fc2.weight", "encoder.vit.norm.weight", "decoder.mask_token",
            "decoder.transformer.query_proj.weight", "decoder.transformer.output_proj.bias"],
    "salt": ["student.vit.cls_token", "student.vit.pos_embed", "student.vit.patch_embed.proj.weight",
             "student.vit.blocks.1.mlp.fc2.weight", "student.vit.norm.weight", "predictor.mask_token",
             "predictor.query_proj.weight", "predictor.output_proj.bias"],
}  # fmt: skip
CLIP = {"mae": 1.0, "salt": None}


def train(model, batches, clip, dtype):
    """Ten steps of torch's AdamW on every parameter: losses, and norms of the gradients before clipping."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer, losses, norms = torch.optim.AdamW(parameters, **ADAMW), [], []
    for pixels, fix in batches:
        fix(model)
        optimizer.zero_grad()
        loss = model.train()(pixels.normal(dtype)).loss
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(parameters, clip or float("inf")).item())
        optimizer.step()
        losses.append(loss.item())
    return torch.tensor(losses, dtype=torch.float64), torch.tensor(norms)


def step_model(method, seed):
    if method == "salt":
        return SMALL_RGB, salt_model(SMALL_RGB, seed)
    sizes = dict(SMALL_GRAY, embed_dim=24)
    return sizes, randomise(MAE(vit(sizes), masking=torch.nn.Identity(), **DECODER), seed)


def steps(method, seed):
    sizes, model = step_model(method, seed)
    grid, batches, tensors = sizes["img_size"] // sizes["patch_size"], [], weights(model.double())
    tensors = {k: v.clone() for k, v in tensors.items()}
    for i in range(10):
        pixels = Pixels(sizes, 4, [seed, i])
        if method == "salt":
            context, target = draw_salt(4, grid, seed + i)
            fix = lambda m, c=context, t=target: fix_salt(m, c, t)  # noqa: E731
        else:
            context = draw(PatchMasking(0.75), 4, grid, seed + i)
            target = others(context, grid * grid)
            fix = lambda m, c=context: setattr(m.encoder, "masking", Fixed(c, grid * grid))  # noqa: E731
        batches.append((pixels, fix))
        named = {**pixels.tensors(), "input/context": context, "input/target": target}
        tensors |= {k if k[-4:] in ("mean", "/std") else f"{k}/{i}": v for k, v in named.items()}
    losses, norms = train(model, batches, CLIP[method], torch.float64)
    final = {f"final/{k}": v.clone() for k, v in weights(model, "").items() if k in FINAL[method]}
    assert len(final) == len(FINAL[method])
    single = step_model(method, seed)[1]
    note(f"steps_{method}", losses, train(single, batches, CLIP[method], torch.float32)[0])
    for k, v in weights(single, "").items():
        if k in FINAL[method]:
            note(f"steps_{method} {k}", final[f"final/{k}"], v)
    tensors |= {"output/losses": losses, "output/gradient_norms": norms, **final}
    return tensors, dict(model=sizes, decoder=DECODER, predictor=PREDICTOR, adamw=ADAMW, clip=CLIP[method])


# ---------------------------------------------------------------------------------------------- masks, positions

DRAWS = 20_000


def mask_statistics(seed):
    """Counts over 20,000 draws of SALT's masks, per grid HxW.

    context, target [H*W+1]: how often the context / the union of targets had that many patches;
    context_at, target_at [H,W]: how often a patch was in it; block [H,W]: how often a target block was h x w.
    """
    torch.manual_seed(seed)
    tensors = {}
    for h, w in ((14, 14), (7, 7), (6, 10)):
        counts = torch.zeros(2, h * w + 1, dtype=torch.int32)
        places = torch.zeros(2, h * w, dtype=torch.int32)
        blocks = torch.zeros(h, w, dtype=torch.int32)
        for _ in range(DRAWS):
            masks = multi_block_mask(h, w)
            block = masks[1]
            blocks[int(block.any(1).sum()), int(block.any(0).sum())] += 1
            target = torch.stack(masks[1:]).amax(0)
            for i, mask in enumerate((masks[0] * (1 - target), target)):
                counts[i, int(mask.sum())] += 1
                places[i] += mask.flatten()
        for i, name in enumerate(("context", "target")):
            tensors[f"{h}x{w}/{name}"] = counts[i]
            tensors[f"{h}x{w}/{name}_at"] = places[i].reshape(h, w)
        tensors[f"{h}x{w}/block"] = blocks
    return tensors, dict(draws=DRAWS)


def positions(seed):
    """sincos/<grid>x<D> [N,D]; source [1+16,D] of a 4x4 grid with one prefix row, resampled by timm and by spt."""
    rng = np.random.default_rng(seed)
    source = torch.from_numpy(rng.normal(size=(1, 17, 8)).astype(np.float32))
    tensors = {
        "sincos/4x4x24": get_2d_sincos_pos_embed(24, 4),
        "sincos/3x5x16": get_2d_sincos_pos_embed(16, (3, 5)),
        "sincos/14x14x384/last": get_2d_sincos_pos_embed(384, 14)[-1:],
        "sincos/2x3x4x24": get_3d_sincos_pos_embed(24, (2, 3, 4)),
        "source": source[0],
    }
    for h, w in ((6, 6), (3, 3), (2, 2), (3, 5), (8, 3)):
        tensors[f"timm/{h}x{w}"] = resample_abs_pos_embed(source, [h, w], num_prefix_tokens=1)[0]
        tensors[f"spt/{h}x{w}"] = interpolate_pos_embed(source, (4, 4), (h, w), num_prefix_tokens=1)[0]
    return tensors, {}


# ---------------------------------------------------------------------------------------------- files

FIXTURES = {
    **{f"encoder_{k}": (encoder, k, 100 + i) for i, k in enumerate(ENCODERS)},
    "masked_encoder": (masked_encoder, 200),
    **{f"mae_{k}": (mae, k, 300 + i) for i, k in enumerate(MAES)},
    **{f"salt_{k}": (salt, k, 400 + i) for i, k in enumerate(SALTS)},
    **{f"steps_{k}": (steps, k, 500 + 50 * i) for i, k in enumerate(CLIP)},
    "masks": (mask_statistics, 600),
    "positions": (positions, 700),
}


def note(name, double, single):
    error = torch.linalg.vector_norm(single.double() - double) / torch.linalg.vector_norm(double)
    print(f"float32: {name} relative L2 {error.item():.1e}")


def stored(tensor):
    tensor = tensor.detach()
    if tensor.dtype == torch.int64:
        tensor = tensor.int()
    if tensor.dtype == torch.float64:
        tensor = tensor.float()
    return tensor.contiguous().clone()


def versions():
    packages = (torch, timm, stable_pretraining, np)
    names = ("torch", "timm", "stable-pretraining", "numpy")
    return ", ".join(f"{n} {p.__version__.split('+')[0]}" for n, p in zip(names, packages))


def make(name, folder):
    function, *arguments = FIXTURES[name]
    tensors, config = function(*arguments)
    path = folder / f"{name}.safetensors"
    metadata = {"config": json.dumps(config, sort_keys=True), "made_by": f"make_golden.py, {versions()}"}
    save_file({k: stored(v) for k, v in tensors.items()}, path, metadata)
    print(f"{path.name}: {len(tensors)} tensors, {path.stat().st_size / 1000:.0f} kB", flush=True)


def write_manifest():
    """Lines of this script's files anew; lines of other scripts stay."""
    path, mine = HERE / "MANIFEST", {f"{name}.safetensors" for name in FIXTURES}
    lines = path.read_text().splitlines() if path.exists() else []
    lines = [x for x in lines if x.split()[-1] not in mine and not x.startswith("# make_golden.py")]
    lines.append(f"# make_golden.py, {versions()}")
    for name in sorted(mine):
        if (HERE / name).exists():
            lines.append(f"{hashlib.sha256((HERE / name).read_bytes()).hexdigest()}  {name}")
    path.write_text("\n".join(lines) + "\n")


def differs(name, folder):
    """Whether a file made again is not the one here: other names, or values more than 1e-5 apart (relative L2)."""
    with safe_open(HERE / f"{name}.safetensors", "pt") as old, safe_open(folder / f"{name}.safetensors", "pt") as new:
        if set(old.keys()) != set(new.keys()):
            return True
        pairs = [(old.get_tensor(k).double(), new.get_tensor(k).double()) for k in old.keys()]
    # Some gradients are zero but for float64's rounding, which differs between CPUs.
    return any(a.shape != b.shape or (a - b).norm() > 1e-5 * a.norm() + 1e-12 for a, b in pairs)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prefix", nargs="*", help="only files whose names start so")
    parser.add_argument("--check", action="store_true", help="compare with the files here, write nothing")
    options = parser.parse_args()
    torch.set_num_threads(1)
    names = [n for n in FIXTURES if not options.prefix or n.startswith(tuple(options.prefix))]
    if options.check:
        with tempfile.TemporaryDirectory() as folder:
            for name in names:
                make(name, Path(folder))
            wrong = [name for name in names if differs(name, Path(folder))]
        sys.exit(f"these differ: {wrong}" if wrong else 0)
    for name in names:
        make(name, HERE)
    write_manifest()


if __name__ == "__main__":
    main()
