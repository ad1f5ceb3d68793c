"""The result of sampling: the latents of each segment, and how they join."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..models.vae21 import MEAN, STD
from ..spec.segments import SegmentPlan


@dataclass(frozen=True, slots=True, eq=False)
class SegmentLatents:
    """Normalised latents [16, T, H, W], float32, one per segment of the plan."""

    segments: tuple[np.ndarray, ...]
    plan: SegmentPlan


def raw(latent: np.ndarray) -> np.ndarray:
    """Return z * std + mean per channel of [16, ...]: the latent that ComfyUI's nodes exchange."""
    return latent * _column(STD, latent) + _column(MEAN, latent)


def normalised(latent: np.ndarray) -> np.ndarray:
    """The reverse of `raw`."""
    return (latent - _column(MEAN, latent)) / _column(STD, latent)


def _column(values: tuple[float, ...], like: np.ndarray) -> np.ndarray:
    return np.asarray(values, np.float32).reshape(-1, *[1] * (like.ndim - 1))
