"""Which transformer a step runs: the only one, or the first or second of two experts, one in memory at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from ..interface.events import Listener
from ..interface.requests import SamplingSettings
from ..models.wan import WanModel
from ..planning.planner import RunPlan
from ..runtime.memory import wired
from .store import Handle, Models, get_dit

NOISE_STEPS = 1000  # the timestep of pure noise


@dataclass(frozen=True, slots=True)
class Shift:
    """Steps that one transformer runs one after another: which, how many `before` them, and how they are guided."""

    expert: int
    before: int
    steps: int
    cfg: float


def shifts(models: Models, settings: SamplingSettings, timesteps: Sequence[float]) -> tuple[Shift, ...]:
    """Return who runs the steps of a segment. The first expert takes those at the boundary and above it.

    Source: `wan/text2video.py` of Wan-Video/Wan2.2 (`_prepare_model_for_timestep`).
    """
    if len(models.experts) == 1:
        return (Shift(0, 0, len(timesteps), settings.cfg),)
    boundary = models.dit.store.member.boundary * NOISE_STEPS
    first = sum(t >= boundary for t in timesteps)
    halves = Shift(0, 0, first, settings.cfgs[0]), Shift(1, first, len(timesteps) - first, settings.cfgs[1])
    return tuple(half for half in halves if half.steps)


class Experts:
    """Puts the transformers of a run in place as planned: a context, at whose end none is kept from being paged out.

    One that is asked for is loaded after the other one has left the memory; of two, neither outlasts the context, as a
    run begins with the first and decoding needs none.
    """

    def __init__(self, models: Models, how: RunPlan, listener: Listener):
        self._handles = models.experts
        self._how = how
        self._listener = listener
        self._stack = ExitStack()
        self._model: WanModel | None = None
        self._current = -1
        self._in_bf16 = False  # since one could not hold its values in float16

    def __enter__(self) -> Experts:
        return self

    def __exit__(self, *error: object) -> None:
        self._leave()
        if len(self._handles) > 1:
            self._let_go(self._handles)

    def get(self, number: int) -> WanModel:
        """Return an expert, alone in memory."""
        if number != self._current or self._model is None:
            self._leave()
            self._let_go(handle for other, handle in enumerate(self._handles) if other != number)
            self._model, self._current = self._placed(self._handles[number]), number
        return self._model

    def leave_float16(self) -> bool:
        """See WanModel: of all experts that are tried from now on."""
        if self._model is None or not self._model.leave_float16():
            return False
        self._in_bf16 = True
        return True

    def _leave(self) -> None:
        self._stack.close()
        self._model, self._current = None, -1

    @staticmethod
    def _let_go(handles: Iterable[Handle]) -> None:
        for handle in handles:
            handle.store.let_go("dit")

    def _placed(self, handle: Handle) -> WanModel:
        """Load a transformer as planned, and keep its weights from being paged out."""
        model = get_dit(handle, self._listener, self._how.residency)
        model.limit_dispatches(self._how.backend.dispatch_flops)
        model.attend_in_groups(self._how.backend.head_groups)
        if self._in_bf16:
            model.leave_float16()
        self._stack.enter_context(wired(model.resident_bytes))
        return model
