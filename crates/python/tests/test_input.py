"""What goes in: arrays of all kinds, and what is refused."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

import saltworks
from test_views import PREDICTOR, SIZES, images, model


def embedding(given, **kwargs):
    return model(**kwargs).eval()(given).embedding


def test_layouts_and_owners_of_the_same_values_give_the_same():
    batch = images()
    want = embedding(batch)
    frozen = batch.copy()
    frozen.flags.writeable = False
    shifted = np.frombuffer(b"x" + batch.tobytes(), np.float32, offset=1).reshape(batch.shape)
    given = {
        "fortran": np.asfortranarray(batch),
        "strides": np.repeat(batch, 2, axis=3)[..., ::2],
        "read-only": frozen,
        "misaligned": shifted,
        "torch": torch.from_numpy(batch),
        "torch strides": torch.from_numpy(batch).permute(0, 1, 3, 2).contiguous().permute(0, 1, 3, 2),
    }
    for name, array in given.items():
        assert np.array_equal(embedding(array), want), name


class Interface:
    """Only the array interface."""

    def __init__(self, array):
        self.array = array

    @property
    def __array_interface__(self):
        return self.array.__array_interface__


def test_the_array_interface_is_enough():
    batch = images()
    assert np.array_equal(embedding(Interface(batch)), embedding(batch))


def test_bytes_are_normalised():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 1, 16, 16), np.uint8)
    as_floats = (pixels / np.float32(255) - np.float32(0.5)) / np.float32(0.25)
    got = embedding(pixels, normalize=(0.5, 0.25))
    assert np.allclose(got, embedding(as_floats.astype(np.float32)), atol=1e-5)
    other = model(normalize=(0.5, 0.25))
    assert other.normalize == ([0.5], [0.25])
    assert np.array_equal(embedding(pixels, normalize=other), got)


def test_bytes_are_refused_where_their_meaning_is_not_known():
    pixels = np.zeros((2, 1, 16, 16), np.uint8)
    assert model().normalize is None
    with pytest.raises(ValueError, match='normalize="imagenet"'):
        model()(pixels)
    with pytest.raises(ValueError, match="the normalisation of this model's images is not known"):
        model(normalize=model())


@pytest.mark.parametrize(
    "given, message",
    [
        (np.zeros((2, 1, 16, 16)), "float64, expected float32"),
        (np.zeros((2, 1, 16, 16), np.float16), "float16, expected float32"),
        (np.zeros((2, 1, 16, 16), ">f4"), "expected float32"),
        (np.zeros((1, 16, 16), np.float32), r"\[1, 16, 16\], expected \[B, 1, 16, 16\].*images\[None\]"),
        (np.zeros((16, 16), np.float32), r"\[16, 16\], expected \[B, 1, 16, 16\]"),
        (np.zeros((0, 1, 16, 16), np.float32), r"\[0, 1, 16, 16\], expected \[B, 1, 16, 16\]"),
        (np.zeros((2, 3, 16, 16), np.float32), r"\[2, 3, 16, 16\], expected \[B, 1, 16, 16\]"),
        (np.zeros((2, 1, 16, 20), np.float32), r"\[2, 1, 16, 20\], expected \[B, 1, 16, 16\]"),
        (np.zeros((2, 16, 16, 1), np.float32), r"channels come first.*transpose\(0, 3, 1, 2\)"),
        (torch.zeros(2, 1, 16, 16, requires_grad=True), "detach"),
        (torch.zeros(2, 1, 16, 16, dtype=torch.bfloat16), "images"),
        (torch._neg_view(torch.ones(2, 1, 16, 16)), "negative bit"),
        ("photo.png", "'str'.*an array or tensor"),
        (None, "NoneType.*an array or tensor"),
    ],
)
def test_other_images_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        model()(given)


@pytest.mark.parametrize(
    "context, target, message",
    [
        ([0, 1], None, "go together"),
        ([0, 1], [1, 2], "both context and target"),
        ([0, 0], [2], "0 twice"),
        ([0], [16], "outside"),
        ([0], [-1], "holds -1"),
        ([], [1], "empty"),
        ([0.5], [1], "float64, expected whole numbers"),
        ([[], [], [], []], [1], "empty"),
        ([[0], [1], [2]], [3], r"\[3, 1\], expected \[K\] or \[4, K\]"),
    ],
)
def test_masks_that_are_none_are_refused(context, target, message):
    with pytest.raises(ValueError, match=message):
        context = np.array(context, np.int64) if context in ([], [[]] * 4) else np.array(context)
        model()(images(), context_idx=context, target_idx=target if target is None else np.array(target))


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(encoder_name="vit_mini_patch16_224"), "vit_mini_patch16_224"),
        (dict(embed_dim=33), "33 is not divisible by 2"),
        (dict(img_size=17), "not a multiple"),
        (dict(img_sise=16), "img_sise=16: unknown. Known options are img_size"),
        (dict(predictor_num_heads=5), "predictor width 32 is not divisible by 5"),
        (dict(context_scale=(2.0, 3.0)), "context.scale"),
        (dict(num_targets=0), "num_targets"),
        (dict(target_scale=(0.5, 0.2)), r"target_scale is \(0.5, 0.2\), expected \(min, max\)"),
        (dict(encoder_name="runs/a/encoder.safetensors"), "Encoder\\(weights="),
        (dict(normalize="imagnet"), "imagnet"),
        (dict(normalize=([0.5, 0.5], 0.5)), "expected 1 or 1 numbers"),
    ],
)
def test_models_that_cannot_be_are_refused(change, message):
    arguments = dict(encoder_name="vit_tiny_patch16_224", **SIZES, **PREDICTOR) | change
    with pytest.raises(ValueError, match=message):
        saltworks.SALT(**arguments)


@pytest.mark.parametrize("change", ["x.resize_(50_000_000)", "x.untyped_storage().resize_(0)"])
def test_a_tensor_that_the_engine_reads_keeps_its_memory(change):
    # In a process of its own: it would be a segmentation fault. The call must be under way.
    code = f"""
import threading, time, torch, saltworks
model = saltworks.SALT("vit_tiny_patch16_224", predictor_depth=2)
x = torch.zeros(8, 3, 224, 224)
done = []
thread = threading.Thread(target=lambda: done.append(model(x, record=False).loss))
thread.start()
time.sleep(0.1)
assert thread.is_alive()
try:
    {change}
except RuntimeError as error:
    print(error)
thread.join()
assert len(done) == 1
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert "not resizable" in ended.stdout, ended.stdout
    # A tensor that is given other memory leaves the old to the call.
    swapped = subprocess.run(
        [sys.executable, "-c", code.replace(change, "x.data = torch.ones(1)")], capture_output=True, text=True
    )
    assert swapped.returncode == 0, swapped.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a system without fork")
def test_a_forked_process_is_told_instead_of_waiting_for_ever():
    code = """
import os, numpy, saltworks
encoder = saltworks.Encoder(img_size=16, in_chans=1, embed_dim=32, depth=1, num_heads=2)
images = numpy.zeros((1, 1, 16, 16), "f4")
encoder(images)
if os.fork() == 0:
    try:
        encoder(images)
    except RuntimeError as error:
        print(error, flush=True)
    os._exit(0)
os.wait()
"""
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "forked" in made.stdout and "spawn" in made.stdout, made


def test_what_a_method_does_not_know_is_refused():
    with pytest.raises(ValueError, match="cosine"):
        saltworks.MAE("vit_tiny_patch16_224", loss_type="cosine")
    with pytest.raises(ValueError, match="crop_ratio"):
        saltworks.PatchMasking(crop_ratio=0.5)
    with pytest.raises(ValueError, match="expected MultiBlockMasking or PatchMasking"):
        saltworks.MAE("vit_tiny_patch16_224", masking=3)


def test_files_that_are_not_there_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing.safetensors"):
        saltworks.Encoder(weights=tmp_path / "nothing.safetensors")
    with pytest.raises(FileNotFoundError, match="nothing.safetensors"):
        saltworks.SALT.from_checkpoint(tmp_path / "nothing.safetensors")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"not weights")
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        saltworks.Encoder(weights=broken)
    with pytest.raises(ValueError, match="is a folder without"):
        saltworks.Encoder(weights=tmp_path)
    with pytest.raises(OSError, match="cannot read"):
        saltworks.Encoder(weights=broken / "inside")


def test_block_masks_are_blocks_of_the_asked_size():
    masks = saltworks.multi_block_mask(14, 14, seed=0)
    assert len(masks) == 5 and all(mask.shape == (14, 14) for mask in masks)
    for mask, (least, most) in zip(masks, [(0.7, 1.0)] + [(0.1, 0.25)] * 4):
        rows, columns = np.nonzero(mask)
        area = (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
        assert area == mask.sum() and least < area / 196 < most
    assert len({mask.sum() for mask in masks[1:]}) == 1
    again, other = saltworks.multi_block_mask(14, 14, seed=0), saltworks.multi_block_mask(14, 14, seed=1)
    assert all(np.array_equal(a, b) for a, b in zip(masks, again))
    assert any(not np.array_equal(a, b) for a, b in zip(masks, other))
    with pytest.raises(ValueError, match="2 block_scales for 1 aspect_ratios"):
        saltworks.multi_block_mask(4, 4, [(0.1, 0.2)] * 2, [(1.0, 1.0)])
