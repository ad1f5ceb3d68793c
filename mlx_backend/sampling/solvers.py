"""Solvers of the flow from noise (sigma 1) to picture (sigma 0): one call per step, all state explicit.

They work on any array with arithmetic (MLX or numpy); coefficients are Python floats. A velocity v predicts the picture
as x - sigma * v.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Protocol

from ..interface.errors import RequestError
from ..interface.variants import GRIDS, SOLVERS
from .schedules import Schedule, simple_schedule, upstream_schedule

Array = Any
UNIPC_FIRST_SIGMA = 0.999  # upstream's UniPC starts from the last trained level, the others from pure noise


class Solver(Protocol):
    """A frozen solver with the history of the steps it took."""

    @property
    def schedule(self) -> Schedule:
        """Sigmas and timesteps it runs on."""

    def step(self, i: int, velocity: Array, sample: Array) -> tuple[Solver, Array]:
        """Take step i from `sample`, where the model says `velocity`; return the next solver and sample."""


def make_solver(name: str, steps: int, shift: float, grid: str = GRIDS[0]) -> Solver:
    """Return the solver `name` on its official grid, or on ComfyUI's "simple" one. Raises RequestError.

    Each solver takes its grid as it comes: the formulas of upstream's hold for any falling sigmas. From a first sigma
    of 1, where lambda is infinite, both multistep solvers take their first step in the first order and use no slope
    across it in the second.
    """
    kinds: dict[str, type[Euler | DPMPlusPlus | UniPC]] = {"unipc": UniPC, "dpm++": DPMPlusPlus, "euler": Euler}
    if name not in kinds:
        raise RequestError(f"The solver '{name}' is unknown: choose one of {', '.join(SOLVERS)}.")
    if grid == "simple":
        return kinds[name](simple_schedule(steps, shift))
    if grid == "upstream":
        return kinds[name](upstream_schedule(steps, shift, first=UNIPC_FIRST_SIGMA if name == "unipc" else 1.0))
    raise RequestError(f"The sigma grid '{grid}' is unknown: choose one of {', '.join(GRIDS)}.")


@dataclass(frozen=True, slots=True)
class Euler:
    """First order: x + (next sigma - sigma) v."""

    schedule: Schedule

    def step(self, i: int, velocity: Array, sample: Array) -> tuple[Euler, Array]:
        """See Solver."""
        return self, sample + (self.schedule.sigmas[i + 1] - self.schedule.sigmas[i]) * velocity


def half_log_snr(sigma: float) -> float:
    """Return lambda = ln(1 - sigma) - ln(sigma), infinite at both ends."""
    if sigma <= 0:
        return math.inf
    if sigma >= 1:
        return -math.inf
    return math.log(1 - sigma) - math.log(sigma)


@dataclass(frozen=True, slots=True)
class DPMPlusPlus:
    """DPM-Solver++ (2M, midpoint), first order at both ends.

    Source: `FlowDPMSolverMultistepScheduler` in `wan/utils/fm_solvers.py` of Wan-Video/Wan2.1.
    """

    schedule: Schedule
    previous: Array | None = None  # the picture predicted one step ago

    def step(self, i: int, velocity: Array, sample: Array) -> tuple[DPMPlusPlus, Array]:
        """See Solver."""
        now, then = self.schedule.sigmas[i], self.schedule.sigmas[i + 1]
        picture = sample - now * velocity
        ahead = replace(self, previous=picture)
        if then == 0:
            return ahead, picture
        step = half_log_snr(then) - half_log_snr(now)
        moved = (then / now) * sample - (1 - then) * math.expm1(-step) * picture
        if self.previous is not None:
            ratio = (half_log_snr(now) - half_log_snr(self.schedule.sigmas[i - 1])) / step
            slope = (picture - self.previous) * (1 / ratio)  # an infinite first step leaves no slope
            moved = moved - 0.5 * (1 - then) * math.expm1(-step) * slope
        return ahead, moved


@dataclass(frozen=True, slots=True)
class UniPC:
    """UniPC of order 2 (B(h) = expm1), which corrects each sample with the prediction made there.

    Source: `FlowUniPCMultistepScheduler` in `wan/utils/fm_solvers_unipc.py` of Wan-Video/Wan2.1.
    """

    schedule: Schedule
    pictures: tuple[Array, ...] = ()  # predictions of the last two steps, newest last
    start: Array | None = None  # the sample from which the last prediction went
    order: int = 0  # of the last prediction

    def step(self, i: int, velocity: Array, sample: Array) -> tuple[UniPC, Array]:
        """See Solver."""
        picture = sample - self.schedule.sigmas[i] * velocity
        if i:
            sample = self._corrected(i, picture)
        pictures = (*self.pictures[-1:], picture)
        order = min(2, self.schedule.steps - i, len(pictures))
        ahead = replace(self, pictures=pictures, start=sample, order=order)
        return ahead, ahead._predicted(i)

    def _predicted(self, i: int) -> Array:
        now, then = self.schedule.sigmas[i], self.schedule.sigmas[i + 1]
        picture = self.pictures[-1]
        if then == 0:
            return picture
        growth = math.expm1(half_log_snr(now) - half_log_snr(then))
        moved = (then / now) * self.start - (1 - then) * growth * picture
        if self.order == 2:
            moved = moved - 0.5 * (1 - then) * growth * self._slope(i)
        return moved

    def _corrected(self, i: int, picture: Array) -> Array:
        before, now = self.schedule.sigmas[i - 1], self.schedule.sigmas[i]
        base = self.pictures[-1]
        h = half_log_snr(before) - half_log_snr(now)  # minus the step, as in the paper's hh
        growth = math.expm1(h)
        change = picture - base
        if self.order == 1:
            correction = 0.5 * change
        else:
            phi1 = growth / h - 1
            phi2 = phi1 / h - 0.5
            b1, b2 = phi1 / growth, 2 * phi2 / growth
            ratio = self._ratio(i - 1)
            # [[1, 1], [ratio, 1]] (rho1, rho2) = (b1, b2)
            rho1 = (b1 - b2) / (1 - ratio)
            correction = rho1 * self._slope(i - 1) + (b1 - rho1) * change
        return (now / before) * self.start - (1 - now) * growth * (base + correction)

    def _ratio(self, i: int) -> float:
        level = [half_log_snr(sigma) for sigma in self.schedule.sigmas[i - 1 : i + 2]]
        return (level[0] - level[1]) / (level[2] - level[1])

    def _slope(self, i: int) -> Array:
        older, newer = self.pictures
        return (older - newer) * (1 / self._ratio(i))
