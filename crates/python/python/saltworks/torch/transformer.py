"""The transformer of predictors and decoders."""

import torch
from torch import nn

from saltworks import _saltworks
from saltworks.torch.engine import EngineModule, call_for_tokens, not_compiled, tokens
from saltworks.torch.masking import drawn_seed
from saltworks.torch.parts import grow

# What the engine's transformer is, of the reference's choices.
ONLY = dict(
    self_attn=True,
    cross_attn=False,
    use_adaln=False,
    attn_drop=0.0,
    proj_drop=0.0,
    num_prefix_tokens=0,
    num_registers=0,
    use_rope=None,
    use_qk_norm=False,
    mlp_type="gelu",
    use_layer_scale=False,
)


class FlexibleTransformer(EngineModule):
    """stable-pretraining's FlexibleTransformer with joint attention, on the engine. Arguments and defaults are
    the reference's. Give cross_attn=False, use_adaln=False and num_prefix_tokens=0: its other forms are refused,
    and stable_pretraining.backbone.FlexibleTransformer works beside.

    ``seed`` decides the first weights. They are those of torch.nn.Linear, or "published" (V-JEPA's)."""

    _Engine = _saltworks.Transformer

    def __init__(
        self,
        input_dim=768,
        hidden_dim=384,
        output_dim=768,
        num_patches=196,
        depth=4,
        num_heads=6,
        mlp_ratio=4.0,
        self_attn=True,
        cross_attn=True,
        use_adaln=True,
        pos_embed_type="sincos_2d",
        grid_size=None,
        drop_path_rate=0.0,
        attn_drop=0.0,
        proj_drop=0.0,
        zero_init_output=True,
        num_prefix_tokens=1,
        num_registers=0,
        add_mask_token=False,
        use_rope=None,
        use_qk_norm=False,
        mlp_type="gelu",
        use_layer_scale=False,
        layer_scale_init=1e-5,
        max_grid_size=32,
        *,
        seed=None,
        initial_weights="torch",
    ):
        super().__init__()
        if hidden_dim % num_heads != 0:
            raise ValueError(f"hidden_dim ({hidden_dim}) must be divisible by num_heads ({num_heads})")
        if pos_embed_type == "sincos_2d" and hidden_dim % 4 != 0:
            raise ValueError(f"hidden_dim is {hidden_dim}, expected a multiple of 4 for sincos_2d")
        given = dict(
            self_attn=self_attn, cross_attn=cross_attn, use_adaln=use_adaln, attn_drop=attn_drop,
            proj_drop=proj_drop, num_prefix_tokens=num_prefix_tokens, num_registers=num_registers,
            use_rope=use_rope or None, use_qk_norm=use_qk_norm, mlp_type=mlp_type, use_layer_scale=use_layer_scale,
        )  # fmt: skip
        wrong = [name for name, value in given.items() if value != ONLY[name]]
        if wrong:
            found = ", ".join(f"{name}={given[name]!r}" for name in wrong)
            wanted = ", ".join(f"{name}={ONLY[name]!r}" for name in wrong)
            raise ValueError(
                f"the engine has no transformer with {found}. Give {wanted}, or take "
                "stable_pretraining.backbone.FlexibleTransformer, which works beside"
            )
        engine = self._Engine(
            input_dim, hidden_dim, output_dim, _grid(num_patches, grid_size, pos_embed_type), depth, num_heads,
            mlp_ratio, drop_path_rate, pos_embed_type, add_mask_token, drawn_seed() if seed is None else seed,
            initial_weights=initial_weights,
        )  # fmt: skip
        self._settle({k: v for k, v in engine.__getnewargs_ex__()[1].items() if k != "seed"})
        grow(self, self._weights(engine), eps=1e-5)
        if pos_embed_type != "learned":
            self.register_buffer("pos_embed", torch.from_numpy(engine.state_dict()["pos_embed"]))
        self._attach(engine)
        if zero_init_output:
            nn.init.zeros_(self.output_proj.weight)
            nn.init.zeros_(self.output_proj.bias)

    @classmethod
    def _part(cls, sizes):
        """A transformer without weights."""
        part = cls.__new__(cls)
        nn.Module.__init__(part)
        part._settle(sizes)
        return part

    def _settle(self, sizes):
        self._sizes = sizes
        self.hidden_dim = sizes["hidden_dim"]
        self.add_mask_token = sizes["add_mask_token"]
        self.num_prefix_tokens = self.num_registers = 0
        self.use_cross_attn = self.use_adaln = False
        self._register_load_state_dict_pre_hook(self._refuse_another_table)

    def _refuse_another_table(self, state, prefix, *_):
        """The engine computes with the table that it was made with."""
        table, given = self._buffers.get("pos_embed"), state.get(f"{prefix}pos_embed")
        if table is None or given is None or given.shape != table.shape:
            return  # torch names what does not fit
        if not torch.allclose(given.to(table), table, atol=0.01):
            raise ValueError(
                f"{prefix}pos_embed differs from the engine's table, which is fixed: it was made for another grid, "
                "or changed. Make the model with the same grid_size"
            )

    @not_compiled
    def forward(
        self,
        context,
        queries=None,
        context_idx=None,
        query_idx=None,
        t=None,
        num_prefix=None,
        return_all=False,
        return_registers=False,
        context_mask=None,
        query_mask=None,
        attn_mask=None,
    ):
        """context [B, K, I] at the patches context_idx [B, K], queries [B, M, I] at query_idx [B, M]. Outputs
        are those of the queries [B, M, O], or with return_all of every patch [B, N, O]. query_mask [B, M] puts
        the mask token in place of all queries, or of none."""
        for name, value in dict(t=t, attn_mask=attn_mask).items():
            if value is not None:
                raise ValueError(f"{name}: the engine's transformer has none. Leave it out")
        masks_context = context_mask is not None and bool(context_mask.any())
        for name, asked in dict(num_prefix=num_prefix, return_registers=return_registers, context_mask=masks_context).items():
            if asked:
                raise ValueError(f"{name}: the engine's transformer has none. Leave it out")
        context = tokens("context", context)
        samples, shown, width = context.shape
        queries = context.new_empty(samples, 0, width) if queries is None else queries
        asked = queries.shape[1]
        if context_idx is None:
            context_idx = torch.arange(shown).expand(samples, -1)
        if query_idx is None:
            query_idx = torch.arange(asked).expand(samples, -1)
        if queries.shape[0] != samples:
            raise ValueError(f"queries are of {queries.shape[0]} samples, expected {samples} as the context")
        masked = self._all_masked(query_mask, queries)
        if asked == 0 and not return_all:
            return context.new_empty(samples, 0, self.output_proj.out_features)
        given = None if masked or asked == 0 else tokens("queries", queries)
        return self._transform(context, given, context_idx, query_idx, return_all)

    def _all_masked(self, query_mask, queries):
        if query_mask is None:
            return False
        if not self.add_mask_token:
            raise ValueError("query_mask was given, but add_mask_token=False at initialization")
        if query_mask.shape != queries.shape[:2]:
            raise ValueError(f"query_mask is {list(query_mask.shape)}, expected {list(queries.shape[:2])}")
        if bool(query_mask.all()):
            return True
        if bool(query_mask.any()):
            raise ValueError("query_mask masks some queries, and the engine's transformer masks all or none")
        return False

    def _transform(self, context, queries, context_idx, query_idx, every):
        binding = self._binding()
        inputs = [context] if queries is None else [context, queries]
        plain = [given.detach() for given in inputs]

        def call(record):
            return binding.call(
                plain[0], plain[1] if len(plain) > 1 else None, context_idx, query_idx,
                every=every, training=self.training, record=record,
            )  # fmt: skip

        return call_for_tokens(binding, self, call, inputs)


def _grid(num_patches, grid_size, pos_embed_type):
    """(height, width) of the grid. The reference takes a square one if none is given."""
    if pos_embed_type != "sincos_2d":
        return 1, num_patches
    if grid_size is None:
        side = int(num_patches**0.5)
        if side * side != num_patches:
            raise ValueError(f"num_patches ({num_patches}) must be a perfect square for sincos_2d, or give grid_size")
        return side, side
    grid = (grid_size, grid_size) if isinstance(grid_size, int) else tuple(grid_size)
    if len(grid) != 2 or grid[0] * grid[1] != num_patches:
        raise ValueError(f"grid_size is {grid_size}, expected height and width of {num_patches} patches")
    return grid


class MAEDecoder(nn.Module):
    """stable-pretraining's MAEDecoder on the engine: predicts every patch, or the masked ones."""

    def __init__(
        self,
        embed_dim=768,
        decoder_embed_dim=512,
        output_dim=768,
        num_patches=196,
        depth=4,
        num_heads=16,
        mlp_ratio=4.0,
        pos_embed_type="sincos_2d",
        grid_size=None,
        drop_path_rate=0.0,
        *,
        seed=None,
        initial_weights="torch",
    ):
        super().__init__()
        self.num_patches = num_patches
        self.mask_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        nn.init.trunc_normal_(self.mask_token, std=0.02)
        self.transformer = FlexibleTransformer(
            embed_dim,
            decoder_embed_dim,
            output_dim,
            num_patches,
            depth,
            num_heads,
            mlp_ratio,
            cross_attn=False,
            use_adaln=False,
            pos_embed_type=pos_embed_type,
            grid_size=grid_size,
            drop_path_rate=drop_path_rate,
            zero_init_output=False,
            num_prefix_tokens=0,
            seed=seed,
            initial_weights=initial_weights,
        )

    @classmethod
    def _part(cls, sizes, num_patches):
        """A decoder without weights."""
        part = cls.__new__(cls)
        nn.Module.__init__(part)
        part.num_patches = num_patches
        part.transformer = FlexibleTransformer._part(sizes)
        return part

    def forward(self, x, mask, ids_keep=None, output_masked_only=False):
        """x: visible tokens [B, K, D] in the order of ids_keep, or of the grid without it; or those of all
        patches [B, N, D]. mask [B, N], 1 for masked patches. Returns [B, N, O], or [B, M, O]."""
        samples, patches = mask.shape
        masked = mask.bool()
        hidden = masked.sum(dim=1)
        if not bool((hidden == hidden[0]).all()):
            raise AssertionError("Number of visible patches must be the same for all samples")
        shown = patches - int(hidden[0])
        order = torch.argsort(masked.int(), dim=1, stable=True)
        visible, asked = order[:, :shown], order[:, shown:]
        if x.shape[1] == patches:
            x = torch.gather(x, 1, visible.unsqueeze(-1).expand(-1, -1, x.shape[-1]))
        elif ids_keep is not None:
            visible = ids_keep
        queries = self.mask_token.expand(samples, patches - shown, -1)
        return self.transformer(x, queries, visible, asked, return_all=not output_masked_only)
