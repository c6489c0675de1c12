"""Weights and gradients are the engine's own memory, and stay so."""

import gc
import threading
import time

import numpy as np
import pytest

import saltworks

SIZES = dict(img_size=16, patch_size=4, in_chans=1, embed_dim=32, depth=2, num_heads=2)
PREDICTOR = dict(predictor_embed_dim=32, predictor_depth=1, predictor_num_heads=2)


def model(**kwargs):
    return saltworks.SALT("vit_tiny_patch16_224", **SIZES, **PREDICTOR, **kwargs)


def images(samples=4, seed=0):
    return np.random.default_rng(seed).standard_normal((samples, 1, 16, 16), np.float32)


def named(salt):
    return dict(salt.named_parameters())


def loss(salt):
    return salt(images(), context_idx=np.arange(9), target_idx=np.arange(9, 14), record=False).loss


def test_what_is_written_to_a_view_the_engine_reads():
    salt = model()
    before, weight = loss(salt), named(salt)["predictor.output_proj.bias"].data
    weight += 1.0
    changed = loss(salt)
    assert changed != before
    weight -= 1.0
    assert loss(salt) == pytest.approx(before, rel=1e-6)


def test_what_the_engine_changes_shows_in_a_view():
    salt = model()
    parameter = named(salt)["student.vit.blocks.0.attn.qkv.weight"]
    view, before = parameter.data, parameter.data.copy()
    assert parameter.grad is None
    optimizer = saltworks.AdamW(salt.parameters(), lr=1e-2)
    salt(images()).backward()
    optimizer.step()
    assert not np.array_equal(view, before)
    assert view.ctypes.data == parameter.data.ctypes.data
    gradient = parameter.grad
    first = gradient.copy()
    assert np.any(first != 0)
    optimizer.zero_grad()
    assert not gradient.any()
    salt(images()).backward()
    assert gradient.any() and gradient.ctypes.data == parameter.grad.ctypes.data


def test_a_gradient_written_by_python_is_what_the_optimizer_applies():
    salt = model()
    parameter = named(salt)["student.vit.norm.bias"]
    salt(images()).backward()
    parameter.grad[:] = 1.0
    before = parameter.data.copy()
    saltworks.AdamW([parameter], lr=0.5, weight_decay=0.0).step()
    assert np.allclose(before - parameter.data, 0.5, rtol=1e-5)  # AdamW's first step is lr·sign


def test_a_view_outlives_its_model():
    salt = model()
    view, gradient = named(salt)["student.vit.pos_embed"].data, None
    salt(images()).backward()
    gradient = named(salt)["student.vit.pos_embed"].grad
    values, gradients = view.copy(), gradient.copy()
    del salt
    gc.collect()
    for seed in range(3):  # would take the freed buffers
        other = model(seed=seed)
        other(images()).backward()
    assert np.array_equal(view, values) and np.array_equal(gradient, gradients)
    view += 1.0
    assert np.array_equal(view, values + 1.0)


def test_a_loaded_state_dict_lands_in_the_same_views():
    salt, other = model(seed=1), model(seed=2)
    view = named(salt)["student.vit.patch_embed.proj.weight"].data
    saved = {name: value.copy() for name, value in other.state_dict().items()}
    salt.load_state_dict(saved)
    assert np.array_equal(view, saved["student.vit.patch_embed.proj.weight"])
    assert loss(salt) == loss(other)


def test_a_state_dict_is_of_views():
    salt = model()
    salt.state_dict()["student.patch_embed.proj.bias"][:] = 7.0
    assert np.all(named(salt)["student.vit.patch_embed.proj.bias"].data == 7.0)


def test_a_load_that_does_not_fit_names_what_and_changes_nothing():
    salt = model()
    before = loss(salt)
    state = {name: np.zeros_like(value) for name, value in salt.state_dict().items()}
    state["student.vit.pos_embed"] = np.zeros((1, 3, 32), np.float32)
    del state["predictor.mask_token"]
    state["left.over"] = np.zeros(3, np.float32)
    with pytest.raises(ValueError) as error:
        salt.load_state_dict(state)
    for part in ["student.vit.pos_embed is [1, 3, 32]", "missing predictor.mask_token", "left.over"]:
        assert part in str(error.value)
    assert loss(salt) == before


def test_gradients_add_up_over_backward_passes():
    salt = model()
    salt(images()).backward()
    once = named(salt)["predictor.mask_token"].grad.copy()
    salt.step = 0
    salt(images()).backward()
    assert np.allclose(named(salt)["predictor.mask_token"].grad, 2 * once, rtol=1e-5)
    salt.zero_grad()
    salt.step = 0
    salt(images()).backward(0.5)
    assert np.allclose(named(salt)["predictor.mask_token"].grad, 0.5 * once, rtol=1e-5)


def test_a_backward_pass_through_changed_weights_is_refused():
    salt = model()
    optimizer = saltworks.AdamW(salt.parameters())
    first, second = salt(images()), salt(images())
    first.backward()
    optimizer.step()
    with pytest.raises(ValueError, match="weights were changed after this forward pass"):
        second.backward()
    with pytest.raises(ValueError, match="already computed"):
        first.backward()
    with pytest.raises(ValueError, match="nothing was recorded"):
        salt(images(), record=False).backward()
    with pytest.raises(ValueError, match="eval mode has no loss"):
        salt.eval()(images()).backward()


def test_the_teacher_has_no_gradient_and_no_step_changes_it():
    salt = model()
    teacher = [p for name, p in salt.named_parameters() if name.startswith("teacher.")]
    before = [p.data.copy() for p in teacher]
    salt(images()).backward()
    saltworks.AdamW([p for _, p in salt.named_parameters()], lr=0.1).step()
    assert teacher and all(p.grad is None and not p.requires_grad for p in teacher)
    assert all(np.array_equal(p.data, b) for p, b in zip(teacher, before))


def test_another_thread_runs_while_the_engine_computes():
    salt = saltworks.SALT("vit_tiny_patch16_224", predictor_depth=2)
    batch, counted, stop = np.zeros((4, 3, 224, 224), np.float32), [], threading.Event()

    def count():
        while not stop.is_set():
            counted.append(time.perf_counter())
            time.sleep(0.001)

    thread = threading.Thread(target=count)
    thread.start()
    start = time.perf_counter()
    salt(batch).backward()
    end = time.perf_counter()
    stop.set()
    thread.join()
    ran = [at for at in counted if start < at < end]
    # Ten looks or more, spread over the time: with the lock held there would be none within.
    assert len(ran) > 10 and max(ran) - min(ran) > 0.5 * (end - start)


def test_threads_take_turns_on_one_model():
    salt = model()
    optimizer = saltworks.AdamW(salt.parameters(), lr=1e-3)
    failures = []

    def train():
        try:
            for _ in range(20):
                output = salt(images())
                assert np.isfinite(output.loss)
                try:
                    output.backward()
                except ValueError as error:  # another thread's step came between
                    assert "weights were changed" in str(error)
                optimizer.step()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=train) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures
