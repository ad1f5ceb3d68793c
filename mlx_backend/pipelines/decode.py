"""From latents to frames: streaming in time, optionally in tiles, segments joined."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from ..models.vae21 import WanVAE21
from ..runtime.memory import bounded_cache
from ..spec.errors import RequestError
from ..spec.events import Listener, Progress
from ..spec.geometry import SPATIAL_STRIDE
from .latents import SegmentLatents
from .store import Handle, enter, get_vae

MIN_TILE = 128  # pixels


@dataclass(frozen=True, slots=True)
class Tiling:
    """Square tiles of `size` pixels that share `overlap` pixels with their neighbours; both multiples of 8."""

    size: int
    overlap: int

    def __post_init__(self) -> None:
        """Raise RequestError for tiles that cannot be cut or blended."""
        if self.size < MIN_TILE or self.size % SPATIAL_STRIDE or self.overlap % SPATIAL_STRIDE:
            raise RequestError(
                f"Tiles of {self.size} pixels with {self.overlap} pixels of overlap cannot be cut: the size must be at "
                f"least {MIN_TILE}, and both must be multiples of {SPATIAL_STRIDE}."
            )
        if not 0 < self.overlap <= self.size // 2:
            raise RequestError(
                f"A tile overlap of {self.overlap} pixels does not fit tiles of {self.size}: "
                f"use {SPATIAL_STRIDE} to {self.size // 2}."
            )


def decode_latents(handle: Handle, latents: SegmentLatents, tiling: Tiling | None, listener: Listener) -> np.ndarray:
    """Decode and join all segments: frames [F, H, W, 3], float32 in 0..1, F as the driving video has.

    The first `overlap` frames of every segment but the first are the history it continued, and are dropped.
    """
    enter("decoding", handle)
    with bounded_cache():
        vae = get_vae(handle, listener)
        plan = latents.plan
        height, width = (SPATIAL_STRIDE * n for n in latents.segments[0].shape[2:])
        out = np.empty((plan.frames, height, width, 3), np.float32)
        total = sum(segment.shape[1] for segment in latents.segments)
        done = 0
        for number, (segment, latent) in enumerate(zip(plan.segments, latents.segments, strict=True), start=1):

            def tell(share: float, before: int = done, size: int = latent.shape[1], number: int = number) -> None:
                listener.progress(
                    Progress(
                        phase="decoding",
                        done=before + round(share * size),
                        total=total,
                        segment=number,
                        segments=len(plan.segments),
                    )
                )

            frames = decode_segment(vae, latent, tiling, listener.check_cancelled, tell)
            room = out[segment.start + segment.history : segment.start + segment.frames]
            room[:] = frames[segment.history : segment.history + len(room)]
            done += latent.shape[1]
        return out


def decode_segment(
    vae: WanVAE21,
    latent: np.ndarray,
    tiling: Tiling | None,
    check_cancelled: Callable[[], None],
    tell: Callable[[float], None],
) -> np.ndarray:
    """Decode one segment's latent [16, T, h, w] to frames [4 (T - 1) + 1, 8h, 8w, 3] in 0..1.

    `tell` is called with the share that is done. Memory beyond the result does not grow with T.
    """
    channels, steps, height, width = latent.shape
    out = np.zeros((4 * (steps - 1) + 1, SPATIAL_STRIDE * height, SPATIAL_STRIDE * width, 3), np.float32)
    rows, columns = _spans(height, tiling), _spans(width, tiling)
    count = len(rows) * len(columns) * steps
    done = 0
    for y, y_weight in rows:
        for x, x_weight in columns:
            weight = y_weight[:, None, None] * x_weight[:, None]
            frame = 0
            for piece in decoded_pieces(vae, latent[:, :, y, x], check_cancelled):
                area = out[frame : frame + len(piece), _pixels(y), _pixels(x)]
                area += piece * weight
                frame += len(piece)
                done += 1
                tell(done / count)
    return out


def decoded_pieces(vae: WanVAE21, latent: np.ndarray, check_cancelled: Callable[[], None]) -> Iterator[np.ndarray]:
    """Decode a latent [16, T, h, w] piece by piece: frames [1 or 4, H, W, 3] in 0..1."""
    for piece in vae.decode(mx.array(latent), check_cancelled):
        yield np.array((mx.clip(piece, -1, 1) + 1) / 2)


def last_frames(vae: WanVAE21, latent: np.ndarray, count: int, check_cancelled: Callable[[], None]) -> np.ndarray:
    """Decode a latent and keep only its last `count` frames."""
    kept = np.empty((0, 0, 0, 3), np.float32)
    for piece in decoded_pieces(vae, latent, check_cancelled):
        kept = np.concatenate([kept, piece])[-count:] if kept.size else piece[-count:]
    return kept


def _pixels(span: slice) -> slice:
    return slice(SPATIAL_STRIDE * span.start, SPATIAL_STRIDE * span.stop)


def _spans(length: int, tiling: Tiling | None) -> list[tuple[slice, np.ndarray]]:
    """Cut `length` latent rows into overlapping spans, each with weights [pixels] that blend it with its neighbours.

    The weights of all spans add up to one everywhere.
    """
    size = length if tiling is None else tiling.size // SPATIAL_STRIDE
    if size >= length or tiling is None:
        return [(slice(0, length), np.ones(SPATIAL_STRIDE * length, np.float32))]
    overlap = tiling.overlap // SPATIAL_STRIDE
    count = -(-(length - overlap) // (size - overlap))
    starts = [round(i * (length - size) / (count - 1)) for i in range(count)]
    spans = [slice(start, start + size) for start in starts]
    weights = np.zeros((count, SPATIAL_STRIDE * length), np.float32)
    for i, span in enumerate(spans):
        weights[i, _pixels(span)] = 1
    for i, (left, right) in enumerate(zip(spans[:-1], spans[1:], strict=True)):
        shared = _pixels(slice(right.start, left.stop))
        ramp = (np.arange(shared.stop - shared.start, dtype=np.float32) + 0.5) / (shared.stop - shared.start)
        weights[i, shared] *= 1 - ramp
        weights[i + 1, shared] *= ramp
    return [(span, weights[i, _pixels(span)]) for i, span in enumerate(spans)]
