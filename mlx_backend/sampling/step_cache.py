"""Step caching: a branch of the guidance whose model runs only in the steps that need it.

Between two runs the velocity is the sample plus a constant, the difference of velocity and sample at the last run.
Source: `cache_even`, `cache_odd` in `EasyCache4Wan2.1/easycache_generate.py` of H-EmbodVis/EasyCache.
"""

from __future__ import annotations

from typing import Any, Protocol

import mlx.core as mx

from .guidance import Velocity

Array = Any


class SkipRule(Protocol):
    """Decides for one branch of one segment in which steps the model runs; made anew for every segment."""

    def must_run(self, step: int, x: Array) -> bool:
        """Return whether step `step` (from 0) has to run at the sample x; called once for each step, in order."""

    def learn(self, x: Array, v: Array) -> None:
        """Take note that the model ran at x and said v."""


class CachedVelocity:
    """A velocity that asks its rule at each call, which is a step, whether to run the model or to reuse its last run.

    Keeps one array of a latent's size, evaluated in the calling thread.
    """

    def __init__(self, velocity: Velocity, rule: SkipRule):
        self._velocity = velocity
        self._rule = rule
        self._step = 0
        self._offset: Array | None = None  # velocity minus sample at the last run

    def __call__(self, x: Array, t: float) -> Array:
        """Return the velocity at x, computed or reused. The first call always computes."""
        step, self._step = self._step, self._step + 1
        if not self._rule.must_run(step, x) and self._offset is not None:
            return x + self._offset
        v = self._velocity(x, t)
        self._rule.learn(x, v)
        self._offset = v - x
        mx.eval(self._offset)
        return v
