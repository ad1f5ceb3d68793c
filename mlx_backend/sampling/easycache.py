"""EasyCache: runs the model when the velocity is expected to have changed too much since it last ran.

How much the velocity changes per change of the sample, k, is measured between the last two runs; the sample's changes
are seen in every step. Source: `easycache_forward` in `EasyCache4Wan2.1/easycache_generate.py` of H-EmbodVis/EasyCache
(arXiv 2507.02860). As there, the branch with the prompt decides for both, and each reuses its own last run: so both are
of the same age where guidance multiplies their difference.
"""

from __future__ import annotations

from typing import Any

Array = Any
FULL_STEPS = (1, 4)  # the first 10 of 40 steps always run, as published; at other counts the same share, rounded up


class EasyCache:
    """The rule of the branch with the prompt: runs when the changes expected since its last run reach `threshold`.

    The first quarter of `steps` and the last step always run.
    """

    def __init__(self, steps: int, threshold: float):
        self._first = -(-steps * FULL_STEPS[0] // FULL_STEPS[1])
        self._last = steps - 1
        self._threshold = threshold
        self._expected = 0.0  # relative changes of the velocity since the last run, added up
        self._rate: float | None = None  # k over the velocity's magnitude: its relative change per change of the sample
        self._seen: Array | None = None  # the sample of the step before
        self._ran: tuple[Array, Array] | None = None  # sample and velocity of the last run
        self.runs = True  # the decision of this step, for the other branch

    def must_run(self, step: int, x: Array) -> bool:
        """See SkipRule."""
        before, self._seen = self._seen, x
        self.runs = True
        if self._first <= step < self._last and self._rate is not None:
            self._expected += self._rate * _magnitude(x - before)
            self.runs = not self._expected < self._threshold
        if self.runs:
            self._expected = 0.0
        return self.runs

    def learn(self, x: Array, v: Array) -> None:
        """See SkipRule."""
        size = _magnitude(v)
        if self._ran is not None:
            moved = _magnitude(x - self._ran[0])
            # A sample that stood still, or a velocity of zero, tells nothing: the model runs again.
            self._rate = _magnitude(v - self._ran[1]) / moved / size if moved and size else None
        self._ran = x, v


class Follow:
    """The rule of the branch without the prompt: as the other one did in this step."""

    def __init__(self, leader: EasyCache):
        self._leader = leader

    def must_run(self, step: int, x: Array) -> bool:  # noqa: ARG002 - SkipRule
        """See SkipRule."""
        return self._leader.runs

    def learn(self, x: Array, v: Array) -> None:
        """See SkipRule."""


def _magnitude(x: Array) -> float:
    return float(abs(x).mean().item())
