"""B samples, C channels, H x W pixels, N patches (K context, M target), D width."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from os import PathLike
from typing import Any, Literal, Optional, TypedDict, TypeVar, Union

import numpy as np
from numpy.typing import NDArray

__version__: str

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Range = tuple[float, float]
# A NumPy array, or anything in the CPU's memory that offers DLPack or the array interface.
ArrayLike = Any
Normalize = Union[
    Literal["imagenet", "inception", "clip"],
    tuple[Union[float, Sequence[float]], Union[float, Sequence[float]]],
    "Model",
]
Path = Union[str, "PathLike[str]"]
M = TypeVar("M", bound="Model")

class Parameter:
    """A weight of a model. data and grad are views of the engine's own memory."""

    @property
    def name(self) -> str: ...
    @property
    def data(self) -> Floats: ...
    @property
    def grad(self) -> Optional[Floats]:
        """None before the first backward pass."""
    @property
    def requires_grad(self) -> bool: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    def zero_grad(self, set_to_none: Literal[False] = False) -> None: ...
    def __array__(self, dtype: Any = None, copy: Optional[bool] = None) -> Floats: ...

class Model:
    """The base of SALT, MAE and Encoder."""

    step: int
    """Masks drawn or given so far. Seed and step determine the next ones. No state dict holds it."""
    @property
    def training(self) -> bool: ...
    @property
    def normalize(self) -> Optional[tuple[list[float], list[float]]]:
        """(means, deviations) to read uint8 images with, as given or as the weights file states.
        None if they are not known. Then uint8 images are refused."""
    def train(self: M, mode: bool = True) -> M: ...
    def eval(self: M) -> M: ...
    def named_parameters(self) -> list[tuple[str, Parameter]]:
        """All weights under the reference's names, the teacher's first."""
    def parameters(self) -> list[Parameter]:
        """The weights that are trained."""
    def zero_grad(self, set_to_none: Literal[False] = False) -> None: ...
    def state_dict(self) -> dict[str, Floats]:
        """The reference's keys, with views of all weights and copies of what is never trained."""
    def load_state_dict(self, state_dict: Mapping[str, ArrayLike]) -> None:
        """Raises ValueError, and changes nothing, if a tensor is missing or unexpected, has another shape,
        or has another value under its second name."""

class SALTOutput:
    @property
    def loss(self) -> float: ...
    @property
    def embedding(self) -> Floats:
        """[B, D]"""
    @property
    def predictions(self) -> Optional[Floats]:
        """[B, M, D]. None in eval mode, as are targets and indices."""
    @property
    def targets(self) -> Optional[Floats]:
        """[B, M, D]"""
    @property
    def num_targets(self) -> int: ...
    @property
    def num_context(self) -> int: ...
    @property
    def context_idx(self) -> Optional[Ints]:
        """[B, K]"""
    @property
    def target_idx(self) -> Optional[Ints]:
        """[B, M]"""
    def backward(
        self, gradient: Optional[float] = 1.0, predictions: Optional[ArrayLike] = None
    ) -> None:
        """predictions [B, M, D] is the gradient of another loss by the predictions."""

class SALT(Model):
    """Stage 2: a frozen teacher, a student that reads the context patches, and a predictor of the teacher's
    latents at the target patches."""

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
        teacher_state_dict: Optional[Mapping[str, ArrayLike]] = None,
        seed: int = 0,
        *,
        normalize: Optional[Normalize] = None,
        embedding: Literal["mean", "first_token"] = "mean",
        initial_weights: Literal["torch", "published"] = "torch",
        **encoder_options: Any,
    ) -> None: ...
    @classmethod
    def from_checkpoint(
        cls, ckpt_path: Path, encoder_name: Optional[str] = None, **kwargs: Any
    ) -> "SALT":
        """The encoder in a file (of stage 1, or the student of a SALT) teaches a new student of its sizes.
        Arguments must not contradict them. kwargs give what the file lacks (num_heads, normalize)."""
    @property
    def embed_dim(self) -> int: ...
    @property
    def grid(self) -> tuple[int, int]: ...
    def next_masks(self) -> tuple[Ints, Ints]:
        """The masks that the next call would draw: context [1, K], target [1, M]."""
    def __call__(
        self,
        images: ArrayLike,
        *,
        context_idx: Optional[ArrayLike] = None,
        target_idx: Optional[ArrayLike] = None,
        record: bool = True,
        drop_path: bool = True,
    ) -> SALTOutput:
        """images [B, C, H, W]. Indices are [K] and [M], or [B, K] and [B, M], in any order."""
    forward = __call__
    def encode(
        self,
        part: Literal["student", "teacher"],
        images: ArrayLike,
        patches: Optional[ArrayLike] = None,
        *,
        training: bool = False,
        record: bool = True,
    ) -> Tokens:
        """As Encoder.encode. The teacher records nothing."""
    def transform(
        self,
        context: ArrayLike,
        queries: None,
        context_idx: ArrayLike,
        query_idx: ArrayLike,
        *,
        every: bool = False,
        record: bool = True,
    ) -> Tokens:
        """The predictor. As Transformer.__call__, with the mask token at query_idx."""

class MAEOutput:
    @property
    def loss(self) -> float: ...
    @property
    def predictions(self) -> Floats:
        """[B, N, ph pw C]"""
    @property
    def mask(self) -> Floats:
        """[B, N], 1 for masked patches"""
    @property
    def num_masked(self) -> int: ...
    @property
    def num_visible(self) -> int: ...
    @property
    def context_idx(self) -> Ints:
        """[B, K]"""
    def backward(
        self, gradient: Optional[float] = 1.0, predictions: Optional[ArrayLike] = None
    ) -> None:
        """predictions [B, N, ph pw C] is the gradient of another loss by the predictions."""

class MAE(Model):
    """Stage 1: an encoder of the visible patches, and a decoder that predicts the pixels of the others."""

    def __init__(
        self,
        model_or_model_name: str = "vit_base_patch16_224",
        decoder_embed_dim: int = 512,
        decoder_depth: int = 8,
        decoder_num_heads: int = 16,
        mask_ratio: float = 0.75,
        block_size: int = 1,
        norm_pix_loss: bool = True,
        loss_type: Literal["mse", "smooth_l1"] = "mse",
        masking: Optional[Union[MultiBlockMasking, PatchMasking]] = None,
        seed: int = 0,
        *,
        normalize: Optional[Normalize] = None,
        initial_weights: Literal["torch", "published"] = "torch",
        **encoder_options: Any,
    ) -> None: ...
    @property
    def embed_dim(self) -> int: ...
    @property
    def grid(self) -> tuple[int, int]: ...
    def __call__(
        self,
        images: ArrayLike,
        *,
        context_idx: Optional[ArrayLike] = None,
        record: bool = True,
        drop_path: bool = True,
    ) -> MAEOutput: ...
    forward = __call__
    def encode(
        self,
        part: Literal["encoder"],
        images: ArrayLike,
        patches: Optional[ArrayLike] = None,
        *,
        training: bool = False,
        record: bool = True,
    ) -> Tokens:
        """As Encoder.encode."""
    def transform(
        self,
        context: ArrayLike,
        queries: Optional[ArrayLike],
        context_idx: ArrayLike,
        query_idx: ArrayLike,
        *,
        every: bool = False,
        record: bool = True,
    ) -> Tokens:
        """The decoder. As Transformer.__call__."""

class Tokens:
    @property
    def tokens(self) -> Floats:
        """[B, L, D]"""
    def backward(self, gradient: ArrayLike) -> list[Optional[Floats]]:
        """gradient [B, L, D]. Adds the gradient of every weight. Returns those of context and queries, in this
        order. None for one that the tokens do not depend on. Images get none."""

class Features:
    @property
    def cls(self) -> Optional[Floats]:
        """[B, D]. None without a class token"""
    @property
    def mean(self) -> Floats:
        """[B, D], over the patch tokens"""
    @property
    def patches(self) -> Floats:
        """[B, N, D]"""

class Encoder(Model):
    """timm's vision transformer. Weights are a file or a mapping of arrays. They set the sizes, which name
    and options must not contradict. Without arguments it is "vit_tiny_patch16_224"."""

    def __init__(
        self,
        name: Optional[str] = None,
        weights: Optional[Union[Path, Mapping[str, ArrayLike]]] = None,
        seed: int = 0,
        *,
        normalize: Optional[Normalize] = None,
        **encoder_options: Any,
    ) -> None: ...
    @property
    def embed_dim(self) -> int: ...
    @property
    def grid(self) -> tuple[int, int]: ...
    @property
    def image_shape(self) -> tuple[int, int, int]: ...
    def __call__(self, images: ArrayLike) -> Features: ...
    forward = __call__
    def encode(
        self,
        images: ArrayLike,
        patches: Optional[ArrayLike] = None,
        *,
        training: Optional[bool] = None,
        record: bool = True,
    ) -> Tokens:
        """All tokens [B, P + K, D] of the images, or of patches [K] or [B, K] of them, in this order. With
        training (by default the model's mode), blocks are left out at random."""

class Transformer(Model):
    """stable-pretraining's FlexibleTransformer with joint attention: context tokens and queries attend to each
    other. pos_embed_type is "sincos_2d", "sincos_1d", "learned" or "none"."""

    def __init__(
        self,
        input_dim: int = 768,
        hidden_dim: int = 384,
        output_dim: int = 768,
        grid: tuple[int, int] = (14, 14),
        depth: int = 4,
        num_heads: int = 6,
        mlp_ratio: float = 4.0,
        drop_path_rate: float = 0.0,
        pos_embed_type: str = "sincos_2d",
        add_mask_token: bool = False,
        seed: int = 0,
        *,
        initial_weights: Literal["torch", "published"] = "torch",
    ) -> None: ...
    def __call__(
        self,
        context: ArrayLike,
        queries: Optional[ArrayLike],
        context_idx: ArrayLike,
        query_idx: ArrayLike,
        *,
        every: bool = False,
        training: Optional[bool] = None,
        record: bool = True,
    ) -> Tokens:
        """context [B, K, I] at patches context_idx [B, K], queries [B, M, I] at query_idx [B, M], or None for the
        mask token at each of them. Outputs [B, M, O], or with every those of all patches [B, N, O]."""

class MultiBlockMasking:
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
    def sample(
        self, grid_h: int, grid_w: int, batch: int = 1, seed: int = 0, step: int = 0
    ) -> tuple[Ints, Ints]:
        """(context [batch, K], target [batch, M])"""

class PatchMasking:
    mask_ratio: float
    block_size: int
    def __init__(
        self, mask_ratio: float = 0.75, block_size: int = 1, crop_ratio: float = 0.0
    ) -> None: ...
    def sample(
        self, grid_h: int, grid_w: int, batch: int = 1, seed: int = 0, step: int = 0
    ) -> tuple[Ints, Ints]:
        """(context [batch, K], target [batch, M])"""

def multi_block_mask(
    height: int,
    width: int,
    block_scales: Optional[Sequence[Range]] = None,
    aspect_ratios: Optional[Sequence[Range]] = None,
    min_keep: int = 1,
    seed: Optional[int] = None,
) -> list[NDArray[np.int32]]:
    """One mask [height, width] for each block, 1 inside it. Without a seed, NumPy's generator decides."""

class ParameterGroup(TypedDict, total=False):
    params: Iterable[Parameter]
    lr: float
    weight_decay: float

class AdamW:
    @property
    def param_groups(self) -> tuple[ParameterGroup, ...]:
        """lr and weight_decay of each group may be changed. Groups and parameters stay."""
    def __init__(
        self,
        params: Iterable[Union[Parameter, ParameterGroup]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None: ...
    def step(self) -> None: ...
    def zero_grad(self, set_to_none: Literal[False] = False) -> None: ...
    def state_dict(self) -> dict[str, Any]:
        """Copies of moments and rates, in the layout of torch.optim.AdamW."""
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Loads the state of this class or of torch.optim.AdamW. Raises ValueError, and changes nothing,
        if it does not fit."""

def clip_grad_norm(params: Sequence[Parameter], max_norm: float) -> float:
    """Scales all gradients to an L2 norm of at most max_norm. Returns the norm that they had."""

def encoder_weights(path: Path) -> dict[str, Floats]:
    """The encoder of a checkpoint under timm's names. The file is safetensors or PyTorch's, from saltworks,
    timm, stable-pretraining, facebookresearch/mae or transformers."""

class Loader:
    """Batches of (images [B, C, size, size], labels int32 [B], -1 without one). With shuffle all batches
    are whole: up to B - 1 images are left out of an epoch. An image that cannot be read is replaced by the
    next one, with a warning. This holds up to the share max_unreadable of all images (rounded up). More
    raise ValueError. By default that share is 0.01 with shuffle, and 0 without, so that rows match files.
    float32 is normalised as "inception" unless `normalize` is given. A model gives its own."""

    def __init__(
        self,
        path: Path,
        batch: int = 64,
        size: int = 224,
        channels: int = 3,
        *,
        shuffle: bool = False,
        augment: bool = False,
        seed: int = 0,
        threads: int = 1,
        normalize: Optional[Normalize] = None,
        dtype: Literal["float32", "uint8"] = "float32",
        crop_scale: Range = (0.2, 1.0),
        crop_aspect: Range = (0.75, 4 / 3),
        flip: float = 0.5,
        zoom: float = 1.0,
        max_unreadable: Optional[float] = None,
    ) -> None: ...
    @property
    def unreadable(self) -> list[int]:
        """Indices of the images that could not be read so far."""
    @property
    def num_images(self) -> int: ...
    @property
    def classes(self) -> list[str]: ...
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[tuple[NDArray[Any], NDArray[np.int32]]]: ...

class Step(TypedDict):
    """The argument of pretrain's callback."""

    stage: str
    step: int
    loss: float
    lr: float
    weight_decay: float
    grad_norm: float
    images: int
    context_tokens: int
    target_tokens: int
    seconds: float
    waited: float

class Run(TypedDict):
    out: Any
    encoders: dict[str, Any]
    probes: list[dict[str, Any]]

def pretrain(
    recipe: Optional[Union[Mapping[str, Any], Path]] = None,
    *,
    out: Path = "runs/quickstart",
    callback: Optional[Callable[[Step], None]] = None,
    set: Union[str, Sequence[str]] = (),
    resume: bool = False,
    overwrite: bool = False,
) -> Run:
    """Trains and probes all stages of a recipe (a mapping, a TOML file or its text), like ``saltworks
    pretrain``."""
