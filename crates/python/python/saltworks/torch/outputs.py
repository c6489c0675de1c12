"""What the modules return. If transformers is installed, these are its ModelOutput."""

from dataclasses import dataclass, fields
from typing import Optional

import torch

try:
    from transformers.utils import ModelOutput
except ImportError:

    class ModelOutput:
        """Fields by name, key or position. None is left out."""

        def keys(self):
            return [field.name for field in fields(self) if getattr(self, field.name) is not None]

        def values(self):
            return [getattr(self, name) for name in self.keys()]

        def items(self):
            return list(zip(self.keys(), self.values()))

        def to_tuple(self):
            return tuple(self.values())

        def __iter__(self):
            return iter(self.keys())

        def __getitem__(self, key):
            return getattr(self, key) if isinstance(key, str) else self.to_tuple()[key]


@dataclass
class SALTOutput(ModelOutput):
    """loss, embedding [B, D], predictions and targets [B, M, D] (None in eval mode), their counts, and the patches
    that were context [B, K] and target [B, M]."""

    loss: torch.Tensor = None
    embedding: torch.Tensor = None
    predictions: Optional[torch.Tensor] = None
    targets: Optional[torch.Tensor] = None
    num_targets: int = None
    num_context: int = None
    context_idx: Optional[torch.Tensor] = None
    target_idx: Optional[torch.Tensor] = None


@dataclass
class MAEOutput(ModelOutput):
    """loss, predictions [B, N, ph pw C], mask [B, N] (1 for masked patches), and their counts."""

    loss: torch.Tensor = None
    predictions: torch.Tensor = None
    mask: torch.Tensor = None
    num_masked: int = None
    num_visible: int = None


@dataclass
class MaskingOutput(ModelOutput):
    """visible [B, K, D], mask [B, N] (1 for masked patches), ids_restore [B, N], ids_keep [B, K]."""

    visible: torch.Tensor = None
    mask: torch.Tensor = None
    ids_restore: torch.Tensor = None
    ids_keep: torch.Tensor = None


@dataclass
class MaskedEncoderOutput(ModelOutput):
    """encoded [B, P + K, D], mask [B, N] (1 for masked patches), ids_keep [B, K], grid_size (h, w)."""

    encoded: torch.Tensor = None
    mask: torch.Tensor = None
    ids_keep: torch.Tensor = None
    grid_size: tuple = None
