"""A prepared scene to what SCAIL-2 is conditioned on: latents of the VAE, packed masks."""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from ...interface.geometry import LatentSize, latent_frames
from ...interface.segments import Segment
from ...media.resize import halved
from ...models.attention import Context
from ...models.conditioning import Conditioning, Known
from ...models.scail2 import Reference, Scail2Model, Streams
from ..member import Condition, Encoding
from .masks import packed
from .scene import PreparedScene, window


def encode_references(scene: PreparedScene, how: Encoding) -> tuple[Reference, ...]:
    """Encode each reference picture alone, in tiles if asked to, and pack its mask; the primary one first."""
    tell = how.begin("encoding the reference", len(scene.references), None)
    made = []
    for picture, mask in zip(scene.references, scene.reference_masks, strict=True):
        latent = how.vae.encode(_signed(picture[None]), how.check_cancelled, how.tiling)
        made.append(Reference(latent, None if mask is None else mx.array(packed(mask))))
        tell(len(made) / len(scene.references))
    return tuple(made)


@dataclass(frozen=True, slots=True, eq=False)
class EncodedScene:
    """A scene whose references are encoded; its driving video is, segment by segment."""

    scene: PreparedScene
    references: tuple[Reference, ...]
    how: Encoding
    pose_rope: str

    def known(self, segment: Segment) -> None:
        """See EncodedPictures: only what a segment continues from is known."""

    def condition(self, number: int, segment: Segment, known: Known | None) -> Condition:
        """See EncodedPictures."""
        size = LatentSize.of_pixels(segment.frames, *self.scene.size).shape[1:]
        streams = self.streams(number, segment)

        def condition(model: Scail2Model, context: Context) -> Conditioning:
            return model.condition(context, size, streams, known, self.pose_rope)

        return condition

    def streams(self, number: int, segment: Segment) -> Streams:
        """Encode the driving frames of a segment at half size and pack their mask."""
        scene, how = self.scene, self.how
        mask = scene.driving_mask
        tell = how.begin("encoding the driving video", latent_frames(segment.frames), number)
        pictures = _signed(halved(window(scene.driving, segment)))
        return Streams(
            references=self.references,
            driving=how.vae.encode(pictures, how.check_cancelled, how.tiling, tell),
            driving_mask=None if mask is None else mx.array(packed(halved(window(mask, segment)))),
            replacement=scene.is_replacement,
        )


def _signed(pictures: np.ndarray) -> mx.array:
    """0..1 to -1..1."""
    return mx.array(pictures) * 2 - 1
