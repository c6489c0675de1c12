"""The vision transformer, for any part of the patches."""

import warnings

import torch
from torch import nn

from saltworks import _saltworks
from saltworks.torch.engine import EngineModule, call_for_tokens, not_compiled, pixels
from saltworks.torch.masking import drawn_seed
from saltworks.torch.outputs import MaskedEncoderOutput
from saltworks.torch.parts import Part, grow


class MaskedEncoder(EngineModule):
    """stable-pretraining's MaskedEncoder on the engine. `model_or_model_name` is a name of timm, or a vision
    transformer of timm, whose parameters then move to the engine's memory. More keyword arguments change the
    sizes as in timm (embed_dim, depth, num_heads, ...). `seed` decides the first weights."""

    _Engine = _saltworks.Encoder
    _prefix = "vit."

    def __init__(
        self,
        model_or_model_name="vit_base_patch16_224",
        masking=None,
        pretrained=False,
        img_size=None,
        patch_size=None,
        dynamic_img_size=False,
        norm_layer=None,
        *,
        seed=None,
        **encoder_options,
    ):
        super().__init__()
        refuse_pretrained(pretrained)
        if dynamic_img_size:
            raise ValueError("dynamic_img_size=True: the engine's encoder has one size of images. Give img_size")
        if norm_layer is not None:
            raise ValueError("norm_layer: the engine's encoder has layer norms. Give their norm_eps in its place")
        given = dict(img_size=img_size, patch_size=patch_size)
        options = {name: size for name, size in given.items() if size is not None} | encoder_options
        if isinstance(model_or_model_name, str):
            engine = self._Engine(model_or_model_name, seed=drawn_seed() if seed is None else seed, **options)
            self._settle(sizes_of(engine), masking)
            self.vit = Part()
            grow(self, self._weights(engine), eps=self._sizes["norm_eps"])
            self._finish()
            self._attach(engine)
        else:
            if options:
                raise ValueError(f"{', '.join(options)}: the module defines its sizes. Leave these arguments out")
            engine = engine_of_timm(model_or_model_name)
            self._settle(sizes_of(engine), masking)
            self.vit = model_or_model_name
            self.vit._is_on_an_engine = True
            if hasattr(self.vit, "head"):
                self.vit.head = nn.Identity()
            self._finish()
            self._move_to(engine)

    @classmethod
    def _part(cls, sizes, masking=None):
        """An encoder without weights. `_finish` follows once it has them."""
        part = cls.__new__(cls)
        nn.Module.__init__(part)
        part._settle(sizes, masking)
        part.vit = Part()
        return part

    def _settle(self, sizes, masking):
        self._sizes = sizes
        self.dynamic_img_size = False
        self.masking = masking
        self.embed_dim = sizes["embed_dim"]
        self.patch_size_h, self.patch_size_w = sizes["patch_size"]
        height, width = sizes["img_size"]
        self.default_grid_h, self.default_grid_w = height // self.patch_size_h, width // self.patch_size_w
        self.has_class_token = sizes["class_token"]
        self.num_reg_tokens = sizes["reg_tokens"]
        self.num_prefix_tokens = int(self.has_class_token) + self.num_reg_tokens
        self.no_embed_class = sizes["no_embed_class"]

    def _finish(self):
        """The patch embedding has a second name in the reference."""
        self.patch_embed = self.vit.patch_embed
        self._register_state_dict_hook(_second_name_is_a_copy)
        self._register_load_state_dict_pre_hook(_refuse_two_values)

    def _get_grid_size(self, images):
        height, width = images.shape[-2:]
        return height // self.patch_size_h, width // self.patch_size_w

    def _get_pos_embed(self, grid_h, grid_w):
        """Positions of class token and registers [1, P, D] or None, and of patches [1, N, D]."""
        if (grid_h, grid_w) != (self.default_grid_h, self.default_grid_w):
            own = f"{self.default_grid_h} x {self.default_grid_w}"
            raise ValueError(f"the grid is {grid_h} x {grid_w}, expected {own}: this encoder has one size of images")
        table = self.vit.pos_embed
        if self.no_embed_class:
            return None, table
        return table[:, : self.num_prefix_tokens], table[:, self.num_prefix_tokens :]

    def _resize_pos_embed(self, new_grid_size):
        raise ValueError("this encoder has one size of images. Make one with another img_size")

    def _get_prefix_tokens(self, B):
        """Class token and registers [B, P, D], or None."""
        kept = [self.vit.cls_token] if self.has_class_token else []
        kept += [self.vit.reg_token] if self.num_reg_tokens else []
        return torch.cat(kept, dim=1).expand(B, -1, -1) if kept else None

    @not_compiled
    def encode(self, images, patches=None):
        """All tokens [B, P + K, D] of whole images, or of `patches` [B, K] or [K] of them, in this order."""
        binding, images = self._binding(), pixels(images)

        def call(record):
            return binding.call.encode(images, patches, training=self.training, record=record)

        return call_for_tokens(binding, self, call)

    def forward(self, images) -> MaskedEncoderOutput:
        """images [B, C, H, W]. In training mode only the patches that `masking` shows are encoded."""
        images = pixels(images)
        samples, (grid_h, grid_w) = len(images), self._get_grid_size(images)
        if self.training and self.masking is not None:
            # Maskings choose by place: the engine embeds no others than the patches that they show.
            shown = self.masking(torch.zeros(samples, grid_h * grid_w, 1), grid_h, grid_w)
            mask, keep, patches = shown.mask, shown.ids_keep, shown.ids_keep
        else:
            mask = torch.zeros(samples, grid_h * grid_w)
            keep, patches = torch.arange(grid_h * grid_w).expand(samples, -1), None
        return MaskedEncoderOutput(self.encode(images, patches), mask, keep, (grid_h, grid_w))

    def forward_features(self, images):
        """All tokens [B, P + N, D] of whole images, without masks, gradient and stochastic depth."""
        binding = self._binding()
        with torch.no_grad():
            binding.parameters(self)
            images = pixels(images)
        with binding.lock:
            return torch.from_numpy(binding.call.encode(images, training=False, record=False).tokens)

    def extra_repr(self):
        return (
            f"embed_dim={self.embed_dim}, patch_size=({self.patch_size_h}, {self.patch_size_w}), "
            f"num_prefix_tokens={self.num_prefix_tokens}, has_masking={self.masking is not None}"
        )


def _second_name_is_a_copy(module, state, prefix, _):
    """Tensors that share memory cannot be saved by safetensors."""
    for name in list(state):
        if name.startswith(f"{prefix}patch_embed.") and not isinstance(state[name], nn.Parameter):
            state[name] = state[name].clone()


def _refuse_two_values(state, prefix, *_):
    """Both names of a patch embedding must have one value."""
    for name, value in state.items():
        first = f"{prefix}vit.{name.removeprefix(prefix)}"
        if name.startswith(f"{prefix}patch_embed.") and first in state and not _equal(value, state[first]):
            raise ValueError(f"{first} and {name} are two names of one weight, but have different values. Remove one")


def _equal(a, b):
    return a.shape == b.shape and bool(((a == b) | (a.isnan() & b.isnan())).all())


def sizes_of(engine):
    """The encoder's sizes, as timm's arguments."""
    return {name: value for name, value in engine.__getnewargs_ex__()[1].items() if name in SIZES}


SIZES = (
    "img_size", "patch_size", "in_chans", "embed_dim", "depth", "num_heads", "mlp_ratio", "class_token",
    "reg_tokens", "no_embed_class", "init_values", "qk_norm", "fc_norm", "pre_norm", "swiglu", "norm_eps",
    "drop_path_rate", "normalize", "seed",
)  # fmt: skip


def engine_of_timm(vit):
    """The engine of a timm vision transformer, with its weights. ValueError if it has what the engine lacks."""
    blocks = getattr(vit, "blocks", None)
    if blocks is None or not hasattr(vit, "patch_embed"):
        raise ValueError(f"{type(vit).__name__} is no vision transformer of timm: it has no blocks or patch_embed")
    wrong = [f"{name} has p={module.p}" for name, module in vit.named_modules()
             if isinstance(module, nn.Dropout) and module.p > 0]
    norms = {module.eps for name, module in vit.named_modules()
             if isinstance(module, nn.LayerNorm) and not name.startswith("fc_norm")}
    if len(norms) > 1:
        wrong.append(f"its layer norms have several eps, {sorted(norms)}")
    wrong += [f"{name} is {module}" for name, module in vit.named_modules()
              if name.endswith("mlp.act") and str(module) != "GELU(approximate='none')"]
    if getattr(vit, "dynamic_img_size", False):
        wrong.append("dynamic_img_size is True")
    if getattr(vit, "rope", None) is not None:
        wrong.append("it has rotary positions")
    kinds = {f"{type(block).__module__}.{type(block).__name__}" for block in blocks}
    if kinds != {"timm.models.vision_transformer.Block"}:
        wrong.append(f"its blocks are {', '.join(sorted(kinds))}")
    else:
        wrong += [f"blocks.{at}.attn.scale is {block.attn.scale}" for at, block in enumerate(blocks)
                  if abs(block.attn.scale - block.attn.head_dim**-0.5) > 1e-9]
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) or 0.0 for block in blocks if hasattr(block, "drop_path1")]
    if any(abs(rate - rates[-1] * at / max(len(rates) - 1, 1)) > 1e-6 for at, rate in enumerate(rates)):
        wrong.append(f"its rates of stochastic depth are {rates}, expected a linear growth from 0")
    if hasattr(vit, "_is_on_an_engine"):
        wrong.append("its parameters are another MaskedEncoder's")
    if wrong:
        more = f", and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ValueError(f"the engine cannot compute this module: {', '.join(wrong[:3])}{more}")
    state = {name: value for name, value in vit.state_dict().items() if not name.startswith(("head.", "fc_norm."))}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # heads and images are given here
        engine = _saltworks.Encoder(
            weights=state,
            num_heads=blocks[0].attn.num_heads,
            img_size=vit.patch_embed.img_size,
            norm_eps=norms.pop() if norms else 1e-6,
            drop_path_rate=rates[-1] if rates else 0.0,
        )
    missing = [name for name, _ in engine.named_parameters() if name not in state]
    if missing:
        more = "Load its state dict into a MaskedEncoder made by name"
        raise ValueError(f"the module lacks {', '.join(missing[:3])}, which the engine has. {more}")
    return engine


def refuse_pretrained(pretrained):
    if pretrained:
        raise ValueError("pretrained=True would download weights. Give teacher_state_dict, or load_state_dict")
