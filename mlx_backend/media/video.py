"""A video in memory, and its way to eight-bit pixels."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Video:
    """Frames of one picture or video.

    frames: float32 [F, H, W, 3], RGB, 0..1. fps: frames per second; None for pictures, folders and
    arrays, which carry no rate.
    """

    frames: np.ndarray
    fps: float | None


def to_uint8(pixels: np.ndarray) -> np.ndarray:
    """Eight-bit pixels of any shape: uint8 stays as it is, floats in 0..1 are clipped, scaled and rounded."""
    if pixels.dtype == np.uint8:
        return pixels
    scaled = np.clip(pixels, 0.0, 1.0).astype(np.float32)
    scaled *= 255.0
    return np.rint(scaled).astype(np.uint8)
