"""Every run's core: the DiT put in place, and the solver run over one segment after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import mlx.core as mx

from ..interface.errors import NumericsError, RequestError
from ..interface.events import Listener
from ..interface.requests import SamplingSettings
from ..interface.sizes import WanConfig
from ..models.conditioning import Conditioning, Known
from ..models.wan import WanModel
from ..planning.planner import RunPlan
from ..runtime.memory import wired
from ..sampling.economy import Passes, segment_velocity
from ..sampling.guidance import Velocity
from ..sampling.loop import denoise
from ..sampling.solvers import make_solver
from .reports import StepReport
from .store import Handle, get_dit

AtTime = Callable[[float], Conditioning]  # what applies at a timestep


@dataclass(frozen=True, slots=True, eq=False)
class Conditions:
    """What conditions the passes with and without the prompt; no negative one where nothing is guided."""

    positive: AtTime
    negative: AtTime | None


MakeConditions = Callable[[], Conditions]


@contextmanager
def dit_in_place(dit: Handle, how: RunPlan, listener: Listener) -> Iterator[WanModel]:
    """Load the DiT as planned, and keep its weights from being paged out while the block runs."""
    model = get_dit(dit, listener, how.residency)
    model.limit_dispatches(how.backend.dispatch_flops)
    model.attend_in_groups(how.backend.head_groups)
    with wired(model.resident_bytes):
        yield model


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Denoising:
    """Denoises the `segments` segments of one run; `passes` counts over all of them."""

    model: WanModel
    settings: SamplingSettings
    segments: int
    listener: Listener
    passes: Passes = field(default_factory=Passes)

    def run(self, number: int, conditions: MakeConditions, start: mx.array, known: Known | None) -> mx.array:
        """Return segment `number`, denoised from `start` [C, T, h, w]; known frames stay clean.

        What float16 cannot hold is done again in bf16: `conditions` is then called a second time, and embeds anew.
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
            solver = make_solver(settings.solver, settings.steps, settings.shift, settings.grid)
            steps.begin()
            made = conditions()
            negative = None if made.negative is None else self._under(made.negative, steps)
            velocity = segment_velocity(self._under(made.positive, steps), negative, settings, self.passes)
            return denoise(velocity, solver, start, known, steps)

        try:
            return attempt()
        except NumericsError as error:
            where = f"In segment {number + 1} of {self.segments}: " if self.segments > 1 else ""
            if not self.model.leave_float16():
                raise NumericsError(f"{where}{error}") from error
            self.listener.warn(
                f"{where}float16 cannot hold the model's values, so the run goes on in bf16, a little slower."
            )
            return attempt()

    def _under(self, applying: AtTime, steps: StepReport) -> Velocity:
        def run(x: mx.array, t: float) -> mx.array:
            v = self.model(x, t, applying(t), self.listener.check_cancelled)
            steps.passed()
            return v

        return run


def check_widths(config: WanConfig, text: int, clip: int | None) -> None:
    """Raise RequestError unless text features, and CLIP tokens if there are any, are as wide as the model takes."""
    for name, found, wanted in (("text features", text, config.text_dim), ("CLIP tokens", clip, config.clip_dim)):
        if found is not None and found != wanted:
            raise RequestError(
                f"The {name} are {found} wide, but this model takes {wanted}: "
                "connect the encoders of the snapshot that the model comes from."
            )
