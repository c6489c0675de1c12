"""State dicts of models and optimizers, and weights in memory."""

import copy
import pickle
import types

import numpy as np
import pytest
import timm
import torch

import saltworks
from reference import MAE_SIZES, OPTIONS, SIZES
from test_parity import images

PREDICTOR = dict(predictor_embed_dim=48, predictor_depth=1, predictor_num_heads=4)
DECODER = dict(decoder_embed_dim=48, decoder_depth=1, decoder_num_heads=4)
CONTEXT, TARGET = np.arange(0, 9), np.arange(9, 14)


def salt(**kwargs):
    return saltworks.SALT(**SIZES, **PREDICTOR, **kwargs)


def targets(model):
    return model(images(), context_idx=CONTEXT, target_idx=TARGET).targets


def encoder(**options):
    torch.manual_seed(0)
    return timm.create_model("vit_tiny_patch16_224", **{**OPTIONS, "num_classes": 0, **options}).eval()


def test_any_mapping_of_arrays_is_a_state_dict(tmp_path):
    first, second = salt(seed=1), salt(seed=2)
    state = {name: value.copy() for name, value in first.state_dict().items()}
    second.load_state_dict(types.MappingProxyType(state))
    assert np.array_equal(targets(second), targets(first))
    np.savez(tmp_path / "state.npz", **state)
    third = salt(seed=3)
    third.load_state_dict(np.load(tmp_path / "state.npz"))
    assert np.array_equal(targets(third), targets(first))


@pytest.mark.parametrize("part", ["student", "teacher.backbone"])
def test_two_values_for_one_weight_are_refused(part):
    model = salt()
    before = {name: value.copy() for name, value in model.state_dict().items()}
    state = {name: value + 1 for name, value in before.items()}
    state[f"{part}.patch_embed.proj.bias"] += 1
    with pytest.raises(ValueError, match=f"{part}.vit.patch_embed.proj.bias and {part}.patch_embed.proj.bias"):
        model.load_state_dict(state)
    assert all(np.array_equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_a_teacher_of_another_precision_is_as_from_a_file(dtype):
    state = {name: value.to(dtype) for name, value in encoder().state_dict().items()}
    wanted = {name: value.float() for name, value in state.items()}
    assert np.array_equal(targets(salt(teacher_state_dict=state)), targets(salt(teacher_state_dict=wanted)))
    with pytest.raises(ValueError, match="int64, expected float32"):
        salt(teacher_state_dict={name: value.long() for name, value in state.items()})


def test_a_teacher_may_be_a_mae_or_have_a_head():
    mae = saltworks.MAE(**MAE_SIZES, **DECODER, seed=1)
    alone = {name[len("encoder.vit.") :]: value for name, value in mae.state_dict().items()
             if name.startswith("encoder.vit.")}
    want = targets(salt(teacher_state_dict=alone))
    assert np.array_equal(targets(salt(teacher_state_dict=mae.state_dict())), want)
    masked = {name[len("encoder.") :]: value for name, value in mae.state_dict().items()
              if name.startswith("encoder.")}
    assert np.array_equal(targets(salt(teacher_state_dict=masked)), want)
    with_head = encoder(num_classes=10)
    bare = {name: value for name, value in with_head.state_dict().items() if not name.startswith("head.")}
    want = targets(salt(teacher_state_dict=bare))
    assert np.array_equal(targets(salt(teacher_state_dict=with_head.state_dict())), want)
    for model in [saltworks.torch.SALT(**SIZES, **PREDICTOR, teacher_state_dict=with_head.state_dict())]:
        assert np.array_equal(targets(model.eval()._engine.train()), want)
    del bare["norm.weight"]
    with pytest.raises(ValueError, match="missing norm.weight"):
        salt(teacher_state_dict=bare)


@pytest.mark.parametrize("name", ["cls_token", "patch_embed.proj.weight", "blocks.0.norm1.weight"])
@pytest.mark.parametrize("shape", [(), (0,), (1, 2, 3, 4, 5, 6)])
def test_weights_of_any_shape_are_an_error_and_no_panic(name, shape):
    state = encoder().state_dict() | {name: torch.ones(shape)}
    with pytest.raises(ValueError, match=name):
        salt(teacher_state_dict=state)
    with pytest.raises(ValueError):
        saltworks.Encoder(weights=state)
    with pytest.raises(ValueError, match=name):
        saltworks.Encoder(**OPTIONS).load_state_dict(state)


def trained(model, optimizer, steps, first=0):
    for step in range(first, first + steps):
        optimizer.zero_grad()
        model(images(seed=step), context_idx=CONTEXT, target_idx=TARGET).backward()
        optimizer.step()


def test_an_optimizer_goes_on_where_its_state_stood():
    whole = salt(seed=1)
    trained(whole, saltworks.AdamW(whole.parameters(), lr=1e-2), 6)
    half = salt(seed=1)
    optimizer = saltworks.AdamW(half.parameters(), lr=1e-2)
    trained(half, optimizer, 3)
    rest = salt(seed=2)
    rest.load_state_dict({name: value.copy() for name, value in half.state_dict().items()})
    again = saltworks.AdamW(rest.parameters(), lr=0.5, betas=(0.1, 0.2))
    again.load_state_dict(optimizer.state_dict())
    assert again.param_groups[0]["lr"] == pytest.approx(1e-2)
    trained(rest, again, 3, first=3)
    want = whole.state_dict()
    assert all(np.array_equal(value, want[name]) for name, value in rest.state_dict().items())


def test_torchs_state_goes_in_and_comes_out():
    model = salt(seed=1)
    groups = [{"params": model.parameters()[:3], "weight_decay": 0.0}, {"params": model.parameters()[3:]}]
    optimizer = saltworks.AdamW(groups, lr=1e-2)
    trained(model, optimizer, 2)
    state = optimizer.state_dict()
    copies = [torch.nn.Parameter(torch.from_numpy(p.data.copy())) for p in model.parameters()]
    theirs = torch.optim.AdamW([{"params": copies[:3], "weight_decay": 0.0}, {"params": copies[3:]}], lr=1e-2)
    moments = {place: {name: torch.as_tensor(value) for name, value in one.items()}
               for place, one in state["state"].items()}
    defaults = theirs.state_dict()["param_groups"]
    groups = [default | group for default, group in zip(defaults, state["param_groups"])]
    theirs.load_state_dict({"state": moments, "param_groups": groups})
    for parameter, copy in zip(model.parameters(), copies):
        copy.grad = torch.from_numpy(parameter.grad.copy())
    optimizer.step()
    theirs.step()
    for parameter, copy in zip(model.parameters(), copies):
        assert np.allclose(parameter.data, copy.detach(), rtol=1e-5, atol=1e-7), parameter.name
    fresh = saltworks.AdamW([{"params": model.parameters()[:3]}, {"params": model.parameters()[3:]}])
    fresh.load_state_dict(theirs.state_dict())
    back = fresh.state_dict()
    assert back["state"][5]["step"] == 3 and back["param_groups"][0]["weight_decay"] == 0.0
    assert np.array_equal(back["state"][5]["exp_avg"], theirs.state_dict()["state"][5]["exp_avg"])


def test_a_state_that_does_not_fit_changes_nothing():
    model = salt()
    optimizer = saltworks.AdamW(model.parameters(), lr=1e-2)
    trained(model, optimizer, 1)
    before = optimizer.state_dict()

    def refused(message, change):
        state = optimizer.state_dict()
        change(state)
        with pytest.raises(ValueError, match=message):
            optimizer.load_state_dict(state)
        assert np.array_equal(optimizer.state_dict()["state"][0]["exp_avg"], before["state"][0]["exp_avg"])

    refused("0 param_groups, expected 1", lambda state: state.update(param_groups=[]))
    refused("parameters, expected", lambda state: state["param_groups"][0]["params"].pop())
    refused("exp_avg of parameter 0", lambda state: state["state"][0].update(exp_avg=np.zeros(3, "f4")))
    refused("amsgrad", lambda state: state["state"][0].update(max_exp_avg_sq=np.zeros(3, "f4")))
    refused("betas", lambda state: state["param_groups"][0].update(betas=(0.5, 1.5)))


def test_groups_are_as_many_as_they_were():
    optimizer = saltworks.AdamW(salt().parameters())
    assert isinstance(optimizer.param_groups, tuple)
    assert isinstance(optimizer.param_groups[0]["params"], tuple)
    with pytest.raises(AttributeError):
        optimizer.param_groups = []


def test_gradients_are_zeroed_in_place():
    model = salt()
    optimizer = saltworks.AdamW(model.parameters())
    for owner in [model, optimizer, model.parameters()[0]]:
        owner.zero_grad(set_to_none=False)
        with pytest.raises(ValueError, match="in place"):
            owner.zero_grad(set_to_none=True)


def test_a_parameter_as_an_array_copies_when_it_must_and_says_so():
    parameter = salt().parameters()[0]
    address = parameter.data.ctypes.data
    assert np.asarray(parameter).ctypes.data == address
    assert np.asarray(parameter, dtype=np.float32).ctypes.data == address
    assert np.array(parameter, copy=True).ctypes.data != address
    assert np.asarray(parameter, dtype=np.float64).dtype == np.float64
    if np.lib.NumpyVersion(np.__version__) >= "2.0.0":
        with pytest.raises(ValueError, match="needs a copy"):
            np.array(parameter, copy=False, dtype=np.float64)


class Named(saltworks.SALT):
    """A subclass with another constructor and something in it."""

    def __new__(cls, name=None, **kwargs):
        return super().__new__(cls, **(kwargs or {**SIZES, **PREDICTOR}))

    def __init__(self, name, **_):
        self.name = name


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_and_pickles_are_models_of_their_own(copied):
    models = [
        salt(seed=3, target_scale=(0.1, 0.2), normalize="imagenet", drop_path_rate=0.1),
        saltworks.MAE(**MAE_SIZES, **DECODER, loss_type="smooth_l1", norm_pix_loss=False, mask_ratio=0.5),
        saltworks.MAE(**MAE_SIZES, **DECODER, masking=saltworks.MultiBlockMasking(2)),
        Named("mine"),
    ]
    for model in models:
        model(images()).backward()
        saltworks.AdamW(model.parameters(), lr=0.1).step()
        other = copied(model)
        assert type(other) is type(model) and other.normalize == model.normalize and other.training
        before = model(images()).loss
        assert other(images()).loss == before
        other.parameters()[0].data[:] = 7.0
        model.step = 1
        assert model(images()).loss == before
    assert other.name == "mine"
    encoder = saltworks.Encoder(**OPTIONS, reg_tokens=2, mlp_ratio=2.5, normalize=(0.25, 0.5)).eval()
    other = copied(encoder)
    assert np.array_equal(other(images()).cls, encoder(images()).cls) and not other.training


def test_forward_is_the_call():
    model = saltworks.Encoder(**OPTIONS)
    assert np.array_equal(model.forward(images()).cls, model(images()).cls)
    assert repr(model(images())) == "Features(patches=[3, 16, 48], cls=true)"
    for method in [salt(), saltworks.MAE(**MAE_SIZES, **DECODER)]:
        want = method(images()).loss
        method.step = 0
        assert method.forward(images()).loss == want
    assert "num_targets=4" in repr(saltworks.MultiBlockMasking())
    assert repr(saltworks.PatchMasking(0.5)) == "PatchMasking(mask_ratio=0.5, block_size=1)"
