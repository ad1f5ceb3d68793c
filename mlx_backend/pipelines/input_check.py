"""A look at a run's inputs before it: everything the sampler would check, plan and refuse, with nothing loaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ..interface.errors import DependencyError, RequestError, WeightsError
from ..interface.events import Listener
from ..interface.limits import Limits
from ..interface.requests import SamplingSettings, Scene
from ..interface.settings import sampling_of, scene_of
from ..members.member import PreparedRun
from ..members.scail2 import MEMBER
from ..members.scail2.input_sheet import input_sheet, raw_sheet
from ..members.scail2.inspection import Finding, FindingListener, inspect_people
from ..members.scail2.prepared import prepare_run
from ..runtime.device import require_mlx

if TYPE_CHECKING:  # the store imports MLX, and the check says so where there is none
    from .store import Handle

Made = TypeVar("Made")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class InputCheck:
    """What was found. `sheet` uint8 [H, W, 3] shows the inputs; `plan` says in sentences what the run will be."""

    sheet: np.ndarray
    findings: tuple[Finding, ...]
    plan: tuple[str, ...]

    @property
    def errors(self) -> list[str]:
        """What the sampler would stop at."""
        return [finding.sentence for finding in self.findings if finding.is_error]

    @property
    def warnings(self) -> list[str]:
        """What the sampler would run with."""
        return [finding.sentence for finding in self.findings if not finding.is_error]

    def __str__(self) -> str:
        errors, warnings = self.errors, self.warnings
        if errors:
            head = "The sampler would stop at these inputs."
        elif warnings:
            head = f"The sampler would run, with {len(warnings)} warning{'s' * (len(warnings) != 1)}."
        else:
            head = "Nothing stands out: the inputs are ready for the sampler."
        lines = [head, *(f"Error: {e}" for e in errors), *(f"Warning: {w}" for w in warnings)]
        return "\n\n".join([*lines, "\n".join(["The plan:", *self.plan]) if self.plan else "There is no plan yet."])


def check_inputs(
    pictures: Mapping[str, np.ndarray | None],
    given: Mapping[str, Any],
    dit: Handle | None,
    vae: Handle | None,
    listener: Listener,
) -> InputCheck:
    """Check the `pictures` of a Scene by name, and settings that may be impossible, as the sampler would; look closer.

    What the sampler would raise becomes a finding; what depends on it is left out. Memory is predicted for the DiT and
    VAE given, else for SCAIL-2 as published. Raises RequestError only where there is no picture to show, and whatever
    the listener raises to stop.
    """
    told, defaults = FindingListener(listener), MEMBER.defaults
    if dit is not None:
        limits = _tried(lambda: Limits.of(dit.store.snapshot.settings), told)
        given = given if limits is None else {**given, **limits.values}
    settings = _tried(lambda: sampling_of(given, defaults), told)
    scene = _tried(lambda: scene_of(given, pictures, defaults), told)
    run: PreparedRun | None = None
    if scene is not None:
        usual = settings or sampling_of({}, defaults)
        run = _tried(lambda: prepare_run(scene.references[:1], scene, usual, told), told)
    if run is None:
        sheet = raw_sheet(pictures)
        if sheet is None:
            raise RequestError(" ".join(finding.sentence for finding in told.findings if finding.is_error))
        return InputCheck(sheet=sheet, findings=tuple(told.findings), plan=())
    if settings is not None:
        for sentence in _plan(run, scene, settings):
            told.note(sentence)
    inspect_people(run.scene, scene.start_frame, told)
    if settings is not None:
        _predict(run, settings, dit, vae, told)
    sheet = input_sheet(run.scene, run.plan, scene.start_frame)
    return InputCheck(sheet=sheet, findings=tuple(told.findings), plan=tuple(told.notes))


def _tried(make: Callable[[], Made], told: FindingListener) -> Made | None:
    """Return what is made, or None where the user's values or a damaged config.json forbid it, which is told."""
    try:
        return make()
    except (RequestError, WeightsError) as error:
        told.error(str(error))
        return None


def _plan(run: PreparedRun, scene: Scene, settings: SamplingSettings) -> Iterator[str]:
    """Yield what will be made, of how many segments, in how many passes."""
    frames, segments, (width, height) = run.plan.frames, run.plan.segments, run.scene.size
    given = len(scene.driving)
    turned = ", turned as the reference is" if (width, height) != (scene.width, scene.height) else ""
    if frames == 1:
        yield f"A still picture of {width} x {height} pixels{turned}, from frame {scene.start_frame} of {given}."
    else:
        part = f"frames {scene.start_frame} to {scene.start_frame + frames - 1} of {given}"
        yield (
            f"{frames} frames of {width} x {height} pixels{turned}, from {part} of the driving video: "
            f"{frames / scene.fps:.2f} s at {scene.fps:g} fps."
        )
    lengths = Counter(segment.frames for segment in segments)
    made = " and ".join(f"{count} of {length} frame{'s' * (length != 1)}" for length, count in lengths.items())
    joined = f", each going on from the last {run.plan.overlap} frames of the one before" if len(segments) > 1 else ""
    surplus = run.plan.padded_frames - frames
    cut = f"; {surplus} at the end {'is' if surplus == 1 else 'are'} cut off again" if surplus else ""
    yield f"{len(segments)} segment{'s' * (len(segments) != 1)}: {made}{joined}{cut}."
    tokens = max(each.sequence for each in MEMBER.tokens_of(run))
    guidance = f"with guidance (cfg {settings.cfg:g})" if settings.is_guided else "without guidance"
    yield (
        f"{settings.steps} step{'s' * (settings.steps != 1)} {guidance}: {settings.passes} passes of the model per "
        f"segment, {settings.passes * len(segments)} in all, over {tokens:,} tokens in the longest segment."
    )


def _predict(
    run: PreparedRun, settings: SamplingSettings, dit: Handle | None, vae: Handle | None, told: FindingListener
) -> None:
    """Note on what machine, in what memory and how fast the run will go; tell if it cannot."""
    try:
        require_mlx()
        from .planning import budget_of, forecast, plan_run

        plan = plan_run(dit, vae, None, None, run)
        published = " and ".join(name for name, part in (("model", dit), ("vae", vae)) if part is None)
        if published:
            told.note(f"For {published} as published; connect {published} to plan for your own files:")
        forecast(plan, MEMBER.tokens_of(run), settings, budget_of(dit), told)
    except (DependencyError, WeightsError) as error:
        told.error(str(error))
    except RequestError as error:
        if dit is not None:
            told.error(str(error))
            return
        told.warn(
            f"With the model as published it would not fit. {error} Packed files need less: connect 'model' and 'vae' "
            "to plan for yours."
        )
