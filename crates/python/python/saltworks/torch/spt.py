"""SALT and MAE as modules of stable-pretraining, for its Manager and Lightning's trainer.

    import stable_pretraining as spt
    from saltworks.torch.spt import MAE, SALT

Train with ``accelerator="cpu"``. The engine computes in float32 whatever the trainer's precision is.
"""

import stable_pretraining

from saltworks.torch import models
from saltworks.torch.encoder import MaskedEncoder
from saltworks.torch.masking import MultiBlockMasking, PatchMasking
from saltworks.torch.outputs import MAEOutput, SALTOutput

__all__ = ["MAE", "MAEOutput", "MaskedEncoder", "MultiBlockMasking", "PatchMasking", "SALT", "SALTOutput"]


class SALT(models.SALT, stable_pretraining.Module):
    """saltworks.torch.SALT as a stable_pretraining.Module."""


class MAE(models.MAE, stable_pretraining.Module):
    """saltworks.torch.MAE as a stable_pretraining.Module."""
