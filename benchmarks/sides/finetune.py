"""The PyTorch side of `photographs`: EfficientNet-Lite0 fine-tuned as a PyTorch user would.

All layers from the start, batch norm's statistics moving or as they came, AdamW, a cosine with warm-up, crops and
mirrored images, channels_last. It runs in an environment of its own, with torch and the package
efficientnet-lite-pytorch, and imports nothing of this project. The last line that it prints is JSON: seconds of the
training steps and the test answers.
"""

import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from efficientnet_lite_pytorch import EfficientNet

RATE, DECAY, SMOOTHING, CROP, WARMUP = 1e-3, 0.05, 0.1, 8, 0.2


def finetune(split: Path, weights: Path, seed: int, *, epochs: int, batch: int, frozen_norm: bool) -> dict[str, Any]:
    """Train on a split's arrays and answer its test images."""
    torch.manual_seed(seed)
    arrays = {name: np.load(split / f"{name}.npy") for name in ("train_images", "train_labels", "test_images")}
    images, labels = arrays["train_images"], torch.from_numpy(arrays["train_labels"].astype(np.int64))
    net = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=str(weights))
    net._fc = torch.nn.Linear(net._fc.in_features, int(labels.max()) + 1)  # the package offers no other name
    net = net.to(memory_format=torch.channels_last).train()
    if frozen_norm:
        for layer in net.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.eval()  # its statistics stay; its factors and offsets are trained
    steps = -(-len(images) // batch) * epochs
    optimizer = torch.optim.AdamW(net.parameters(), RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: factor(step / steps))
    loss = torch.nn.CrossEntropyLoss(label_smoothing=SMOOTHING)
    generator, began = np.random.default_rng(seed), time.monotonic()
    for _ in range(epochs):
        order = generator.permutation(len(images))
        for chosen in np.array_split(order, steps // epochs):
            optimizer.zero_grad()
            loss(net(scaled(augmented(images[chosen], generator))), labels[chosen]).backward()
            optimizer.step()
            schedule.step()
    seconds = time.monotonic() - began
    net.eval()
    with torch.no_grad():
        parts = [net(scaled(part)).argmax(1).numpy() for part in np.array_split(arrays["test_images"], 20)]
    return {"seconds": seconds, "predicted": np.concatenate(parts).tolist()}


def factor(progress: float) -> float:
    """Return the share of the peak rate: up, then down by half a cosine."""
    if progress < WARMUP:
        return max(progress / WARMUP, 1e-3)
    return 0.5 + 0.5 * math.cos(math.pi * min((progress - WARMUP) / (1 - WARMUP), 1))


def augmented(images: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Cut windows out of reflect-padded images (N, H, W, 3), and mirror half of them."""
    padded = np.pad(images, ((0, 0), (CROP, CROP), (CROP, CROP), (0, 0)), mode="reflect")
    height, width = images.shape[1:3]
    offsets = generator.integers(0, 2 * CROP + 1, (len(images), 2))
    cut = [one[y : y + height, x : x + width] for one, (y, x) in zip(padded, offsets, strict=True)]
    flips = generator.integers(0, 2, len(images))
    return np.stack([one[:, ::-1] if flip else one for one, flip in zip(cut, flips, strict=True)])


def scaled(images: np.ndarray) -> torch.Tensor:
    """Return uint8 images (N, H, W, 3) as the network wants them, (N, 3, H, W)."""
    values = (torch.from_numpy(np.ascontiguousarray(images)).float() - 127) / 128
    return values.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


if __name__ == "__main__":
    folder, file, number, settings = sys.argv[1:]
    print(json.dumps(finetune(Path(folder), Path(file), int(number), **json.loads(settings))))
