"""The noise of `torch.randn` on the CPU, without torch: so that a seed means what it means in ComfyUI.

Source: MT19937 and Box-Muller in `aten/src/ATen/native/cpu/DistributionTemplates.h` of pytorch/pytorch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

BLOCK = 16


class TorchNoise:
    """One generator; every draw continues where the last one stopped."""

    def __init__(self, seed: int):
        self._random = np.random.RandomState(seed & 0xFFFFFFFF)

    def draw(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return float32 normal noise of `shape`, which must hold at least 16 values (torch draws fewer otherwise).

        Equal to torch within 2e-6: its vectorised logarithm and cosine round differently.
        """
        count = math.prod(shape)
        if count < BLOCK:
            raise ValueError(f"{count} values asked for, but torch's noise is reproduced from {BLOCK} on")
        uniform = self._uniform(count)
        noise = np.empty(count, np.float32)
        whole = count // BLOCK * BLOCK
        noise[:whole] = _box_muller(uniform[:whole])
        if whole < count:  # torch draws the last 16 values afresh, over some that are there already
            noise[-BLOCK:] = _box_muller(self._uniform(BLOCK))
        return noise.reshape(shape)

    def _uniform(self, count: int) -> np.ndarray:
        draws = self._random.randint(0, 1 << 32, size=count, dtype=np.uint32)
        return (draws & 0xFFFFFF).astype(np.float32) / np.float32(1 << 24)


def segment_noise(seed: int, mode: str, shapes: Sequence[tuple[int, ...]]) -> Iterator[np.ndarray]:
    """Yield the noise of each segment; `mode` is one of SEGMENT_SEEDS.

    Upstream lets one generator run on; ComfyUI begins each segment with the same seed.
    """
    generator = TorchNoise(seed)
    for number, shape in enumerate(shapes):
        if mode != "running":
            generator = TorchNoise(seed + number if mode == "advancing" else seed)
        yield generator.draw(shape)


def drafted_noise(noise: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the noise of a draft of `shape` [16, t, h, w] from that of its full run [16, T, H, W], t up to T.

    Each value is the mean of 2x2 values of the full run, times two, so that its variance is one and it is where the
    same part of the picture is; `draft_size` cuts both ends of a side alike, so the middle is kept. Noise of the
    draft's width and height stays as it is. The first t latent frames are kept.
    """
    channels, frames, height, width = shape
    noise = noise[:, :frames]
    if noise.shape == shape:
        return noise
    pairs = noise.reshape(channels, frames, noise.shape[2] // 2, 2, noise.shape[3] // 2, 2)
    pooled = 2 * pairs.mean(axis=(3, 5))
    top, left = (pooled.shape[2] - height) // 2, (pooled.shape[3] - width) // 2
    return pooled[:, :, top : top + height, left : left + width]


def _box_muller(uniform: np.ndarray) -> np.ndarray:
    blocks = uniform.reshape(-1, 2, BLOCK // 2)
    radius = np.sqrt(np.float32(-2) * np.log(np.float32(1) - blocks[:, 0]))
    theta = np.float32(2 * math.pi) * blocks[:, 1]
    return np.stack([radius * np.cos(theta), radius * np.sin(theta)], axis=1).reshape(-1)
