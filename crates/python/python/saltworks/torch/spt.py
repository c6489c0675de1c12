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


class _Checkpointed:
    """Lightning's checkpoints hold the step, so that a resumed run goes on with the next masks. They are the same
    if the model was made with the same seed."""

    def on_save_checkpoint(self, checkpoint):
        super().on_save_checkpoint(checkpoint)
        checkpoint["saltworks_step"] = self.step

    def on_load_checkpoint(self, checkpoint):
        super().on_load_checkpoint(checkpoint)
        self.step = checkpoint.get("saltworks_step", 0)


class SALT(_Checkpointed, models.SALT, stable_pretraining.Module):
    """saltworks.torch.SALT as a stable_pretraining.Module."""


class MAE(_Checkpointed, models.MAE, stable_pretraining.Module):
    """saltworks.torch.MAE as a stable_pretraining.Module."""
