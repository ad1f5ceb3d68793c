"""Sigma grids: at which noise levels a run stops."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

TRAIN_STEPS = 1000


@dataclass(frozen=True, slots=True)
class Grid:
    """`sigmas`: steps + 1 falling noise levels, the last one 0; `timesteps`: what the model is told, one per step."""

    sigmas: tuple[float, ...]
    timesteps: tuple[float, ...]

    @property
    def steps(self) -> int:
        """Number of steps."""
        return len(self.timesteps)


def upstream_grid(steps: int, shift: float, *, first: float) -> Grid:
    """Return the official grid: even from `first` (0.999 or 1) to 0, then shifted; whole timesteps.

    Source: `set_timesteps` and `get_sampling_sigmas` in `wan/utils/fm_solvers*.py` of Wan-Video/Wan2.1. The sigmas are
    rounded to float32, as upstream stores them; the timesteps are truncated before that.
    """
    even = np.linspace(first, 0.0, steps + 1)[:-1]
    sigmas = shift * even / (1 + (shift - 1) * even)
    timesteps = tuple(float(t) for t in (sigmas * TRAIN_STEPS).astype(np.int64))
    return Grid((*(float(s) for s in sigmas.astype(np.float32)), 0.0), timesteps)
