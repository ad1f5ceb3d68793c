"""From latents to frames: streaming in time, optionally in tiles, segments joined."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
import numpy as np

from ..interface.events import Listener, ignored
from ..interface.latent_space import TEMPORAL_STRIDE
from ..interface.tiling import Tiling
from ..media.colour import colours_of, match_colours
from ..models.vae import WanVAE
from ..runtime.memory import bounded_cache
from .latents import SegmentLatents
from .planning import decode_tiling
from .reports import ShareReport
from .store import Handle, enter, get_vae


def decode_latents(handle: Handle, latents: SegmentLatents, tiling: Tiling | None, listener: Listener) -> np.ndarray:
    """Decode and join all segments: frames [F, H, W, 3], float32 in 0..1, F as the driving video has.

    Without `tiling` frames are decoded whole where the memory allows it, else in the largest tiles that fit. The first
    `overlap` frames of every segment but the first are the history it continued, and are dropped.
    """
    elsewhere = handle.store.elsewhere
    if elsewhere is not None:
        return elsewhere.call(decode_latents, handle, latents, tiling, listener, listener=listener)
    tiling = tiling or decode_tiling(handle, latents)
    enter("decoding", handle)
    with bounded_cache():
        vae = get_vae(handle, listener)
        plan = latents.plan
        height, width = (latents.space.stride * n for n in latents.segments[0].shape[2:])
        out = np.empty((plan.frames, height, width, 3), np.float32)
        total = sum(segment.shape[1] for segment in latents.segments)
        done = 0
        for number, (segment, latent) in enumerate(zip(plan.segments, latents.segments, strict=True), start=1):
            tell = ShareReport(
                listener=listener,
                phase="decoding",
                total=total,
                units=latent.shape[1],
                before=done,
                segment=number,
                segments=len(plan.segments),
            )
            frames = decode_segment(vae, latent, tiling, listener.check_cancelled, tell)
            room = out[segment.start + segment.history : segment.start + segment.frames]
            room[:] = frames[segment.history : segment.history + len(room)]
            if latents.matches_colours:
                colours = colours_of(room)
                if number == 1:
                    first = colours
                else:
                    match_colours(room, colours, first)
            done += latent.shape[1]
        return out


def decode_segment(
    vae: WanVAE,
    latent: np.ndarray,
    tiling: Tiling | None,
    check_cancelled: Callable[[], None],
    tell: Callable[[float], None],
) -> np.ndarray:
    """Decode one segment's latent [16, T, h, w] to frames [4 (T - 1) + 1, 8h, 8w, 3] in 0..1.

    `tell` is called with the share that is done. Memory beyond the result grows with T only in tiles, and little.
    """
    return _decode(vae, latent, tiling, TEMPORAL_STRIDE * (latent.shape[1] - 1) + 1, check_cancelled, tell)


def last_frames(
    vae: WanVAE,
    latent: np.ndarray,
    count: int,
    check_cancelled: Callable[[], None],
    tiling: Tiling | None = None,
    tell: Callable[[float], None] = ignored,
    see: Callable[[int, np.ndarray], None] | None = None,
) -> np.ndarray:
    """Decode a latent and keep only its last `count` frames; `tell` is called with the share that is done.

    `see(first, pieces)` is shown all frames in pieces [F, rows, columns, 3] in 0..1, of the frames from `first` on.
    """
    return _decode(vae, latent, tiling, count, check_cancelled, tell, see)


def _decode(
    vae: WanVAE,
    latent: np.ndarray,
    tiling: Tiling | None,
    count: int,
    check_cancelled: Callable[[], None],
    tell: Callable[[float], None],
    see: Callable[[int, np.ndarray], None] | None = None,
) -> np.ndarray:
    _, steps, height, width = latent.shape
    out = np.empty((count, vae.config.stride * height, vae.config.stride * width, 3), np.float32)
    dropped = TEMPORAL_STRIDE * (steps - 1) + 1 - count
    for tile in vae.decode_tiles(mx.array(latent), tiling, check_cancelled):
        start, stop = (max(n - dropped, 0) for n in (tile.frame, tile.frame + len(tile.pixels)))
        if see is not None or stop > start:
            pixels = _shown(tile.pixels)
            out[start:stop, tile.rows, tile.columns] = pixels[len(pixels) - (stop - start) :]
            if see is not None:
                see(tile.frame, pixels)
        tell(tile.share)
    return out


def _shown(pixels: mx.array) -> np.ndarray:
    """-1..1, and what lies beyond, to 0..1."""
    return np.array((mx.clip(pixels, -1, 1) + 1) / 2)
