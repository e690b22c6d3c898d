"""The PyTorch side of `probe`: EfficientNet-Lite0's features as they are, and scikit-learn's logistic regression.

As a PyTorch user would: batches of 32, channels_last, standardised features, the strength of the penalty chosen on the
validation images. It imports nothing of this project. The last line that it prints is JSON: seconds and test answers.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from efficientnet_lite_pytorch import EfficientNet
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

BATCH = 32
STRENGTHS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)


def probe(split: Path, weights: Path) -> dict[str, Any]:
    """Fit a head on a split's arrays and answer its test images."""
    images = {name: np.load(split / f"{name}_images.npy") for name in ("train", "validation", "test")}
    labels = {name: np.load(split / f"{name}_labels.npy") for name in ("train", "validation")}
    net = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=str(weights))
    net = net.to(memory_format=torch.channels_last).eval()
    began = time.monotonic()
    seen = {name: features(net, images[name]) for name in labels}
    scaler = StandardScaler().fit(seen["train"])
    scaled = {name: scaler.transform(values) for name, values in seen.items()}
    heads = [LogisticRegression(C=each, max_iter=1000).fit(scaled["train"], labels["train"]) for each in STRENGTHS]
    best = min(heads, key=lambda head: log_loss(head.predict_proba(scaled["validation"]), labels["validation"]))
    seconds = time.monotonic() - began
    return {"seconds": seconds, "predicted": best.predict(scaler.transform(features(net, images["test"]))).tolist()}


def features(net: Any, images: np.ndarray) -> np.ndarray:
    """Return what the network makes of uint8 images (N, H, W, 3), averaged over height and width: (N, 1280)."""
    parts = []
    with torch.no_grad():
        for start in range(0, len(images), BATCH):
            values = (torch.from_numpy(images[start : start + BATCH]).float() - 127) / 128
            values = values.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
            parts.append(net.extract_features(values).mean(dim=(2, 3)).numpy())
    return np.concatenate(parts)


def log_loss(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean of -ln(probability of the label)."""
    return float(-np.log(probabilities[np.arange(len(labels)), labels]).mean())


if __name__ == "__main__":
    print(json.dumps(probe(Path(sys.argv[1]), Path(sys.argv[2]))))
