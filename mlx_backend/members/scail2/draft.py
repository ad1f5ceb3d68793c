"""A prepared scene at the size of its draft."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ...interface.draft import draft_size
from ...media.resize import MASK, fit, halved
from .scene import PreparedScene


def drafted(scene: PreparedScene) -> PreparedScene:
    """Return the scene at half its scale, cut to `draft_size`: the framing of the full run, less at most 8 pixels.

    Pictures become their 2x2 means, as the noise does; masks keep pure colours.
    """
    target = draft_size(*scene.size)
    if target == scene.size:
        return scene
    half = scene.size[0] // 2, scene.size[1] // 2

    def mask(pictures: np.ndarray) -> np.ndarray:
        return _centre(fit(pictures, *half, MASK), target)

    return replace(
        scene,
        references=_centre(halved(scene.references), target),
        reference_masks=tuple(None if m is None else mask(m) for m in scene.reference_masks),
        driving=_centre(halved(np.asarray(scene.driving)), target),
        driving_mask=None if scene.driving_mask is None else mask(np.asarray(scene.driving_mask)),
    )


def _centre(pictures: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    left, top = ((had - kept) // 2 for had, kept in zip(pictures.shape[2:0:-1], size, strict=True))
    return pictures[:, top : top + size[1], left : left + size[0]]
