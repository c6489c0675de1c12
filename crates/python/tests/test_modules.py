"""The parts of saltworks.torch against stable-pretraining's, and what a user does with them."""

import copy
import pickle

import numpy as np
import pytest
import timm
import torch
from stable_pretraining.backbone import FlexibleTransformer as TheirTransformer
from stable_pretraining.backbone import MAEDecoder as TheirDecoder
from stable_pretraining.backbone import MaskedEncoder as TheirEncoder

import saltworks
import saltworks.torch as ours
from reference import OPTIONS, SIZES, Given, Small, reference_mae, reference_salt, spread, with_masks
from test_parity import assert_close, copied, images
from test_torch import CONTEXT, PREDICTOR, TARGET, mae, salt

NAME = SIZES["encoder_name"]
TRANSFORMER = dict(
    input_dim=48, hidden_dim=32, output_dim=20, num_patches=16, depth=2, num_heads=4, cross_attn=False,
    use_adaln=False, num_prefix_tokens=0, zero_init_output=False,
)  # fmt: skip


def their_encoder(masking=None, **kwargs):
    with Small(**kwargs):
        return spread(TheirEncoder(NAME, masking=masking))


def projected(tokens, seed=0):
    """One number of tokens, whose gradient differs at each of them."""
    weights = torch.randn(tokens.shape, generator=torch.Generator().manual_seed(seed))
    return (tokens * weights).sum()


def compare(mine, theirs, inputs=()):
    """The gradients of all parameters and inputs."""
    want = dict(theirs.named_parameters())
    for name, parameter in mine.named_parameters():
        if name.endswith("k_norm.bias"):
            # Softmax does not see a shift of all keys: this gradient is rounding errors alone.
            assert parameter.grad.norm() < 1e-4 * want[name.replace("k_norm", "q_norm")].grad.norm()
            continue
        # What nothing reads has no gradient, or one of 0.
        if want[name].grad is not None and want[name].grad.any():
            assert_close(name, parameter.grad, want[name].grad, 1e-4)
        else:
            assert parameter.grad is None or not parameter.grad.any(), name
    for place, (got, wanted) in enumerate(inputs):
        assert_close(f"input {place}", got.grad, wanted.grad, 1e-4)


@pytest.mark.parametrize("sizes", [{}, dict(reg_tokens=2, init_values=0.3, qk_norm=True), dict(class_token=False)])
def test_a_masked_encoder_is_theirs(sizes):
    shown = torch.tensor([[3, 1, 9, 15], [0, 2, 8, 5]])  # in any order
    more = dict(global_pool="avg", fc_norm=False) if sizes.get("class_token") is False else {}
    theirs = their_encoder(Given(shown), **sizes, **more)
    mine = ours.MaskedEncoder(NAME, Given(shown), **OPTIONS, **sizes)
    assert [n for n, _ in mine.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    mine.load_state_dict(theirs.state_dict())
    for name in ["embed_dim", "num_prefix_tokens", "num_reg_tokens", "has_class_token", "no_embed_class",
                 "patch_size_h", "patch_size_w", "default_grid_h", "default_grid_w"]:
        assert getattr(mine, name) == getattr(theirs, name), name
    batch = images(samples=2)
    got, want = mine(batch), theirs(batch)
    for name in ["mask", "ids_keep"]:
        assert torch.equal(getattr(got, name), getattr(want, name)), name
    assert got.grid_size == want.grid_size
    assert_close("tokens", got.encoded.detach(), want.encoded.detach(), 1e-5)
    projected(got.encoded).backward()
    projected(want.encoded).backward()
    compare(mine, theirs)
    assert_close("features", mine.forward_features(batch), theirs.forward_features(batch), 1e-5)
    assert_close("patches", mine.patch_embed(batch).detach(), theirs.patch_embed(batch).detach(), 1e-5)
    for got, want in zip(mine._get_pos_embed(4, 4), theirs._get_pos_embed(4, 4)):
        assert (got is None) == (want is None) and (got is None or torch.equal(got, want))
    got, want = mine._get_prefix_tokens(3), theirs._get_prefix_tokens(3)
    assert (got is None) == (want is None) and (got is None or torch.equal(got, want))


@pytest.mark.parametrize("every", [False, True], ids=["queries", "every patch"])
@pytest.mark.parametrize("asks", ["queries", "mask token", "nothing"])
@pytest.mark.parametrize("positions", ["sincos_2d", "sincos_1d", "learned", "none"])
def test_a_flexible_transformer_is_theirs(positions, asks, every):
    options = TRANSFORMER | dict(pos_embed_type=positions, add_mask_token=True)
    theirs, mine = spread(TheirTransformer(**options)), ours.FlexibleTransformer(**options)
    assert [n for n, _ in mine.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    assert set(mine.state_dict()) == set(theirs.state_dict())
    for name in ["pos_embed"] if positions != "learned" else []:
        assert_close(name, mine.pos_embed, theirs.pos_embed, 1e-6)
    mine.load_state_dict(theirs.state_dict())
    order = torch.stack([torch.randperm(16, generator=torch.Generator().manual_seed(s)) for s in range(2)])
    shown = 16 if asks == "nothing" else 10
    context_idx, query_idx = order[:, :shown], order[:, shown:]
    made = [torch.randn(2, 16, 48, generator=torch.Generator().manual_seed(7)) for _ in range(2)]
    inputs = [(m[:, :shown].clone().requires_grad_(), m[:, shown:].clone().requires_grad_()) for m in made]
    results = []
    for model, (context, queries) in zip([mine, theirs], inputs):
        mask = torch.ones(2, 16 - shown, dtype=torch.bool) if asks == "mask token" else None
        results.append(model(context, queries, context_idx, query_idx, query_mask=mask, return_all=every))
    assert results[0].shape == results[1].shape
    if asks == "nothing" and not every:
        return
    assert_close("outputs", results[0].detach(), results[1].detach(), 1e-5)
    for result in results:
        projected(result).backward()
    pairs = [(inputs[0][0], inputs[1][0])]
    if asks == "queries":
        pairs.append((inputs[0][1], inputs[1][1]))
    compare(mine, theirs, pairs)


@pytest.mark.parametrize("masked_only", [False, True], ids=["all", "masked"])
def test_a_decoder_is_theirs(masked_only):
    options = dict(embed_dim=48, decoder_embed_dim=32, output_dim=20, num_patches=16, depth=2, num_heads=4)
    theirs, mine = spread(TheirDecoder(**options)), ours.MAEDecoder(**options)
    assert [n for n, _ in mine.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    mine.load_state_dict(theirs.state_dict())
    keep = torch.tensor([[3, 1, 9], [0, 2, 8]])
    mask = torch.ones(2, 16).scatter_(1, keep, 0.0)
    for x, ids in [(torch.randn(2, 3, 48), keep), (torch.randn(2, 3, 48), None), (torch.randn(2, 16, 48), None)]:
        inputs = [x.clone().requires_grad_() for _ in range(2)]
        results = [m(i, mask, ids, masked_only) for m, i in zip([mine, theirs], inputs)]
        assert_close("outputs", results[0].detach(), results[1].detach(), 1e-5)
        for model, result in zip([mine, theirs], results):
            model.zero_grad()
            projected(result).backward()
        compare(mine, theirs, [inputs])
    nothing = torch.zeros(2, 16)
    assert mine(x, nothing, output_masked_only=True).shape == (2, 0, 20)
    assert_close("unmasked", mine(x, nothing).detach(), theirs(x, nothing).detach(), 1e-5)


def test_the_parts_of_a_model_compute_what_the_model_does():
    whole = salt(seed=3)
    batch = images()
    output = whole(batch, CONTEXT, TARGET)
    output.loss.backward()
    want = {name: p.grad.clone() for name, p in whole.named_parameters() if p.grad is not None}
    whole.zero_grad()
    samples = len(batch)
    with torch.no_grad():
        targets = whole.teacher(batch).encoded[:, whole.teacher.num_prefix_tokens :][:, TARGET]
    assert_close("targets", targets, output.targets, 1e-6)
    shown, asked = CONTEXT.expand(samples, -1), TARGET.expand(samples, -1)
    context = whole.student.encode(batch, shown)[:, whole.student.num_prefix_tokens :]
    zeros, masked = torch.zeros(samples, len(TARGET), 48), torch.ones(samples, len(TARGET), dtype=torch.bool)
    predictions = whole.predictor(context, zeros, shown, asked, query_mask=masked)
    loss = torch.nn.functional.l1_loss(predictions, targets)
    assert_close("loss", loss.detach(), output.loss.detach(), 1e-6)
    loss.backward()
    for name, parameter in whole.named_parameters():
        if "query_proj" not in name and name in want:
            assert_close(name, parameter.grad, want[name], 1e-5)
    stage1 = mae(seed=3, masking=ours.MultiBlockMasking())
    stage1.load_state_dict(copied(reference_mae()))
    encoded = stage1.encoder(batch)
    made = stage1.decoder(encoded.encoded[:, 1:], encoded.mask, encoded.ids_keep)
    projected(made).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in stage1.parameters())


def test_predictions_are_differentiable():
    theirs, mine = with_masks(reference_salt(), CONTEXT, TARGET), salt()
    mine.load_state_dict(copied(theirs))
    for model in [mine, theirs]:
        output = model(images(), CONTEXT, TARGET) if model is mine else model(images())
        (2 * output.loss + torch.nn.functional.mse_loss(output.predictions, output.targets)).backward()
    compare(mine, theirs)
    shown = CONTEXT.expand(3, -1)
    stage1 = [mae(masking=Given(shown)), with_masks(reference_mae(), shown)]
    stage1[0].load_state_dict(copied(stage1[1]))
    for model in stage1:
        projected(model(images()).predictions).backward()
    compare(*stage1)


def test_parameters_are_in_the_references_order_so_that_its_optimizers_state_fits():
    theirs, mine = reference_salt(), salt()
    names = [name for name, _ in theirs.named_parameters()]
    assert [name for name, _ in mine.named_parameters()] == names
    assert [name for name, _ in saltworks.SALT(**SIZES, **PREDICTOR).named_parameters()] == names
    assert [n for n, _ in mae().named_parameters()] == [n for n, _ in reference_mae().named_parameters()]
    with_masks(theirs, CONTEXT, TARGET)
    first = torch.optim.AdamW(theirs.parameters(), lr=1e-2)
    theirs(images()).loss.backward()
    first.step()
    mine.load_state_dict(copied(theirs))
    second = torch.optim.AdamW(mine.parameters(), lr=1e-2)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for step in range(3):
        for model, optimizer in [(theirs, first), (mine, second)]:
            optimizer.zero_grad()
            (model(images(seed=step)) if model is theirs else model(images(seed=step), CONTEXT, TARGET)).loss.backward()
            optimizer.step()
    want = theirs.state_dict()
    for name, parameter in mine.named_parameters():
        if not name.endswith("qkv.bias"):
            assert_close(name, parameter.detach(), want[name], 1e-4)


def test_a_part_that_is_copied_has_an_engine_of_its_own():
    whole, batch = salt(seed=3), images()
    average = copy.deepcopy(whole.student)
    before = average(batch).encoded
    assert torch.equal(before, whole.student(batch).encoded)
    with torch.no_grad():
        for mine, parameter in zip(average.parameters(), whole.student.parameters()):
            parameter.mul_(1.5)
            mine.lerp_(parameter, 0.5)
    assert not torch.equal(average(batch).encoded, before)
    after = average(batch).encoded
    with torch.no_grad():
        whole.student.vit.norm.bias.add_(1.0)
    assert torch.equal(average(batch).encoded, after)
    for part in [ours.FlexibleTransformer(**TRANSFORMER), ours.MaskedEncoder(NAME, **OPTIONS), whole.predictor]:
        other = pickle.loads(pickle.dumps(part))
        assert all(torch.equal(a, b) for a, b in zip(other.parameters(), part.parameters()))
    x, everywhere = torch.randn(2, 16, 48), torch.arange(16).expand(2, -1)
    call = dict(context_idx=everywhere, return_all=True)
    assert torch.equal(other(x, **call), whole.predictor(x, **call))
    other(x, **call).sum().backward()
    assert other.context_proj.weight.grad is not None and whole.predictor.context_proj.weight.grad is None


def test_a_vision_transformer_of_timm_shares_its_parameters():
    vit = timm.create_model(NAME, num_classes=5, **OPTIONS)
    theirs, batch = TheirEncoder(copy.deepcopy(vit)), images()
    mine = ours.MaskedEncoder(vit)
    assert mine.vit is vit and isinstance(vit.head, torch.nn.Identity)
    assert_close("tokens", mine(batch).encoded.detach(), theirs(batch).encoded.detach(), 1e-5)
    assert_close("timm's own", vit.forward_features(batch).detach(), theirs(batch).encoded.detach(), 1e-5)
    with torch.no_grad():
        vit.blocks[0].mlp.fc1.bias.add_(1.0)
    assert not torch.allclose(mine(batch).encoded, theirs(batch).encoded)
    wrong = timm.create_model(NAME, drop_rate=0.1, pos_drop_rate=0.1, **OPTIONS)
    with pytest.raises(ValueError, match="pos_drop has p=0.1"):
        ours.MaskedEncoder(wrong)
    with pytest.raises(ValueError, match="no vision transformer of timm"):
        ours.MaskedEncoder(torch.nn.Linear(2, 2))


@pytest.mark.parametrize(
    "name",
    ["vit_tiny_patch16_224.augreg_in21k", "deit_tiny_patch16_224", "deit3_small_patch16_224.fb_in1k",
     "vit_small_patch14_dinov2.lvd142m", "vit_small_patch14_reg4_dinov2.lvd142m", "vit_small_patch16_384"],
)  # fmt: skip
def test_a_name_of_timm_has_timms_parameters(name):
    with torch.device("meta"):
        theirs = timm.create_model(name, num_classes=0)
    mine = ours.MaskedEncoder(name).vit
    assert [(n, p.shape) for n, p in mine.named_parameters()] == [(n, p.shape) for n, p in theirs.named_parameters()]


def test_layers_are_torchs_so_that_they_can_be_told_by_their_type():
    model = salt()
    kinds = {name: type(module) for name, module in model.named_modules()}
    assert kinds["student.vit.blocks.0.attn.qkv"] is torch.nn.Linear
    assert kinds["student.vit.blocks.0.norm1"] is torch.nn.LayerNorm
    assert kinds["student.vit.patch_embed.proj"] is torch.nn.Conv2d
    assert kinds["predictor.final_norm"] is torch.nn.LayerNorm
    assert model.predictor.final_norm.eps == 1e-5 and model.student.vit.norm.eps == 1e-6
    with pytest.raises(NotImplementedError, match="computes nothing alone"):
        model.student.vit.blocks[0](torch.zeros(1, 2, 48))


def test_what_the_transformer_lacks_is_refused_by_name():
    with pytest.raises(ValueError, match="cross_attn=True, use_adaln=True, num_prefix_tokens=1. Give cross_attn=False"):
        ours.FlexibleTransformer()
    model = ours.FlexibleTransformer(**TRANSFORMER)
    x, idx = torch.zeros(1, 3, 48), torch.arange(3).expand(1, -1)
    for options, named in [
        (dict(t=torch.zeros(1)), "t: the engine"),
        (dict(attn_mask=torch.eye(3)), "attn_mask"),
        (dict(query_mask=torch.ones(1, 3, dtype=torch.bool)), "add_mask_token=False"),
        (dict(context_idx=idx + 14), "context_idx of sample 0 holds 16, which is outside the 4 x 4 grid of 16"),
        (dict(return_all=True), "expected all 16"),
    ]:
        with pytest.raises(ValueError, match=named):
            model(**(dict(context=x, queries=x, context_idx=idx, query_idx=idx + 5) | options))
    mixed = ours.FlexibleTransformer(**TRANSFORMER, add_mask_token=True)
    with pytest.raises(ValueError, match="all or none"):
        mixed(x, x, idx, idx + 5, query_mask=torch.tensor([[True, False, True]]))
    with pytest.raises(ValueError, match="dynamic_img_size"):
        ours.MaskedEncoder(NAME, dynamic_img_size=True)
    with pytest.raises(ValueError, match="rotary positions"):
        ours.MaskedEncoder("vit_small_patch16_dinov3")
    with pytest.raises(ValueError, match="one size of images"):
        ours.MaskedEncoder(NAME, **OPTIONS)._get_pos_embed(5, 5)


def test_images_that_the_engine_cannot_read_are_refused_with_the_cure():
    model, encoder = salt(), ours.MaskedEncoder(NAME, **OPTIONS)
    for call in [model, encoder, encoder.encode, mae()]:
        with pytest.raises(ValueError, match=r"images require a gradient.*images.detach\(\)"):
            call(images().requires_grad_())
        with pytest.raises(ValueError, match=r"images are torch.bfloat16.*Give images.float\(\)"):
            call(images().bfloat16())
    with torch.no_grad():
        model(images().requires_grad_())


def test_indices_may_be_in_any_order():
    model = salt(seed=3)
    order = torch.tensor([4, 0, 2, 1, 3])
    want = model(images(), CONTEXT, TARGET)
    got = model(images(), CONTEXT.flip(0), TARGET[order])
    assert_close("predictions", got.predictions.detach(), want.predictions[:, order].detach(), 1e-5)
    assert_close("targets", got.targets, want.targets[:, order], 1e-6)
    for context, target, problem in [([1, 1], [2], "1 twice"), ([1], [1], "both"), ([16], [1], "16"), ([], [1], "empty")]:
        with pytest.raises(ValueError, match=problem):
            model(images(), torch.tensor(context, dtype=torch.long), torch.tensor(target))


def test_masks_that_a_subclass_draws_are_used():
    class Own(ours.SALT):
        def _generate_masks(self, grid_h, grid_w, device="cpu"):
            assert (grid_h, grid_w) == (4, 4)
            return CONTEXT, TARGET

    model = Own(**SIZES, **PREDICTOR, seed=3)
    assert torch.equal(model(images()).predictions, salt(seed=3)(images(), CONTEXT, TARGET).predictions)


def test_the_embedding_without_a_class_token_is_an_option():
    theirs = with_masks(reference_salt(class_token=False, global_pool="avg", fc_norm=False), CONTEXT, TARGET)
    want = theirs(images()).embedding, theirs.eval()(images()).embedding
    sizes = SIZES | PREDICTOR | dict(class_token=False)
    first, mean = ours.SALT(**sizes, embedding="first_token"), ours.SALT(**sizes)
    for model in [first, mean]:
        model.load_state_dict(copied(theirs))
    got = first(images(), CONTEXT, TARGET).embedding, first.eval()(images()).embedding
    assert_close("training", got[0], want[0], 1e-5)
    assert_close("eval", got[1], want[1], 1e-5)
    tokens = theirs.student(images()).encoded
    assert_close("mean", mean.eval()(images()).embedding, tokens.mean(1).detach(), 1e-5)
    with pytest.raises(ValueError, match='"mean" or "first_token"'):
        ours.SALT(**sizes, embedding="cls")


def test_masks_without_a_seed_differ_and_follow_the_generator():
    def drawn(module, seed=None):
        return [np.asarray(mask).tolist() for mask in module.multi_block_mask(14, 14, seed=seed)]

    for module, set_seed in [(ours, torch.manual_seed), (saltworks, np.random.seed)]:
        set_seed(5)
        first, second = drawn(module), drawn(module)
        assert first != second
        set_seed(5)
        assert drawn(module) == first
        assert drawn(module, 3) == drawn(module, 3)


def test_outputs_are_transformers_outputs():
    from transformers.utils import ModelOutput

    output = salt()(images())
    assert isinstance(output, ModelOutput) and isinstance(output, ours.SALTOutput)
    assert output["loss"] is output.loss is output[0] and "predictions" in output
    assert "predictions" not in salt().eval()(images())


def test_a_second_name_with_another_value_is_refused():
    model = mae()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    state["encoder.patch_embed.proj.bias"] += 1
    with pytest.raises(ValueError, match="encoder.vit.patch_embed.proj.bias and encoder.patch_embed.proj.bias"):
        model.load_state_dict(state)


def test_transformers_trainer_trains_and_saves(tmp_path):
    from safetensors.torch import load_file
    from transformers import Trainer, TrainingArguments

    class Batches(torch.utils.data.Dataset):
        def __len__(self):
            return 8

        def __getitem__(self, index):
            return {"images": images(index, samples=1)[0]}

    model = salt(seed=3)
    before = model.state_dict()["student.vit.norm.weight"].clone()
    arguments = TrainingArguments(
        str(tmp_path), max_steps=3, per_device_train_batch_size=4, report_to=[], use_cpu=True, save_steps=3
    )
    Trainer(model, arguments, train_dataset=Batches()).train()
    assert not torch.equal(before, model.student.vit.norm.weight)
    saved = load_file(tmp_path / "checkpoint-3" / "model.safetensors")
    other = salt(seed=4)
    other.load_state_dict(saved)
    assert other(images(), CONTEXT, TARGET).loss.item() == model(images(), CONTEXT, TARGET).loss.item()


def test_torch_compile_leaves_the_engines_calls_alone():
    model = salt(seed=3)

    @torch.compile(backend="eager")
    def step(batch):
        output = model(batch, CONTEXT, TARGET)
        return output.loss * 2 + output.predictions.square().mean()

    step(images()).backward()
    output = salt(seed=3)(images(), CONTEXT, TARGET)
    want = output.loss * 2 + output.predictions.square().mean()
    assert step(images()).item() == want.item()
    assert model.predictor.mask_token.grad.abs().sum() > 0


def test_numpy_reads_tokens_and_walks_back():
    theirs = their_encoder()
    encoder = saltworks.Encoder(NAME, **OPTIONS)
    encoder.load_state_dict({n.removeprefix("vit."): v for n, v in copied(theirs).items() if n.startswith("vit.")})
    made = encoder.encode(images().numpy(), np.array([5, 0, 9]))
    assert made.tokens.shape == (3, 4, 48)
    theirs.masking = Given(torch.tensor([[5, 0, 9]]).expand(3, -1))
    want = theirs(images()).encoded
    assert_close("tokens", made.tokens, want.detach(), 1e-5)
    gradient = np.random.default_rng(0).normal(size=made.tokens.shape).astype(np.float32)
    assert made.backward(gradient) == []
    want.backward(torch.from_numpy(gradient))
    wanted = dict(theirs.named_parameters())
    for name, parameter in encoder.named_parameters():
        assert_close(name, parameter.grad, wanted[f"vit.{name}"].grad, 1e-4)
    with pytest.raises(ValueError, match=r"gradient is \[1, 4, 48\], expected \[3, 4, 48\]"):
        encoder.encode(images().numpy(), np.array([5, 0, 9])).backward(gradient[:1])
    with pytest.raises(ValueError, match="nothing was recorded"):
        encoder.encode(images().numpy(), np.array([5, 0, 9]), record=False).backward(gradient)


def test_blocks_are_left_out_anew_at_each_call_of_a_part():
    batch, rate = images(), dict(drop_path_rate=0.6)
    vit = timm.create_model(NAME, **OPTIONS, **rate)
    whole = salt(**rate)
    parts = [ours.MaskedEncoder(NAME, **OPTIONS, **rate), ours.MaskedEncoder(vit), whole.student]
    parts.append(mae(masking=None, mask_ratio=0.0, **rate).encoder)
    for part in parts:
        different = {part.train()(batch).encoded.sum().item() for _ in range(8)}
        assert len(different) > 3, part
        assert len({part.eval()(batch).encoded.sum().item() for _ in range(3)}) == 1
    # A student in eval mode keeps its blocks, although the model trains.
    whole.student.eval()
    assert len({whole(batch, CONTEXT, TARGET).loss.item() for _ in range(4)}) == 1
    whole.train()
    assert len({whole(batch, CONTEXT, TARGET).loss.item() for _ in range(8)}) > 3
    rates = timm.create_model(NAME, **OPTIONS, drop_path_rate=0.5)
    rates.blocks[1].drop_path1.drop_prob = 0.9
    with pytest.raises(ValueError, match="expected a linear growth"):
        ours.MaskedEncoder(rates)


def test_timm_models_that_compute_otherwise_are_refused():
    from timm.models.vision_transformer import ResPostBlock

    for change, named in [
        (dict(block_fn=ResPostBlock), "its blocks are timm.models.vision_transformer.ResPostBlock"),
        (dict(qkv_bias=False), "the module lacks blocks.0.attn.qkv.bias"),
    ]:
        vit = timm.create_model(NAME, num_classes=3, **OPTIONS, **change)
        before = {name: p.data_ptr() for name, p in vit.named_parameters()}
        with pytest.raises(ValueError, match=named):
            ours.MaskedEncoder(vit)
        assert {name: p.data_ptr() for name, p in vit.named_parameters()} == before
        assert isinstance(vit.head, torch.nn.Linear)
    vit = timm.create_model(NAME, **OPTIONS).eval()
    first = ours.MaskedEncoder(vit)
    assert not vit.training
    with pytest.raises(ValueError, match="another MaskedEncoder"):
        ours.MaskedEncoder(vit)
    first(images())
    vit = timm.create_model(NAME, **OPTIONS)
    vit.blocks[0].attn.scale = 0.1
    with pytest.raises(ValueError, match="blocks.0.attn.scale is 0.1"):
        ours.MaskedEncoder(vit)


def test_a_table_of_positions_that_the_engine_does_not_have_is_refused():
    flat = TheirTransformer(**(TRANSFORMER | dict(grid_size=(2, 8))))
    mine = ours.FlexibleTransformer(**TRANSFORMER)
    with pytest.raises(ValueError, match="pos_embed differs from the engine's table"):
        mine.load_state_dict(flat.state_dict())
    for model in [salt(), saltworks.SALT(**SIZES, **PREDICTOR)]:
        state = copied(salt())
        model.load_state_dict(state)
        state["predictor.pos_embed"] = state["predictor.pos_embed"].flip(1)
        with pytest.raises(ValueError, match="predictor.pos_embed differs"):
            model.load_state_dict(state)
    wide = ours.FlexibleTransformer(**(TRANSFORMER | dict(grid_size=(2, 8))))
    wide.load_state_dict(flat.state_dict())


def test_masks_may_be_drawn_by_the_models_own_parts():
    class Own(ours.SALT):
        def _generate_masks(self, grid_h, grid_w, device="cpu"):
            with torch.no_grad():
                assert self.student.encode(images()).shape == (3, 17, 48)
            return CONTEXT, TARGET

    assert Own(**SIZES, **PREDICTOR)(images()).num_targets == len(TARGET)


def test_a_copy_may_first_be_used_in_inference_mode():
    encoder = ours.MaskedEncoder(NAME, **OPTIONS)
    copies = copy.deepcopy(encoder), copy.copy(encoder)
    with torch.inference_mode():
        for other in copies:
            assert torch.equal(other(images()).encoded, encoder(images()).encoded)
    for other in [*copies, encoder]:
        other(images()).encoded.sum().backward()
    with pytest.raises(ValueError, match="stay float32"):
        copy.deepcopy(encoder).half()


def test_a_teacher_that_should_train_is_refused():
    model = salt()
    model.teacher.backbone.requires_grad_(True)
    with pytest.raises(ValueError, match="a model's teacher is never trained"):
        model.teacher(images())
    other = copy.deepcopy(model.student)
    other(images()).encoded.sum().backward()


def test_tokens_of_another_shape_are_refused_by_name():
    model = ours.FlexibleTransformer(**TRANSFORMER, add_mask_token=True)
    idx, x = torch.arange(6).expand(2, -1), torch.zeros(2, 6, 48)
    for context, queries, mask, named in [
        (x, x[:1].repeat(1, 2, 1), None, "queries are of 1 samples, expected 2"),
        (x, x[:, :4], None, r"queries is \[2, 4, 48\], expected \[2, 6, 48\]"),
        (x[..., :40], x, None, r"context is \[2, 6, 40\], expected \[2, 6, 48\]"),
        (x[0], x, None, r"context is \[6, 48\], expected a tensor"),
        (x, x, torch.ones(7, 9, dtype=torch.bool), r"query_mask is \[7, 9\], expected \[2, 6\]"),
    ]:
        with pytest.raises(ValueError, match=named):
            model(context, queries, idx, idx + 8, query_mask=mask)
    with pytest.raises(ValueError, match="no weight of more than"):
        saltworks.Transformer(grid=(2**20, 2**20))
    other = pickle.loads(pickle.dumps(saltworks.Transformer(48, 32, 20, (4, 4), num_heads=4)))
    assert other(x.numpy(), x.numpy(), idx, idx + 8).tokens.shape == (2, 6, 20)


def test_the_drawn_masks_are_in_the_output():
    output, first = salt(seed=3)(images()), saltworks.SALT(**SIZES, **PREDICTOR, seed=3)
    context, target = first.next_masks()
    assert output.context_idx[0].tolist() == context[0].tolist()
    assert output.target_idx[2].tolist() == target[0].tolist()
    # [1, K] is for all samples.
    assert first(images(), context_idx=context, target_idx=target).loss == output.loss.item()
