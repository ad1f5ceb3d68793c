"""The whole way from prompt and pictures to frames, as the command line runs it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..spec.events import Listener
from ..spec.requests import SamplingSettings, Scene
from .decode import Tiling, decode_latents
from .planning import plan_run
from .prepared import prepare_run
from .sample import sample_prepared
from .store import Models, check_models
from .text import encode_prompts


@dataclass(frozen=True, slots=True)
class Prompts:
    """What the clip should show, and what it should not (empty, as upstream)."""

    positive: str
    negative: str = ""


def generate(
    models: Models,
    prompts: Prompts,
    scene: Scene,
    settings: SamplingSettings,
    tiling: Tiling | None,
    listener: Listener,
) -> np.ndarray:
    """Return the frames [F, H, W, 3], float32 in 0..1: the nodes' steps, after everything was checked.

    Raises RequestError, WeightsError, NumericsError, and whatever the listener raises to stop.
    """
    check_models(models)
    run = prepare_run(scene.references[:1], scene, settings, listener)
    how = plan_run(models.dit, models.vae, models.text_encoder, models.clip, run)
    text = encode_prompts(models.text_encoder, prompts.positive, prompts.negative, listener)
    latents = sample_prepared(models.dit, models.vae, text, models.clip, run, how, settings, listener)
    return decode_latents(models.vae, latents, tiling, listener)
