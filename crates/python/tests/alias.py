"""A pytest plugin: stable-pretraining's own unit tests, unchanged, on saltworks.torch.

    PYTHONPATH=tests python -m pytest -p alias --pyargs stable_pretraining.tests.unit.test_salt

At the end it prints how many tests of each file run our code, and how many of those pass. The tests in
`REFUSED` must fail.
"""

import collections
import functools
import re
import sys

import stable_pretraining.backbone
import stable_pretraining.data.masking
import stable_pretraining.methods

import pytest
import torch

import saltworks.torch

NAMES = [
    "EvalOnly", "FlexibleTransformer", "MAE", "MAEDecoder", "MAEOutput", "MaskedEncoder", "MaskedEncoderOutput",
    "MaskingOutput", "MultiBlockMasking", "PatchMasking", "SALT", "SALTOutput", "multi_block_mask",
]  # fmt: skip
HOMES = [
    stable_pretraining.backbone.vit,
    stable_pretraining.backbone.utils,
    stable_pretraining.backbone.patch_masking,
    stable_pretraining.data.masking,
    stable_pretraining.methods.mae,
    stable_pretraining.methods.salt,
]


def replace():
    """Puts ours wherever a module of stable-pretraining knows theirs."""
    for name in NAMES:
        theirs = next(vars(home)[name] for home in HOMES if name in vars(home))
        for module in list(sys.modules.values()):
            if module.__name__.startswith("stable_pretraining") and vars(module).get(name) is theirs:
                setattr(module, name, getattr(saltworks.torch, name))


replace()

# Tests that ask for what ours refuses: file, expression for the test's name, and for the message.
REFUSED = [
    (
        "test_patch_masking",
        r"crop_aspect_ratio|TestCropMasking|crop_ratio_probabilistic|test_default_init|test_custom_init",
        r"crop_aspect_ratio|crops are not supported",
    ),
    (
        "test_vit",
        r"TestFlexibleTransformer(?!Init::test_hidden)|TestIntegration",
        r"the engine has no transformer with \w+=",
    ),
    ("test_masked_encoder", r"dinov3", r"rotary positions"),
    # timm's patches have no bias beside CLIP's norm. The engine's have one.
    ("test_masked_encoder", r"PreInstantiated.*clip_", r"the module lacks patch_embed.proj.bias"),
    ("test_masked_encoder", r"TestResizePosEmbed", r"one size of images"),
]


class Used:
    """Whether the running test has made or called something of ours."""

    now = False


def noted(function):
    @functools.wraps(function)
    def call(*args, **kwargs):
        Used.now = True
        return function(*args, **kwargs)

    return call


def note_uses():
    """Makes constructors, functions and calls of ours set `Used.now`."""
    for name in NAMES:
        kind = getattr(saltworks.torch, name)
        if isinstance(kind, type):
            kind.__init__ = noted(kind.__init__)
    call = torch.nn.Module.__call__

    def call_of_any(self, *args, **kwargs):
        Used.now |= type(self).__module__.startswith("saltworks")
        return call(self, *args, **kwargs)

    torch.nn.Module.__call__ = call_of_any


note_uses()
counts = collections.defaultdict(collections.Counter)


def file_of(item):
    return item.module.__name__.rpartition(".")[2]


def refusal(item):
    """The message that a test must fail with, as an expression, or None."""
    found = (why for file, names, why in REFUSED if file_of(item) == file and re.search(names, item.nodeid))
    return next(found, None)


def pytest_collection_modifyitems(items):
    """The tests must have got ours; those that ours refuses must fail."""
    for item in items:
        why = refusal(item)
        if why:
            item.add_marker(pytest.mark.xfail(reason=why, strict=True))
    for module in {item.module for item in items}:
        for name in NAMES:
            found = getattr(module, name, None)
            assert found in (None, getattr(saltworks.torch, name)), f"{module.__name__}.{name}: {found}"


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item):
    Used.now = bool(set(item.fixturenames) & ENCODERS)
    yield
    of_file = counts[file_of(item)]
    of_file["collected"] += 1
    of_file["ours"] += Used.now
    of_file["passed"] += Used.now and item.stash.get(PASSED, False)
    of_file["refused"] += item.stash.get(EXPECTED, False)


# Fixtures of whole files that make ours, once for many tests.
ENCODERS = {"encoder_no_mask", "encoder_with_mask", "encoder_from_model"}
PASSED, EXPECTED = pytest.StashKey(), pytest.StashKey()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    why = refusal(item)
    if why and call.excinfo and not re.search(why, str(call.excinfo.value)):
        report.outcome, report.longrepr = "failed", f"expected a refusal ({why}), got {call.excinfo.value!r}"
        vars(report).pop("wasxfail", None)
    if report.when == "call":
        item.stash[PASSED] = report.passed
    item.stash[EXPECTED] = item.stash.get(EXPECTED, False) or hasattr(report, "wasxfail")


def pytest_terminal_summary(terminalreporter):
    line = terminalreporter.write_line
    line("tests of stable-pretraining    collected  run our code  of these pass  ask for what ours refuses")
    for file, found in sorted(counts.items()):
        numbers = [found[key] for key in ["collected", "ours", "passed", "refused"]]
        line(f"{file:30s} {numbers[0]:9d} {numbers[1]:13d} {numbers[2]:14d} {numbers[3]:26d}")
