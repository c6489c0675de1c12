"""Makes eval.safetensors: features of five overlapping classes and what scikit-learn finds in them.

pip install numpy==2.4.6 scikit-learn==1.9.1 safetensors==0.8.0
python make_eval.py
"""

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

CLASSES, DIM, TRAIN, TEST = 5, 16, 300, 150
L2 = [1e-1, 1e-3, 1e-5]


def features(rng, centers, mix, rows):
    labels = rng.integers(0, CLASSES, rows)
    values = (centers[labels] + rng.normal(size=(rows, DIM))) @ mix + 3.0
    return values.astype(np.float32), labels.astype(np.int32)


def logistic(train, train_labels, test, l2):
    """The loss is mean cross-entropy + (l2 / 2) |W|^2, which scikit-learn scales by C * rows."""
    model = LogisticRegression(C=1 / (l2 * len(train)), tol=1e-10, max_iter=100_000)
    model.fit(train, train_labels)
    loss = log_loss(train_labels, model.predict_proba(train))
    return loss + l2 / 2 * np.sum(model.coef_**2), model.predict(test)


def main():
    rng = np.random.default_rng(7)
    centers = rng.normal(size=(CLASSES, DIM)) * 0.8
    # Correlated columns of different scales: standardising and preconditioning have work to do.
    mix = rng.normal(size=(DIM, DIM)) * np.logspace(-1, 1, DIM)
    train, train_labels = features(rng, centers, mix, TRAIN)
    test, test_labels = features(rng, centers, mix, TEST)

    knn = KNeighborsClassifier(20, metric="cosine", weights=lambda d: np.exp((1 - d) / 0.07))
    knn.fit(train.astype(np.float64), train_labels)

    scaler = StandardScaler().fit(train.astype(np.float64))
    fits = [
        logistic(scaler.transform(train.astype(np.float64)), train_labels,
                 scaler.transform(test.astype(np.float64)), l2)
        for l2 in L2
    ]  # fmt: skip
    tensors = {
        "train.features": train,
        "train.labels": train_labels,
        "test.features": test,
        "test.labels": test_labels,
        "knn.predictions": knn.predict(test.astype(np.float64)).astype(np.int32),
        "linear.l2": np.array(L2, dtype=np.float64),
        "linear.loss": np.array([loss for loss, _ in fits], dtype=np.float64),
        "linear.predictions": np.stack([labels for _, labels in fits]).astype(np.int32),
    }
    save_file(tensors, Path(__file__).with_name("eval.safetensors"))
    print("knn", np.mean(tensors["knn.predictions"] == test_labels))
    print("linear", np.mean(tensors["linear.predictions"] == test_labels, axis=1), tensors["linear.loss"])


if __name__ == "__main__":
    main()
