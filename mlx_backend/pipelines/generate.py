"""The whole way from prompt and pictures to frames, as the command line runs it."""

from __future__ import annotations

import numpy as np

from ..interface.tiling import Tiling
from .decode import decode_latents
from .pictures import sample_pictures
from .run import Run, Session


def generate(run: Run, tiling: Tiling | None, session: Session) -> np.ndarray:
    """Return the frames [F, H, W, 3], float32 in 0..1, of a run on pictures: the nodes' steps, one after another.

    Raises RequestError, WeightsError, NumericsError, and whatever the listener raises to stop.
    """
    latents = sample_pictures(run, session, decodes=True)
    return decode_latents(run.models.vae, latents, tiling, session.listener)
