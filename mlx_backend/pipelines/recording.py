"""What a run was made from and what it cost: a listener that keeps it, and the report that says it."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from ..interface.errors import WeightsError
from ..interface.events import LOGGER, Listener, Progress
from ..interface.requests import LoraRequest
from ..interface.version import VERSION
from ..interface.workload import Workload
from ..runtime.machine import this_machine
from ..weights.checkpoints.identity import file_identity
from .run import Material, Run
from .store import Handle

FORMAT = 1  # of the report; raised when a field changes its meaning
FIRST_PHASE = "preparing"  # before a run tells where it is
DIGITS = 16  # of a file's digest: enough to tell any two files apart that a person has


@dataclass(frozen=True, kw_only=True, slots=True)
class PhaseRecord:
    """What a phase took, all its segments together.

    `peak_bytes`: the most that MLX held during it, weights and what other workflows keep in MLX included.
    """

    phase: str
    seconds: float
    peak_bytes: int


class Recording(Listener):
    """Passes all events on to a listener, and keeps what was said and what each phase took.

    A phase begins with its first event and ends with the first one of another phase. MLX's peak is reset at each
    beginning. `clock` returns seconds.
    """

    def __init__(self, listener: Listener, clock: Callable[[], float] = time.perf_counter) -> None:
        self.warnings: list[str] = []
        self.notes: list[str] = []
        self._listener = listener
        self._clock = clock
        self._taken: dict[str, tuple[float, int]] = {}
        self._phase = FIRST_PHASE
        self._elsewhere = 0
        self._begin()

    def phases(self) -> tuple[PhaseRecord, ...]:
        """Return the phases up to now, in the order in which they began."""
        self._end()
        self._begin()
        return tuple(
            PhaseRecord(phase=phase, seconds=round(seconds, 3), peak_bytes=peak)
            for phase, (seconds, peak) in self._taken.items()
        )

    def progress(self, event: Progress) -> None:
        """Take note of the phase, and pass the event on."""
        if event.phase != self._phase:
            self._end()
            self._phase = event.phase
            self._begin()
        self._listener.progress(event)

    def warn(self, message: str) -> None:
        """Keep the warning, and pass it on."""
        self.warnings.append(message)
        self._listener.warn(message)

    def note(self, message: str) -> None:
        """Keep the note, and pass it on."""
        self.notes.append(message)
        self._listener.note(message)

    def held(self, peak: int) -> None:
        """Count what another process held to the phase, and pass it on."""
        self._elsewhere = max(self._elsewhere, peak)
        self._listener.held(peak)

    def expect(self, work: Workload) -> None:
        """Pass on what the run is made of."""
        self._listener.expect(work)

    def check_cancelled(self) -> None:
        """Raise what the listener raises."""
        self._listener.check_cancelled()

    @property
    def wants_preview(self) -> bool:
        """Whether the listener wants previews."""
        return self._listener.wants_preview

    def preview(self, latent: np.ndarray) -> None:
        """Pass the preview on."""
        self._listener.preview(latent)

    def _begin(self) -> None:
        self._since = self._clock()
        self._elsewhere = 0
        mx.reset_peak_memory()

    def _end(self) -> None:
        seconds, peak = self._taken.get(self._phase, (0.0, 0))
        # A peak that was reset stays 0 until something is allocated, whatever is held.
        held = max(mx.get_peak_memory(), mx.get_active_memory(), self._elsewhere)
        self._taken[self._phase] = (seconds + self._clock() - self._since, max(peak, held))


@dataclass(frozen=True, kw_only=True, slots=True)
class RunReport:
    """What a result was made from, so that it can be repeated, and what it cost. All values are plain ones of JSON.

    `made_with`: pack, mlx, Python, machine. `run`: mode, size in pixels, frames, segments, seed. `prompts`: positive
    and negative, None where they are not known. `settings`: every field of SamplingSettings. `scene`: every field of
    Scene that is no picture; `pictures`: how many and how large those are. `model`: per component the file's name
    without its folders, its digest and the precision; `loras` likewise, with strengths.
    """

    made_with: Mapping[str, str]
    run: Mapping[str, Any]
    prompts: Mapping[str, str] | None
    settings: Mapping[str, Any]
    scene: Mapping[str, Any]
    pictures: Mapping[str, str]
    model: Mapping[str, Mapping[str, Any]]
    loras: tuple[Mapping[str, Any], ...]
    phases: tuple[PhaseRecord, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return everything as what `json.dumps` takes."""
        return {"scail2_report": FORMAT, **asdict(self)}

    def __str__(self) -> str:
        """Return the report as the text of a JSON file."""
        return json.dumps(self.as_json(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def report_run(run: Run, recording: Recording) -> RunReport:
    """Return the report of a run that has ended.

    A file that cannot be read any more has no digest, and a warning says so: the run's result does not depend on it.
    """
    phases = recording.phases()
    material, size = run.material, run.material.sizes[0]
    _, width, height = size.pixels
    machine = this_machine()
    gone: list[str] = []
    return RunReport(
        made_with={"pack": VERSION, "mlx": machine.mlx, "python": machine.python, "machine": str(machine)},
        run={
            "mode": run.facts["scene"]["mode"],
            "width": width,
            "height": height,
            "frames": _frames(material),
            "segments": len(material.sizes),
            "seed": run.settings.seed,
        },
        prompts=None if material.prompts is None else asdict(material.prompts),
        settings=asdict(run.settings),
        **run.facts,
        model=dict(_named(run.parts, gone)),
        loras=tuple(_lora(lora, gone) for part in run.parts for lora in part.loras),
        phases=phases,
        warnings=tuple(map(_without_home, (*recording.warnings, *gone))),
        notes=tuple(map(_without_home, recording.notes)),
    )


def _named(parts: Sequence[Handle], gone: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what is told of each part, by its component; a second expert of the DiT has a number."""
    count = Counter[str]()
    for part in parts:
        count[part.component] += 1
        number = count[part.component]
        yield part.component if number == 1 else f"{part.component}_{number}", _component(part, gone)


def _component(part: Handle, gone: list[str]) -> dict[str, Any]:
    path = part.store.snapshot.path(part.component)
    made = {"file": path.name, "digest": _digest(path, gone), "precision": part.store.precision}
    return made | ({"residency": part.store.residency} if part.component == "dit" else {})


def _lora(lora: LoraRequest, gone: list[str]) -> dict[str, Any]:
    return {"file": lora.path.name, "digest": _digest(lora.path, gone), "strength": lora.strength}


def _digest(path: Path, gone: list[str]) -> str | None:
    try:
        return file_identity(path)[:DIGITS]
    except (OSError, WeightsError) as error:
        gone.append(f"{path.name} could not be read again for the report, which has no digest of it ({error}).")
        LOGGER.warning(gone[-1])
        return None


def _without_home(message: str) -> str:
    """Leave out the user's name in paths: reports are passed on."""
    return message.replace(os.path.expanduser("~"), "~")  # noqa: PTH111 - Path.home() fails where there is none


def _frames(material: Material) -> int:
    if material.plan is not None:
        return material.plan.frames
    return sum(size.pixels[0] for size in material.sizes)
