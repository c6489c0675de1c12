"""SALT and MAE as torch modules."""

import threading

import torch

from saltworks import _saltworks
from saltworks.torch.encoder import MaskedEncoder, refuse_pretrained, sizes_of
from saltworks.torch.engine import Binding, EngineModule, not_compiled, pixels
from saltworks.torch.masking import PatchMasking, drawn_seed
from saltworks.torch.outputs import MAEOutput, SALTOutput
from saltworks.torch.parts import EvalOnly, grow
from saltworks.torch.transformer import FlexibleTransformer, MAEDecoder


class Model(EngineModule):
    """The base of SALT and MAE."""

    def __init__(self, engine, sizes, parts):
        super().__init__()
        self._sizes = sizes
        self.embed_dim = engine.embed_dim
        for name, part in parts.items():
            self.add_module(name, part)
        grow(self, [(name, w) for name, w in self._weights(engine) if ".vit." in name], eps=1e-6)
        grow(self, [(name, w) for name, w in self._weights(engine) if ".vit." not in name], eps=1e-5)
        for part in [module for module in self.modules() if isinstance(module, MaskedEncoder)]:
            part._finish()
        self._register_rest(engine)
        self._attach(engine)
        self.train()

    def _parts(self, engine):
        """(name of a module on the engine, what it calls)."""
        raise NotImplementedError

    def _attach(self, engine):
        lock, weights = threading.Lock(), self._weights(engine)
        self._bound = Binding(engine, lock, weights)
        for path, call in self._parts(engine):
            start = f"{path}."
            own = [(name.removeprefix(start), w) for name, w in weights if name.startswith(start)]
            module = self.get_submodule(path)
            if isinstance(module, EngineModule):
                module._bound = Binding(call, lock, own)

    def _register_rest(self, engine):
        """The tensors that the reference keeps but never trains."""
        known = self.state_dict()
        for name, value in engine.state_dict().items():
            if name not in known:
                owner, _, last = name.rpartition(".")
                self.get_submodule(owner).register_buffer(last, torch.from_numpy(value))

    @property
    def _engine(self):
        return self._binding().call

    @property
    def step(self):
        """How many masks were drawn or given. Set it after load_state_dict to continue with the next."""
        return self._engine.step

    @step.setter
    def step(self, step):
        self._engine.step = step

    def _evaluate(self, images):
        """The engine's output for whole images."""
        binding = self._binding()
        binding.parameters(self)
        with binding.lock:
            binding.call.eval()
            return binding.call(pixels(images))

    def _train(self, images, encoder, masks):
        """The engine's output for images under these masks, and in torch's graph its loss and predictions."""
        binding, images = self._binding(), pixels(images)

        def compute(record):
            with binding.lock:
                binding.call.train()
                output = binding.call(images, record=record, drop_path=encoder.training, **masks)

            def walk_back(loss, predictions):
                scale = None if loss is None else loss.item()
                if predictions is not None:
                    predictions = predictions.detach().contiguous().numpy()
                output.backward(scale, predictions)
                return ()

            return output, (torch.tensor(output.loss), torch.from_numpy(output.predictions)), walk_back

        return binding.run(self, compute)

    def __setstate__(self, state):
        super().__setstate__(state)
        self._binding()


class _Call:
    """A part of a model, as an engine of its own would be called."""

    def __init__(self, engine, part):
        self.engine, self.part = engine, part

    def encode(self, images, patches=None, *, training, record):
        return self.engine.encode(self.part, images, patches, training=training, record=record)

    def __call__(self, context, queries, context_idx, query_idx, *, every, training, record):
        # Predictors and decoders of models leave out no blocks.
        return self.engine.transform(context, queries, context_idx, query_idx, every=every, record=record)


def _transformer_sizes(engine, width, depth, heads, output, mask_token, initial_weights):
    return dict(
        input_dim=engine.embed_dim,
        hidden_dim=width,
        output_dim=output,
        grid=engine.grid,
        depth=depth,
        num_heads=heads,
        add_mask_token=mask_token,
        initial_weights=initial_weights,
    )


class SALT(Model):
    """Stage 2 of SALT. Arguments are the reference's. ``seed`` sets the initial weights and the masks.
    ``embedding`` is what represents an image without a class token: "mean", or "first_token" as in the
    reference. ``initial_weights`` of the predictor are "torch", the reference's, or "published" (V-JEPA's).
    More keyword arguments change the encoder's sizes as in timm (img_size, patch_size, embed_dim, ...), and
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
        *,
        seed=None,
        embedding="mean",
        initial_weights="torch",
        **encoder_options,
    ):
        refuse_pretrained(pretrained)
        sizes = dict(
            encoder_name=encoder_name,
            predictor_embed_dim=predictor_embed_dim,
            predictor_depth=predictor_depth,
            predictor_num_heads=predictor_num_heads,
            num_targets=num_targets,
            context_scale=context_scale,
            target_scale=target_scale,
            context_aspect_ratio=context_aspect_ratio,
            target_aspect_ratio=target_aspect_ratio,
            seed=drawn_seed() if seed is None else seed,
            embedding=embedding,
            initial_weights=initial_weights,
            **encoder_options,
        )
        if teacher_state_dict is not None:
            teacher_state_dict = {k: torch.as_tensor(v).detach() for k, v in teacher_state_dict.items()}
        engine = self._Engine(teacher_state_dict=teacher_state_dict, **sizes)
        encoder = sizes_of(engine)
        predictor = _transformer_sizes(
            engine, predictor_embed_dim, predictor_depth, predictor_num_heads, engine.embed_dim, True,
            initial_weights,
        )  # fmt: skip
        parts = dict(
            teacher=EvalOnly(MaskedEncoder._part(encoder)),
            student=MaskedEncoder._part(encoder),
            predictor=FlexibleTransformer._part(predictor),
        )
        super().__init__(engine, sizes, parts)
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

    def _parts(self, engine):
        yield "teacher.backbone", _Call(engine, "teacher")
        yield "student", _Call(engine, "student")
        yield "predictor", _Call(engine, "predictor")

    def _generate_masks(self, grid_h, grid_w, device="cpu"):
        """The next masks: indices of context patches [K] and of target patches [M]. A subclass may draw
        others, for all samples [K] or for each [B, K]. Its own call may use the model's parts."""
        context, target = self._engine.next_masks()
        return torch.from_numpy(context[0]).to(device), torch.from_numpy(target[0]).to(device)

    @not_compiled
    def forward(self, images, context_idx=None, target_idx=None) -> SALTOutput:
        """images [B, C, H, W] float32. ``context_idx`` [K] and ``target_idx`` [M] fix the masks. Loss and
        predictions are differentiable."""
        if not self.training:
            output = self._evaluate(images)
            embedding = torch.from_numpy(output.embedding)
            return SALTOutput(torch.tensor(0.0), embedding, None, None, 0, output.num_context)

        own = getattr(self._generate_masks, "__func__", None) is not SALT._generate_masks
        if own and context_idx is None and target_idx is None:
            context_idx, target_idx = self._generate_masks(*self._engine.grid)
        # Without masks the engine draws the next ones.
        masks = dict(context_idx=context_idx, target_idx=target_idx)
        output, (loss, predictions) = self._train(images, self.student, masks)
        return SALTOutput(
            loss=loss,
            embedding=torch.from_numpy(output.embedding),
            predictions=predictions,
            targets=torch.from_numpy(output.targets),
            num_targets=output.num_targets,
            num_context=output.num_context,
            context_idx=torch.from_numpy(output.context_idx),
            target_idx=torch.from_numpy(output.target_idx),
        )


class MAE(Model):
    """Stage 1. Arguments are the reference's. ``masking`` may be any module that shows some patches as the
    reference's modules do, by their place alone: it gets zeros in place of embeddings. The number of patches must
    be the same for every sample. ``initial_weights`` of the
    decoder are "torch", the reference's, or "published" (MAE's)."""

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
        *,
        encoder_name=None,
        seed=None,
        initial_weights="torch",
        **encoder_options,
    ):
        refuse_pretrained(pretrained)
        name = model_or_model_name if encoder_name is None else encoder_name
        if not isinstance(name, str):
            raise ValueError("the encoder is built by its timm name. Give the name, then load_state_dict")
        masking = PatchMasking(mask_ratio, block_size) if masking is None else masking
        sizes = dict(
            model_or_model_name=name,
            decoder_embed_dim=decoder_embed_dim,
            decoder_depth=decoder_depth,
            decoder_num_heads=decoder_num_heads,
            norm_pix_loss=norm_pix_loss,
            loss_type=loss_type,
            seed=drawn_seed() if seed is None else seed,
            initial_weights=initial_weights,
            **encoder_options,
        )
        engine = self._Engine(**sizes)
        encoder, patches = sizes_of(engine), engine.grid[0] * engine.grid[1]
        patch = encoder["in_chans"] * encoder["patch_size"][0] * encoder["patch_size"][1]
        decoder = _transformer_sizes(
            engine, decoder_embed_dim, decoder_depth, decoder_num_heads, patch, False, initial_weights
        )
        encoder = MaskedEncoder._part(encoder, masking)
        super().__init__(engine, sizes, dict(encoder=encoder, decoder=MAEDecoder._part(decoder, patches)))
        self.masking = masking

    def _parts(self, engine):
        yield "encoder", _Call(engine, "encoder")
        yield "decoder.transformer", _Call(engine, "decoder")

    @not_compiled
    def forward(self, images) -> MAEOutput:
        """images [B, C, H, W] float32. Loss and predictions are differentiable."""
        if not self.training:
            output = self._evaluate(images)
            loss, predictions = torch.tensor(0.0), torch.from_numpy(output.predictions)
        else:
            if not self.encoder.training:
                raise ValueError("the encoder is in eval mode, in which nothing is masked. Call train() of the MAE")
            grid_h, grid_w = self._engine.grid
            shown = self.encoder.masking(torch.zeros(len(images), grid_h * grid_w, 1), grid_h, grid_w)
            output, (loss, predictions) = self._train(images, self.encoder, dict(context_idx=shown.ids_keep))
        return MAEOutput(
            loss=loss,
            predictions=predictions,
            mask=torch.from_numpy(output.mask),
            num_masked=output.num_masked,
            num_visible=output.num_visible,
        )


