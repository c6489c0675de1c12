"""Pretrains vision transformers by SALT (arXiv 2509.24317) on the saltworks engine.

Classes have the names and arguments of stable-pretraining 0.1.8 if it has them. Arrays are NumPy's.
Tensors of other libraries are accepted by DLPack. ``saltworks.torch`` has the same classes as torch modules.
"""

import importlib

from saltworks._saltworks import (
    MAE,
    SALT,
    AdamW,
    Encoder,
    Features,
    Loader,
    MAEOutput,
    Model,
    MultiBlockMasking,
    Parameter,
    PatchMasking,
    SALTOutput,
    Tokens,
    Transformer,
    __version__,
    clip_grad_norm,
    encoder_weights,
    multi_block_mask,
    pretrain,
)

__all__ = [
    "AdamW",
    "Encoder",
    "Features",
    "Loader",
    "MAE",
    "MAEOutput",
    "Model",
    "MultiBlockMasking",
    "Parameter",
    "PatchMasking",
    "SALT",
    "SALTOutput",
    "Tokens",
    "Transformer",
    "__version__",
    "clip_grad_norm",
    "encoder_weights",
    "multi_block_mask",
    "pretrain",
]


def __getattr__(name):
    """``saltworks.torch``, which needs torch, is imported when it is first used."""
    if name != "torch":
        raise AttributeError(f"module 'saltworks' has no attribute {name!r}")
    try:
        return importlib.import_module("saltworks.torch")
    except ModuleNotFoundError as error:
        raise AttributeError(f"saltworks.torch needs torch: {error}") from error
