#!/usr/bin/env bash
# Runs stable-pretraining's training step and ours in turn, so that a machine's moods meet both alike, and prints
# median and minimum seconds per step of each and their ratio (above 1: ours is faster).
#
#   cargo build --release && benches/vs_pytorch.sh
#
# By environment: ROUNDS=5 STEPS=6 STAGE=salt|mae MODEL=vit_tiny_patch16_224 BATCH=16 THREADS=2 COMPILE=1
# PYTHON=python3 (with tests/golden/requirements.txt) SALTWORKS=target/release/saltworks
# Equal work: default predictor (384 x 12) or decoder, multi-block masks drawn at every step, AdamW on every trained
# parameter, float32. Any other load on the machine makes the figures worthless: stop it first.
set -euo pipefail
cd "$(dirname "$0")/.."

ROUNDS=${ROUNDS:-5} STEPS=${STEPS:-6} STAGE=${STAGE:-salt} MODEL=${MODEL:-vit_tiny_patch16_224}
BATCH=${BATCH:-16} THREADS=${THREADS:-2} PYTHON=${PYTHON:-python3} SALTWORKS=${SALTWORKS:-target/release/saltworks}
compile=()
[[ -z ${COMPILE:-} ]] || compile=(--compile --warmup 6)
export OMP_NUM_THREADS=$THREADS RAYON_NUM_THREADS=$THREADS

if [[ ! -x $SALTWORKS ]]; then
    echo "vs_pytorch.sh: $SALTWORKS is not there, expected the release binary. Run: cargo build --release" >&2
    exit 2
fi
if ! "$PYTHON" -c 'import torch, timm' 2>/dev/null; then
    echo "vs_pytorch.sh: $PYTHON has no torch and timm. Set PYTHON to one with tests/golden/requirements.txt" >&2
    exit 2
fi

# The same cores for both, if there are more than asked for.
pin=()
if command -v taskset >/dev/null && (($(nproc) > THREADS)); then pin=(taskset -c "0-$((THREADS - 1))"); fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for ((round = 1; round <= ROUNDS; round++)); do
    "${pin[@]}" "$PYTHON" benches/vs_pytorch.py --stage "$STAGE" --model "$MODEL" --batch "$BATCH" \
        --steps "$STEPS" --threads "$THREADS" "${compile[@]}" 2>"$work/err" |
        grep '^{' | tail -n 1 >>"$work/pytorch" || { cat "$work/err" >&2; exit 1; }
    "${pin[@]}" "$SALTWORKS" bench --stage "$STAGE" --model "$MODEL" --batch "$BATCH" --steps "$STEPS" --json |
        grep '^{' | tail -n 1 >>"$work/saltworks"
    echo "round $round of $ROUNDS" >&2
done

python3 - "$work" "$STAGE" "$MODEL" "$BATCH" "$THREADS" <<'PYTHON'
import json, pathlib, statistics, sys

work, stage, model, batch, threads = sys.argv[1:]
result = {"stage": stage, "model": model, "batch": int(batch), "threads": int(threads)}
for name in ("pytorch", "saltworks"):
    rounds = [json.loads(x) for x in pathlib.Path(work, name).read_text().splitlines()]
    medians = [x["seconds_per_step_median"] for x in rounds]
    result[name] = {
        "median": statistics.median(medians),
        "min": min(x["seconds_per_step_min"] for x in rounds),
        "medians_by_round": medians,
    }
    print(f"{name:10} median {result[name]['median']:.3f} s/step, minimum {result[name]['min']:.3f}")
for key in ("median", "min"):
    result[f"ratio_{key}"] = result["pytorch"][key] / result["saltworks"][key]
print(f"pytorch / saltworks: {result['ratio_median']:.2f} by median, {result['ratio_min']:.2f} by minimum")
print(json.dumps(result))
PYTHON
