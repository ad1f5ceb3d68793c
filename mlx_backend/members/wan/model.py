"""Wan 2.1 and 2.2: a clip from words and, by model, from the picture that it begins or ends with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...interface.draft import DRAFT_FRAMES, draft_size
from ...interface.errors import RequestError
from ...interface.events import Listener
from ...interface.geometry import LatentSize, check_size
from ...interface.latent_space import TEMPORAL_STRIDE
from ...interface.requests import SamplingSettings, Scene
from ...interface.tokens import Surroundings
from ..member import Member, NoPictures, PreparedPictures, PreparedRun, tell_few_steps
from ..scail2.checks import checked_pixels
from .sizes import covered_size, stretched_size

SURPLUS = {
    "references": "a reference picture (--reference)",
    "driving": "a driving video (--driving)",
    "reference_masks": "a reference mask",
    "driving_mask": "a driving mask",
}
SPARE, USABLE, NEEDED = "spare", "usable", "needed"  # what a model does with a picture


@dataclass(frozen=True, kw_only=True, slots=True)
class Wan(Member):
    """A row of the family. `first` and `last`: whether it takes a picture that the clip begins, or ends, with.

    `in_latent`: it sees the first picture as a latent frame without noise, not beside the noise as channels.
    """

    family: str = "Wan"
    hub_repositories: tuple[str, ...] = ()
    components: tuple[str, ...] = ("vae", "t5_encoder")
    first: str = SPARE
    last: str = SPARE
    in_latent: bool = False

    def surroundings(self, size: LatentSize, references: int) -> Surroundings:
        """The pictures stand beside the noise: nothing has tokens of its own."""
        if self.first == SPARE or not references:
            return Surroundings()
        frames, width, height = size.pixels
        clip = 1 if self.in_latent else frames
        channels = self.space.channels + (1 if self.in_latent else TEMPORAL_STRIDE)
        return Surroundings(
            numbers=channels * size.frames * size.height * size.width,
            encoded=(("the picture", clip, width, height),),
        )

    def prepare(
        self, clip_picture: np.ndarray | None, scene: Scene, settings: SamplingSettings, listener: Listener
    ) -> PreparedRun:
        """See Member; CLIP sees the pictures as they are, or `clip_picture`."""
        self._check_kinds(scene, settings)
        tell_few_steps(settings, listener)
        photos = [
            checked_pixels(name, picture[:1], listener)[0]
            for name, picture in (("first picture", scene.image), ("last picture", scene.last_image))
            if picture is not None
        ]
        size = self._size(photos, scene, listener)
        plan = self.one_segment(self.frames_of(scene), settings)
        if len(photos) > 1 and plan.frames < 2:
            raise RequestError("A first and a last picture need a clip of at least 2 frames: ask for more frames.")
        noise = self.noise_of(plan, size)
        if scene.draft:
            size, plan = draft_size(*size), self.one_segment(min(plan.frames, DRAFT_FRAMES), settings)
        shown = photos if clip_picture is None else [clip_picture[0]]
        return PreparedRun(self._fitted(photos, size), tuple(shown) if "clip" in self.components else (), plan, noise)

    def _check_kinds(self, scene: Scene, settings: SamplingSettings) -> None:
        """Raise RequestError for pictures that the model does not take, and for the lack of one that it needs."""
        surplus = [words for name, words in SURPLUS.items() if getattr(scene, name) is not None]
        if surplus:
            raise RequestError(
                f"{self.title} has no use for {' and '.join(surplus)}: leave it out, or choose a SCAIL-2 model."
            )
        for use, picture, words in ((self.first, scene.image, "first"), (self.last, scene.last_image, "last")):
            option = "--image" if words == "first" else "--last-image"
            if use == SPARE and picture is not None:
                raise RequestError(
                    f"{self.title} takes no {words} picture: leave out {option}, or choose a model that takes one."
                )
            if use == NEEDED and picture is None:
                raise RequestError(f"{self.title} needs the {words} picture of the clip: give it with {option}.")
        if scene.last_image is not None and scene.image is None:
            raise RequestError(
                f"There is a last picture but no first one, and {self.title} needs both or the first: add --image."
            )
        if settings.cfg_low is not None and settings.cfg_low != settings.cfg and not self.boundary:
            raise RequestError(
                f"A guidance of {settings.cfg_low:g} for the low-noise expert was asked for, but {self.title} is one "
                "model: leave out --cfg-low."
            )

    def _size(self, photos: list[np.ndarray], scene: Scene, listener: Listener) -> tuple[int, int]:
        """Return width and height of the clip: as asked for, or in the first picture's shape at that area."""
        asked = scene.width, scene.height
        step = self.size_step
        check_size(*asked, step, self.title)
        if not photos or scene.exact_size or asked[0] * photos[0].shape[0] == asked[1] * photos[0].shape[1]:
            return asked
        shape, area = (photos[0].shape[1], photos[0].shape[0]), asked[0] * asked[1]
        stride = self.space.stride
        made = (
            covered_size(*shape, area, step) if self.in_latent else stretched_size(*shape, area, stride, step // stride)
        )
        if min(made) < step:
            raise RequestError(
                f"The picture has {shape[0]} x {shape[1]} pixels, and in its shape a clip of {asked[0]} x {asked[1]} "
                f"has a side of less than {step}: ask for a larger size, or for exactly this one (--exact-size)."
            )
        if made != asked:
            listener.note(
                f"The clip has {made[0]} x {made[1]} pixels: the picture's shape ({shape[0]} x {shape[1]}) at the area "
                f"of {asked[0]} x {asked[1]}, as upstream. --exact-size makes exactly what was asked for."
            )
        return made

    def _fitted(self, photos: list[np.ndarray], size: tuple[int, int]) -> PreparedPictures:
        if not photos:
            return NoPictures(size, self.space)
        from . import pictures  # which needs MLX

        fit = pictures.covering if self.in_latent else pictures.stretched
        kind = pictures.PictureInLatent if self.in_latent else pictures.PicturesInChannels
        return kind(np.stack([fit(photo, *size) for photo in photos]), self.space)
