"""SALT, MAE and their parts as torch modules, under stable-pretraining 0.1.8's names.

The weights of a module *are* the engine's: every ``nn.Parameter`` is a view of its memory, so a torch
optimizer trains them in place. ``loss.backward()`` runs the engine's backward pass and leaves gradients
in ``.grad``. All tensors are float32 on the CPU.

    model = saltworks.torch.SALT.from_checkpoint("stage1.safetensors")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model.train()
    output = model(images)          # [B, C, H, W]
    output.loss.backward()
    optimizer.step()

``saltworks.torch.spt`` has SALT and MAE as stable-pretraining's Modules, for its Lightning trainer.
"""

import importlib

from saltworks.torch.encoder import MaskedEncoder
from saltworks.torch.masking import MultiBlockMasking, PatchMasking, multi_block_mask
from saltworks.torch.models import MAE, SALT
from saltworks.torch.outputs import MAEOutput, MaskedEncoderOutput, MaskingOutput, SALTOutput
from saltworks.torch.parts import EvalOnly
from saltworks.torch.transformer import FlexibleTransformer, MAEDecoder

__all__ = [
    "MAE",
    "SALT",
    "EvalOnly",
    "FlexibleTransformer",
    "MAEDecoder",
    "MAEOutput",
    "MaskedEncoder",
    "MaskedEncoderOutput",
    "MaskingOutput",
    "MultiBlockMasking",
    "PatchMasking",
    "SALTOutput",
    "multi_block_mask",
]


def __getattr__(name):
    """``saltworks.torch.spt``, which needs stable-pretraining, is imported when it is first used."""
    if name != "spt":
        raise AttributeError(f"module 'saltworks.torch' has no attribute {name!r}")
    try:
        return importlib.import_module("saltworks.torch.spt")
    except ModuleNotFoundError as error:
        raise AttributeError(f"saltworks.torch.spt needs stable-pretraining: {error}") from error
