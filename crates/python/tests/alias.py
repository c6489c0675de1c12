"""A pytest plugin: stable-pretraining's own unit tests, unchanged, on saltworks.torch.

    PYTHONPATH=tests python -m pytest -p alias --pyargs stable_pretraining.tests.unit.test_salt
"""

import stable_pretraining.backbone
import stable_pretraining.backbone.patch_masking
import stable_pretraining.methods
import stable_pretraining.methods.mae
import stable_pretraining.methods.salt

import pytest

import saltworks.torch

# Tests of test_patch_masking.py that must fail, and why: README.md.
CROPS = "saltworks.torch.PatchMasking draws no crops"
DIFFERENT = {
    "TestInit": [
        "test_default_init",
        "test_custom_init",
        "test_invalid_crop_aspect_ratio_order",
        "test_invalid_crop_aspect_ratio_negative",
        "test_invalid_crop_aspect_ratio_length",
    ],
    "TestCropMasking": ["test_crop_masking_exact_count", "test_crop_masking_contiguous_region"],
    "TestMixedStrategies": ["test_crop_ratio_probabilistic"],
}

ALIASES = {
    stable_pretraining.methods: ["MAE", "SALT"],
    stable_pretraining.methods.mae: ["MAE", "MAEOutput"],
    stable_pretraining.methods.salt: ["SALT", "SALTOutput"],
    stable_pretraining.backbone: ["MultiBlockMasking", "PatchMasking"],
    stable_pretraining.backbone.patch_masking: ["MaskingOutput", "MultiBlockMasking", "PatchMasking"],
}

for module, names in ALIASES.items():
    for name in names:
        setattr(module, name, getattr(saltworks.torch, name))


def pytest_collection_modifyitems(items):
    """The tests must have got ours; those that differ must fail."""
    for item in items:
        different = DIFFERENT.get(item.cls.__name__, []) if item.cls else []
        if item.module.__name__.endswith("test_patch_masking") and item.name in different:
            item.add_marker(pytest.mark.xfail(reason=CROPS, strict=True))
    for module in {item.module for item in items}:
        for name in ["MAE", "SALT", "SALTOutput", "MultiBlockMasking", "PatchMasking", "MaskingOutput"]:
            found = getattr(module, name, None)
            assert found in (None, getattr(saltworks.torch, name)), f"{module.__name__}.{name}: {found}"
