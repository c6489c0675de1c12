"""The same loss, predictions and gradients as stable-pretraining 0.1.8, for the same weights and masks."""

import numpy as np
import pytest
import torch

import saltworks
from reference import MAE_SIZES, SIZES, reference_mae, reference_salt, with_masks

FORWARD, GRADIENT = 1e-5, 1e-4  # relative L2: rounding of f32 through a few blocks is a tenth of it


def assert_close(name, got, want, limit):
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape, name
    error = np.linalg.norm(got - want) / max(np.linalg.norm(want), 1e-12)
    assert error <= limit, f"{name}: relative error {error:.2e} > {limit:.0e}"


def copied(module):
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def images(seed=0, samples=3):
    return torch.randn(samples, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def salts():
    theirs, ours = reference_salt(), saltworks.SALT(**SIZES, predictor_embed_dim=48,
                                                    predictor_depth=2, predictor_num_heads=4)
    ours.load_state_dict(copied(theirs))
    return theirs, ours


def test_salt_gives_the_references_outputs_and_gradients(salts):
    theirs, ours = salts
    context, target = ours.next_masks()
    output = ours(images(), context_idx=context[0], target_idx=target[0])
    wanted = with_masks(theirs, context[0], target[0])(images())
    assert_close("loss", output.loss, wanted.loss.item(), FORWARD)
    for name in ["predictions", "targets", "embedding"]:
        assert_close(name, getattr(output, name), getattr(wanted, name).detach(), FORWARD)
    assert (output.num_targets, output.num_context) == (wanted.num_targets, wanted.num_context)
    output.backward()
    wanted.loss.backward()
    compared = compare_gradients(ours, theirs)
    assert compared == len(ours.parameters())


def compare_gradients(ours, theirs):
    wanted, compared = dict(theirs.named_parameters()), 0
    for name, parameter in ours.named_parameters():
        if parameter.requires_grad:
            assert_close(name, parameter.grad, wanted[name].grad, GRADIENT)
            compared += 1
        else:
            assert parameter.grad is None and name.startswith("teacher.")
    return compared


def test_masks_of_one_sample_each_are_as_that_sample_alone(salts):
    _, ours = salts
    batch = images(samples=2).numpy()
    context = np.array([[0, 1, 2, 3], [4, 5, 6, 7]])
    target = np.array([[8, 9], [0, 12]])
    both = ours(batch, context_idx=context, target_idx=target)
    for b in range(2):
        alone = ours(batch[b : b + 1], context_idx=context[b], target_idx=target[b])
        assert_close("predictions", both.predictions[b : b + 1], alone.predictions, 1e-6)


def test_eval_gives_the_references_embedding(salts):
    theirs, ours = salts
    theirs.eval()
    output = ours.eval()(images())
    wanted = theirs(images())
    assert_close("embedding", output.embedding, wanted.embedding, FORWARD)
    assert (output.loss, output.predictions, output.targets) == (0.0, None, None)
    assert (output.num_targets, output.num_context) == (0, 16)


@pytest.mark.parametrize("block", [True, False], ids=["multi_block", "random"])
@pytest.mark.parametrize("norm", [True, False], ids=["normalised", "raw"])
def test_mae_gives_the_references_outputs_and_gradients(block, norm):
    masking = saltworks.MultiBlockMasking() if block else saltworks.PatchMasking(0.5)
    theirs = reference_mae(norm_pix_loss=norm)
    ours = saltworks.MAE(**MAE_SIZES, decoder_embed_dim=48, decoder_depth=2, decoder_num_heads=4,
                         masking=masking, norm_pix_loss=norm)
    ours.load_state_dict(copied(theirs))
    output = ours(images())
    wanted = with_masks(theirs, output.context_idx)(images())
    assert_close("loss", output.loss, wanted.loss.item(), FORWARD)
    assert_close("predictions", output.predictions, wanted.predictions.detach(), FORWARD)
    assert np.array_equal(output.mask, wanted.mask)
    assert (output.num_masked, output.num_visible) == (wanted.num_masked, wanted.num_visible)
    output.backward()
    wanted.loss.backward()
    assert compare_gradients(ours, theirs) == len(list(theirs.parameters()))


def test_mae_in_eval_mode_reconstructs_as_the_reference():
    theirs = reference_mae().eval()
    ours = saltworks.MAE(**MAE_SIZES, decoder_embed_dim=48, decoder_depth=2, decoder_num_heads=4).eval()
    ours.load_state_dict(copied(theirs))
    output, wanted = ours(images()), theirs(images())
    assert_close("predictions", output.predictions, wanted.predictions.detach(), FORWARD)
    assert (output.loss, output.num_masked, output.num_visible) == (0.0, 0, 16)


def test_a_state_dict_goes_there_and_back(salts):
    theirs, ours = salts
    saved = {name: torch.from_numpy(value) for name, value in ours.state_dict().items()}
    other = reference_salt(seed=1)
    other.load_state_dict(saved, strict=True)
    for name, value in theirs.state_dict().items():
        # The position table is made here, in other arithmetic.
        limit = 1e-6 if name.endswith("predictor.pos_embed") else 0.0
        assert_close(name, other.state_dict()[name], value, limit)
