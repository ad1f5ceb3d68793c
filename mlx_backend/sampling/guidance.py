"""Classifier-free guidance in two passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Array = Any
Velocity = Callable[[Array, float], Array]


def guided(positive: Velocity, negative: Velocity, cfg: float) -> Velocity:
    """Return negative + cfg * (positive - negative); for cfg of 1 or less just `positive`, in one pass."""
    if cfg <= 1:
        return positive

    def velocity(x: Array, t: float) -> Array:
        with_prompt = positive(x, t)
        without = negative(x, t)
        return without + cfg * (with_prompt - without)

    return velocity
