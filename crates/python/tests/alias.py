"""A pytest plugin: stable-pretraining's own unit tests, unchanged, on saltworks.torch.

    PYTHONPATH=tests python -m pytest -p alias --pyargs stable_pretraining.tests.unit.test_salt
"""

import stable_pretraining.backbone
import stable_pretraining.backbone.patch_masking
import stable_pretraining.methods
import stable_pretraining.methods.mae
import stable_pretraining.methods.salt

import saltworks.torch

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
    """The tests must have got ours."""
    for module in {item.module for item in items}:
        for name in ["MAE", "SALT", "SALTOutput", "MultiBlockMasking", "PatchMasking", "MaskingOutput"]:
            found = getattr(module, name, None)
            assert found in (None, getattr(saltworks.torch, name)), f"{module.__name__}.{name}: {found}"
