"""Loader, Encoder and whole runs."""

import os
import signal
import threading

import numpy as np
import pytest

import saltworks

TINY = {
    "data": {"path": "builtin:fashion-mnist", "holdout": 200},
    "model": {"name": "vit_tiny_patch16_224", "patch": 7, "width": 32, "depth": 2, "heads": 2},
    "probe": {"linear": False},
    "stage": [
        {"name": "teacher", "method": "mae", "steps": 6, "batch": 16,
         "decoder": {"width": 32, "depth": 1, "heads": 2}},
        {"name": "student", "method": "salt", "teacher": "teacher", "steps": 4, "batch": 16,
         "predictor": {"width": 32, "depth": 1, "heads": 2}},
    ],
}


def test_a_loader_gives_every_image_once_in_order():
    loader = saltworks.Loader("builtin:fashion-mnist", batch=3000, size=28, channels=1)
    batches = list(loader)
    assert len(loader) == len(batches) == 4 and loader.num_images == 10_000
    assert [len(labels) for _, labels in batches] == [3000, 3000, 3000, 1000]
    images, labels = batches[0]
    assert images.shape == (3000, 1, 28, 28) and images.dtype == np.float32
    assert images.min() == -1.0 and images.max() == 1.0
    assert labels.dtype == np.int32 and set(labels) == set(range(10)) and len(loader.classes) == 10


def test_bytes_and_floats_are_the_same_pixels():
    options = dict(batch=10, size=28, channels=1, normalize=(0.25, 0.5))
    floats, _ = next(iter(saltworks.Loader("builtin:fashion-mnist", **options)))
    pixels, _ = next(iter(saltworks.Loader("builtin:fashion-mnist", **options, dtype="uint8")))
    assert pixels.dtype == np.uint8
    assert np.allclose((pixels / 255 - 0.25) / 0.5, floats, atol=1e-6)


def test_epochs_of_a_shuffled_loader_differ_and_repeat_with_the_seed():
    def epochs(seed):
        loader = saltworks.Loader("builtin:fashion-mnist", batch=4000, size=28, channels=1,
                                  shuffle=True, seed=seed)
        return [[labels for _, labels in loader] for _ in range(2)]

    (first, second), again = epochs(1), epochs(1)
    assert [len(labels) for labels in first] == [4000, 4000]
    assert not np.array_equal(first[0], second[0])
    assert np.array_equal(second[1], again[1][1])
    assert not np.array_equal(first[0], epochs(2)[0][0])


def test_a_loader_of_nothing_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="missing"):
        saltworks.Loader(str(tmp_path / "missing"))
    with pytest.raises(ValueError, match="0 images|no image"):
        saltworks.Loader(str(tmp_path))
    with pytest.raises(ValueError, match="batch is 0"):
        saltworks.Loader("builtin:fashion-mnist", batch=0)
    with pytest.raises(ValueError, match="int8"):
        saltworks.Loader("builtin:fashion-mnist", dtype="int8")


@pytest.fixture
def photos(tmp_path):
    """Nine images of nine greys, the last one broken."""
    image = pytest.importorskip("PIL.Image")
    for number in range(9):
        image.new("L", (16, 16), 20 * number).save(tmp_path / f"{number}.png")
    (tmp_path / "8.png").write_bytes(b"no image")
    return tmp_path


def test_rows_of_a_loader_in_order_are_the_images_or_an_error(photos):
    loader = saltworks.Loader(photos, batch=4, size=16, channels=1)
    with pytest.raises(ValueError, match="8.png"):
        list(loader)
    # A share of one half would be four; each is named once.
    loader = saltworks.Loader(photos, batch=9, size=16, channels=1, max_unreadable=0.5, dtype="uint8")
    with pytest.warns(UserWarning, match="image 8 cannot be read, the next image replaces it.*8.png") as said:
        (images, _), = list(loader)
        list(loader)
    assert len(said) == 1 and loader.unreadable == [8]
    assert images[:, 0, 0, 0].tolist() == [0, 20, 40, 60, 80, 100, 120, 140, 0]
    (photos / "7.png").write_bytes(b"no image")
    loader = saltworks.Loader(photos, batch=3, size=16, channels=1, shuffle=True)
    # One of nine is the hundredth, rounded up: the second ends it, whichever epoch meets it.
    with pytest.warns(UserWarning, match="cannot be read"), pytest.raises(ValueError, match="2 of"):
        for _ in range(3):
            list(loader)


def test_a_loader_normalises_as_a_model_does():
    encoder = saltworks.Encoder(img_size=28, patch_size=7, in_chans=1, embed_dim=32, depth=1, num_heads=2,
                                normalize=(0.25, 0.5))
    options = dict(batch=10, size=28, channels=1)
    floats, _ = next(iter(saltworks.Loader("builtin:fashion-mnist", **options, normalize=encoder)))
    want, _ = next(iter(saltworks.Loader("builtin:fashion-mnist", **options, normalize=(0.25, 0.5))))
    assert np.array_equal(floats, want)


def test_a_run_tells_its_steps_and_leaves_encoders(tmp_path):
    steps = []
    # A callback may compute.
    probe = saltworks.Encoder(img_size=28, patch_size=7, in_chans=1, embed_dim=32, depth=1, num_heads=2)
    image = np.zeros((1, 1, 28, 28), np.float32)

    def callback(step):
        probe(image)
        steps.append((step["stage"], step["step"]))
        assert step["loss"] > 0 and step["images"] == 16

    done = saltworks.pretrain(TINY, out=tmp_path / "run", callback=callback)
    assert steps == [("teacher", n + 1) for n in range(6)] + [("student", n + 1) for n in range(4)]
    assert [row["features"] for row in done["probes"]][-2:] == ["teacher", "student"]
    encoder = saltworks.Encoder(weights=done["encoders"]["student"])
    assert encoder.embed_dim == 32 and encoder.image_shape == (1, 28, 28)
    images, _ = next(iter(saltworks.Loader("builtin:fashion-mnist", batch=8, size=28, channels=1)))
    features = encoder(images)
    assert features.cls.shape == features.mean.shape == (8, 32)
    assert features.patches.shape == (8, 16, 32)
    assert np.allclose(features.patches.mean(axis=1), features.mean, atol=1e-5)
    # Its files tell how its images were normalised: by the recipe's default.
    assert encoder.normalize == ([0.5], [0.5])
    with pytest.raises(ValueError, match="holds a run already") as error:
        saltworks.pretrain(TINY, out=tmp_path / "run")
    assert "overwrite=True" in str(error.value) and "--" not in str(error.value)
    student = saltworks.SALT.from_checkpoint(done["encoders"]["teacher"], predictor_depth=1)
    assert (student.embed_dim, student.grid) == (32, (4, 4))


def test_an_encoder_gives_timms_features(tmp_path):
    timm, torch = pytest.importorskip("timm"), pytest.importorskip("torch")
    sizes = dict(img_size=28, patch_size=7, in_chans=1, embed_dim=32, depth=2, num_heads=2)
    vit = timm.create_model("vit_tiny_patch16_224", num_classes=0, **sizes).eval()
    encoder = saltworks.Encoder("vit_tiny_patch16_224", vit.state_dict(), **sizes)
    images = torch.randn(3, 1, 28, 28)
    with torch.no_grad():
        want = vit.forward_features(images).numpy()
    got = encoder(images)
    assert np.allclose(got.cls, want[:, 0], atol=1e-5)
    assert np.allclose(got.patches, want[:, 1:], atol=1e-5)
    assert set(encoder.state_dict()) == set(vit.state_dict())


class Enough(Exception):
    pass


def test_what_a_callback_raises_ends_the_run_which_can_go_on(tmp_path):
    def callback(step):
        if step["step"] == 3:
            raise Enough

    with pytest.raises(Enough):
        saltworks.pretrain(TINY, out=tmp_path / "run", callback=callback)
    steps = []
    saltworks.pretrain(TINY, out=tmp_path / "run", callback=lambda step: steps.append(step["step"]))
    assert steps == [4, 5, 6, 1, 2, 3, 4]
    whole = saltworks.pretrain(TINY, out=tmp_path / "whole")
    for stage, path in whole["encoders"].items():
        assert path.read_bytes() == (tmp_path / "run" / stage / "encoder.safetensors").read_bytes()


def test_ctrl_c_ends_a_run_after_a_checkpoint(tmp_path):
    # Ignored where a shell started these tests in the background.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    long = {**TINY, "stage": [{**TINY["stage"][0], "steps": 1_000_000}]}
    # As a terminal does, to this process, while it waits for a step.
    interrupt = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))

    def callback(step):
        if step["step"] == 3:
            interrupt.start()

    try:
        with pytest.raises(KeyboardInterrupt):
            saltworks.pretrain(long, out=tmp_path / "run", callback=callback)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert list((tmp_path / "run" / "checkpoints").iterdir())


@pytest.mark.parametrize(
    "change, message",
    [
        ({"stagge": 1}, "stagge"),
        ({"data": {"sise": 28}}, "Did you mean `size`"),
        ({"stage": []}, "at least one"),
        ({"model": {"name": "vit_mini_patch16_224"}}, "vit_mini_patch16_224"),
    ],
)
def test_recipes_that_cannot_be_are_refused(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        saltworks.pretrain(TINY | change, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_recipes_hold_numpys_numbers_paths_and_toml(tmp_path):
    recipe = {**TINY, "seed": np.int64(3), "stage": ({**TINY["stage"][0], "steps": np.uint8(2), "lr": np.float32(0.5)},)}
    saltworks.pretrain(recipe, out=tmp_path / "run", set="probe.k=5")
    kept = (tmp_path / "run/recipe.toml").read_text()
    assert "seed = 3" in kept and "lr = 0.5" in kept
    saltworks.pretrain(kept, out=tmp_path / "text")
    assert (tmp_path / "text/recipe.toml").read_text() == kept
    for change, message in [
        ({"seed": None}, r"recipe\.seed is None: no recipe holds that. Leave the key out"),
        ({"stage": [{"lr": 1j}]}, r"recipe\.stage\[0\]\.lr is 1j"),
    ]:
        with pytest.raises(ValueError, match=message):
            saltworks.pretrain(TINY | change, out=tmp_path / "none")


def test_a_recipe_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="missing.toml"):
        saltworks.pretrain(tmp_path / "missing.toml", out=tmp_path / "run")
    with pytest.raises(FileNotFoundError):
        saltworks.pretrain(out=tmp_path / "none", resume=True)
