"""The result of sampling: the latents of each segment, and how they join."""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from ..interface.segments import SegmentPlan
from ..models import vae21


@dataclass(frozen=True, slots=True, eq=False)
class SegmentLatents:
    """Normalised latents [16, T, H, W], float32, one per segment of the plan.

    `matches_colours`: the later segments' pictures are to be given the first one's colours, in Lab.
    """

    segments: tuple[np.ndarray, ...]
    plan: SegmentPlan
    matches_colours: bool = False


def raw(latent: np.ndarray) -> np.ndarray:
    """Return z * std + mean per channel of [16, ...]: the latent that ComfyUI's nodes exchange."""
    return np.array(vae21.denormalised(mx.array(latent)))


def normalised(latent: np.ndarray) -> np.ndarray:
    """The reverse of `raw`."""
    return np.array(vae21.normalised(mx.array(latent)))
