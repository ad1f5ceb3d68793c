"""The result of sampling: the latents of each segment, and how they join."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..interface.latent_space import WAN21, LatentSpace
from ..interface.segments import SegmentPlan


@dataclass(frozen=True, slots=True, eq=False)
class SegmentLatents:
    """Normalised latents [C, T, H, W], float32, one per segment of the plan, in the space of their VAE.

    `matches_colours`: the later segments' pictures are to be given the first one's colours, in Lab.
    """

    segments: tuple[np.ndarray, ...]
    plan: SegmentPlan
    matches_colours: bool = False
    space: LatentSpace = WAN21
