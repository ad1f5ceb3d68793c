"""The scene and the settings of the runs in this process."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from mlx_backend.interface.requests import SamplingSettings, Scene
from mlx_backend.interface.settings import sampling_of
from mlx_backend.members.scail2.defaults import SCAIL2

from .stage import FRAMES, LENGTH, OVERLAP, SIDE

BLUE = (0, 0, 255)


def a_scene(**changes: Any) -> Scene:
    """Return a reference, a clip and their masks, the same every time."""
    generator = np.random.default_rng(0)
    masks = {}
    for name, frames, ground in (("reference_masks", 1, 255), ("driving_mask", FRAMES, 0)):
        mask = np.full((frames, SIDE, SIDE, 3), ground, np.uint8)
        mask[:, 8:24, 8:20] = BLUE
        masks[name] = mask.astype(np.float32) / 255
    usual = {
        "references": generator.random((1, SIDE, SIDE, 3), np.float32),
        "driving": generator.random((FRAMES, SIDE, SIDE, 3), np.float32),
        **masks,
        "width": SIDE,
        "height": SIDE,
        "fps": SCAIL2.driving_fps,
    }
    return Scene(**usual | changes)


def a_sampling(**changes: Any) -> SamplingSettings:
    """Return two steps in two segments."""
    usual = replace(sampling_of({}, SCAIL2), steps=2, segment_length=LENGTH, segment_overlap=OVERLAP)
    return replace(usual, **changes)
