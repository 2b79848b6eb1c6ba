"""The image encoder for actors, which get its parameters by name: learner.networks.encoder.Encoder.

It is the one part of actors that needs torch.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


class ImageEncoder:
    """(rows, frames, height, width) bytes -> (rows, features) float32."""

    def __init__(self, arrays: dict[str, np.ndarray], prefix: str) -> None:
        self.parameters = {
            name.removeprefix(prefix): torch.from_numpy(array.copy())
            for name, array in arrays.items()
            if name.startswith(prefix)
        }

    @torch.inference_mode()
    def __call__(self, images: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(images).float() / 255
        stage = 0
        while f"stages.{stage}.convolution.weight" in self.parameters:
            x = F.max_pool2d(self._convolve(x, f"stages.{stage}.convolution"), 3, stride=2, padding=1)
            for block in range(2):
                name = f"stages.{stage}.blocks.{block}"
                hidden = self._convolve(F.relu(x), f"{name}.first")
                x = x + self._convolve(F.relu(hidden, inplace=True), f"{name}.second")
            stage += 1
        return F.relu(x, inplace=True).flatten(1).numpy()

    def _convolve(self, x: Tensor, name: str) -> Tensor:
        return F.conv2d(x, self.parameters[f"{name}.weight"], self.parameters[f"{name}.bias"], padding=1)
