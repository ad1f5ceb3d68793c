"""What a VAE makes of pictures, in numbers: which latents a member of the family works on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

TEMPORAL_STRIDE = 4  # of every VAE of the family: pictures to a latent frame, but for the first, which stands for one


@dataclass(frozen=True, slots=True)
class LatentSpace:
    """`stride` pixels to a row or column of the latent; `mean` and `std` of each of its channels."""

    stride: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def channels(self) -> int:
        """Channels of the latent."""
        return len(self.mean)

    def raw(self, latent: np.ndarray) -> np.ndarray:
        """Return z * std + mean per channel of [C, ...], float32: the latent that ComfyUI's nodes exchange."""
        return latent * self._column(self.std, latent) + self._column(self.mean, latent)

    def normalised(self, raw: np.ndarray) -> np.ndarray:
        """The reverse of `raw`: what the models see."""
        return (raw - self._column(self.mean, raw)) / self._column(self.std, raw)

    @staticmethod
    def _column(values: tuple[float, ...], like: np.ndarray) -> np.ndarray:
        return np.array(values, np.float32).reshape(-1, *[1] * (like.ndim - 1))


# Upstream `WanVAE` (wan/modules/vae.py of Wan-Video/Wan2.1).
WAN21 = LatentSpace(
    stride=8,
    mean=(
        *(-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508),
        *(0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921),
    ),
    std=(
        *(2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743),
        *(3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160),
    ),
)
