"""stable-pretraining's own scripts and trainer with saltworks.torch.spt."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import stable_pretraining
import torch

import saltworks
import saltworks.torch
from reference import SIZES
from test_torch import PREDICTOR

HERE = Path(__file__).parent
SCRIPTS = HERE.parent / ".venv/stable_pretraining-0.1.8/benchmarks/imagenet100"
STEPS = 20


def run(script, folder, **environment):
    """Runs a script of the source archive, which test.sh downloads."""
    command = [sys.executable, HERE / "stage_scripts.py", SCRIPTS / script, str(STEPS), folder]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return json.loads((folder / "result.json").read_text())


def test_both_stages_run_as_stable_pretraining_wrote_them_but_for_the_import(tmp_path):
    first, second = tmp_path / "stage1", tmp_path / "stage2"
    first.mkdir()
    second.mkdir()
    stage1 = run("salt-stage1-vit-tiny.py", first)
    # stable-pretraining's own reader of such a file finds this teacher under the names of stage 1.
    state = torch.load(first / "trained.ckpt", weights_only=True)["state_dict"]
    assert "encoder.vit.blocks.11.mlp.fc2.bias" in state and "decoder.mask_token" in state
    stage2 = run("salt-stage2-vit-tiny.py", second, SALT_TEACHER_CKPT=str(first / "trained.ckpt"))
    for stage in [stage1, stage2]:
        metrics = stage["metrics"]
        assert (stage["steps"], stage["class"]) == (STEPS, "saltworks.torch.spt")
        assert 0.0 < metrics["fit/loss"] < 3.0
        assert {"eval/linear_probe_top1", "eval/knn_probe_accuracy", "train/linear_probe_loss"} <= set(metrics)
    # The teacher of stage 2 is the encoder of stage 1, and did not train.
    trained = torch.load(second / "trained.ckpt", weights_only=True)["state_dict"]
    for name, value in state.items():
        if name.startswith("encoder.vit."):
            assert torch.equal(trained[name.replace("encoder.", "teacher.backbone.")], value), name
    moved = trained["student.vit.blocks.0.mlp.fc1.weight"] - trained["teacher.backbone.vit.blocks.0.mlp.fc1.weight"]
    assert moved.abs().max() > 0


def test_they_are_modules_of_stable_pretraining():
    model = saltworks.torch.spt.SALT(**SIZES, **PREDICTOR, seed=3)
    assert isinstance(model, stable_pretraining.Module) and isinstance(model, saltworks.torch.SALT)
    assert model.automatic_optimization is False and hasattr(model, "configure_model")
    stage1 = saltworks.torch.spt.MAE(encoder_name=SIZES["encoder_name"], img_size=32, patch_size=8)
    assert stage1.encoder.default_grid_h == 4
    # What is added to a module may be of any type: the engine's weights alone stay where they are.
    model.callbacks_modules["probe"] = torch.nn.Linear(2, 2)
    model.callbacks_modules.half()
    assert model.to("cpu").callbacks_modules["probe"].weight.dtype == torch.float16
    with pytest.raises(ValueError, match="stay float32"):
        model.half()


def test_a_checkpoint_holds_the_step_of_the_masks():
    model = saltworks.torch.spt.SALT(**SIZES, **PREDICTOR, seed=3)
    model(torch.randn(2, 3, 32, 32))
    checkpoint = {}
    model.on_save_checkpoint(checkpoint)
    other = saltworks.torch.spt.SALT(**SIZES, **PREDICTOR, seed=3)
    other.on_load_checkpoint(checkpoint)
    assert other.step == model.step == 1
