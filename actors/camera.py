"""Takes pictures of an environment for a film."""

from __future__ import annotations

import numpy as np

from actors.backends.gl import NoRenderer
from actors.environments import Filmable

MOST_OF_ONE = 2.0  # largest value of a picture whose range is [0, 1]: a renderer may overshoot


class Camera:
    """Takes frames of an environment. All frames have one size: (height, width, 3) uint8.

    Grey and transparent pictures are converted. Of a list of pictures the last is taken. White is 255 for bytes and
    65535 for uint16. For floats it is 1 or 255: the first picture that is not black decides.
    """

    def __init__(self, environment: Filmable) -> None:
        self.environment = environment
        self.frames: list[np.ndarray] = []
        self.full = 0.0  # the value of white in pictures of floats; 0 while all were black

    def shoot(self) -> None:
        """Take a frame. Raises NoRenderer if the environment gives no picture, or a picture of another size."""
        try:
            found = np.asarray(self.environment.frame())
        except NotImplementedError as error:
            raise NoRenderer("it draws no pictures: it has no render method") from error
        found = found[-1] if found.ndim == 4 and len(found) else found
        found = found[:, :, None] if found.ndim == 2 else found
        if found.ndim != 3 or found.shape[2] not in (1, 3, 4) or found.dtype.kind not in "buif":
            raise NoRenderer("it draws no pictures: with render_mode rgb_array, render gives none")
        frame = np.empty((*found.shape[:2], 3), np.uint8)
        frame[:] = self._bytes(found)[:, :, :3]
        if self.frames and frame.shape != self.frames[0].shape:
            raise NoRenderer(f"its pictures have several sizes: {self.frames[0].shape[:2]} and {frame.shape[:2]}")
        self.frames.append(frame)

    def _bytes(self, found: np.ndarray) -> np.ndarray:
        """Return the picture with values from 0 to 255."""
        if found.dtype.kind in "bf":
            light = np.where(np.isfinite(found), found, 0).astype(np.float32)
            most = float(light.max(initial=0.0))
            if not self.full and most > 0.0:
                self.full = 1.0 if most <= MOST_OF_ONE else 255.0
            found = light * (255.0 / (self.full or 255.0))
        elif found.dtype == np.uint16:
            found = found // 257
        result: np.ndarray = np.clip(found, 0, 255)
        return result
