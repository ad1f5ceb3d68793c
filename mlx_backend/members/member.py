"""What the rest of the backend asks of a model of the family, and what it does where a model is plain."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

from ..interface.errors import RequestError
from ..interface.events import Listener
from ..interface.geometry import LatentSize, check_size
from ..interface.latent_space import WAN21, LatentSpace
from ..interface.requests import FEW_STEPS, SamplingSettings, Scene
from ..interface.segments import Segment, SegmentPlan, plan_segments
from ..interface.sizes import PATCH, SCAIL2_CLIP, WanConfig
from ..interface.tiling import Tiling
from ..interface.tokens import Surroundings, Tokens
from ..interface.variants import Defaults
from .signature import Signature

if TYPE_CHECKING:  # rows of the table need no MLX
    from ..models.attention import Context
    from ..models.conditioning import Conditioning, Known
    from ..models.wan import WanModel

Condition = Callable[[Any, "Context"], "Conditioning"]  # of a model (WanModel) and of an embedded context


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Encoding:
    """How pictures are encoded: the VAE, its tiles (None: whole), where to stop, and whom to tell.

    `begin(phase, units, number)` tells that a phase of so many units begins, in segment `number` from 0 if in any, and
    returns what takes the share of it that is done.
    """

    vae: Any
    tiling: Tiling | None
    check_cancelled: Callable[[], None]
    begin: Callable[[str, int, int | None], Callable[[float], None]]


class EncodedPictures(Protocol):
    """The pictures of a run, those that all segments share encoded."""

    def known(self, segment: Segment) -> Known | None:
        """Return the frames of a segment that continues no other which its pictures tell."""

    def condition(self, number: int, segment: Segment, known: Known | None) -> Condition:
        """Encode what segment `number` sees; return what embeds it. `known`: its frames that are clean already."""


class PreparedPictures(Protocol):
    """The pictures of a request at one size, checked; nothing is encoded. `references` are pictures [N, H, W, 3]."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""

    @property
    def references(self) -> np.ndarray | tuple[()]:
        """The reference pictures."""

    @property
    def described(self) -> str:
        """What is no picture, as part of a kept segment's name."""

    def arrays(self) -> Iterable[np.ndarray | None]:
        """Return what all segments are made from."""

    def arrays_of(self, segment: Segment) -> Iterable[np.ndarray]:
        """Return what only this segment is made from."""

    def encode(self, how: Encoding, settings: SamplingSettings) -> EncodedPictures:
        """Encode what all segments share."""


@dataclass(frozen=True, slots=True, eq=False)
class PreparedRun:
    """What is left of a request to compute once it has been checked: its pictures, and how it is cut into segments.

    `seen_by_clip` are pictures [H, W, 3], none where the member shows none. `noise` holds one shape [C, T, H, W] per
    segment: its latent's, or in a draft that of the full run's latent.
    """

    scene: PreparedPictures
    seen_by_clip: tuple[np.ndarray, ...]
    plan: SegmentPlan
    noise: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class NoPictures:
    """What a model of text alone sees: a size in pixels (width, height)."""

    size: tuple[int, int]
    space: LatentSpace
    references: tuple[()] = ()
    described: str = ""

    def arrays(self) -> tuple[()]:
        """See PreparedPictures."""
        return ()

    def arrays_of(self, segment: Segment) -> tuple[()]:  # noqa: ARG002 - PreparedPictures
        """See PreparedPictures."""
        return ()

    def encode(self, how: Encoding, settings: SamplingSettings) -> NoPictures:  # noqa: ARG002 - PreparedPictures
        """See PreparedPictures."""
        return self

    def known(self, segment: Segment) -> None:
        """See EncodedPictures."""

    def condition(self, number: int, segment: Segment, known: Known | None) -> Condition:  # noqa: ARG002
        """See EncodedPictures."""
        size = LatentSize.of_pixels(segment.frames, *self.size, self.space)
        return lambda model, context: model.condition(context, size.shape[1:])


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """A row of the table. `title` is what sentences call it; `components` what a run needs beside the "dit".

    As it stands it makes videos of text alone; others say how a request becomes theirs in a class of their own.
    `sizes` are those that only its configuration has, each with a tensor and the axis that tells it. `space`: that of
    its VAE's latents. `family`: what lists of all members call it and its relatives.

    `boundary`: from this share of the noise on the first of two experts works, below it the second; 0: there is one.
    `twin`: the member whose files look the same, so that only names of files and folders, or the user, tell this one.
    `continues`: whether a segment can go on from the one before.
    """

    name: str
    title: str
    hub_repositories: tuple[str, ...]
    components: tuple[str, ...]
    defaults: Defaults
    signature: Signature
    sizes: tuple[tuple[str, str, int], ...] = ()
    space: LatentSpace = WAN21
    family: str = ""
    boundary: float = 0.0
    twin: str = ""
    continues: bool = False
    config_type: ClassVar[type[WanConfig]] = WanConfig

    @property
    def size_step(self) -> int:
        """What width and height (pixels) must be multiples of."""
        return self.space.stride * PATCH

    def config(self, sizes: Mapping[str, Any]) -> WanConfig:
        """Return its configuration from the sizes of every Wan model and its own `sizes`."""
        return WanConfig(**sizes)

    @staticmethod
    def network(config: WanConfig, compute_dtype: Any) -> WanModel:
        """Return its diffusion transformer without weights, for products in an MLX dtype (None: the weights')."""
        from ..models.wan import WanModel

        return WanModel(config, compute_dtype)

    def surroundings(self, size: LatentSize, references: int) -> Surroundings:  # noqa: ARG002 - for those that have any
        """Return what a segment of this size has beside its video, with so many reference pictures."""
        return Surroundings()

    def tokens(self, size: LatentSize, references: int) -> Tokens:
        """Return the tokens of a pass over a segment of this size, with a CLIP tower as published."""
        around = self.surroundings(size, references)
        image = SCAIL2_CLIP.tokens if "clip" in self.components else 0
        return Tokens(video=size.tokens, before=around.before, after=around.after, image=image)

    def tokens_of(self, run: PreparedRun) -> list[Tokens]:
        """Return the tokens of a pass over each segment of a run."""
        sizes = (LatentSize.of_pixels(segment.frames, *run.scene.size, self.space) for segment in run.plan.segments)
        return [self.tokens(size, len(run.scene.references)) for size in sizes]

    def prepare(
        self,
        clip_picture: np.ndarray | None,  # noqa: ARG002 - for members that show CLIP one
        scene: Scene,
        settings: SamplingSettings,
        listener: Listener,  # noqa: ARG002 - for members that have pictures to warn of
    ) -> PreparedRun:
        """Check a request and cut it into segments, with no network loaded. Raises RequestError."""
        given = {"--reference": scene.references, "--driving": scene.driving}
        given |= {"--image": scene.image, "--last-image": scene.last_image}
        surplus = [name for name, pictures in given.items() if pictures is not None]
        if surplus:
            raise RequestError(f"{self.title} makes videos of text alone: leave out {' and '.join(surplus)}.")
        check_size(scene.width, scene.height, self.size_step, self.title)
        plan = self.one_segment(self.frames_of(scene), settings)
        size = scene.width, scene.height
        return PreparedRun(NoPictures(size, self.space), (), plan, self.noise_of(plan, size))

    def frames_of(self, scene: Scene) -> int:
        """Return how many frames a clip without a driving video has: as asked for, or the member's own number."""
        return scene.max_frames or self.defaults.frames or self.defaults.segment_length

    def one_segment(self, frames: int, settings: SamplingSettings) -> SegmentPlan:
        """Return a clip as the one segment that a member makes which cannot go on from another. Raises RequestError."""
        plan = plan_segments(frames, settings.segment_length, settings.segment_overlap)
        if len(plan.segments) > 1:
            raise RequestError(
                f"{frames} frames need more than one segment of {settings.segment_length}, and {self.title} has no "
                "way to go on from another: ask for fewer frames, or longer segments."
            )
        return plan

    def noise_of(self, plan: SegmentPlan, size: tuple[int, int]) -> tuple[tuple[int, ...], ...]:
        """Return the shape [C, T, H, W] of each segment's noise at a size (width, height) in pixels."""
        return tuple(LatentSize.of_pixels(segment.frames, *size, self.space).shape for segment in plan.segments)


def tell_few_steps(settings: SamplingSettings, listener: Listener) -> None:
    """Warn where a step cache is on and there are too few steps for it."""
    if settings.economy.step_cache != "off" and settings.steps < FEW_STEPS:
        listener.warn(
            f"The step cache is on, but there are only {settings.steps} steps: below about {FEW_STEPS} it spoils more "
            "than it saves, so turn it off."
        )
