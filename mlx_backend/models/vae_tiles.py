"""Tiles of a frame for the VAE's layers above an eighth of the size, equal to whole frames up to rounding.

Those layers are convolutions and pointwise functions: an output pixel depends on a known neighbourhood. A tile starts
with that neighbourhood and pads nothing where the picture goes on (`Cut`), so each layer eats its reach until the tile
itself is left, and the largest layers do the least in vain. The layers at an eighth of the size, whose attention looks
at the whole frame, are cheap and stay whole.

A tile is worked on through all frames before the next one starts: only one tile's causal caches are alive. Between the
two halves one array [H/8, W/8, C] stays per latent frame (832x480: 9.6 MB).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import mlx.core as mx

from ..interface.tiling import Tiling
from .vae_layers import Cut, Step, Stream, flow

Needs = Callable[[int, int], tuple[int, int]]  # output rows start:stop -> the input rows that they depend on


@dataclass(frozen=True, slots=True)
class Span:
    """One axis of a tile: its rows `inside` the result, made from input rows `seen`, the first `surplus` too many."""

    inside: slice
    seen: slice
    cut: tuple[bool, bool]
    surplus: int

    @property
    def kept(self) -> slice:
        """The rows to keep of those that the tile's layers make."""
        return slice(self.surplus, self.surplus + self.inside.stop - self.inside.start)


@dataclass(frozen=True, slots=True)
class Tile:
    """A part of the frame."""

    rows: Span
    columns: Span

    def stream(self, check_cancelled: Callable[[], None]) -> Stream:
        """Return a fresh memory for this tile's pass."""
        return Stream(check_cancelled, Cut(*self.rows.cut, *self.columns.cut))


@dataclass(frozen=True, slots=True)
class DecodedTile:
    """Pixels [1 or 4, rows, columns, 3] of the frames from `frame` on; `share` of all the work is done."""

    frame: int
    rows: slice
    columns: slice
    pixels: mx.array
    share: float


def encoder_tiles(needs: Needs, size: tuple[int, int], stride: int, tiling: Tiling | None) -> list[Tile]:
    """Cut a frame of `size` = (rows, columns) in pixels; the result has one for every `stride` of them."""
    return _tiles(needs, tuple(n // stride for n in size), size, 1, _latent(tiling, stride))


def decoder_tiles(needs: Needs, size: tuple[int, int], stride: int, tiling: Tiling | None) -> list[Tile]:
    """Cut a frame of `size` = (rows, columns) of the latent; the result is in pixels, `stride` for each."""
    return _tiles(needs, size, size, stride, _latent(tiling, stride))


def encoded_tiles(
    steps: Sequence[Step],
    pixels: mx.array,
    tiles: list[Tile],
    check_cancelled: Callable[[], None],
    tell: Callable[[float], None],
) -> Iterator[mx.array]:
    """Send pixels [T, H, W, 3] through the encoder's fine steps: whole frames [H/8, W/8, C], one per latent frame.

    `tell` is called with the share of the pixels that went through, frame by frame of every tile.
    """
    sent, total = 0, len(tiles) * len(pixels)
    if len(tiles) == 1:
        stream = Stream(check_cancelled)
        for frame in pixels:
            yield from flow(steps, frame.astype(mx.float32), stream)
            sent += 1
            tell(sent / total)
        return
    whole: list[mx.array] = []
    for tile in tiles:
        stream, done = tile.stream(check_cancelled), 0
        for frame in pixels:
            seen = frame[tile.rows.seen, tile.columns.seen].astype(mx.float32)
            for made in flow(steps, seen, stream):
                if done == len(whole):
                    whole.append(mx.zeros((*_extent(tiles), made.shape[-1])))
                whole[done][tile.rows.inside, tile.columns.inside] = made[tile.rows.kept, tile.columns.kept]
                mx.eval(whole[done])
                done += 1
            sent += 1
            tell(sent / total)
    del stream
    while whole:
        yield whole.pop(0)


def decoded_tiles(
    steps: Sequence[Step],
    frames: Iterable[mx.array],
    count: int,
    tiles: list[Tile],
    check_cancelled: Callable[[], None],
) -> Iterator[DecodedTile]:
    """Send `count` frames [h, w, C] through the decoder's fine steps, tile by tile."""
    if len(tiles) > 1:
        frames = list(frames)
    done = 0
    for tile in tiles:
        stream, first = tile.stream(check_cancelled), 0
        for frame in frames:
            seen = frame[tile.rows.seen, tile.columns.seen]
            made = mx.stack([out[tile.rows.kept, tile.columns.kept] for out in flow(steps, seen, stream)])
            done += 1
            yield DecodedTile(first, tile.rows.inside, tile.columns.inside, made, done / (len(tiles) * count))
            first += len(made)


def _extent(tiles: list[Tile]) -> tuple[int, int]:
    return tiles[-1].rows.inside.stop, tiles[-1].columns.inside.stop


def _latent(tiling: Tiling | None, stride: int) -> tuple[int, int] | None:
    """Return a tile's side, and half its overlap, in latent rows."""
    return None if tiling is None else (tiling.size // stride, tiling.overlap // (2 * stride))


def _tiles(
    needs: Needs, latent: tuple[int, int], seen: tuple[int, int], scale: int, tile: tuple[int, int] | None
) -> list[Tile]:
    rows, columns = (_spans(needs, *lengths, scale, tile) for lengths in zip(latent, seen, strict=True))
    return [Tile(row, column) for row in rows for column in columns]


def _spans(needs: Needs, length: int, limit: int, scale: int, tile: tuple[int, int] | None) -> list[Span]:
    """Cut `length` latent rows evenly; the result has `scale` rows for each, the input `limit` in all."""
    if tile is None or tile[0] >= length:
        count, surroundings = 1, 0
    else:
        count = -(-length // tile[0])
        reach = -(needs(0, scale)[0] * length // limit)  # in latent rows
        surroundings = scale * max(0, tile[1] - reach)
    edges = [scale * round(i * length / count) for i in range(count + 1)]
    return [_span(needs, slice(*inside), limit, surroundings) for inside in zip(edges[:-1], edges[1:], strict=True)]


def _span(needs: Needs, inside: slice, limit: int, surroundings: int) -> Span:
    start, stop = needs(inside.start - surroundings, inside.stop + surroundings)
    first = inside.start if start > 0 else 0
    while start > 0 and needs(first - 1, inside.stop)[0] >= start:
        first -= 1
    return Span(inside, slice(max(start, 0), min(stop, limit)), (start > 0, stop < limit), inside.start - first)
