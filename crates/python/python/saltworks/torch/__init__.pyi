"""B samples, C channels, H x W pixels, N patches (K context, M target), P class token and registers, D width."""

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, Literal, Optional, TypeVar, Union

from saltworks import Normalize
from saltworks.torch import spt as spt
from torch import Tensor, nn
from torch.nn import Module

Range = tuple[float, float]
Path = Union[str, "PathLike[str]"]
InitialWeights = Literal["published", "torch"]
Size = Union[int, tuple[int, int]]
S = TypeVar("S", bound="SALT")
E = TypeVar("E", bound="EvalOnly")

class _Output:
    """Fields by name, key or position. None is left out. With transformers it is its ModelOutput."""

    def keys(self) -> Any: ...
    def values(self) -> Any: ...
    def items(self) -> Any: ...
    def to_tuple(self) -> tuple[Any, ...]: ...
    def __getitem__(self, key: Union[str, int, slice]) -> Any: ...

class SALTOutput(_Output):
    """Predictions, targets and masks are None in eval mode."""

    loss: Tensor
    embedding: Tensor
    """[B, D]"""
    predictions: Optional[Tensor]
    """[B, M, D]"""
    targets: Optional[Tensor]
    """[B, M, D]"""
    num_targets: int
    num_context: int
    context_idx: Optional[Tensor]
    """[B, K]"""
    target_idx: Optional[Tensor]
    """[B, M]"""

class MAEOutput(_Output):
    loss: Tensor
    predictions: Tensor
    """[B, N, ph pw C]"""
    mask: Tensor
    """[B, N], 1 for masked patches"""
    num_masked: int
    num_visible: int

class MaskingOutput(_Output):
    def __init__(self, visible: Tensor, mask: Tensor, ids_restore: Tensor, ids_keep: Tensor) -> None: ...
    visible: Tensor
    """[B, K, D]"""
    mask: Tensor
    """[B, N], 1 for masked patches"""
    ids_restore: Tensor
    """[B, N]"""
    ids_keep: Tensor
    """[B, K]"""

class MaskedEncoderOutput(_Output):
    encoded: Tensor
    """[B, P + K, D]"""
    mask: Tensor
    """[B, N], 1 for masked patches"""
    ids_keep: Tensor
    """[B, K]"""
    grid_size: tuple[int, int]

class _Masking(Module):
    def forward(self, x: Tensor, grid_h: int, grid_w: int) -> MaskingOutput: ...
    def __call__(self, x: Tensor, grid_h: int, grid_w: int) -> MaskingOutput: ...

class MultiBlockMasking(_Masking):
    """A context block without ``num_targets`` target blocks, the same for the whole batch."""

    num_targets: int
    context_scale: Range
    target_scale: Range
    context_aspect_ratio: Range
    target_aspect_ratio: Range
    def __init__(
        self,
        num_targets: int = 4,
        context_scale: Range = (0.85, 1.0),
        target_scale: Range = (0.15, 0.2),
        context_aspect_ratio: Range = (1.0, 1.0),
        target_aspect_ratio: Range = (0.75, 1.5),
    ) -> None: ...

class PatchMasking(_Masking):
    """Random patches, or square blocks of them, drawn for each sample."""

    mask_ratio: float
    block_size: int
    crop_ratio: float
    def __init__(self, mask_ratio: float = 0.75, block_size: int = 1, crop_ratio: float = 0.0) -> None: ...

def multi_block_mask(
    height: int,
    width: int,
    block_scales: Optional[Sequence[Range]] = None,
    aspect_ratios: Optional[Sequence[Range]] = None,
    min_keep: int = 1,
    seed: Optional[int] = None,
) -> list[Tensor]:
    """One int32 mask [height, width] for each block, 1 inside it. Without a seed, torch's generator decides."""

class MaskedEncoder(Module):
    """stable-pretraining's MaskedEncoder on the engine."""

    vit: Module
    patch_embed: Module
    masking: Optional[Module]
    embed_dim: int
    patch_size_h: int
    patch_size_w: int
    default_grid_h: int
    default_grid_w: int
    has_class_token: bool
    num_reg_tokens: int
    num_prefix_tokens: int
    no_embed_class: bool
    dynamic_img_size: bool
    def __init__(
        self,
        model_or_model_name: Union[str, Module] = "vit_base_patch16_224",
        masking: Optional[Module] = None,
        pretrained: Literal[False] = False,
        img_size: Optional[Size] = None,
        patch_size: Optional[Size] = None,
        dynamic_img_size: Literal[False] = False,
        norm_layer: None = None,
        *,
        seed: Optional[int] = None,
        **encoder_options: Any,
    ) -> None: ...
    def encode(self, images: Tensor, patches: Optional[Tensor] = None) -> Tensor:
        """All tokens [B, P + K, D] of whole images, or of ``patches`` [B, K] or [K] of them, in this order."""
    def forward(self, images: Tensor) -> MaskedEncoderOutput: ...
    def __call__(self, images: Tensor) -> MaskedEncoderOutput: ...
    def forward_features(self, images: Tensor) -> Tensor:
        """All tokens [B, P + N, D] of whole images, without masks, gradient and stochastic depth."""

class FlexibleTransformer(Module):
    """stable-pretraining's FlexibleTransformer with joint attention, on the engine."""

    context_proj: nn.Linear
    query_proj: nn.Linear
    blocks: nn.Sequential
    final_norm: nn.LayerNorm
    output_proj: nn.Linear
    hidden_dim: int
    add_mask_token: bool
    def __init__(
        self,
        input_dim: int = 768,
        hidden_dim: int = 384,
        output_dim: int = 768,
        num_patches: int = 196,
        depth: int = 4,
        num_heads: int = 6,
        mlp_ratio: float = 4.0,
        self_attn: bool = True,
        cross_attn: bool = True,
        use_adaln: bool = True,
        pos_embed_type: str = "sincos_2d",
        grid_size: Optional[Size] = None,
        drop_path_rate: float = 0.0,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        zero_init_output: bool = True,
        num_prefix_tokens: int = 1,
        num_registers: int = 0,
        add_mask_token: bool = False,
        use_rope: Any = None,
        use_qk_norm: bool = False,
        mlp_type: str = "gelu",
        use_layer_scale: bool = False,
        layer_scale_init: float = 1e-5,
        max_grid_size: int = 32,
        *,
        seed: Optional[int] = None,
        initial_weights: InitialWeights = "torch",
    ) -> None: ...
    def forward(
        self,
        context: Tensor,
        queries: Optional[Tensor] = None,
        context_idx: Optional[Tensor] = None,
        query_idx: Optional[Tensor] = None,
        t: None = None,
        num_prefix: Optional[int] = None,
        return_all: bool = False,
        return_registers: bool = False,
        context_mask: Optional[Tensor] = None,
        query_mask: Optional[Tensor] = None,
        attn_mask: Optional[Tensor] = None,
    ) -> Tensor: ...
    __call__ = forward

class MAEDecoder(Module):
    """stable-pretraining's MAEDecoder on the engine."""

    transformer: FlexibleTransformer
    mask_token: nn.Parameter
    def __init__(
        self,
        embed_dim: int = 768,
        decoder_embed_dim: int = 512,
        output_dim: int = 768,
        num_patches: int = 196,
        depth: int = 4,
        num_heads: int = 16,
        mlp_ratio: float = 4.0,
        pos_embed_type: str = "sincos_2d",
        grid_size: Optional[Size] = None,
        drop_path_rate: float = 0.0,
        *,
        seed: Optional[int] = None,
        initial_weights: InitialWeights = "torch",
    ) -> None: ...
    def forward(
        self, x: Tensor, mask: Tensor, ids_keep: Optional[Tensor] = None, output_masked_only: bool = False
    ) -> Tensor: ...
    __call__ = forward

class EvalOnly(Module):
    """A module that stays in eval mode and is not trained. Attributes are those of the module."""

    backbone: Module
    def __init__(self, backbone: Module) -> None: ...
    def train(self: E, mode: bool = True) -> E: ...
    def forward(self, *args: Any, **kwargs: Any) -> Any: ...

class _Model(Module):
    """The base of SALT and MAE."""

    embed_dim: int
    step: int
    """How many masks were drawn or given. Set it after load_state_dict to continue with the next."""

class SALT(_Model):
    """Stage 2: a frozen teacher, a student that reads the context patches, and a predictor of the teacher's latents at
    the target patches."""

    teacher: EvalOnly
    student: MaskedEncoder
    predictor: FlexibleTransformer
    num_targets: int
    context_scale: Range
    target_scale: Range
    context_aspect_ratio: Range
    target_aspect_ratio: Range
    def __init__(
        self,
        encoder_name: str = "vit_tiny_patch16_224",
        predictor_embed_dim: int = 384,
        predictor_depth: int = 12,
        predictor_num_heads: int = 16,
        num_targets: int = 4,
        context_scale: Range = (0.85, 1.0),
        target_scale: Range = (0.15, 0.2),
        context_aspect_ratio: Range = (1.0, 1.0),
        target_aspect_ratio: Range = (0.75, 1.5),
        teacher_state_dict: Optional[Mapping[str, Any]] = None,
        pretrained: Literal[False] = False,
        *,
        seed: Optional[int] = None,
        embedding: Literal["mean", "first_token"] = "mean",
        initial_weights: InitialWeights = "torch",
        normalize: Optional[Normalize] = None,
        **encoder_options: Any,
    ) -> None: ...
    @classmethod
    def from_checkpoint(cls: type[S], ckpt_path: Path, encoder_name: Optional[str] = None, **kwargs: Any) -> S:
        """The encoder in a file (of stage 1, or the student of a SALT) teaches a new student of its sizes."""
    def forward(
        self, images: Tensor, context_idx: Optional[Tensor] = None, target_idx: Optional[Tensor] = None
    ) -> SALTOutput: ...
    __call__ = forward
    def _generate_masks(self, grid_h: int, grid_w: int, device: Any = "cpu") -> tuple[Tensor, Tensor]:
        """The next masks: indices of context patches [K] and of target patches [M]. A subclass may draw others."""

class MAE(_Model):
    """Stage 1: an encoder that reads some patches, and a decoder of the pixels of the others."""

    encoder: MaskedEncoder
    decoder: MAEDecoder
    masking: Module
    def __init__(
        self,
        model_or_model_name: str = "vit_base_patch16_224",
        decoder_embed_dim: int = 512,
        decoder_depth: int = 8,
        decoder_num_heads: int = 16,
        mask_ratio: float = 0.75,
        block_size: int = 1,
        norm_pix_loss: bool = True,
        loss_type: str = "mse",
        pretrained: Literal[False] = False,
        masking: Optional[Module] = None,
        *,
        encoder_name: Optional[str] = None,
        seed: Optional[int] = None,
        initial_weights: InitialWeights = "torch",
        normalize: Optional[Normalize] = None,
        **encoder_options: Any,
    ) -> None: ...
    def forward(self, images: Tensor) -> MAEOutput: ...
    __call__ = forward
