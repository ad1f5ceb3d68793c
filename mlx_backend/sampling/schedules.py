"""Sigma grids: at which noise levels a run stops."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

TRAIN_STEPS = 1000


@dataclass(frozen=True, slots=True)
class Schedule:
    """`sigmas`: steps + 1 falling noise levels, the last one 0; `timesteps`: what the model is told, one per step.

    Timesteps are those of training, up to 1000; they need not be whole.
    """

    sigmas: tuple[float, ...]
    timesteps: tuple[float, ...]

    @property
    def steps(self) -> int:
        """Number of steps."""
        return len(self.timesteps)


def upstream_schedule(steps: int, shift: float, *, first: float) -> Schedule:
    """Return the official grid: even from `first` (0.999 or 1) to 0, then shifted; whole timesteps.

    Source: `set_timesteps` and `get_sampling_sigmas` in `wan/utils/fm_solvers*.py` of Wan-Video/Wan2.1. The sigmas are
    rounded to float32, as upstream stores them; the timesteps are truncated before that.
    """
    sigmas = _shifted(np.linspace(first, 0.0, steps + 1)[:-1], shift)
    return _schedule(sigmas, (sigmas * TRAIN_STEPS).astype(np.int64))


def simple_schedule(steps: int, shift: float) -> Schedule:
    """Return the grid of ComfyUI's scheduler "simple": from 1, every (1000 / steps)th of the 1000 trained levels.

    The levels k / 1000 are shifted; the strides are rounded down, so at most counts of steps they are uneven. Timesteps
    are the rounded sigmas times 1000, not whole. Source: `simple_scheduler` in `comfy/samplers.py` and
    `ModelSamplingDiscreteFlow` in `comfy/model_sampling.py` of Comfy-Org/ComfyUI. ComfyUI shifts in float32; here only
    the result is rounded to it, so that the first sigma is 1 at every shift, where ComfyUI's may be a rounding away.
    """
    stride = TRAIN_STEPS / steps
    levels = np.array([TRAIN_STEPS - int(i * stride) for i in range(steps)]) / TRAIN_STEPS
    sigmas = _shifted(levels, shift).astype(np.float32)
    return _schedule(sigmas, sigmas * np.float32(TRAIN_STEPS))


def _shifted(levels: np.ndarray, shift: float) -> np.ndarray:
    return shift * levels / (1 + (shift - 1) * levels)


def _schedule(sigmas: np.ndarray, timesteps: np.ndarray) -> Schedule:
    return Schedule((*(float(s) for s in sigmas.astype(np.float32)), 0.0), tuple(float(t) for t in timesteps))
