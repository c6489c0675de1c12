"""Encoders from files: the sizes and the normalisation that a file tells, and contradictions."""

import json

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

import saltworks
import saltworks.torch

OPTIONS = dict(img_size=32, patch_size=8, in_chans=3, embed_dim=48, depth=2, num_heads=6)
PREDICTOR = dict(predictor_embed_dim=48, predictor_depth=1, predictor_num_heads=4)
SPEC = dict(image=[1, 32, 32], patch=[1, 8, 8], channels=3, width=48, depth=2, heads=6, hidden=192, registers=0,
            class_token=True, no_embed_class=False, layer_scale=None, qk_norm=False, drop_path=0.0)
NORMALIZE = dict(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
CONTEXT, TARGET = np.arange(0, 9), np.arange(9, 14)
CLASSES = [saltworks.SALT, saltworks.torch.SALT]


@pytest.fixture(scope="module")
def vit():
    """Six heads, where a name of its width would have three."""
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=0, **OPTIONS).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


@pytest.fixture
def stated(vit, tmp_path):
    """A file that states its sizes and normalisation, as a run's do."""
    metadata = dict(model=json.dumps(SPEC), normalize=json.dumps(NORMALIZE))
    save_file(vit.state_dict(), tmp_path / "stated.safetensors", metadata=metadata)
    return tmp_path / "stated.safetensors"


@pytest.fixture
def bare(vit, tmp_path):
    torch.save(vit.state_dict(), tmp_path / "bare.pth")
    return tmp_path / "bare.pth"


def images():
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def tokens(vit):
    with torch.no_grad():
        return vit.forward_features(images())[:, 1:].numpy()


def targets(model):
    return np.asarray(model(images(), context_idx=CONTEXT, target_idx=TARGET).targets)


@pytest.mark.parametrize("SALT", CLASSES)
def test_a_checkpoints_sizes_are_the_files(SALT, vit, stated, bare):
    want = tokens(vit)[:, TARGET]
    model = SALT.from_checkpoint(stated, **PREDICTOR, drop_path_rate=0.1)
    assert np.allclose(targets(model), want, atol=1e-5)
    # Heads are not in the shapes.
    model = SALT.from_checkpoint(bare, num_heads=6, **PREDICTOR)
    assert np.allclose(targets(model), want, atol=1e-5)


@pytest.mark.parametrize("SALT", CLASSES)
@pytest.mark.parametrize("said, message", [
    (dict(num_heads=3), "num_heads is 6, not 3"),
    (dict(img_size=64), "img_size is 32 x 32, not 64 x 64"),
    (dict(depth=1, patch_size=4), "patch_size is 8 x 8, not 4 x 4, depth is 2, not 1"),
    (dict(mlp_ratio=2), "192, not 96"),
    (dict(init_values=0.1), "having init_values is false, not true"),
    (dict(class_token=False), "class_token is true, not false"),
    (dict(encoder_name="vit_tiny_patch16_224"), "img_size is 32 x 32, not 224 x 224.*embed_dim is 48, not 192"),
])
def test_what_contradicts_a_file_is_refused(SALT, stated, said, message):
    with pytest.raises(ValueError, match=message):
        SALT.from_checkpoint(stated, **said, **PREDICTOR)
    options = {("name" if key == "encoder_name" else key): value for key, value in said.items()}
    with pytest.raises(ValueError, match=message):
        saltworks.Encoder(weights=stated, **options)


def test_what_agrees_with_a_file_may_be_said(vit, stated, bare):
    for weights in [stated, bare, vit.state_dict()]:
        encoder = saltworks.Encoder("vit_tiny_patch16_224", weights=weights, **OPTIONS)
        assert np.allclose(encoder(images()).patches, tokens(vit), atol=1e-5)


def test_a_files_normalisation_is_its_encoders(stated, bare):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32), np.uint8)
    encoder = saltworks.Encoder(weights=stated)
    assert np.allclose(encoder.normalize, [NORMALIZE["mean"], NORMALIZE["std"]])
    mean, std = (np.array(NORMALIZE[key], np.float32).reshape(3, 1, 1) for key in ["mean", "std"])
    floats = (pixels / np.float32(255) - mean) / std
    assert np.allclose(encoder(pixels).mean, encoder(floats).mean, atol=1e-4)
    for SALT in CLASSES:
        model = SALT.from_checkpoint(stated, **PREDICTOR).eval()
        assert np.allclose(model(pixels).embedding, model(floats).embedding, atol=1e-4)
    # What is said counts before what the file says.
    assert saltworks.Encoder(weights=stated, normalize="inception").normalize[0] == [0.5]
    unknown = saltworks.Encoder(weights=bare, num_heads=6)
    assert unknown.normalize is None
    with pytest.raises(ValueError, match="normalize="):
        unknown(pixels)


def test_a_file_in_the_names_place_is_told_of():
    with pytest.raises(ValueError, match="Encoder\\(weights="):
        saltworks.Encoder("runs/q/teacher/encoder.safetensors")


def test_heads_that_a_file_does_not_tell_are_asked_for_in_pythons_words(bare):
    for make in [lambda: saltworks.Encoder(weights=bare), lambda: saltworks.SALT.from_checkpoint(bare)]:
        with pytest.raises(ValueError, match="num_heads=") as error:
            make()
        assert "--" not in str(error.value)


@pytest.mark.parametrize("shape", [[], [0]])
def test_hostile_shapes_are_errors_and_no_panics(vit, tmp_path, shape):
    for name in vit.state_dict():
        state = vit.state_dict() | {name: torch.ones(shape)}
        path = tmp_path / "hostile.pth"
        torch.save(state, path)
        for read in [lambda: saltworks.Encoder(weights=path, num_heads=6),
                     lambda: saltworks.SALT.from_checkpoint(path, num_heads=6)]:
            with pytest.raises(ValueError):
                read()
