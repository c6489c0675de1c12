"""saltworks.torch in torch's own training loops, against stable-pretraining's modules."""

import copy
import io
import pickle
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

import saltworks
import saltworks.torch
from reference import MAE_SIZES, SIZES, reference_mae, reference_salt, with_masks
from test_parity import assert_close, copied, images

PREDICTOR = dict(predictor_embed_dim=48, predictor_depth=2, predictor_num_heads=4)
DECODER = dict(decoder_embed_dim=48, decoder_depth=2, decoder_num_heads=4)


def salt(**kwargs):
    return saltworks.torch.SALT(**SIZES, **PREDICTOR, **kwargs)


def mae(**kwargs):
    return saltworks.torch.MAE(**MAE_SIZES, **DECODER, **kwargs)


def test_keys_are_the_references():
    assert set(salt().state_dict()) == set(reference_salt().state_dict())
    assert set(mae().state_dict()) == set(reference_mae().state_dict())


def trained(model, context, target, steps=5):
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=1e-3, weight_decay=0.05
    )
    losses = []
    for step in range(steps):
        optimizer.zero_grad()
        given = images(seed=step)
        output = model(given, context, target) if isinstance(model, saltworks.torch.SALT) else model(given)
        output.loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(output.loss.item())
    return losses


def compare_weights(ours, want, limit):
    for name, parameter in ours.named_parameters():
        got, wanted = parameter.detach().numpy(), np.asarray(want[name])
        if name.endswith("attn.qkv.bias"):
            # Softmax does not see a shift of all keys: their bias has a gradient of rounding errors
            # alone, which AdamW scales up.
            q_and_v = np.r_[0 : len(got) // 3, 2 * len(got) // 3 : len(got)]
            got, wanted = got[q_and_v], wanted[q_and_v]
        assert_close(name, got, wanted, limit)


def test_a_torch_loop_of_five_steps_is_the_references():
    theirs, ours = reference_salt(), salt()
    ours.load_state_dict(copied(theirs))
    context, target = torch.arange(0, 9), torch.arange(9, 14)
    want = trained(with_masks(theirs, context, target), context, target)
    got = trained(ours, context, target)
    assert_close("losses", got, want, 1e-5)
    compare_weights(ours, theirs.state_dict(), 1e-4)


def test_our_loop_of_five_steps_is_torchs():
    first, second = salt(seed=3), saltworks.SALT(**SIZES, **PREDICTOR, seed=4)
    second.load_state_dict(copied(first))
    context, target = torch.arange(0, 9), torch.arange(9, 14)
    want = trained(first, context, target)
    optimizer = saltworks.AdamW([{"params": second.parameters()}], lr=1e-3, weight_decay=0.05)
    got = []
    for step in range(5):
        optimizer.zero_grad()
        output = second(images(seed=step), context_idx=context, target_idx=target)
        output.backward()
        saltworks.clip_grad_norm(second.parameters(), 1.0)
        optimizer.step()
        got.append(output.loss)
    assert_close("losses", got, want, 1e-6)
    compare_weights(first, second.state_dict(), 1e-5)


def test_groups_have_rates_of_their_own_that_may_change():
    ours = saltworks.SALT(**SIZES, **PREDICTOR)
    parameters = ours.parameters()
    optimizer = saltworks.AdamW(
        [{"params": parameters[:1], "lr": 0.0, "weight_decay": 0.0}, {"params": parameters[1:]}], lr=0.1
    )
    ours(images()).backward()
    before = [p.data.copy() for p in parameters]
    optimizer.step()
    moved = [not np.array_equal(p.data, b) for p, b in zip(parameters, before)]
    # SALT never reads its predictor.query_proj, which starts at 0 and has a gradient of 0.
    read = ["query_proj" not in p.name for p in parameters]
    assert not moved[0] and moved[1:] == read[1:]
    optimizer.param_groups[0]["lr"] = 0.1
    optimizer.step()
    assert not np.array_equal(parameters[0].data, before[0])
    optimizer.param_groups[0]["lr"] = -1.0
    with pytest.raises(ValueError, match="lr is -1"):
        optimizer.step()
    with pytest.raises(ValueError, match="twice"):
        saltworks.AdamW(parameters + parameters[:1])


def test_gradients_accumulate_and_scale_as_torchs():
    ours = salt()
    context, target = torch.arange(0, 9), torch.arange(9, 14)
    parameter = ours.predictor.mask_token
    ours(images(), context, target).loss.backward()
    once = parameter.grad.clone()
    (ours(images(), context, target).loss * 3).backward()
    assert_close("3 + 1 times", parameter.grad, 4 * once, 1e-5)
    (gradient,) = torch.autograd.grad(ours(images(), context, target).loss, [parameter])
    assert_close("autograd.grad", gradient, once, 1e-6)


def test_a_step_before_the_backward_pass_is_torchs_error():
    ours = salt()
    output = ours(images())
    with torch.no_grad():
        ours.predictor.mask_token.add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.loss.backward()


def test_a_frozen_parameter_gets_no_gradient_and_no_grad_records_nothing():
    ours = salt()
    ours.student.requires_grad_(False)
    ours(images()).loss.backward()
    assert all(p.grad is None for p in ours.student.parameters())
    assert all(p.grad is not None for p in ours.predictor.parameters())
    with torch.no_grad():
        assert not ours(images()).loss.requires_grad


def test_copies_and_pickles_are_models_of_their_own():
    ours = salt(seed=5)
    with torch.no_grad():
        ours.student.vit.norm.bias.add_(1.0)
    context, target = torch.arange(0, 9), torch.arange(9, 14)
    want = ours(images(), context, target).loss.item()
    for other in [copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))]:
        assert other(images(), context, target).loss.item() == want
        with torch.no_grad():
            other.student.vit.norm.bias.add_(1.0)
        assert other(images(), context, target).loss.item() != want
        assert ours(images(), context, target).loss.item() == want


CONTEXT, TARGET = torch.arange(0, 9), torch.arange(9, 14)


def through_a_file(value):
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("order", [1, -1], ids=["model first", "optimizer first"])
@pytest.mark.parametrize("copied", [copy.deepcopy, through_a_file], ids=["deepcopy", "torch.save"])
def test_a_copied_optimizer_trains_the_copied_model(copied, order):
    ours = salt()
    optimizer = torch.optim.AdamW(ours.parameters(), lr=1e-2)
    other, other_optimizer = copied((ours, optimizer)[::order])[::order]
    before, untouched = other(images(), CONTEXT, TARGET).loss.item(), ours.state_dict()
    untouched = {name: value.clone() for name, value in untouched.items()}
    for _ in range(3):
        loss = other(images(), CONTEXT, TARGET).loss
        loss.backward()
        other_optimizer.step()
    assert other(images(), CONTEXT, TARGET).loss.item() < before
    assert all(torch.equal(value, untouched[name]) for name, value in ours.state_dict().items())


class Extended(saltworks.torch.SALT):
    """A subclass with another constructor, and more in it."""

    def __init__(self):
        super().__init__(**SIZES, **PREDICTOR, seed=3)
        self.head = torch.nn.Linear(3, 3)


def test_what_is_added_to_a_model_is_copied_with_it():
    ours = Extended()
    ours(images())
    for other in [copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))]:
        assert type(other) is Extended and torch.equal(other.head.weight, ours.head.weight)
        # The copy goes on with the same masks.
        assert other.step == ours.step == 1
    assert copy.deepcopy(ours)(images()).loss.item() == ours(images()).loss.item()
    shallow = copy.copy(ours)
    assert shallow.student is ours.student and shallow(images(), CONTEXT, TARGET).loss.item() > 0


def test_weights_that_leave_the_engine_are_refused():
    ours = salt()
    ours.to("cpu").float()
    with pytest.raises(ValueError, match="stay float32 on the CPU"):
        ours.double()
    with pytest.raises(ValueError, match="stay float32 on the CPU"):
        ours.teacher.half()
    with pytest.raises(ValueError, match="stay where they are"):
        ours.to(memory_format=torch.channels_last)
    with pytest.raises(ValueError, match="pretrained"):
        salt(pretrained=True)
    state = {name: value.clone() for name, value in ours.state_dict().items()}
    ours.load_state_dict(state, assign=True)
    with pytest.raises(ValueError, match="no longer on the engine's memory"):
        ours(images())


def test_a_replaced_teacher_is_named():
    ours, other = salt(), salt(seed=5)
    state = {name: value.clone() for name, value in other.teacher.state_dict().items()}
    ours.teacher.load_state_dict(state, assign=True)
    with pytest.raises(ValueError, match=r"teacher\.backbone\..* is no longer on the engine's memory"):
        ours(images())
    ours = salt()
    ours.teacher = other.teacher
    with pytest.raises(ValueError, match="teacher"):
        ours(images())
    ours, fc1 = salt(), "student.vit.blocks.0.mlp.fc1"
    torch.nn.utils.parametrize.register_parametrization(
        ours.get_submodule(fc1), "weight", torch.nn.Identity(), unsafe=True
    )
    with pytest.raises(ValueError, match=f"{fc1}.weight is no longer"):
        ours(images())


def test_share_memory_is_refused_and_changes_nothing():
    ours = salt()
    for module in [ours, ours.student]:
        with pytest.raises(ValueError, match="one process's"):
            module.share_memory()
    ours(images()).loss.backward()


def test_threads_that_walk_back_on_one_model_get_their_own_gradients():
    ours = salt()
    parameters = [p for p in ours.parameters() if p.requires_grad]
    batches = [images(seed=seed) for seed in range(2)]

    def gradients(batch):
        return torch.autograd.grad(ours(batch, CONTEXT, TARGET).loss, parameters)

    wanted, wrong = [gradients(batch) for batch in batches], []

    def work(thread):
        try:
            for _ in range(30):
                pairs = zip(gradients(batches[thread]), wanted[thread])
                wrong.extend(1 for got, want in pairs if not torch.equal(got, want))
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_second_derivatives_are_refused():
    ours = salt()
    parameters = [p for p in ours.parameters() if p.requires_grad]
    with pytest.raises(RuntimeError, match="no second derivatives"):
        torch.autograd.grad(ours(images()).loss, parameters, create_graph=True)


def test_saltworks_torch_needs_no_import_of_its_own():
    code = "import saltworks; saltworks.torch.SALT; assert not hasattr(saltworks, 'tensorflow')"
    subprocess.run([sys.executable, "-c", code], check=True)
    hidden = "import sys; sys.modules['torch'] = None; import saltworks; saltworks.torch"
    failed = subprocess.run([sys.executable, "-c", hidden], capture_output=True, text=True)
    assert "AttributeError: saltworks.torch needs torch" in failed.stderr


def test_a_masking_of_another_kind_is_used():
    from stable_pretraining.backbone import PatchMasking

    ours = mae(masking=PatchMasking(0.5, crop_ratio=1.0))
    output = ours(images())
    assert output.num_masked == 8
    # A crop shows one rectangle.
    shown = (output.mask[0] == 0).reshape(4, 4).nonzero()
    sides = shown.max(0).values - shown.min(0).values + 1
    assert sides.prod() < 16


@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
def test_a_teacher_comes_from_a_file(tmp_path, ending):
    from safetensors.torch import save_file

    stage1, path = reference_mae(), tmp_path / f"stage1{ending}"
    state = {name: value.contiguous() for name, value in stage1.encoder.state_dict().items()}
    if ending == ".pt":
        torch.save({"state_dict": {f"encoder.{name}": value for name, value in state.items()}}, path)
    else:
        kept = {name: v for name, v in state.items() if name.startswith("vit.")}
        save_file({f"encoder.{name}": value for name, value in kept.items()}, path)
    ours = saltworks.torch.SALT.from_checkpoint(path, **SIZES, **PREDICTOR)
    want = stage1.eval().encoder(images()).encoded
    output = ours(images(), torch.arange(0, 9), torch.arange(9, 14))
    assert_close("targets", output.targets, want[:, 1:][:, 9:14].detach(), 1e-5)
