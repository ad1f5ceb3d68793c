"""Sizes and counts that follow from a request: latent shapes, tokens, orientation, crops."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import RequestError
from .latent_space import TEMPORAL_STRIDE, WAN21, LatentSpace
from .sizes import PATCH

SIZE_STEP = 32  # pixels: VAE stride 8, patch 2, and the driving video at half the size


def check_size(width: int, height: int, step: int = SIZE_STEP, title: str = "SCAIL-2") -> None:
    """Raise RequestError unless width and height (pixels) are positive multiples of what a model works on."""
    for name, value in (("width", width), ("height", height)):
        if value < step or value % step:
            below = max(step, value // step * step)
            raise RequestError(
                f"The {name} is {value} pixels, but {title} needs a multiple of {step}: use {below} or {below + step}."
            )


def oriented_size(width: int, height: int, reference_width: int, reference_height: int) -> tuple[int, int]:
    """Return (width, height), swapped when the reference is portrait and the target landscape or the reverse.

    Source: `generate.py` of zai-org/SCAIL-2. A square reference or target swaps nothing.
    """
    if (width - height) * (reference_width - reference_height) < 0:
        return height, width
    return width, height


def covering_frames(frames: int) -> int:
    """Return the smallest 4k+1 that is at least `frames`: the clip lengths that the causal VAE knows."""
    return (frames - 1 + TEMPORAL_STRIDE - 1) // TEMPORAL_STRIDE * TEMPORAL_STRIDE + 1


def latent_frames(frames: int) -> int:
    """Return how many latent frames a clip of 4k+1 pixel frames has."""
    return (frames - 1) // TEMPORAL_STRIDE + 1


@dataclass(frozen=True, slots=True)
class LatentSize:
    """Latent frames, rows and columns of one segment, in the space of a VAE."""

    frames: int
    height: int
    width: int
    space: LatentSpace = WAN21

    @classmethod
    def of_pixels(cls, frames: int, width: int, height: int, space: LatentSpace = WAN21) -> LatentSize:
        """Return the latent size of `frames` (4k+1) pictures of width x height pixels."""
        return cls(latent_frames(frames), height // space.stride, width // space.stride, space)

    @property
    def pixels(self) -> tuple[int, int, int]:
        """Frames, width and height of the pictures that it is decoded to."""
        frames = TEMPORAL_STRIDE * (self.frames - 1) + 1
        return frames, self.width * self.space.stride, self.height * self.space.stride

    @property
    def tokens(self) -> int:
        """Tokens of all its patches."""
        return self.frames * (self.height // PATCH) * (self.width // PATCH)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape [C, T, H, W]."""
        return (self.space.channels, self.frames, self.height, self.width)
