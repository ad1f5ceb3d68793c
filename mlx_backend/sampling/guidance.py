"""Classifier-free guidance in two passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx

Array = Any
Velocity = Callable[[Array, float], Array]


def guided(positive: Velocity, negative: Velocity | None, cfg: float, guided_steps: int) -> Velocity:
    """Return negative + cfg * (positive - negative); without `negative` just `positive`, in one pass.

    Each call is a step. `negative` runs in the first `guided_steps` (at least one) calls; after them the difference of
    the last of these is kept: negative is taken to be positive minus that.
    """
    return positive if negative is None else _Guided(positive, negative, cfg, guided_steps)


class _Guided:
    def __init__(self, positive: Velocity, negative: Velocity, cfg: float, guided_steps: int):
        self._positive = positive
        self._negative = negative
        self._cfg = cfg
        self._left = guided_steps
        self._gap: Array | None = None  # positive - negative of the last step that had both

    def __call__(self, x: Array, t: float) -> Array:
        with_prompt = self._positive(x, t)
        if self._gap is not None:
            return with_prompt + (self._cfg - 1) * self._gap
        without = self._negative(x, t)
        gap = with_prompt - without
        self._left -= 1
        if not self._left:
            mx.eval(gap)
            self._gap = gap
        return without + self._cfg * gap
