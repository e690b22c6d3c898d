"""airbench94 and airbench95 (arXiv 2404.00498) in PyTorch, trained to their end: what `fast` and `best` have to beat.

`python -m benchmarks.sides.airbench VARIANT SPLIT_FOLDER SEED` trains on the split's training images, answers for its
test images, and prints one line of JSON: `seconds` of training, `top1`, and `top1_augmented` over six views; with
`--curve` also `validation_top1` after every epoch. On a processor, in bfloat16 autocast. Like every side in PyTorch it
imports nothing of this project but benchmarks.sides.
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.sides.torch_loop import Airbench

BATCH, MOMENTUM, SMOOTHING = 1024, 0.85, 0.2
WARMUP, START, END = 0.23, 0.2, 0.07
LOOKAHEAD_EVERY, LOOKAHEAD_DECAY = 5, 0.95**5
WHITENING_IMAGES, WHITENING_EPSILON, BIAS_EPOCHS = 5000, 5e-4, 3
CROP = 2
Seen = Callable[[nn.Module], None]


@dataclass(frozen=True)
class Variant:
    """What the variants differ in.

    Attributes:
        epochs: Passes over the training images.
        widths: Filters of the three groups.
        peak: Highest learning rate, of the mean loss.
        l2: Weight decay.
        beta_factor: Rate of batch norm's betas, as a multiple of the others'.
    """

    epochs: float
    widths: tuple[int, int, int]
    peak: float
    l2: float
    beta_factor: float

    @property
    def model(self) -> dict[str, Any]:
        """The network, as Airbench takes it."""
        return {
            "whitening": {"bias_epochs": BIAS_EPOCHS},
            "activation": "gelu",
            "widths": list(self.widths),
            "batch_norm_momentum": 0.6,
            "logit_scale": 1 / 9,
        }


VARIANTS = {
    "airbench94": Variant(9.9, (64, 256, 256), 1.5, 1.33e-3, 64.0),
    "airbench95": Variant(15, (128, 384, 384), 1.304, 1.53e-3, 83.5),
}


def load(folder: Path, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a split's images, float (N, 3, H, W) of 0 to 1, and labels (N,)."""
    images = torch.from_numpy(np.load(folder / f"{split}_images.npy")).permute(0, 3, 1, 2)
    labels = torch.from_numpy(np.load(folder / f"{split}_labels.npy")).long()
    return images.float().div_(255).contiguous(memory_format=torch.channels_last), labels


def initial_network(images: torch.Tensor, variant: Variant) -> nn.Module:
    """Return the network with identity-like convolutions and a whitening one for normalized `images`."""
    network = Airbench(variant.model)
    convolutions = [layer for layer in network.base if isinstance(layer, nn.Conv2d)]
    for convolution in convolutions[1:]:
        nn.init.dirac_(convolution.weight.data[: convolution.in_channels])
    patches = images[:WHITENING_IMAGES].unfold(2, 2, 1).unfold(3, 2, 1).permute(0, 2, 3, 1, 4, 5).reshape(-1, 12)
    values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
    kernel = vectors.T.reshape(-1, 3, 2, 2) / torch.sqrt(values.reshape(-1, 1, 1, 1) + WHITENING_EPSILON)
    convolutions[0].weight.data = torch.cat([kernel, -kernel])
    convolutions[0].bias.data.zero_()
    return network.to(memory_format=torch.channels_last)


def rate(step: int, steps: int) -> float:
    """Return the share of the peak rate at a step."""
    warmup = int(steps * WARMUP)
    if step < warmup:
        return START + (1 - START) * step / warmup
    return 1 + (END - 1) * (step - warmup) / (steps - warmup)


def build_optimizer(network: nn.Module, variant: Variant) -> torch.optim.Optimizer:
    """Return Nesterov SGD with a rate of its own for batch norm's betas."""
    betas = [layer.bias for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    apart = {id(beta) for beta in betas}
    others = [weight for weight in network.parameters() if weight.requires_grad and id(weight) not in apart]
    groups = [
        {"params": betas, "lr": variant.peak * variant.beta_factor, "weight_decay": variant.l2 / variant.beta_factor},
        {"params": others, "lr": variant.peak, "weight_decay": variant.l2},
    ]
    return torch.optim.SGD(groups, momentum=MOMENTUM, nesterov=True, fused=True)


def epoch_of(images: torch.Tensor, epoch: int) -> torch.Tensor:
    """Return the flipped and cropped images of an epoch; `images` are padded, and a random half is mirrored already."""
    size = images.shape[-1] - 2 * CROP
    offsets, cropped = torch.randint(0, 2 * CROP + 1, (len(images), 2)), torch.empty(len(images), 3, size, size)
    cropped = cropped.contiguous(memory_format=torch.channels_last)
    for row in range(2 * CROP + 1):
        for column in range(2 * CROP + 1):
            chosen = (offsets[:, 0] == row) & (offsets[:, 1] == column)
            cropped[chosen] = images[chosen, :, row : row + size, column : column + size]
    return cropped.flip(-1) if epoch % 2 else cropped


def train(images: torch.Tensor, labels: torch.Tensor, variant: Variant, after_epoch: Seen) -> nn.Module:
    """Train on normalized images (N, 3, H, W)."""
    network = initial_network(images, variant)
    optimizer, loss_of = build_optimizer(network, variant), nn.CrossEntropyLoss(label_smoothing=SMOOTHING)
    per_epoch = len(images) // BATCH
    steps, step = math.ceil(per_epoch * variant.epochs), 0
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, steps))
    slow = {name: value.clone() for name, value in network.state_dict().items() if value.is_floating_point()}
    mirrored = (torch.rand(len(images)) < 0.5).reshape(-1, 1, 1, 1)
    padded = functional.pad(torch.where(mirrored, images.flip(-1), images), (CROP,) * 4, mode="reflect")
    network.train()
    for epoch in range(math.ceil(variant.epochs)):
        network.base[0].bias.requires_grad = epoch < BIAS_EPOCHS
        seen, order = epoch_of(padded, epoch), torch.randperm(len(images))
        for position in range(min(per_epoch, steps - step)):
            chosen = order[position * BATCH : (position + 1) * BATCH]
            with torch.autocast("cpu", torch.bfloat16):
                outputs = network(seen[chosen])
            loss = loss_of(outputs.float(), labels[chosen])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            scheduler.step()
            step += 1
            if step % LOOKAHEAD_EVERY == 0:
                pull(network, slow, LOOKAHEAD_DECAY * (step / steps) ** 3)
        after_epoch(network)
    pull(network, slow, 1.0)
    return network


def pull(network: nn.Module, slow: dict[str, torch.Tensor], kept: float) -> None:
    """Draw the slow weights towards the network's, then set the network's to them."""
    state = network.state_dict()
    for name, value in slow.items():
        value.lerp_(state[name], 1 - kept)
        state[name].copy_(value)


@torch.no_grad()
def answer(network: nn.Module, images: torch.Tensor, augmented: bool) -> torch.Tensor:
    """Return logits (N, 10) of normalized images; `augmented` averages six views."""

    def view(batch: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return network(batch).float()

    def both(batch: torch.Tensor) -> torch.Tensor:
        return (view(batch) + view(batch.flip(-1))) / 2

    def six(batch: torch.Tensor) -> torch.Tensor:
        size, padded = batch.shape[-1], functional.pad(batch, (1,) * 4, mode="reflect")
        shifted = [both(padded[:, :, start : start + size, start : start + size]) for start in (0, 2)]
        return both(batch) / 2 + (shifted[0] + shifted[1]) / 4

    network.eval()
    return torch.cat([(six if augmented else view)(batch) for batch in images.split(2000)])


def share(network: nn.Module, images: torch.Tensor, labels: torch.Tensor, augmented: bool = False) -> float:
    """Return top-1 on normalized images."""
    return (answer(network, images, augmented).argmax(1) == labels).float().mean().item()


def main() -> None:
    """Train and answer; print the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sides.airbench")
    parser.add_argument("variant", choices=VARIANTS)
    parser.add_argument("split", type=Path)
    parser.add_argument("seed", type=int)
    parser.add_argument("--curve", action="store_true", help="top-1 on the validation images after every epoch")
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    splits = {split: load(arguments.split, split) for split in ("train", "validation", "test")}
    mean, deviation = (
        statistic(splits["train"][0], (0, 2, 3)).reshape(1, 3, 1, 1) for statistic in (torch.mean, torch.std)
    )
    normalized = {split: ((images - mean) / deviation, labels) for split, (images, labels) in splits.items()}
    curve: list[float] = []

    def after_epoch(network: nn.Module) -> None:
        if arguments.curve:
            curve.append(share(network, *normalized["validation"]))
            network.train()

    start = time.perf_counter()
    network = train(*normalized["train"], VARIANTS[arguments.variant], after_epoch)
    seconds = time.perf_counter() - start
    top1, augmented = (share(network, *normalized["test"], augmented=views) for views in (False, True))
    found = {"seconds": seconds, "top1": top1, "top1_augmented": augmented}
    print(json.dumps({**found, "validation_top1": curve} if arguments.curve else found))


if __name__ == "__main__":
    main()
