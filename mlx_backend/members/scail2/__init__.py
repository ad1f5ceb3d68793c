"""SCAIL-2 (zai-org): a character of a picture performs the motion of a video."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ...interface.events import Listener
from ...interface.geometry import SIZE_STEP, LatentSize
from ...interface.published import PUBLISHED
from ...interface.requests import SamplingSettings, Scene
from ...interface.sizes import SCAIL2_DIT, Scail2Config, WanConfig
from ...interface.tokens import Surroundings
from ..member import Member, PreparedRun
from ..signature import IMAGE_BRANCH, Signature
from .defaults import SCAIL2

if TYPE_CHECKING:
    from ...models.scail2 import Scail2Model


@dataclass(frozen=True, kw_only=True, slots=True)
class Scail2(Member):
    """A Wan 2.1 image-to-video transformer with two stems more."""

    config_type: ClassVar[type[WanConfig]] = Scail2Config

    @property
    def size_step(self) -> int:
        """See Member: the driving video is seen at half the size."""
        return SIZE_STEP

    def config(self, sizes: Mapping[str, Any]) -> Scail2Config:
        """Return its configuration: the stem of the driving video takes the same latents as the video's."""
        return Scail2Config(**sizes, pose_dim=sizes["in_dim"])

    @staticmethod
    def network(config: Scail2Config, compute_dtype: Any) -> Scail2Model:
        """Return its diffusion transformer without weights."""
        from ...models.scail2 import Scail2Model

        return Scail2Model(config, compute_dtype)

    def surroundings(self, size: LatentSize, references: int) -> Surroundings:
        """Every reference is a frame; the driving video has half the size. Each comes with a mask."""
        frames, width, height = size.pixels
        before, after = size.tokens // size.frames * references, size.tokens // 4
        pixels = size.height * size.width
        return Surroundings(
            before=before,
            after=after,
            stems={
                "patch_embedding": (before,),
                "patch_embedding_pose": (after,),
                "patch_embedding_mask": (before, after),
            },
            numbers=(references * pixels + size.frames * pixels // 4) * (self.space.channels + SCAIL2_DIT.mask_dim),
            shared=(("the reference", 1, width, height),) * references,
            encoded=(("the driving video", frames, width // 2, height // 2),),
            pictures=("driving video and its mask", 2),
        )

    def prepare(
        self, clip_picture: np.ndarray | None, scene: Scene, settings: SamplingSettings, listener: Listener
    ) -> PreparedRun:
        """See Member; without `clip_picture` CLIP sees the primary reference."""
        from .prepared import prepare_run

        return prepare_run(clip_picture, scene, settings, listener)


MEMBER = Scail2(
    name="scail-2-14b",
    title="SCAIL-2",
    hub_repositories=tuple(PUBLISHED),
    components=("vae", "t5_encoder", "clip"),
    defaults=SCAIL2,
    continues=True,
    signature=Signature(
        names=("patch_embedding_{pose,mask}.{weight,bias}", *IMAGE_BRANCH), marks=("patch_embedding_mask.",)
    ),
    sizes=(("mask_dim", "patch_embedding_mask.weight", 1),),
)
