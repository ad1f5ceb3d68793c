"""From a prepared scene to the streams of one segment: encoded pictures and packed masks."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
import numpy as np

from ..interface.geometry import latent_frames
from ..interface.segments import Segment
from ..interface.tiling import Tiling
from ..media.resize import halved
from ..models.scail2 import HISTORY_CHANNELS, Reference, Streams
from ..models.vae21 import WanVAE21, ignored
from .masks import packed
from .scene import PreparedScene


def encode_references(
    vae: WanVAE21,
    scene: PreparedScene,
    check_cancelled: Callable[[], None],
    tiling: Tiling | None = None,
    tell: Callable[[float], None] = ignored,
) -> tuple[Reference, ...]:
    """Encode each reference picture alone, in tiles if asked to, and pack its mask; the primary one first.

    `tell` is called with the share that is done.
    """
    made = []
    for picture, mask in zip(scene.references, scene.reference_masks, strict=True):
        latent = vae.encode(_signed(picture[None]), check_cancelled, tiling)
        made.append(Reference(latent, None if mask is None else mx.array(packed(mask))))
        tell(len(made) / len(scene.references))
    return tuple(made)


def segment_streams(
    vae: WanVAE21,
    scene: PreparedScene,
    references: tuple[Reference, ...],
    segment: Segment,
    check_cancelled: Callable[[], None],
    tiling: Tiling | None = None,
    tell: Callable[[float], None] = ignored,
) -> Streams:
    """Encode the driving frames of a segment at half size and pack their mask; `tell` gets the share that is done."""
    mask = scene.driving_mask
    driving = vae.encode(_signed(halved(window(scene.driving, segment))), check_cancelled, tiling, tell)
    return Streams(
        references=references,
        driving=driving,
        driving_mask=None if mask is None else mx.array(packed(halved(window(mask, segment)))),
        history_mask=history_mask(driving, segment) if segment.history else None,
        replacement=scene.is_replacement,
    )


def history_mask(driving: mx.array, segment: Segment) -> mx.array:
    """Return [4, T, H, W]: 1 on the latent frames that the segment before has made."""
    _, frames, height, width = driving.shape
    known = np.arange(frames) < latent_frames(segment.history)
    shape = (HISTORY_CHANNELS, frames, 2 * height, 2 * width)
    return mx.array(np.broadcast_to(known[None, :, None, None], shape).astype(np.float32))


def window(frames: np.ndarray, segment: Segment) -> np.ndarray:
    """Return the segment's frames, the last one repeated where the video has ended."""
    return frames[np.minimum(np.arange(segment.start, segment.start + segment.frames), len(frames) - 1)]


def _signed(pictures: np.ndarray) -> mx.array:
    """0..1 to -1..1."""
    return mx.array(pictures) * 2 - 1
