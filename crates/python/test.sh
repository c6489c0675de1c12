#!/bin/sh
# Builds the package in a virtual environment of its own (crates/python/.venv) and runs all tests: ours,
# then stable-pretraining's own unit tests on saltworks.torch. Arguments go to our pytest.
#
#     crates/python/test.sh                    # PYTHON=python3.12 crates/python/test.sh
set -eu
cd "$(dirname "$0")"
if [ ! -x .venv/bin/maturin ]; then
    "${PYTHON:-python3}" -m venv .venv
    .venv/bin/pip install --requirement requirements-test.txt
fi
# The last release of W&B whose reader of offline runs is Python.
[ -d .venv/wandb-reader ] || .venv/bin/pip install --target .venv/wandb-reader wandb==0.19.11
# The scripts of both stages are in stable-pretraining's source archive alone.
if [ ! -d .venv/stable_pretraining-0.1.8 ]; then
    .venv/bin/pip download --no-deps --no-binary :all: --dest .venv stable-pretraining==0.1.8
    tar -xzf .venv/stable_pretraining-0.1.8.tar.gz -C .venv
fi
# Some tests run the program beside the package.
(cd ../.. && cargo build --release --package saltworks)
VIRTUAL_ENV="$PWD/.venv" .venv/bin/maturin develop --release
.venv/bin/python -m pytest "$@"
UNIT=stable_pretraining.tests.unit
PYTHONPATH=tests .venv/bin/python -m pytest -p alias -p no:cacheprovider -W ignore --pyargs \
    $UNIT.test_salt $UNIT.test_mae $UNIT.test_multi_block_masking $UNIT.test_patch_masking \
    $UNIT.test_masked_encoder $UNIT.test_mae_decoder $UNIT.test_vit $UNIT.test_backbone \
    $UNIT.test_masking $UNIT.test_ijepa_masking
