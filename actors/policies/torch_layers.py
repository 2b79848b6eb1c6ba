"""Image layers for actors, in torch: numpy takes three to four times as long for convolutions, but not for small
products. This is the only module of actors that needs torch.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from learner.networks.description import Convolution, Flatten, Group, Layers, MaxPool, ReLU, Residual


class TorchLayers:
    """Maps images (rows, channels, height, width) uint8 to (rows, features) float32. Bytes are scaled to [0, 1]."""

    def __init__(self, layers: Layers, arrays: Mapping[str, np.ndarray], prefix: str) -> None:
        self.layers = layers
        self.prefix = prefix
        self.arrays = {
            name: torch.from_numpy(array.copy()) for name, array in arrays.items() if name.startswith(prefix)
        }

    @torch.inference_mode()
    def __call__(self, images: np.ndarray) -> np.ndarray:
        found: np.ndarray = self._run(self.layers, torch.from_numpy(images).float() / 255, self.prefix).numpy()
        return found

    def _run(self, layers: Layers, x: Tensor, prefix: str) -> Tensor:
        for index, layer in enumerate(layers):
            match layer:
                case Convolution(name):
                    weight, bias = (self.arrays[f"{prefix}{name}.{part}"] for part in ("weight", "bias"))
                    x = F.conv2d(x, weight, bias, padding=1)
                case MaxPool():
                    x = F.max_pool2d(x, 3, stride=2, padding=1)
                case ReLU():
                    x = F.relu(x, inplace=index > 0)  # a residual still needs its input
                case Flatten():
                    x = x.flatten(1)
                case Group(name, inner):
                    x = self._run(inner, x, f"{prefix}{name}.")
                case Residual(name, inner):
                    x = x + self._run(inner, x, f"{prefix}{name}.")
                case _:
                    raise ValueError(f"{layer} has no form for images: put it behind the group with convolutions")
        return x
