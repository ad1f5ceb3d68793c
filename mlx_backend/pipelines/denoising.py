"""Every run's core: the DiT put in place, and the solver run over one segment after another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import mlx.core as mx

from ..interface.errors import NumericsError, RequestError
from ..interface.events import Listener
from ..interface.requests import SamplingSettings
from ..interface.sizes import WanConfig
from ..models.conditioning import Conditioning, Known
from ..models.wan import WanModel
from ..sampling.economy import Passes, segment_velocity
from ..sampling.guidance import Velocity
from ..sampling.loop import denoise
from ..sampling.solvers import Solver, make_solver
from .experts import Experts, Shift, shifts
from .reports import StepReport
from .store import Models

AtTime = Callable[[float], Conditioning]  # what applies at a timestep


@dataclass(frozen=True, slots=True, eq=False)
class Conditions:
    """What conditions the passes with and without the prompt; no negative one where nothing is guided."""

    positive: AtTime
    negative: AtTime | None


MakeConditions = Callable[[WanModel], Conditions]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Denoising:
    """Denoises the `segments` segments of one run; `passes` counts over all of them."""

    models: Models
    experts: Experts
    settings: SamplingSettings
    segments: int
    listener: Listener
    passes: Passes = field(default_factory=Passes)

    def begin(self) -> None:
        """Put the transformer of the first steps in place."""
        self.experts.get(self._due(self._solver())[0].expert)

    def run(self, number: int, conditions: MakeConditions, start: mx.array, known: Known | None) -> mx.array:
        """Return segment `number`, denoised from `start` [C, T, h, w]; known frames stay clean.

        `conditions` embeds for each transformer when its first step is due. What float16 cannot hold is done again in
        bf16, and is then embedded anew.
        """
        settings = self.settings
        steps = StepReport(
            listener=self.listener,
            steps=settings.steps,
            per_step=settings.passes // settings.steps,
            segment=number,
            segments=self.segments,
        )

        def attempt() -> mx.array:
            solver = self._solver()
            steps.begin()
            velocity = _Changing(self._due(solver), lambda shift: self._velocity(shift, conditions, steps))
            return denoise(velocity, solver, start, known, steps)

        try:
            return attempt()
        except NumericsError as error:
            where = f"In segment {number + 1} of {self.segments}: " if self.segments > 1 else ""
            if not self.experts.leave_float16():
                raise NumericsError(f"{where}{error}") from error
            self.listener.warn(
                f"{where}float16 cannot hold the model's values, so the run goes on in bf16, a little slower."
            )
            return attempt()

    def _solver(self) -> Solver:
        settings = self.settings
        return make_solver(settings.solver, settings.steps, settings.shift, settings.grid)

    def _due(self, solver: Solver) -> tuple[Shift, ...]:
        return shifts(self.models, self.settings, solver.schedule.timesteps)

    def _velocity(self, shift: Shift, conditions: MakeConditions, steps: StepReport) -> Velocity:
        """Put a transformer in place and return the velocity of its steps."""
        model = self.experts.get(shift.expert)
        made, settings = conditions(model), replace(self.settings, cfg=shift.cfg, cfg_low=None)
        guides = made.negative is not None and settings.is_guided
        negative = self._under(model, made.negative, steps) if guides else None
        positive = self._under(model, made.positive, steps)
        return segment_velocity(positive, negative, settings, self.passes, shift.before, shift.steps)

    def _under(self, model: WanModel, applying: AtTime, steps: StepReport) -> Velocity:
        def run(x: mx.array, t: float) -> mx.array:
            v = model(x, t, applying(t), self.listener.check_cancelled)
            steps.passed()
            return v

        return run


class _Changing:
    """A velocity whose steps are made by one transformer after another; what the one before holds is let go first."""

    def __init__(self, due: Sequence[Shift], make: Callable[[Shift], Velocity]):
        self._due = list(due)
        self._make = make
        self._velocity: Velocity | None = None
        self._left = 0

    def __call__(self, x: mx.array, t: float) -> mx.array:
        if not self._left:
            self._velocity = None
            shift = self._due.pop(0)
            self._velocity, self._left = self._make(shift), shift.steps
        self._left -= 1
        return self._velocity(x, t)


def check_widths(config: WanConfig, text: int, clip: int | None) -> None:
    """Raise RequestError unless text features, and CLIP tokens if there are any, are as wide as the model takes."""
    for name, found, wanted in (("text features", text, config.text_dim), ("CLIP tokens", clip, config.clip_dim)):
        if found is not None and found != wanted:
            raise RequestError(
                f"The {name} are {found} wide, but this model takes {wanted}: "
                "connect the encoders of the snapshot that the model comes from."
            )
