"""Pictures that a clip begins and ends with, fitted to its size, and what a model is conditioned on by them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import mlx.core as mx
import numpy as np
from PIL import Image

from ...interface.geometry import LatentSize, latent_frames
from ...interface.latent_space import TEMPORAL_STRIDE, LatentSpace
from ...interface.requests import SamplingSettings
from ...interface.segments import Segment
from ...media.resize import stretched_bicubic
from ...models.attention import Context
from ...models.conditioning import Conditioning, Known
from ...models.wan import WanModel
from ..member import Condition, Encoding


def stretched(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    """Return a picture [H, W, 3] in 0..1 stretched to a size; overshoot is kept.

    Source: `wan/image2video.py` of Wan-Video/Wan2.1.
    """
    return stretched_bicubic(picture, width, height)


def covering(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    """Return a picture [H, W, 3] in 0..1 scaled, in 8 bits, to cover a size, and cut around its centre.

    Source: `wan/textimage2video.py` of Wan-Video/Wan2.2.
    """
    photo = Image.fromarray((np.clip(picture, 0, 1) * 255).round().astype(np.uint8))
    scale = max(width / photo.width, height / photo.height)
    photo = photo.resize((round(photo.width * scale), round(photo.height * scale)), Image.Resampling.LANCZOS)
    left, top = (photo.width - width) // 2, (photo.height - height) // 2
    cut = photo.crop((left, top, left + width, top + height))
    return np.asarray(cut, np.float32) / np.float32(255)


@dataclass(frozen=True, slots=True, eq=False)
class FittedPictures:
    """The first picture of a clip and, where there are two, its last, at the clip's size: [1 or 2, H, W, 3] in 0..1."""

    references: np.ndarray
    space: LatentSpace
    described: str = ""

    @property
    def size(self) -> tuple[int, int]:
        """See PreparedPictures."""
        return self.references.shape[2], self.references.shape[1]

    def arrays(self) -> Iterable[np.ndarray]:
        """See PreparedPictures."""
        return (self.references,)

    def arrays_of(self, segment: Segment) -> tuple[()]:  # noqa: ARG002 - PreparedPictures
        """See PreparedPictures."""
        return ()

    def _size(self, segment: Segment) -> LatentSize:
        return LatentSize.of_pixels(segment.frames, *self.size, self.space)


@dataclass(frozen=True, slots=True, eq=False)
class PicturesInChannels(FittedPictures):
    """Pictures for models of 36 channels: those of the noise, 4 that tell which frames are known, 16 of what they are.

    Source: `wan/image2video.py` of Wan-Video/Wan2.1 and Wan2.2; with a last picture `pipeline_wan_i2v.py` of
    huggingface/diffusers, as upstream's own (`wan/first_last_frame2video.py`) is for 81 frames alone.
    """

    def encode(self, how: Encoding, settings: SamplingSettings) -> EncodedInChannels:  # noqa: ARG002 - PreparedPictures
        """See PreparedPictures; a segment's clip is encoded when its frames are known."""
        return EncodedInChannels(self, how)


@dataclass(frozen=True, slots=True, eq=False)
class EncodedInChannels:
    """Pictures that join the noise as channels."""

    pictures: PicturesInChannels
    how: Encoding

    def known(self, segment: Segment) -> None:
        """See EncodedPictures."""

    def condition(self, number: int, segment: Segment, known: Known | None) -> Condition:  # noqa: ARG002
        """See EncodedPictures."""
        channels = self.channels(number, segment)
        size = self.pictures._size(segment).shape[1:]

        def condition(model: WanModel, context: Context) -> Conditioning:
            return replace(model.condition(context, size), channels=channels)

        return condition

    def channels(self, number: int, segment: Segment) -> mx.array:
        """Return [20, T, h, w]: the mask of known frames, four of them to a latent frame, and their latents."""
        pictures, frames, how = self.pictures.references, segment.frames, self.how
        clip = np.zeros((frames, *pictures.shape[1:]), np.float32)
        mask = np.zeros(TEMPORAL_STRIDE * latent_frames(frames), np.float32)
        clip[0], mask[:TEMPORAL_STRIDE] = 2 * pictures[0] - 1, 1  # the first frame fills a latent frame alone
        if len(pictures) > 1:
            clip[-1], mask[-1] = 2 * pictures[1] - 1, 1
        tell = how.begin("encoding the picture", latent_frames(frames), number)
        latent = how.vae.encode(mx.array(clip), how.check_cancelled, how.tiling, tell)
        steps = mx.array(mask.reshape(-1, TEMPORAL_STRIDE).T)[..., None, None]
        known = mx.broadcast_to(steps, (TEMPORAL_STRIDE, *latent.shape[1:]))
        channels = mx.concatenate([known, latent])
        mx.eval(channels)
        return channels


@dataclass(frozen=True, slots=True, eq=False)
class PictureInLatent(FittedPictures):
    """The first picture for models that see it as a latent frame without noise, at time 0.

    Source: `wan/textimage2video.py` of Wan-Video/Wan2.2.
    """

    def encode(self, how: Encoding, settings: SamplingSettings) -> EncodedInLatent:  # noqa: ARG002 - PreparedPictures
        """See PreparedPictures."""
        tell = how.begin("encoding the picture", 1, None)
        clip = mx.array(2 * self.references[:1] - 1)
        return EncodedInLatent(self, how.vae.encode(clip, how.check_cancelled, how.tiling, tell))


@dataclass(frozen=True, slots=True, eq=False)
class EncodedInLatent:
    """A picture's latent frame [C, 1, h, w]."""

    pictures: PictureInLatent
    latent: mx.array

    def known(self, segment: Segment) -> Known:
        """See EncodedPictures."""
        frames = self.pictures._size(segment).frames
        clean = mx.pad(self.latent, ((0, 0), (0, frames - 1), (0, 0), (0, 0)))
        mask = mx.arange(frames)[None, :, None, None] < 1
        mx.eval(clean, mask)
        return Known(mask, clean)

    def condition(self, number: int, segment: Segment, known: Known | None) -> Condition:  # noqa: ARG002
        """See EncodedPictures."""
        size = self.pictures._size(segment)

        def condition(model: WanModel, context: Context) -> Conditioning:
            made = model.condition(context, size.shape[1:])
            return replace(made, clean=size.tokens // size.frames)

        return condition
