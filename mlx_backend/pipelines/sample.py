"""The one sampler: a run to the latents of its segments, one after another."""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx
import numpy as np

from ..interface.events import Listener
from ..interface.geometry import latent_frames
from ..interface.segments import SegmentPlan
from ..runtime.memory import bounded_cache
from .denoising import Denoising
from .experts import Experts
from .finished import FinishedSegments
from .planning import budget_of, expected, forecast
from .run import Run, Session
from .store import enter


def sample(run: Run, session: Session, decodes: bool = False) -> tuple[np.ndarray, ...]:
    """Denoise every segment, as planned, that the session's folder does not hold already; keep each that is finished.

    `decodes`: whether the caller decodes them then, with the same listener, so that its bar counts that too. Returns
    normalised latents [C, T, h, w], float32, of all segments. Raises RequestError, WeightsError, NumericsError,
    and whatever the listener raises to stop.
    """
    listener, settings, segments = session.listener, run.settings, len(run.material.sizes)
    elsewhere = run.models.dit.store.elsewhere
    if elsewhere is not None:
        return elsewhere.call(sample, run, session, decodes, listener=listener)
    told, stages = (run.how, run.material.tokens, settings), run.material.stages
    forecast(*told, budget_of(run.models.dit), listener, (*stages, "decode") if stages else ())
    listener.expect(expected(*told, (*stages, "decode") if decodes else stages))
    with bounded_cache():
        material = run.material.ready(run, session)
        finished = FinishedSegments.of(session.kept, run, material)
        made = finished.leading()
        _tell_finished(len(made), segments, session.kept, listener)
        if len(made) == segments:
            return tuple(made)
        due = settings.passes * (segments - len(made))
        enter("sampling", *run.parts)
        with Experts(run.models, run.how, listener) as experts:
            denoising = Denoising(
                models=run.models, experts=experts, settings=settings, segments=segments, listener=listener
            )
            denoising.begin()
            opened = material.opened(run, session)
            for number, start in enumerate(material.noise(settings)):
                if number < len(made):
                    continue
                known, conditions = opened.segment(number, made)
                latent = denoising.run(number, conditions, mx.array(start), known)
                made.append(opened.finished(number, np.array(latent), made))
                finished.keep(number, made[-1])
                if listener.wants_preview and material.plan is not None and segments > 1:
                    listener.preview(_so_far(made, material.plan))
        listener.note(f"{denoising.passes.run} of {due} passes of the model were run.")
        return tuple(made)


def _tell_finished(made: int, segments: int, kept: Path | None, listener: Listener) -> None:
    """Say which segments of a run are there already."""
    if made == segments:
        listener.note(f"All of this run was made before with the same inputs, and is taken from {kept}.")
    elif made:
        which = "Segment 1 was" if made == 1 else f"Segments 1 to {made} were"
        listener.note(
            f"{which} made before with the same inputs, and taken from {kept}: the run goes on at segment {made + 1} "
            f"of {segments}."
        )


def _so_far(made: list[np.ndarray], plan: SegmentPlan) -> np.ndarray:
    """Return the finished segments as one latent for a preview: without the frames that they continued from."""
    known = (latent_frames(segment.history) if segment.history else 0 for segment in plan.segments)
    return np.concatenate([latent[:, start:] for latent, start in zip(made, known, strict=False)], axis=1)
