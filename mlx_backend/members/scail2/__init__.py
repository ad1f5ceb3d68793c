"""SCAIL-2 (zai-org): a character of a picture performs the motion of a video."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...interface.events import Listener
from ...interface.requests import SamplingSettings, Scene
from ...interface.sizes import Scail2Config
from ...interface.variants import SCAIL2
from ..member import Member, PreparedRun
from ..signature import IMAGE_BRANCH, Signature

if TYPE_CHECKING:
    from ...models.scail2 import Scail2Model


@dataclass(frozen=True, kw_only=True, slots=True)
class Scail2(Member):
    """A Wan 2.1 image-to-video transformer with two stems more."""

    def config(self, sizes: Mapping[str, Any]) -> Scail2Config:
        """Return its configuration: the stem of the driving video takes the same latents as the video's."""
        return Scail2Config(**sizes, pose_dim=sizes["in_dim"])

    def network(self, config: Scail2Config, compute_dtype: Any) -> Scail2Model:
        """Return its diffusion transformer without weights."""
        from ...models.scail2 import Scail2Model

        return Scail2Model(config, compute_dtype)

    def prepare(
        self, clip_picture: np.ndarray | None, scene: Scene, settings: SamplingSettings, listener: Listener
    ) -> PreparedRun:
        """See Member; without `clip_picture` CLIP sees the primary reference."""
        from .prepared import prepare_run

        return prepare_run(clip_picture, scene, settings, listener)


MEMBER = Scail2(
    name="scail-2-14b",
    title="SCAIL-2",
    hub_repositories=("SceneWorks/scail2-mlx",),
    components=("vae", "t5_encoder", "clip"),
    defaults=SCAIL2,
    signature=Signature(
        names=("patch_embedding_{pose,mask}.{weight,bias}", *IMAGE_BRANCH), marks=("patch_embedding_mask.",)
    ),
    sizes=(("mask_dim", "patch_embedding_mask.weight", 1),),
)
