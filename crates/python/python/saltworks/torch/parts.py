"""The modules of a network, under timm's and stable-pretraining's names. They hold parameters. Layers that
torch has are torch's own, so that they can be told by their type."""

import torch
from torch import nn

LINEAR = {"qkv", "proj", "fc1", "fc2", "context_proj", "query_proj", "output_proj"}
NORMS = {"norm", "norm_pre", "fc_norm", "norm1", "norm2", "final_norm", "q_norm", "k_norm"}


class Part(nn.Module):
    """Weights of a part that computes nothing alone."""

    def forward(self, *_):
        raise NotImplementedError("this part computes nothing alone. Call the encoder or the transformer that has it")


class PatchEmbed(Part):
    """Patches [B, N, D] of images [B, C, H, W]."""

    def forward(self, images):
        return self.proj(images).flatten(2).transpose(1, 2)

    @property
    def patch_size(self):
        return self.proj.kernel_size


def grow(root, weights, eps):
    """Registers every weight as a parameter of `root`, and makes the modules on its way. `eps` is that of the
    norms."""
    for name, weight in weights:
        *path, last = name.split(".")
        module = root
        for part in path:
            if part not in module._modules:
                module.add_module(part, _module(part, weight.shape, eps))
            module = module._modules[part]
        module.register_parameter(last, nn.Parameter(torch.from_numpy(weight.data), weight.requires_grad))


def _module(name, shape, eps):
    """An empty module of this name. `shape` is that of its first weight."""
    nowhere = torch.device("meta")
    if name == "proj" and len(shape) == 4:
        width, channels, *patch = shape
        return nn.Conv2d(channels, width, tuple(patch), tuple(patch), device=nowhere)
    if name in LINEAR:
        return nn.Linear(shape[1], shape[0], device=nowhere)
    if name in NORMS:
        return nn.LayerNorm(shape[0], eps=eps, device=nowhere)
    if name == "blocks":
        return nn.Sequential()
    return PatchEmbed() if name == "patch_embed" else Part()


class EvalOnly(nn.Module):
    """A module that stays in eval mode and is not trained. Attributes are those of the module."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone
        self.backbone.train(False)
        self.requires_grad_(False)
        self.training = False

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            backbone = self.__dict__.get("_modules", {}).get("backbone")
            if backbone is None:
                raise
            return getattr(backbone, name)

    def train(self, mode=True):
        return self

    def share_memory(self):
        self.backbone.share_memory()
        return self

    def forward(self, *args, **kwargs):
        if self.backbone.training:
            raise RuntimeError("EvalOnly module is in training mode")
        return self.backbone(*args, **kwargs)
