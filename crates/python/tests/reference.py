"""stable-pretraining's SALT and MAE, small, with masks that can be given."""

import numpy as np
import timm
import torch
from stable_pretraining.backbone import MaskedEncoder, MultiBlockMasking
from stable_pretraining.backbone.patch_masking import MaskingOutput
from stable_pretraining.methods.mae import MAE
from stable_pretraining.methods.salt import SALT

OPTIONS = dict(img_size=32, patch_size=8, in_chans=3, embed_dim=48, depth=3, num_heads=4)
SIZES = dict(encoder_name="vit_tiny_patch16_224", **OPTIONS)
MAE_SIZES = dict(model_or_model_name="vit_tiny_patch16_224", **OPTIONS)


class Small:
    """While it lasts, timm makes every ViT of the reference this small: its SALT takes a name alone."""

    def __init__(self, **more):
        self.options = OPTIONS | more

    def __enter__(self):
        self.create = timm.create_model
        timm.create_model = lambda name, **kwargs: self.create(name, **(kwargs | self.options))

    def __exit__(self, *_):
        timm.create_model = self.create


def reference_salt(seed=0, **sizes):
    torch.manual_seed(seed)
    with Small(**sizes):
        model = SALT(predictor_embed_dim=48, predictor_depth=2, predictor_num_heads=4)
    return spread(model)


def reference_mae(seed=0, **kwargs):
    torch.manual_seed(seed)
    with Small():
        model = MAE("vit_tiny_patch16_224", decoder_embed_dim=48, decoder_depth=2,
                    decoder_num_heads=4, masking=MultiBlockMasking(), **kwargs)
    return spread(model)


def spread(model):
    """Biases, norms and tokens away from 0 and 1, so that every one of them shows."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.train()


class Given(torch.nn.Module):
    """A masking that shows the patches `context` [B, K]."""

    def __init__(self, context):
        super().__init__()
        self.context = torch.as_tensor(np.array(context))

    def forward(self, x, grid_h, grid_w):
        mask = torch.ones(x.shape[:2]).scatter(1, self.context, 0.0)
        index = self.context.unsqueeze(-1).expand(-1, -1, x.shape[-1])
        return MaskingOutput(torch.gather(x, 1, index), mask, None, self.context)


def with_masks(model, context, target=None):
    """`model` with these masks instead of drawn ones."""
    if isinstance(model, MAE):
        model.encoder.masking = Given(context)
    else:
        both = torch.as_tensor(context), torch.as_tensor(target)
        model._generate_masks = lambda *_: both
    return model


__all__ = ["MAE_SIZES", "MaskedEncoder", "SIZES", "reference_mae", "reference_salt", "with_masks"]
