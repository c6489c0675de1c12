"""What is gone leaves no memory behind."""

import gc
import os

import numpy as np
import pytest

import saltworks

SIZES = dict(img_size=64, patch_size=16)
DECODER = dict(decoder_depth=1, decoder_embed_dim=32, decoder_num_heads=2)


def resident_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def train_one():
    model = saltworks.MAE("vit_tiny_patch16_224", **SIZES, **DECODER)
    optimizer = saltworks.AdamW(model.parameters())
    model(np.zeros((2, 3, 64, 64), np.float32)).backward()
    optimizer.step()
    return sum(parameter.data.nbytes for parameter in model.parameters())


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="tells resident memory by /proc")
def test_models_that_were_trained_are_freed():
    weights = [train_one() for _ in range(4)][0]
    before = resident_bytes()
    for _ in range(8):
        train_one()
        gc.collect()
    # Each had a gradient and two moments of that size: 24 times the weights. The heap has holes.
    assert resident_bytes() - before < 6 * weights
