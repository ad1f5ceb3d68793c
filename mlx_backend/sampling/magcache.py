"""MagCache: a fixed schedule of steps to leave out, from how the model's residual shrank from step to step elsewhere.

Source: `magcache_forward` and `nearest_interp` in `MagCache4Wan2.1/magcache_generate.py` of Zehong-Ma/MagCache (arXiv
2506.09045). Two things differ here. Upstream reuses the hidden residual of the transformer and runs its head; here the
velocity is reused (see step_cache), which saves 0.7 GB per branch at 832x480. And the last step always runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Array = Any
FULL_STEPS = (1, 5)  # upstream's retention ratio of 0.2, rounded up
MAX_SKIPS = 4  # K, steps in a row; published for Wan 2.1 I2V 14B 480P: threshold 0.12 with K 4, or 0.24 with K 6
# Ratios of the residual's magnitude to that of the step before, 40 steps, as upstream publishes them for Wan 2.1 I2V
# 14B 480P (its list alternates between the two branches); there are none for SCAIL-2. The first step has no ratio.
CONDITIONAL = (
    *(1.0, 0.98783, 0.97559, 0.98311, 0.98202, 0.9888, 0.98762, 0.98957, 0.99052, 0.99383),
    *(0.98857, 0.99065, 0.98845, 0.99057, 0.98957, 0.98601, 0.98823, 0.98756, 0.98808, 0.98721),
    *(0.98571, 0.98543, 0.98157, 0.98411, 0.97952, 0.98149, 0.9774, 0.97825, 0.97355, 0.97085),
    *(0.97056, 0.96588, 0.96113, 0.9567, 0.94961, 0.93973, 0.93217, 0.91878, 0.90955, 0.92617),
)
UNCONDITIONAL = (
    *(1.0, 0.98993, 0.97593, 0.98319, 0.98225, 0.98878, 0.98759, 0.98971, 0.99043, 0.99384),
    *(0.9886, 0.99068, 0.98847, 0.99057, 0.98961, 0.9861, 0.98823, 0.98759, 0.98814, 0.98724),
    *(0.98572, 0.98544, 0.98165, 0.98413, 0.97953, 0.9815, 0.97742, 0.97826, 0.97361, 0.97087),
    *(0.97055, 0.96587, 0.96124, 0.95681, 0.94969, 0.93988, 0.93224, 0.91896, 0.90954, 0.92616),
)


class MagCache:
    """The rule of one branch: leaves out the steps that its ratios allow; see `skipped_steps`."""

    def __init__(self, ratios: Sequence[float], steps: int, threshold: float):
        self._skipped = skipped_steps(interpolated(ratios, steps), threshold, MAX_SKIPS)

    def must_run(self, step: int, x: Array) -> bool:  # noqa: ARG002 - SkipRule
        """See SkipRule."""
        return step not in self._skipped

    def learn(self, x: Array, v: Array) -> None:
        """See SkipRule."""


def interpolated(ratios: Sequence[float], steps: int) -> tuple[float, ...]:
    """Return one ratio per step, the nearest (halves to the even side); the last one for a single step."""
    if steps == 1:
        return (ratios[-1],)
    scale = (len(ratios) - 1) / (steps - 1)
    return tuple(ratios[round(i * scale)] for i in range(steps))


def skipped_steps(ratios: Sequence[float], threshold: float, max_skips: int) -> frozenset[int]:
    """Return the steps (from 0) to leave out, given one ratio per step.

    A step's error is how far the product of the ratios since the last run is from one. Steps are left out while the
    sum of their errors stays below `threshold`, at most `max_skips` in a row. The first fifth and the last step run.
    """
    skipped = set()
    product, error, count = 1.0, 0.0, 0
    for step in range(-(-len(ratios) * FULL_STEPS[0] // FULL_STEPS[1]), len(ratios) - 1):
        product *= ratios[step]
        error += abs(1 - product)
        count += 1
        if error < threshold and count <= max_skips:
            skipped.add(step)
        else:
            product, error, count = 1.0, 0.0, 0
    return frozenset(skipped)
