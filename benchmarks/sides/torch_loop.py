"""The PyTorch side: a plain training loop, as a PyTorch user who cares for speed on a processor would write it.

channels_last, bfloat16 autocast where the recipe computes in bfloat16, fused optimizers; no augmentation. It imports
nothing of this project but benchmarks.sides.serve, since it may run in an environment of its own.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from benchmarks.sides.serve import serve

CLASSES = 10
VGG16 = (64, 64, "pool", 128, 128, "pool", *(256,) * 3, "pool", *(512,) * 3, "pool", *(512,) * 3, "pool")
ACTIVATIONS = {"relu": nn.ReLU, "silu": nn.SiLU, "gelu": nn.GELU}


def vgg16() -> nn.Module:
    """Return VGG16's convolutions (arXiv 1409.1556, configuration D), without top."""
    layers: list[nn.Module] = []
    channels = 3
    for entry in VGG16:
        if isinstance(entry, int):
            layers += [nn.Conv2d(channels, entry, 3, padding=1), nn.ReLU(inplace=True)]
            channels = entry
        else:
            layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)


class ResidualSeparable(nn.Module):
    """The residual separable head of `seed` (tasks/models/heads.py), 512 features to 10 probabilities."""

    def __init__(self, channels: int = 512, filters: int = 16) -> None:
        super().__init__()

        def separable() -> nn.Module:
            depthwise = nn.Conv2d(channels, channels, 1, groups=channels, bias=False)
            norm = nn.BatchNorm2d(filters, eps=1e-3, momentum=0.01)
            return nn.Sequential(depthwise, nn.Conv2d(channels, filters, 1), norm)

        self.main, self.shortcut = separable(), separable()
        self.logits = nn.Linear(filters, CLASSES)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return logits (N, 10)."""
        main = nn.functional.leaky_relu(self.main(features), 0.3)
        return self.logits(torch.relu(main + self.shortcut(features)).mean((2, 3)))


class Airbench(nn.Module):
    """airbench94's network (tasks/models/backbones.py) with its linear head; 3×3 convolutions, logits (N, 10)."""

    def __init__(self, model: dict[str, Any]) -> None:
        super().__init__()
        activation = ACTIVATIONS[model["activation"]]
        layers: list[nn.Module] = [nn.Conv2d(3, 24, 2), activation()]
        layers[0].weight.requires_grad = False
        layers[0].bias.requires_grad = model["whitening"]["bias_epochs"] > 0
        channels = 24
        for width in model["widths"]:
            for pool in ([nn.MaxPool2d(2)], []):
                norm = nn.BatchNorm2d(width, eps=1e-5, momentum=1 - model["batch_norm_momentum"])
                norm.weight.requires_grad = False
                layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), *pool, norm, activation()]
                channels = width
        self.base, self.scale = nn.Sequential(*layers), model["logit_scale"]
        self.logits = nn.Linear(channels, CLASSES, bias=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits of scaled images."""
        return self.logits(self.base(images).amax((2, 3))) * self.scale


def network_of(recipe: dict[str, Any]) -> nn.Module:
    """Return the recipe's network."""
    is_airbench = recipe["model"]["base"] == "airbench"
    return Airbench(recipe["model"]) if is_airbench else nn.Sequential(vgg16(), ResidualSeparable())


def make(case: dict[str, Any]) -> Callable[[], None]:
    """Return a round: an epoch of steps over random images."""
    torch.manual_seed(0)
    recipe, steps = case["recipe"], case["steps"]
    batch, bfloat16 = recipe["batch_size"], recipe["precision"] == "bfloat16"
    network = network_of(recipe).to(memory_format=torch.channels_last).train()
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    optimizer: torch.optim.Optimizer
    if recipe["optimizer"]["name"] == "adam":
        optimizer = torch.optim.Adam(weights, lr=1e-3, eps=1e-7, fused=True)
    else:
        optimizer = torch.optim.SGD(weights, 0.01, momentum=0.85, nesterov=True, weight_decay=1e-3, fused=True)
    binary = recipe["loss"]["name"] == "binary_crossentropy"
    loss_of = nn.BCEWithLogitsLoss() if binary else nn.CrossEntropyLoss(label_smoothing=0.2)
    images = torch.randint(0, 256, (batch * steps, 3, 32, 32), dtype=torch.uint8)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, CLASSES, (batch * steps,))
    targets = nn.functional.one_hot(labels, CLASSES).float()

    def run_round() -> None:
        order = torch.randperm(len(images))
        for step in range(steps):
            chosen = order[step * batch : (step + 1) * batch]
            inputs = images[chosen].float().div_(255).contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                outputs = network(inputs)
            loss = loss_of(outputs.float(), targets[chosen])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

    return run_round


if __name__ == "__main__":
    serve(make)
