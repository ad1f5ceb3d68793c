"""A run that has been checked: pictures resized, segments cut, nothing loaded yet."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..conditioning.checks import check_rate
from ..conditioning.draft import drafted
from ..conditioning.scene import PreparedScene, prepare_picture, prepare_scene
from ..interface.events import Listener
from ..interface.geometry import LatentSize
from ..interface.requests import FEW_STEPS, SamplingSettings, Scene
from ..interface.segments import SegmentPlan, plan_segments


@dataclass(frozen=True, slots=True, eq=False)
class PreparedRun:
    """What is left of a scene to compute once it has been checked; `seen_by_clip` is the picture [H, W, 3].

    `noise` holds one shape [16, T, H, W] per segment: its latent's, or in a draft that of the full run's latent.
    """

    scene: PreparedScene
    seen_by_clip: np.ndarray
    plan: SegmentPlan
    noise: tuple[tuple[int, ...], ...]


def prepare_run(clip_picture: np.ndarray, scene: Scene, settings: SamplingSettings, listener: Listener) -> PreparedRun:
    """Check and resize the pictures of a run and cut it into segments, with no network loaded. Raises RequestError."""
    if settings.economy.step_cache != "off" and settings.steps < FEW_STEPS:
        listener.warn(
            f"The step cache is on, but there are only {settings.steps} steps: below about {FEW_STEPS} it spoils more "
            "than it saves, so turn it off."
        )
    prepared = prepare_scene(scene, listener)
    check_rate(scene.fps, len(scene.driving[scene.cut]), listener)
    seen_by_clip = prepare_picture(clip_picture, prepared, scene, listener)
    plan, full = (
        plan_segments(len(scene.driving[cut]), settings.segment_length, settings.segment_overlap)
        for cut in (scene.cut, scene.full_cut)
    )
    noise = tuple(LatentSize.of_pixels(segment.frames, *prepared.size).shape for segment in full.segments)
    return PreparedRun(drafted(prepared) if scene.draft else prepared, seen_by_clip, plan, noise)


def tell_plan(run: PreparedRun, fps: float, listener: Listener) -> None:
    """Note how long the clip will be at the driving video's rate, and in how many segments it is made."""
    frames, segments = run.plan.frames, len(run.plan.segments)
    if frames > 1:
        parts = "1 segment" if segments == 1 else f"{segments} segments that share {run.plan.overlap} frames each"
        listener.note(f"{frames} frames, {frames / fps:.2f} s at {fps:g} fps, in {parts}.")
