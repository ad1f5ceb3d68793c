"""The whole way from prompt and pictures to frames, as the command line runs it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..spec.events import Listener
from ..spec.requests import SamplingSettings, Scene
from .decode import Tiling, decode_latents
from .sample import ClipRequest, sample_clip
from .store import Models
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
    """Return the frames [F, H, W, 3], float32 in 0..1. The same steps as the nodes, in the same order."""
    text = encode_prompts(models.text_encoder, prompts.positive, prompts.negative, listener)
    clip = ClipRequest(models.clip, scene.references[:1])
    latents = sample_clip(models.dit, models.vae, text, clip, scene, settings, listener)
    return decode_latents(models.vae, latents, tiling, listener)
