"""Pretrains vision transformers by SALT (arXiv 2509.24317) on the saltworks engine.

Classes have the names and arguments of stable-pretraining 0.1.8 where it has them. Arrays are NumPy's;
tensors of other libraries go in by DLPack. ``saltworks.torch`` has the same as torch modules.
"""

from saltworks._saltworks import (
    MAE,
    SALT,
    MAEOutput,
    Model,
    MultiBlockMasking,
    Parameter,
    PatchMasking,
    SALTOutput,
    __version__,
    multi_block_mask,
)

__all__ = [
    "MAE",
    "MAEOutput",
    "Model",
    "MultiBlockMasking",
    "Parameter",
    "PatchMasking",
    "SALT",
    "SALTOutput",
    "__version__",
    "multi_block_mask",
]
