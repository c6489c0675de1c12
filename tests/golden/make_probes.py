"""Makes probes.safetensors: what stable-pretraining's RankMe, LiDAR and OnlineKNN, and scikit-learn's
LogisticRegression, say of features drawn here. In f64 but for OnlineKNN, so that the reference's own
rounding is no part of it.

pip install torch==2.15.0 stable-pretraining==0.1.8 numpy==2.4.6 scikit-learn==1.9.1 safetensors==0.8.0
python make_probes.py
"""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from safetensors.numpy import save_file
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.preprocessing import StandardScaler
from stable_pretraining.callbacks import LiDAR, OnlineKNN, RankMe


def rank_me(features):
    """What the callback logs of a queue with these features."""
    logged = {}
    callback = RankMe("rank_me", "x", len(features), features.shape[1])
    callback._target_queue = SimpleNamespace(data=torch.from_numpy(features).double())
    module = SimpleNamespace(log=lambda name, value: logged.update({name: value}))
    callback.on_validation_batch_end(SimpleNamespace(global_rank=0), module, {}, {}, 0)
    return logged["rank_me"]


def lidar(features, classes, views):
    callback = LiDAR("lidar", "x", len(features), features.shape[1], classes, views)
    return callback._compute_lidar(torch.from_numpy(features).double())["lidar"]


def online_knn(train, labels, test, k):
    callback = OnlineKNN("knn", "x", "y", len(train), {}, k=k, num_classes=4)
    as_tensor = torch.from_numpy
    scores = callback._compute_knn_predictions(
        as_tensor(test), as_tensor(train), as_tensor(labels).long(), None
    )
    return scores.numpy()


def logistic(train, labels, l2):
    """The model, the scaler before it, and its loss: mean cross-entropy + (l2 / 2) |W|²."""
    scaler = StandardScaler().fit(train.astype(np.float64))
    rows = scaler.transform(train.astype(np.float64))
    model = LogisticRegression(C=1 / (l2 * len(train)), tol=1e-12, max_iter=100_000)
    model.fit(rows, labels)
    entropy = log_loss(labels, model.predict_proba(rows), labels=model.classes_)
    return model, scaler, entropy + 0.5 * l2 * (model.coef_**2).sum()


def main():
    rng = np.random.default_rng(11)
    normal = lambda *shape: rng.normal(size=shape).astype(np.float32)
    decaying = normal(120, 40) @ np.diag(0.8 ** np.arange(40)).astype(np.float32) + 0.5
    sets = {
        "tall": normal(90, 24),
        "wide": normal(20, 48),
        "decaying": decaying.astype(np.float32),
        "collapsed": (normal(60, 1) @ normal(1, 16) + 1e-4 * normal(60, 16)).astype(np.float32),
    }
    tensors = {f"{name}.features": features for name, features in sets.items()}
    tensors["rank_me"] = np.array([rank_me(sets[name]) for name in sets])
    # As views of images: means apart, views around them.
    views = (np.repeat(normal(30, 20), 4, axis=0) + 0.3 * normal(120, 20)).astype(np.float32)
    few = (np.repeat(normal(6, 32), 10, axis=0) + 0.3 * normal(60, 32)).astype(np.float32)
    tensors |= {"views.features": views, "few.features": few}
    tensors["lidar"] = np.array([lidar(views, 100, 4), lidar(views, 12, 4), lidar(few, 100, 10)])

    labels = rng.integers(0, 4, 200).astype(np.int32)
    centers = 1.2 * normal(4, 12)
    train, test = centers[labels] + normal(200, 12), centers[labels[:50]] + normal(50, 12)
    tensors |= {"train.features": train, "train.labels": labels}
    tensors |= {"test.features": test, "test.labels": labels[:50].copy()}
    tensors["online_knn"] = np.stack([online_knn(train, labels, test, k) for k in (5, 20)])

    model, scaler, _ = logistic(train, labels, 1e-2)
    tensors["logits"] = model.decision_function(scaler.transform(test.astype(np.float64)))

    # Rows that can be told apart without error: fewer than their width.
    labels = rng.integers(0, 4, 60).astype(np.int32)
    train, test = normal(60, 150), normal(200, 150)
    tensors |= {"apart.features": train, "apart.labels": labels, "apart_test.features": test}
    tensors["apart_test.labels"] = rng.integers(0, 4, 200).astype(np.int32)
    fitted = [logistic(train, labels, l2) for l2 in (1e-3, 1e-5)]
    tensors["apart.loss"] = np.array([loss for _, _, loss in fitted])
    tensors["apart.predictions"] = np.stack(
        [model.predict(scaler.transform(test.astype(np.float64))) for model, scaler, _ in fitted]
    ).astype(np.int32)
    save_file(tensors, Path(__file__).with_name("probes.safetensors"))
    for name in ("rank_me", "lidar"):
        print(name, tensors[name])


if __name__ == "__main__":
    main()
