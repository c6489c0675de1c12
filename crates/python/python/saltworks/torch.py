"""SALT and MAE as torch modules, under stable-pretraining 0.1.8's names.

The weights of a module *are* the engine's: every ``nn.Parameter`` is a view of its memory, so a torch
optimizer trains them in place. ``loss.backward()`` runs the engine's backward pass and leaves gradients
in ``.grad``. Only the loss is differentiable. All tensors are float32 on the CPU.

    model = saltworks.torch.SALT.from_checkpoint("stage1.safetensors")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model.train()
    output = model(images)          # [B, C, H, W]
    output.loss.backward()
    optimizer.step()
"""

import threading
from dataclasses import dataclass, fields
from typing import Optional

import torch
from torch import nn

import saltworks
from saltworks import _saltworks

__all__ = ["MAE", "SALT", "MAEOutput", "MaskingOutput", "MultiBlockMasking", "PatchMasking", "SALTOutput"]


class _Output:
    """Fields by name, key or position, as in transformers' ModelOutput. None is left out."""

    def keys(self):
        return [field.name for field in fields(self) if getattr(self, field.name) is not None]

    def values(self):
        return [getattr(self, name) for name in self.keys()]

    def items(self):
        return list(zip(self.keys(), self.values()))

    def to_tuple(self):
        return tuple(self.values())

    def __iter__(self):
        return iter(self.keys())

    def __getitem__(self, key):
        return getattr(self, key) if isinstance(key, str) else self.to_tuple()[key]


@dataclass
class SALTOutput(_Output):
    """loss, embedding [B, D], predictions and targets [B, M, D] (None in eval mode), and their counts."""

    loss: torch.Tensor = None
    embedding: torch.Tensor = None
    predictions: Optional[torch.Tensor] = None
    targets: Optional[torch.Tensor] = None
    num_targets: int = None
    num_context: int = None


@dataclass
class MAEOutput(_Output):
    """loss, predictions [B, N, ph pw C], mask [B, N] (1 for masked patches), and their counts."""

    loss: torch.Tensor = None
    predictions: torch.Tensor = None
    mask: torch.Tensor = None
    num_masked: int = None
    num_visible: int = None


@dataclass
class MaskingOutput(_Output):
    """visible [B, K, D], mask [B, N] (1 for masked patches), ids_restore [B, N], ids_keep [B, K]."""

    visible: torch.Tensor = None
    mask: torch.Tensor = None
    ids_restore: torch.Tensor = None
    ids_keep: torch.Tensor = None


class _Masking(nn.Module):
    """Shows some patches of embeddings [B, N, D]. The engine draws them, seeded by torch's generator."""

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
        seed = int(torch.randint(2**62, ()))
        drawn, _ = self._sampler().sample(grid_h, grid_w, samples, seed)
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


class _Loss(torch.autograd.Function):
    """The engine's loss as a node of torch's graph."""

    @staticmethod
    def forward(ctx, output, model, *parameters):
        ctx.output, ctx.model = output, model
        # torch then refuses a backward pass through weights that have changed.
        ctx.save_for_backward(*parameters)
        return torch.tensor(output.loss)

    @staticmethod
    def backward(ctx, gradient):
        if torch.is_grad_enabled():
            raise RuntimeError("create_graph=True: the engine has no second derivatives. Remove it")
        ctx.saved_tensors
        weights = ctx.model._trained
        # One thread at a time: another backward pass would use the same gradients.
        with ctx.model._lock:
            for weight in weights:
                weight.zero_grad()
            ctx.output.backward(gradient.item())
            # Copies, because torch adds to the gradients it gets, or keeps them.
            gradients = [None if w.grad is None else torch.from_numpy(w.grad.copy()) for w in weights]
        return None, None, *gradients


class _OnEngine(nn.Module):
    """A module whose parameters are in the engine's memory, and stay there."""

    def _apply(self, fn, recurse=True):
        for parameter in self.parameters():
            moved = fn(parameter.data)
            if moved.dtype != torch.float32 or moved.device.type != "cpu":
                raise ValueError("weights stay float32 on the CPU: the engine computes there")
            if moved.data_ptr() != parameter.data_ptr():
                raise ValueError("weights stay where they are, in the engine's layout of memory")
        return super()._apply(fn, recurse)

    def share_memory(self):
        raise ValueError(
            "share_memory: weights stay in the engine's memory, which is one process's. "
            "Give every process a model of its own (pickle, or load_state_dict)"
        )


class _Part(_OnEngine):
    """Weights of a part of the model, under the reference's names."""

    def forward(self, *_):
        raise NotImplementedError("a part needs its model. Call the model, or saltworks.Encoder")


class _Frozen(_Part):
    """A part that never trains."""

    def train(self, mode=True):
        return super().train(False)


class _Model(_OnEngine):
    """The base of SALT and MAE: parameters in the engine's memory. `_Engine` builds the engine's model from
    `_arguments`."""

    def __init__(self, engine, arguments, frozen=()):
        super().__init__()
        self._arguments = arguments
        self.embed_dim = engine.embed_dim
        for name in frozen:
            self.add_module(name, _Frozen())
        for name, weight in engine.named_parameters():
            owner, last = self._owner(name)
            owner.register_parameter(last, nn.Parameter(torch.from_numpy(weight.data), weight.requires_grad))
        self._settle(engine)
        self._share_patch_embeddings()
        self._register_rest()
        self.train()

    def _settle(self, engine):
        """Sets this model's engine. The parameters are views of the engine's weights."""
        self._engine, self._lock = engine, threading.Lock()
        self._trained = engine.parameters()
        self._places = [(name, w.data.ctypes.data, w.requires_grad) for name, w in engine.named_parameters()]

    def _owner(self, name):
        """The module that holds `name`, created if it is missing, and the last part of the name."""
        *path, last = name.split(".")
        module = self
        for part in path:
            if not hasattr(module, part):
                module.add_module(part, _Part())
            module = getattr(module, part)
        return module, last

    def _share_patch_embeddings(self):
        """A MaskedEncoder of the reference holds its patch embedding twice."""
        for module in list(self.modules()):
            if hasattr(module, "vit"):
                module.patch_embed = module.vit.patch_embed

    def _register_rest(self):
        """Registers the tensors that the reference keeps but never trains."""
        known = self.state_dict()
        for name, value in self._engine.state_dict().items():
            if name not in known:
                owner, last = self._owner(name)
                owner.register_buffer(last, torch.from_numpy(value))

    def _parameters_in_place(self):
        """The trained parameters, in the engine's order. All must be in its memory."""
        trained, parameters = [], dict(self.named_parameters())
        for name, address, trains in self._places:
            parameter = parameters.get(name)
            if parameter is None or parameter.data_ptr() != address:
                raise ValueError(
                    f"{name} is no longer on the engine's memory: its tensor was replaced "
                    "(load_state_dict(assign=True), parametrize?). Change it in place, as copy_ does"
                )
            if trains:
                trained.append(parameter)
        return trained

    def _run(self, images, **masks):
        """The engine's output, and its loss in torch's graph."""
        parameters, images = self._parameters_in_place(), torch.as_tensor(images).detach()
        record = self.training and torch.is_grad_enabled()
        # One thread at a time: the mode belongs to this call.
        with self._lock:
            self._engine.train(self.training)
            if not self.training:
                return self._engine(images), torch.tensor(0.0)
            output = self._engine(images, record=record, **masks)
        return output, _Loss.apply(output, self, *parameters) if record else torch.tensor(output.loss)

    @property
    def step(self):
        """How many masks were drawn or given. Set it after load_state_dict to continue with the next."""
        return self._engine.step

    @step.setter
    def step(self, step):
        self._engine.step = step

    def __copy__(self):
        """A shallow copy has the same engine."""
        copied = type(self).__new__(type(self))
        copied.__dict__.update(self.__dict__)
        return copied

    def __getstate__(self):
        """For copies and pickles: all except the engine, which `__setstate__` creates again."""
        made_anew = {"_engine", "_lock", "_trained", "_places"}
        return {k: v for k, v in self.__dict__.items() if k not in made_anew} | {"_step": self.step}

    def __setstate__(self, state):
        step = state.pop("_step")
        super().__setstate__(state)
        engine = self._Engine(**self._arguments)
        # The parameters are copies now, and a copied optimizer may know them. The objects stay the same,
        # and their data moves into the new engine's memory.
        for name, weight in engine.named_parameters():
            owner, last = self._owner(name)
            view, parameter = torch.from_numpy(weight.data), owner._parameters[last]
            view.copy_(parameter.data)
            parameter.data = view
        self._settle(engine)
        self.step = step


def _tensor(array):
    return None if array is None else torch.from_numpy(array)


def _seed(seed):
    """The given seed, or one from torch's generator, which torch.manual_seed sets."""
    return int(torch.randint(2**62, ())) if seed is None else seed


def _refuse_pretrained(pretrained):
    if pretrained:
        raise ValueError("pretrained=True would download weights. Give teacher_state_dict, or load_state_dict")


class SALT(_Model):
    """Stage 2 of SALT. Arguments are the reference's. ``seed`` sets the initial weights and the masks. More
    keyword arguments change the encoder's sizes as in timm (img_size, patch_size, embed_dim, ...).
    ``normalize`` sets how uint8 images are read."""

    _Engine = _saltworks.SALT

    def __init__(
        self,
        encoder_name="vit_tiny_patch16_224",
        predictor_embed_dim=384,
        predictor_depth=12,
        predictor_num_heads=16,
        num_targets=4,
        context_scale=(0.85, 1.0),
        target_scale=(0.15, 0.2),
        context_aspect_ratio=(1.0, 1.0),
        target_aspect_ratio=(0.75, 1.5),
        teacher_state_dict=None,
        pretrained=False,
        seed=None,
        **encoder_options,
    ):
        _refuse_pretrained(pretrained)
        arguments = dict(
            encoder_name=encoder_name,
            predictor_embed_dim=predictor_embed_dim,
            predictor_depth=predictor_depth,
            predictor_num_heads=predictor_num_heads,
            num_targets=num_targets,
            context_scale=context_scale,
            target_scale=target_scale,
            context_aspect_ratio=context_aspect_ratio,
            target_aspect_ratio=target_aspect_ratio,
            seed=_seed(seed),
            **encoder_options,
        )
        if teacher_state_dict is not None:
            teacher_state_dict = {k: torch.as_tensor(v).detach() for k, v in teacher_state_dict.items()}
        engine = self._Engine(teacher_state_dict=teacher_state_dict, **arguments)
        super().__init__(engine, arguments, frozen=["teacher"])
        self.num_targets = num_targets
        self.context_scale = context_scale
        self.target_scale = target_scale
        self.context_aspect_ratio = context_aspect_ratio
        self.target_aspect_ratio = target_aspect_ratio

    @classmethod
    def from_checkpoint(cls, ckpt_path, encoder_name=None, **kwargs):
        """The encoder in a file (of stage 1, or the student of a SALT) teaches a new student of its sizes.
        The file may be any that saltworks.encoder_weights reads. Arguments must not contradict it."""
        return cls(**_saltworks.student_of_checkpoint(ckpt_path, encoder_name, **kwargs))

    def forward(self, images, context_idx=None, target_idx=None) -> SALTOutput:
        """images [B, C, H, W] float32. ``context_idx`` [K] and ``target_idx`` [M] fix the masks."""
        masks = dict(context_idx=context_idx, target_idx=target_idx) if self.training else {}
        output, loss = self._run(images, **masks)
        return SALTOutput(
            loss=loss,
            embedding=_tensor(output.embedding),
            predictions=_tensor(output.predictions),
            targets=_tensor(output.targets),
            num_targets=output.num_targets,
            num_context=output.num_context,
        )


class MAE(_Model):
    """Stage 1. Arguments are the reference's. ``masking`` may be any module that shows some patches as the
    reference's modules do. The number of patches must be the same for every sample."""

    _Engine = _saltworks.MAE

    def __init__(
        self,
        model_or_model_name="vit_base_patch16_224",
        decoder_embed_dim=512,
        decoder_depth=8,
        decoder_num_heads=16,
        mask_ratio=0.75,
        block_size=1,
        norm_pix_loss=True,
        loss_type="mse",
        pretrained=False,
        masking=None,
        seed=None,
        **encoder_options,
    ):
        _refuse_pretrained(pretrained)
        if not isinstance(model_or_model_name, str):
            raise ValueError("the encoder is built by its timm name. Give the name, then load_state_dict")
        masking = PatchMasking(mask_ratio, block_size) if masking is None else masking
        arguments = dict(
            model_or_model_name=model_or_model_name,
            decoder_embed_dim=decoder_embed_dim,
            decoder_depth=decoder_depth,
            decoder_num_heads=decoder_num_heads,
            norm_pix_loss=norm_pix_loss,
            loss_type=loss_type,
            seed=_seed(seed),
            **encoder_options,
        )
        super().__init__(self._Engine(**arguments), arguments)
        self.masking = masking

    def forward(self, images) -> MAEOutput:
        """images [B, C, H, W] float32."""
        masks = {}
        if self.training:
            grid_h, grid_w = self._engine.grid
            dummy = torch.empty(len(images), grid_h * grid_w, 1)
            masks["context_idx"] = self.masking(dummy, grid_h, grid_w).ids_keep.sort(dim=1).values
        output, loss = self._run(images, **masks)
        return MAEOutput(
            loss=loss,
            predictions=_tensor(output.predictions),
            mask=_tensor(output.mask),
            num_masked=output.num_masked,
            num_visible=output.num_visible,
        )
