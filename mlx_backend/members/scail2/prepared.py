"""A request to SCAIL-2 that has been checked: pictures resized, segments cut, nothing loaded yet."""

from __future__ import annotations

import numpy as np

from ...interface.errors import RequestError
from ...interface.events import Listener
from ...interface.geometry import LatentSize
from ...interface.requests import SamplingSettings, Scene
from ...interface.segments import plan_segments
from ..member import PreparedRun, tell_few_steps
from .checks import check_rate
from .draft import drafted
from .scene import prepare_picture, prepare_scene


def prepare_run(
    clip_picture: np.ndarray | None, scene: Scene, settings: SamplingSettings, listener: Listener
) -> PreparedRun:
    """Check and resize the pictures of a run and cut it into segments, with no network loaded. Raises RequestError."""
    tell_few_steps(settings, listener)
    if scene.references is None or scene.driving is None:
        missing = "reference" if scene.references is None else "driving"
        raise RequestError(
            f"SCAIL-2 makes the character of a picture perform the motion of a video, and there is no {missing} one: "
            f"give it with --{missing}."
        )
    prepared = prepare_scene(scene, listener)
    check_rate(scene.fps, len(scene.driving[scene.cut]), listener)
    picture = scene.references[:1] if clip_picture is None else clip_picture
    seen_by_clip = prepare_picture(picture, prepared, scene, listener)
    plan, full = (
        plan_segments(len(scene.driving[cut]), settings.segment_length, settings.segment_overlap)
        for cut in (scene.cut, scene.full_cut)
    )
    noise = tuple(LatentSize.of_pixels(segment.frames, *prepared.size).shape for segment in full.segments)
    return PreparedRun(drafted(prepared) if scene.draft else prepared, (seen_by_clip,), plan, noise)
