"""Makes vjepa_masks.json: how V-JEPA 2's own mask generator distributes its masks.

git clone https://github.com/facebookresearch/vjepa2 && git -C vjepa2 checkout c2963a4
pip install torch==2.15.0 numpy==2.4.6
python make_vjepa_masks.py vjepa2/src/masks/multiseq_multiblock3d.py

For each case: the settings in saltworks' words, mean, deviation and quantiles of the number of context and target tokens of a
clip, and for each token of the grid the share of clips in which it is a target. Batches of one clip, so nothing is truncated.
For `batch` also the mean lengths of batches of that size, whose lists are truncated to the shortest.
"""

import hashlib
import importlib.util
import json
import logging
import sys
import types
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).parent
DRAWS, BATCHES = 4000, 300
CASES = {
    "short": dict(grid=[8, 14, 14], blocks=8, scale=[0.15, 0.15]),
    "long": dict(grid=[8, 14, 14], blocks=2, scale=[0.7, 0.7], batch=24),
    "partly": dict(grid=[4, 6, 8], blocks=3, scale=[0.2, 0.5], time=[0.5, 1.0]),
    "early": dict(grid=[6, 5, 5], blocks=2, scale=[0.2, 0.3], max_temporal_keep=0.5),
}


def generator_class(path):
    for name in ("src", "src.utils", "src.utils.logging"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["src.utils.logging"].get_logger = lambda *_, **__: logging.getLogger()
    spec = importlib.util.spec_from_file_location("masks", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module._MaskGenerator


def counted(lengths):
    quantiles = np.quantile(lengths, [0.05, 0.25, 0.5, 0.75, 0.95], method="lower")
    return dict(mean=float(np.mean(lengths)), deviation=float(np.std(lengths)), quantiles=quantiles.tolist())


def make(kind, case):
    (t, h, w), tokens = case["grid"], int(np.prod(case["grid"]))
    generator = kind(
        crop_size=(h, w),
        num_frames=t,
        spatial_patch_size=(1, 1),
        temporal_patch_size=1,
        spatial_pred_mask_scale=case["scale"],
        temporal_pred_mask_scale=case.get("time", [1.0, 1.0]),
        aspect_ratio=(0.75, 1.5),
        npred=case["blocks"],
        max_context_frames_ratio=case.get("max_temporal_keep", 1.0),
    )
    torch.manual_seed(0)
    context, target, cells = [], [], np.zeros(tokens)
    for _ in range(DRAWS):
        enc, pred = generator(1)
        context.append(enc.shape[1])
        target.append(pred.shape[1])
        cells[pred[0].numpy()] += 1
    made = case | dict(draws=DRAWS, context=counted(context), target=counted(target), cells=(cells / DRAWS).round(6).tolist())
    if "batch" in case:
        lengths = np.array([[x.shape[1] for x in generator(case["batch"])] for _ in range(BATCHES)])
        mean, error = lengths.mean(0), lengths.std(0) / BATCHES**0.5
        made |= dict(truncated=dict(mean=mean.tolist(), error=error.tolist()))
    return made


if __name__ == "__main__":
    kind = generator_class(sys.argv[1])
    made = {name: make(kind, case) for name, case in CASES.items()}
    path = HERE / "vjepa_masks.json"
    path.write_text(json.dumps(made) + "\n")
    versions = f"torch {torch.__version__.split('+')[0]}, numpy {np.__version__}, vjepa2 c2963a4"
    manifest = HERE / "MANIFEST"
    lines = [x for x in manifest.read_text().splitlines() if "vjepa_masks" not in x]
    lines += [f"# make_vjepa_masks.py, {versions}", f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}"]
    manifest.write_text("\n".join(lines) + "\n")
