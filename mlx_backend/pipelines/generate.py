"""The whole way from prompt and pictures to frames, as the command line runs it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..interface.events import Listener
from ..interface.requests import SamplingSettings, Scene
from .decode import Tiling, decode_latents
from .latents import SegmentLatents
from .limits import held_to_limits
from .planning import plan_run
from .prepared import prepare_run, tell_plan
from .recording import Recording, RunReport, report_run
from .sample import sample_prepared
from .store import Models, check_models
from .text import Prompts, encode_prompts


def generate(
    models: Models,
    prompts: Prompts,
    scene: Scene,
    settings: SamplingSettings,
    tiling: Tiling | None,
    listener: Listener,
    kept: Path | None = None,
) -> np.ndarray:
    """Return the frames [F, H, W, 3], float32 in 0..1: the nodes' steps, after everything was checked.

    Finished segments are kept in the folder `kept`, if there is one. Raises RequestError, WeightsError, NumericsError,
    and whatever the listener raises to stop.
    """
    held = held_to_limits(models.dit, scene, settings, listener)
    return _generated(models, prompts, *held, tiling, listener, kept)[0]


def generate_reported(
    models: Models,
    prompts: Prompts,
    scene: Scene,
    settings: SamplingSettings,
    tiling: Tiling | None,
    recording: Recording,
    kept: Path | None = None,
) -> tuple[np.ndarray, RunReport]:
    """Return what `generate` does, and the report, in which is also what `recording` has been told before."""
    scene, settings = held_to_limits(models.dit, scene, settings, recording)
    frames, latents = _generated(models, prompts, scene, settings, tiling, recording, kept)
    return frames, report_run(models.parts, prompts, scene, settings, latents, recording)


def _generated(
    models: Models,
    prompts: Prompts,
    scene: Scene,
    settings: SamplingSettings,
    tiling: Tiling | None,
    listener: Listener,
    kept: Path | None,
) -> tuple[np.ndarray, SegmentLatents]:
    check_models(models)
    run = prepare_run(scene.references[:1], scene, settings, listener)
    tell_plan(run, scene.fps, listener)
    how = plan_run(models.dit, models.vae, models.text_encoder, models.clip, run)
    text = encode_prompts(models.text_encoder, prompts.positive, prompts.negative, listener)
    latents = sample_prepared(models.dit, models.vae, text, models.clip, run, how, settings, listener, kept)
    return decode_latents(models.vae, latents, tiling, listener), latents
