"""SCAIL-2 (zai-org): a character of a picture performs the motion of a video."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...interface.events import Listener
from ...interface.requests import SamplingSettings, Scene
from ..member import Defaults, Member, PreparedRun


@dataclass(frozen=True, kw_only=True, slots=True)
class Scail2(Member):
    """The row, and where a request's pictures and masks are prepared."""

    def prepare(
        self, clip_picture: np.ndarray | None, scene: Scene, settings: SamplingSettings, listener: Listener
    ) -> PreparedRun:
        """See Member; without `clip_picture` CLIP sees the primary reference."""
        from .prepared import prepare_run

        return prepare_run(clip_picture, scene, settings, listener)


# Defaults of upstream's command line (`generate.py` of zai-org/SCAIL-2); fps is that of training.
MEMBER = Scail2(
    name="scail-2-14b",
    title="SCAIL-2",
    hub_repositories=("SceneWorks/scail2-mlx",),
    components=("vae", "t5_encoder", "clip"),
    defaults=Defaults(
        width=896,
        height=512,
        fps=16.0,
        steps=40,
        cfg=5.0,
        shift=3.0,
        solver="unipc",
        segment_length=81,
        segment_overlap=5,
    ),
)
