"""Masks. The engine draws them, seeded by torch's generator."""

import torch
from torch import nn

import saltworks
from saltworks.torch.outputs import MaskingOutput


def drawn_seed():
    """A seed from torch's generator, which torch.manual_seed sets."""
    return int(torch.randint(2**62, ()))


def multi_block_mask(
    height, width, block_scales=None, aspect_ratios=None, min_keep=1, seed=None
):
    """One int32 mask [height, width] for each block, 1 inside it. Without a seed, torch's generator
    decides. By default there is a context block, then four target blocks."""
    seed = drawn_seed() if seed is None else seed
    masks = saltworks.multi_block_mask(height, width, block_scales, aspect_ratios, min_keep, seed)
    return [torch.from_numpy(mask) for mask in masks]


class _Masking(nn.Module):
    """Shows some patches of embeddings [B, N, D]."""

    def _sampler(self):
        raise NotImplementedError

    def _masks_nothing(self):
        return not self.training

    def forward(self, x: torch.Tensor, grid_h: int, grid_w: int) -> MaskingOutput:
        if x.dim() != 3:
            raise ValueError(f"Expected 3D input (B, N, D), got {x.dim()}D tensor with shape {x.shape}")
        samples, patches, width = x.shape
        if patches != grid_h * grid_w:
            raise ValueError(f"Number of patches {patches} doesn't match grid size {grid_h} x {grid_w}")
        if self._masks_nothing():
            every = torch.arange(patches, device=x.device).expand(samples, -1)
            return MaskingOutput(x, torch.zeros(samples, patches, device=x.device), every, every)
        drawn, _ = self._sampler().sample(grid_h, grid_w, samples, drawn_seed())
        keep = torch.from_numpy(drawn).to(x.device)
        mask = torch.ones(samples, patches, device=x.device).scatter_(1, keep, 0.0)
        # Shown patches first, each part in the order of the grid.
        shuffle = torch.argsort(mask, dim=1, stable=True)
        visible = torch.gather(x, 1, keep.unsqueeze(-1).expand(-1, -1, width))
        return MaskingOutput(visible, mask, torch.argsort(shuffle, dim=1), keep)


class MultiBlockMasking(_Masking):
    """A context block without ``num_targets`` target blocks, the same for the whole batch."""

    def __init__(
        self,
        num_targets=4,
        context_scale=(0.85, 1.0),
        target_scale=(0.15, 0.2),
        context_aspect_ratio=(1.0, 1.0),
        target_aspect_ratio=(0.75, 1.5),
    ):
        super().__init__()
        self.num_targets = num_targets
        self.context_scale = context_scale
        self.target_scale = target_scale
        self.context_aspect_ratio = context_aspect_ratio
        self.target_aspect_ratio = target_aspect_ratio
        if num_targets < 1:
            raise ValueError(f"num_targets must be >= 1, got {num_targets}")

    def _sampler(self):
        return saltworks.MultiBlockMasking(
            self.num_targets,
            self.context_scale,
            self.target_scale,
            self.context_aspect_ratio,
            self.target_aspect_ratio,
        )

    def extra_repr(self):
        return f"num_targets={self.num_targets}, context_scale={self.context_scale}"


class PatchMasking(_Masking):
    """Random patches, or square blocks of them, drawn for each sample."""

    def __init__(self, mask_ratio=0.75, block_size=1, crop_ratio=0.0):
        super().__init__()
        if block_size < 1:
            raise ValueError(f"block_size must be >= 1, got {block_size}")
        saltworks.PatchMasking(mask_ratio, block_size, crop_ratio)
        self.mask_ratio = mask_ratio
        self.block_size = block_size
        self.crop_ratio = crop_ratio

    def _sampler(self):
        return saltworks.PatchMasking(self.mask_ratio, self.block_size)

    def _masks_nothing(self):
        return self.mask_ratio == 0 or not self.training

    def extra_repr(self):
        return f"mask_ratio={self.mask_ratio}, block_size={self.block_size}, crop_ratio={self.crop_ratio}"
