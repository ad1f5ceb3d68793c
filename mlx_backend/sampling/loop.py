"""The one denoising loop."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import mlx.core as mx

from ..interface.errors import NumericsError
from ..runtime.memory import return_memory
from .guidance import Velocity
from .solvers import Solver

Estimate = Callable[[], mx.array]
Known = Callable[[mx.array], mx.array]  # puts the frames of a latent in that are known


def denoise(
    velocity: Velocity,
    solver: Solver,
    noise: mx.array,
    known: Known | None,
    on_step: Callable[[int, Estimate], None],
) -> mx.array:
    """Run the solver over its grid from `noise`; known frames are clean before, at and after every step.

    `on_step(i, estimate)` is called after step i (from 0); `estimate()` computes the clean latent, of x's shape, that
    the step's velocity predicts. Raises NumericsError at the first step whose velocity is not finite.
    """
    x = noise
    for i, t in enumerate(solver.schedule.timesteps):
        if known is not None:
            x = known(x)
        before, v = x, velocity(x, t)
        solver, x = solver.step(i, v, before)
        finite = mx.isfinite(v).all()
        mx.eval(x, finite)
        if not finite.item():
            raise NumericsError(
                f"The model returned values that are not numbers at step {i + 1} of {solver.schedule.steps} "
                f"(timestep {t:g}): the run was stopped instead of rendering black frames. "
                "Try precision float32, or check the weights."
            )
        return_memory()
        on_step(i, partial(_estimated, before, v, solver.schedule.sigmas[i], known))
    return x if known is None else known(x)


def _estimated(x: mx.array, velocity: mx.array, sigma: float, known: Known | None) -> mx.array:
    picture = x - sigma * velocity
    return picture if known is None else known(picture)
