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
    """A weight of a model; data and grad are views of the engine's own memory."""

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
    """What SALT, MAE and Encoder share."""

    step: int
    """Masks drawn or given so far; the next are a function of seed and step. No state dict holds it."""
    @property
    def training(self) -> bool: ...
    @property
    def normalize(self) -> Optional[tuple[list[float], list[float]]]:
        """(means, deviations) that uint8 images are read with, as given or as the file of weights says;
        None where that is not known: uint8 images are then refused."""
    def train(self: M, mode: bool = True) -> M: ...
    def eval(self: M) -> M: ...
    def named_parameters(self) -> list[tuple[str, Parameter]]:
        """All weights under the reference's names, the teacher's first."""
    def parameters(self) -> list[Parameter]:
        """Those that are trained."""
    def zero_grad(self, set_to_none: Literal[False] = False) -> None: ...
    def state_dict(self) -> dict[str, Floats]:
        """The reference's keys; views of all weights, copies of what it never trains."""
    def load_state_dict(self, state_dict: Mapping[str, ArrayLike]) -> None:
        """ValueError, and nothing changed, if a tensor is missing, unexpected, of another shape, or has
        another value under its second name."""

class SALTOutput:
    @property
    def loss(self) -> float: ...
    @property
    def embedding(self) -> Floats:
        """[B, D]"""
    @property
    def predictions(self) -> Optional[Floats]:
        """[B, M, D]; None in eval mode, as targets and the indices."""
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
    def backward(self, gradient: float = 1.0) -> None: ...

class SALT(Model):
    """Stage 2: a frozen teacher, a student of the context patches, a predictor of the teacher's latents
    at the target patches."""

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
        **encoder_options: Any,
    ) -> None: ...
    @classmethod
    def from_checkpoint(
        cls, ckpt_path: Path, encoder_name: Optional[str] = None, **kwargs: Any
    ) -> "SALT":
        """The encoder in a file (stage 1's; of a SALT its student) teaches a new student of its sizes,
        which may not be contradicted. What the file does not tell (num_heads, normalize) is kwargs'."""
    @property
    def embed_dim(self) -> int: ...
    @property
    def grid(self) -> tuple[int, int]: ...
    def next_masks(self) -> tuple[Ints, Ints]:
        """What the next call would draw: context [1, K], target [1, M]."""
    def __call__(
        self,
        images: ArrayLike,
        *,
        context_idx: Optional[ArrayLike] = None,
        target_idx: Optional[ArrayLike] = None,
        record: bool = True,
    ) -> SALTOutput:
        """images [B, C, H, W]; indices [K] and [M], or [B, K] and [B, M]."""
    forward = __call__

class MAEOutput:
    @property
    def loss(self) -> float: ...
    @property
    def predictions(self) -> Floats:
        """[B, N, ph pw C]"""
    @property
    def mask(self) -> Floats:
        """[B, N], 1 where masked"""
    @property
    def num_masked(self) -> int: ...
    @property
    def num_visible(self) -> int: ...
    @property
    def context_idx(self) -> Ints:
        """[B, K]"""
    def backward(self, gradient: float = 1.0) -> None: ...

class MAE(Model):
    """Stage 1: an encoder of the visible patches, a decoder of the pixels of the others."""

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
        **encoder_options: Any,
    ) -> None: ...
    @property
    def embed_dim(self) -> int: ...
    @property
    def grid(self) -> tuple[int, int]: ...
    def __call__(
        self, images: ArrayLike, *, context_idx: Optional[ArrayLike] = None, record: bool = True
    ) -> MAEOutput: ...
    forward = __call__

class Features:
    @property
    def cls(self) -> Optional[Floats]:
        """[B, D]; None without a class token"""
    @property
    def mean(self) -> Floats:
        """[B, D], over the patch tokens"""
    @property
    def patches(self) -> Floats:
        """[B, N, D]"""

class Encoder(Model):
    """timm's vision transformer. Weights: a file, or arrays as one has them; they tell the sizes, which
    name and options may not contradict. "vit_tiny_patch16_224" if nothing is said."""

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
    seed: int = 0,
) -> list[NDArray[np.int32]]:
    """One mask [height, width] for each block, 1 inside it."""

class ParameterGroup(TypedDict, total=False):
    params: Iterable[Parameter]
    lr: float
    weight_decay: float

class AdamW:
    @property
    def param_groups(self) -> tuple[ParameterGroup, ...]:
        """lr and weight_decay of each may be changed; groups and parameters stay."""
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
        """Moments and rates, laid out as torch.optim.AdamW's; copies."""
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """This class's or torch.optim.AdamW's; ValueError, and nothing changed, if it does not fit."""

def clip_grad_norm(params: Sequence[Parameter], max_norm: float) -> float:
    """Scales all gradients to an L2 norm of at most max_norm; the norm they had."""

def encoder_weights(path: Path) -> dict[str, Floats]:
    """The encoder of a checkpoint under timm's names: safetensors or torch's file, of saltworks, timm,
    stable-pretraining, facebookresearch/mae or transformers."""

class Loader:
    """Batches of (images [B, C, size, size], labels int32 [B], -1 without one). With shuffle all batches
    are whole: up to B - 1 images are left out of an epoch. Images that cannot be read, up to the share
    max_unreadable of all (rounded up), are each replaced by the next one with a warning; more are a
    ValueError. By default that share is 0.01 with shuffle, and 0 without, where rows are files.
    float32 is normalised as "inception" unless `normalize` says otherwise; give a model for its own."""

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
        """Numbers of the images that could not be read so far."""
    @property
    def num_images(self) -> int: ...
    @property
    def classes(self) -> list[str]: ...
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[tuple[NDArray[Any], NDArray[np.int32]]]: ...

class Step(TypedDict):
    """What a callback of pretrain hears."""

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
    """Trains and probes all stages of a recipe (a mapping, a TOML file or its text), as ``saltworks
    pretrain``."""
