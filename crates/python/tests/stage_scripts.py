"""Runs one of stable-pretraining's scripts for SALT with ours imported, on the CPU, for some steps.

    python tests/stage_scripts.py SCRIPT STEPS FOLDER

The script's text is not changed but for the line that imports its method. Around it, what this machine lacks
is replaced: ImageNet-100 by small images of drawn stripes, the GPU by the CPU, batches of 256 by 8, W&B by a
CSV file in FOLDER. FOLDER gets Lightning's checkpoint and the last metrics.
"""

import json
import os
import sys
from pathlib import Path

import lightning as pl
import numpy as np
import stable_pretraining as spt
import torch
from lightning.pytorch.loggers import CSVLogger
from PIL import Image

IMPORTS = {
    "from stable_pretraining.methods.mae import MAE": "from saltworks.torch.spt import MAE",
    "from stable_pretraining.methods.salt import SALT": "from saltworks.torch.spt import SALT",
}
BATCH = 8


class Stripes(torch.utils.data.Dataset):
    """160 images of stripes. Their angle is their class, one of 100."""

    def __init__(self, *_, transform=None, **__):
        self.transform = transform

    def __len__(self):
        return 160

    def __getitem__(self, index):
        label, random = index % 100, np.random.default_rng(index)
        y, x = np.mgrid[0:256, 0:256] / 256
        angle = np.pi * label / 100
        wave = np.sin(40 * (x * np.cos(angle) + y * np.sin(angle)) + random.uniform(0, 6))
        pixels = np.stack([wave * random.uniform(0.3, 1) for _ in range(3)], -1)
        sample = {"image": Image.fromarray((127 + 120 * pixels).astype(np.uint8)), "label": label}
        return self.transform(sample)


class NoLogger:
    """In the place of W&B's logger. The trainer gets another."""

    def __init__(self, **_):
        pass


def main(script, steps, folder):
    os.chdir(folder)
    os.environ["STABLE_PRETRAINING_DATA_DIR"] = folder
    trainer, loader = pl.Trainer, torch.utils.data.DataLoader
    spt.data.HFDataset = Stripes

    class Loader(loader):
        def __init__(self, *args, **kwargs):
            kwargs.pop("persistent_workers", None)
            super().__init__(*args, **kwargs | {"batch_size": BATCH, "num_workers": 0})

    class Trainer(trainer):
        def __init__(self, **kwargs):
            kwargs |= dict(accelerator="cpu", precision="32-true", max_epochs=-1, max_steps=steps,
                           logger=CSVLogger(folder), log_every_n_steps=1, check_val_every_n_epoch=1)
            super().__init__(**kwargs)

    torch.utils.data.DataLoader, pl.Trainer = Loader, Trainer
    pl.pytorch.loggers.WandbLogger = NoLogger
    text = Path(script).read_text()
    found = [line for line in IMPORTS if line in text]
    assert len(found) == 1, found
    names = {"__file__": script, "__name__": "__main__"}
    exec(compile(text.replace(found[0], IMPORTS[found[0]]), script, "exec"), names)
    module, manager = names["module"], names["manager"]
    metrics = {name: float(value) for name, value in manager.trainer.callback_metrics.items()}
    result = {"steps": manager.trainer.global_step, "metrics": metrics, "class": f"{type(module).__module__}"}
    Path(folder, "result.json").write_text(json.dumps(result))
    manager.trainer.save_checkpoint(Path(folder, "trained.ckpt"))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
