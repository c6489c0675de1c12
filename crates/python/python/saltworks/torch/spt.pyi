"""SALT and MAE as modules of stable-pretraining."""

from typing import Any

from saltworks import torch
from saltworks.torch import MAEOutput as MAEOutput
from saltworks.torch import MaskedEncoder as MaskedEncoder
from saltworks.torch import MultiBlockMasking as MultiBlockMasking
from saltworks.torch import PatchMasking as PatchMasking
from saltworks.torch import SALTOutput as SALTOutput

class _Checkpointed:
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None: ...
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None: ...

class SALT(_Checkpointed, torch.SALT):
    """saltworks.torch.SALT as a stable_pretraining.Module."""

class MAE(_Checkpointed, torch.MAE):
    """saltworks.torch.MAE as a stable_pretraining.Module."""
