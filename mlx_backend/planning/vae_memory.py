"""What the VAE holds at its largest moment, from sizes alone: caches over time, the frame at work, patches.

The terms follow `models/vae_layers.py`, `conv.py` and `vae_tiles.py`; everything is float32. "Plane" is one frame
between two units.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from ..interface.chunks import ATTENTION_SCORE_BYTES, CPU_PATCH_BYTES
from ..interface.sizes import VAEConfig
from .memory import Backend, Moment
from .storage import FLOAT32
from .vae_units import Conv, Unit, Volume, decoder_units, encoder_units

# Metal's Winograd kernels turn tiles of 6x6 pixels into 8x8 numbers, before the product and after it.
WINOGRAD = (8 / 6) ** 2


@dataclass(frozen=True, slots=True)
class VAEWork:
    """Encoding or decoding of one clip: its units, at the size of the largest tile."""

    units: tuple[Unit, ...]
    backend: Backend
    is_tiled: bool

    def moment(self) -> Moment:
        """Return the largest moment, without the weights and the clip itself."""
        return max(self._moments(), key=lambda moment: moment.bytes)

    def _moments(self) -> Iterator[Moment]:
        is_still = self.units[0].taken.frames == 1
        remembered = 0 if is_still else sum(map(_cache, self.units))
        for is_fine in (False, True):
            half = [unit for unit in self.units if unit.fine == is_fine]
            if self.is_tiled and not is_still:  # one half works through all frames before the other starts
                remembered = sum(map(_cache, half))
            waiting = 0
            for unit in half:
                if is_still:  # the only frame is with this unit: later ones remember nothing yet
                    remembered += _cache(unit)
                stage = ("what the stage adds to its result", unit.beside * FLOAT32)
                work = (("frames waiting", waiting), stage, ("at work", self._work(unit)))
                yield Moment(unit.name, (("what convolutions remember", remembered), *work))
                if unit.kind == "up" and unit.made.frames > unit.taken.frames:
                    waiting += unit.made.plane * FLOAT32  # the second of two waits while the first goes on

    def _work(self, unit: Unit) -> int:
        """Bytes of the arrays alive while a frame is in `unit`, what it remembers left out."""
        taken, made = unit.taken.plane * FLOAT32, unit.made.plane * FLOAT32
        if unit.kind == "residual":
            first, second = unit.convs[0], unit.convs[1]
            shortcut = made if len(unit.convs) > 2 else 0
            return max(
                taken + self._normed(taken),
                taken + self._conv(first, taken),
                taken + made + self._normed(made),
                taken + made + self._conv(second, made),
                taken + 2 * made + shortcut,
            )
        if unit.kind == "attention":
            return self._attention(unit)
        if unit.kind == "up":
            return self._up(unit)
        if unit.kind == "head":
            return max(taken + self._normed(taken), taken + self._conv(unit.convs[0], taken))
        return taken + max(self._conv(conv, 0) for conv in unit.convs)

    def _normed(self, plane: int) -> int:
        """RMS norm (two results on the CPU), SiLU beside its input."""
        return plane * (2 if self.backend.on_gpu else 3)

    def _conv(self, conv: Conv, oldest: int) -> int:
        """A convolution beside its newest frames: the `oldest` one, the result and what the device needs on the way."""
        taken, made = conv.taken.plane * FLOAT32, conv.made.plane * FLOAT32
        oldest = oldest if conv.taken.frames >= conv.kernel[0] else 0
        if self.backend.on_gpu:
            # Frames stacked; a kernel over time is taken apart into one per frame, whose results are added up.
            taps = min(conv.kernel[0], conv.taken.frames)
            winograd = WINOGRAD * (taken + made) if conv.kernel[1] == 3 else 0
            return int(oldest + (taps + 1) * taken + min(taps, 2) * made + winograd)
        return oldest + made + cpu_patch_bytes(conv)

    def _attention(self, unit: Unit) -> int:
        plane, pixels = unit.taken.plane * FLOAT32, unit.taken.pixels
        rows = min(pixels, max(1, ATTENTION_SCORE_BYTES // (FLOAT32 * pixels)))
        scores = rows * pixels * FLOAT32
        part = 3 * rows * unit.taken.channels * FLOAT32  # queries scaled, result, result kept
        # The frame, its norm, queries with keys and values, copies of keys and values in one piece, results so far.
        planes = 1 + (1 if self.backend.on_gpu else 2) + 3 + 2
        return planes * plane + scores + part

    def _up(self, unit: Unit) -> int:
        taken, made = unit.taken.plane * FLOAT32, unit.made.plane * FLOAT32
        resample = unit.convs[-1]
        quarter = replace(resample, made=replace(resample.made, height=unit.taken.height, width=unit.taken.width))
        if len(unit.convs) == 1:
            return taken + made + self._conv(quarter, 0)
        in_time = taken + self._conv(unit.convs[0], taken)
        return max(in_time, taken + 2 * taken + 2 * made + self._conv(quarter, 0))


def decoding(config: VAEConfig, frames: int, height: int, width: int, backend: Backend, tile: int = 0) -> VAEWork:
    """Return the work of decoding `frames` latent frames of height x width, in tiles of `tile` pixels (0: whole)."""
    units = decoder_units(config, frames, height, width)
    return _tiled(units, (height, width), config.stride // config.patch, backend, tile // config.stride)


def encoding(config: VAEConfig, frames: int, height: int, width: int, backend: Backend, tile: int = 0) -> VAEWork:
    """Return the work of encoding `frames` of height x width pixels, in tiles of `tile` pixels (0: whole)."""
    units = encoder_units(config, frames, height, width)
    return _tiled(units, (height // config.stride, width // config.stride), 1, backend, tile // config.stride)


def between_bytes(work: VAEWork) -> int:
    """Return what lies between the coarse and the fine units: one plane, in tiles those of all frames."""
    coarse = [unit for unit in work.units if not unit.fine]
    volume = coarse[0].taken if work.units[0].fine else coarse[-1].made
    return volume.plane * FLOAT32 * (volume.frames if work.is_tiled else 1)


def cpu_patch_bytes(conv: Conv) -> int:
    """Return what the CPU's convolution needs beside its frames and its result: patches of a few rows, a product."""
    side, taps = conv.kernel[1], min(conv.kernel[0], conv.taken.frames)
    side = 2 if conv.doubles else side
    inputs = conv.taken.channels * taps * side * side
    if inputs == conv.taken.channels:
        return 0  # a plain product
    out_width = conv.made.width
    rows = min(conv.made.height, max(1, CPU_PATCH_BYTES // (FLOAT32 * out_width * inputs)))
    patches = rows * out_width * inputs
    seen = 2 * taps * (rows + side - 1) * (conv.taken.width + side - 1) * conv.taken.channels  # padded, stacked
    return FLOAT32 * (patches + seen + rows * out_width * conv.made.channels)


def _cache(unit: Unit) -> int:
    """Bytes that a unit remembers between two frames: two frames for every kernel over three."""
    kept = 0
    for conv in unit.convs:
        if conv.kernel[0] > 1:
            frames = 1 if unit.kind == "down" else min(2, conv.taken.frames)
            kept += frames * conv.taken.plane * FLOAT32
    return kept


def _tiled(units: Sequence[Unit], latent: tuple[int, int], scale: int, backend: Backend, tile: int) -> VAEWork:
    if not tile or all(tile >= length for length in latent):
        return VAEWork(tuple(units), backend, is_tiled=False)
    fine = [unit for unit in units if unit.fine]
    heights = _extents(fine, latent[0], scale, tile, lambda volume: volume.height)
    widths = _extents(fine, latent[1], scale, tile, lambda volume: volume.width)
    cut = iter(_resized(unit, rows, columns) for unit, rows, columns in zip(fine, heights, widths, strict=True))
    return VAEWork(tuple(next(cut) if unit.fine else unit for unit in units), backend, is_tiled=True)


def _extents(
    fine: Sequence[Unit], length: int, scale: int, tile: int, side: Callable[[Volume], int]
) -> list[tuple[int, int]]:
    """Return (taken, made) lengths of each fine unit along one axis: the largest of all tiles.

    What lies around a tile is worked on where a later unit sees it, and no further.
    """
    count = max(1, math.ceil(length / tile))
    edges = [scale * round(i * length / count) for i in range(count + 1)]
    found = [(0, 0)] * len(fine)
    for start, stop in zip(edges[:-1], edges[1:], strict=True):
        for i in range(len(fine) - 1, -1, -1):
            made = stop - start
            start, stop = fine[i].needs(start, stop)
            start, stop = max(start, 0), min(stop, side(fine[i].taken))
            found[i] = (max(found[i][0], stop - start), max(found[i][1], made))
    return found


def _resized(unit: Unit, rows: tuple[int, int], columns: tuple[int, int]) -> Unit:
    def cut(volume: Volume, i: int) -> Volume:
        return replace(volume, height=rows[i], width=columns[i])

    def conv(c: Conv) -> Conv:
        # Inside a unit the larger of the two extents; over time a downsampling works at its result's.
        before = 1 if unit.kind == "down" and c.kernel[0] > 1 else 0
        after = 0 if unit.kind == "up" and c.kernel[0] > 1 else 1
        return replace(c, taken=cut(c.taken, before), made=cut(c.made, after))

    return replace(unit, taken=cut(unit.taken, 0), made=cut(unit.made, 1), convs=tuple(conv(c) for c in unit.convs))
