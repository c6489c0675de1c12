"""Weights between saltworks and timm, stable-pretraining, transformers and onnxruntime: a run of ours is exported to each
and loaded strictly, and theirs are read back; features agree to 1e-5 (relative L2)."""

import json
import os
import pathlib
import subprocess

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

ROOT = pathlib.Path(__file__).parents[3]
BINARY = os.environ.get("SALTWORKS_BIN", ROOT / "target/release/saltworks")
SIZES = dict(img_size=28, patch_size=7, in_chans=1, embed_dim=48, depth=2, num_heads=3)
NAME = "vit_tiny_patch16_224"
SET = """data.size=28 data.channels=1 data.holdout=0 model.patch=7 model.width=48 model.depth=2 model.heads=3 threads=2
    teacher.steps=3 teacher.batch=8 teacher.decoder.width=24 teacher.decoder.depth=1 teacher.decoder.heads=2
    student.steps=3 student.batch=8 student.predictor.width=24 student.predictor.depth=2
    student.predictor.heads=2""".split()


def saltworks(*arguments, code=0):
    made = subprocess.run([str(BINARY), *map(str, arguments)], capture_output=True, text=True)
    assert made.returncode == code, made.stderr
    return made.stdout + made.stderr


def export(source, to, out, *more):
    saltworks("export", source, "--to", to, "--out", out, *more)
    return out


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    saltworks("pretrain", "--out", folder, *[word for key in SET for word in ("--set", key)])
    return folder


@pytest.fixture(scope="module")
def images():
    return torch.from_numpy(np.random.default_rng(0).normal(size=(3, 1, 28, 28)).astype(np.float32))


def encoder(**options):
    return timm.create_model(NAME, num_classes=0, **{**SIZES, **options}).eval()


@torch.no_grad()
def features(model, images):
    return model.forward_features(images).numpy()


def ours(run, stage):
    """The encoder as the run left it."""
    model = encoder()
    model.load_state_dict(load_file(run / stage / "encoder.safetensors"), strict=True)
    return model


def assert_close(got, want, tolerance=1e-5):
    assert got.shape == want.shape
    assert np.linalg.norm(got - want) <= tolerance * np.linalg.norm(want)


@pytest.mark.parametrize("stage", ["teacher", "student"])
def test_timm_and_torch_load_strictly(run, images, tmp_path, stage):
    want = features(ours(run, stage), images)
    for to, name, read in [
        ("timm", "vit.safetensors", load_file),
        ("torch", "vit.pth", lambda path: torch.load(path, weights_only=True)),
    ]:
        model = encoder()
        model.load_state_dict(read(export(run, to, tmp_path / name, "--part", stage)), strict=True)
        np.testing.assert_array_equal(features(model, images), want)


def test_the_printed_call_makes_the_model_that_fits(run, tmp_path):
    said = saltworks("export", run, "--to", "timm", "--out", tmp_path / "vit.safetensors")
    call = next(line for line in said.splitlines() if "timm.create_model" in line).split("in Python: ")[1]
    model = eval(call, {"timm": timm})  # noqa: S307  (our own text)
    model.load_state_dict(load_file(tmp_path / "vit.safetensors"), strict=True)


@pytest.mark.parametrize("dtype, tolerance", [("f16", 2e-3), ("bf16", 2e-2)])
def test_smaller_types_are_rounded(run, images, tmp_path, dtype, tolerance):
    path = export(run, "torch", tmp_path / "vit.pth", "--dtype", dtype)
    state = torch.load(path, weights_only=True)
    whole = load_file(run / "student/encoder.safetensors")
    wanted = {"f16": torch.float16, "bf16": torch.bfloat16}[dtype]
    for name, value in state.items():
        assert value.dtype == wanted and torch.equal(value, whole[name].to(wanted)), name
    model = encoder()
    model.load_state_dict({name: value.float() for name, value in state.items()}, strict=True)
    assert_close(features(model, images), features(ours(run, "student"), images), tolerance)


def test_stable_pretraining_takes_our_teacher(run, images, tmp_path, monkeypatch):
    from stable_pretraining.methods.salt import SALT

    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **options: create(name, num_classes=0, **SIZES))
    path = export(run, "stable-pretraining", tmp_path / "stage1.ckpt", "--part", "teacher")
    predictor = dict(predictor_embed_dim=24, predictor_depth=2, predictor_num_heads=2)
    salt = SALT.from_checkpoint(str(path), encoder_name=NAME, **predictor)
    got = features(salt.teacher.backbone.vit.eval(), images)
    np.testing.assert_array_equal(got, features(ours(run, "teacher"), images))
    # Stage 2 as a whole: every key, the teacher with it.
    path = export(run, "stable-pretraining", tmp_path / "stage2.ckpt", "--part", "student")
    salt.load_state_dict(torch.load(path, weights_only=True)["state_dict"], strict=True)
    np.testing.assert_array_equal(features(salt.student.vit.eval(), images), features(ours(run, "student"), images))
    # And theirs in ours.
    torch.save({"state_dict": salt.state_dict()}, tmp_path / "theirs.ckpt")
    for part in ["student", "teacher"]:
        back = export(tmp_path / "theirs.ckpt", "timm", tmp_path / f"{part}.safetensors", "--part", part, "--heads", 3)
        model = encoder()
        model.load_state_dict(load_file(back), strict=True)
        np.testing.assert_array_equal(features(model, images), features(ours(run, part), images))


def test_stable_pretrainings_mae_takes_ours(run, tmp_path):
    from stable_pretraining.methods.mae import MAE

    state = torch.load(export(run, "stable-pretraining", tmp_path / "a.ckpt", "--part", "teacher"), weights_only=True)
    decoder = dict(decoder_embed_dim=24, decoder_depth=1, decoder_num_heads=2)
    MAE(encoder(), **decoder).load_state_dict(state["state_dict"], strict=True)


def test_transformers_loads_and_is_loaded(run, images, tmp_path):
    from transformers import ViTMAEConfig, ViTMAEForPreTraining, ViTModel

    folder = export(run, "hf", tmp_path / "hf")
    model, said = ViTModel.from_pretrained(folder, add_pooling_layer=False, output_loading_info=True)
    assert not any(said[key] for key in ["missing_keys", "unexpected_keys", "mismatched_keys"]), said
    with torch.no_grad():
        got = model.eval()(images).last_hidden_state.numpy()
    want = features(ours(run, "student"), images)
    assert_close(got, want)
    back = encoder()
    back.load_state_dict(load_file(export(folder, "timm", tmp_path / "back.safetensors")), strict=True)
    np.testing.assert_array_equal(features(back, images), want)
    # ViTMAE, whose decoder has no place here.
    sizes = dict(hidden_size=48, num_hidden_layers=2, num_attention_heads=3, intermediate_size=192, image_size=28,
                 patch_size=7, num_channels=1, layer_norm_eps=1e-6)
    decoder = dict(decoder_hidden_size=32, decoder_num_hidden_layers=1, decoder_num_attention_heads=2)
    mae = ViTMAEForPreTraining(ViTMAEConfig(**sizes, **decoder, decoder_intermediate_size=64, mask_ratio=0.0)).eval()
    mae.save_pretrained(tmp_path / "mae")
    back.load_state_dict(load_file(export(tmp_path / "mae", "timm", tmp_path / "mae.safetensors")), strict=True)
    with torch.no_grad():
        want = mae.vit(images, noise=torch.arange(16.0).expand(3, -1)).last_hidden_state.numpy()
    assert_close(features(back, images), want)


def test_onnxruntime_gives_our_features(run, images, tmp_path):
    onnx = pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    path = export(run, "onnx", tmp_path / "vit.onnx")
    onnx.checker.check_model(onnx.load(path), full_check=True)
    session = onnxruntime.InferenceSession(str(path))
    want = features(ours(run, "student"), images)
    names = [output.name for output in session.get_outputs()]
    for batch in [images, images[:1]]:
        made = dict(zip(names, session.run(None, {"images": batch.numpy()})))
        assert_close(made["tokens"], want[: len(batch)])
        assert_close(made["cls"], want[: len(batch), 0])
        assert_close(made["mean"], want[: len(batch), 1:].mean(axis=1))


@pytest.mark.parametrize("options", [
    dict(reg_tokens=4, no_embed_class=True),
    dict(init_values=0.1, qk_norm=True),
    dict(class_token=False, global_pool="avg", fc_norm=False),
])
def test_every_kind_of_timms_encoder_goes_to_onnx(images, tmp_path, options):
    onnxruntime = pytest.importorskip("onnxruntime")
    torch.manual_seed(1)
    model = encoder(**options)
    torch.save(model.state_dict(), tmp_path / "vit.pth")
    path = export(tmp_path / "vit.pth", "onnx", tmp_path / "vit.onnx", "--heads", 3)
    got = onnxruntime.InferenceSession(str(path)).run(["tokens"], {"images": images.numpy()})[0]
    assert_close(got, features(model, images))


def test_a_position_table_is_resized_as_timm_does(run, images, tmp_path):
    path = export(run, "timm", tmp_path / "large.safetensors", "--size", 42)
    large = torch.nn.functional.interpolate(images, 42)
    resized = encoder(img_size=42)
    resized.load_state_dict(load_file(path), strict=True)
    wanted = ours(run, "student")
    wanted.set_input_size(img_size=42)
    assert_close(features(resized, large), features(wanted, large))


def test_any_of_them_can_teach(run, tmp_path):
    torch.manual_seed(2)
    model = encoder(img_size=42)
    torch.save({"model": {**model.state_dict(), "decoder_embed.weight": torch.zeros(1)}}, tmp_path / "facebook.pth")
    recipe = tmp_path / "student.toml"
    recipe.write_text(
        '[data]\npath = "builtin:fashion-mnist"\nsize = 28\nchannels = 1\nholdout = 0\n'
        '[model]\nname = "vit_tiny_patch16_224"\npatch = 7\nwidth = 48\ndepth = 2\nheads = 3\n'
        f'[[stage]]\nname = "student"\nmethod = "salt"\nteacher = "{tmp_path / "facebook.pth"}"\nsteps = 2\nbatch = 4\n'
        'predictor = { width = 24, depth = 1, heads = 2 }\n'
    )
    said = saltworks("pretrain", recipe, "--out", tmp_path / "out")
    assert "positions resized" in said


def test_what_is_there_is_not_overwritten(run, tmp_path):
    out = export(run, "timm", tmp_path / "a.safetensors")
    assert "exists already" in saltworks("export", run, "--to", "timm", "--out", out, code=2)
    saltworks("export", run, "--to", "timm", "--out", out, "--overwrite")


def test_inspect_says_whose_names_a_file_has(run, tmp_path):
    save_file({f"module.{name}": value for name, value in encoder().state_dict().items()}, tmp_path / "a.safetensors")
    found = json.loads(saltworks("inspect", tmp_path / "a.safetensors", "--json"))
    assert found["models"][0]["dialect"] == "timm"
    found = json.loads(saltworks("inspect", run / "student/model.safetensors", "--json"))
    assert found["models"][0]["dialect"] == "saltworks"
