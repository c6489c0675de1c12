"""Makes pictures.safetensors: what timm's last block attends to, scikit-learn's principal components and its t-SNE.

pip install -r requirements.txt
python make_pictures.py          # after make_golden.py, whose encoders it reads

attention/<encoder file> is [B, A, P + N, P + N], computed in float64.
"""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import save_file
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from timm.models.vision_transformer import VisionTransformer

HERE = Path(__file__).parent
ENCODERS = ["encoder_cls", "encoder_no_class_token", "encoder_registers", "encoder_scale_qk_norm"]


def attention(name):
    with safe_open(HERE / f"{name}.safetensors", "pt") as file:
        sizes = json.loads(file.metadata()["config"])["model"]
        tensors = {key: file.get_tensor(key) for key in file.keys()}
    if sizes.get("qk_norm"):
        sizes = {**sizes, "qk_norm": True}
    model = VisionTransformer(num_classes=0, **sizes).double().eval()
    weights = {key.removeprefix("weights/"): t.double() for key, t in tensors.items() if key.startswith("weights/")}
    model.load_state_dict(weights, strict=True)
    last = model.blocks[-1].attn
    last.fused_attn = False
    seen = []
    last.attn_drop.register_forward_hook(lambda module, given, result: seen.append(result))
    mean, std = (tensors[f"input/{key}"].double().view(1, -1, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        model.forward_features((tensors["input/images"].double() / 255 - mean) / std)
    (probabilities,) = seen
    return probabilities.float().numpy()


def main():
    rng = np.random.default_rng(11)
    rows = (rng.normal(size=(90, 12)) @ (rng.normal(size=(12, 12)) * np.logspace(0, -1, 12)) + 2.0).astype(np.float32)
    pca = PCA(3, svd_solver="full").fit(rows.astype(np.float64))
    # Three groups that a plane can show apart.
    centres = rng.normal(size=(3, 12)) * 2
    group = np.arange(150, dtype=np.int32) % 3
    points = (centres[group] + rng.normal(size=(150, 12))).astype(np.float32)
    tsne = TSNE(perplexity=30, method="exact", init="pca", learning_rate="auto").fit(points.astype(np.float64))
    tensors = {f"attention/{name}": attention(name) for name in ENCODERS}
    tensors |= {
        "pca/rows": rows,
        # As rows: safetensors writes memory as it lies.
        "pca/components": np.ascontiguousarray(pca.components_),
        "pca/variances": pca.explained_variance_,
        "tsne/points": points,
        "tsne/group": group,
        "tsne/kl_divergence": np.array([tsne.kl_divergence_]),
    }
    save_file(tensors, HERE / "pictures.safetensors")
    print("t-SNE", tsne.kl_divergence_, {name: t.shape for name, t in tensors.items()})


if __name__ == "__main__":
    main()
