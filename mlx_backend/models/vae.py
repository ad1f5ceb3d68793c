"""What both causal VAEs of the family do with their halves: clips in, latents out, and back, frame by frame."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import mlx.core as mx
from mlx import nn

from ..interface.events import ignored, never
from ..interface.latent_space import LatentSpace
from ..interface.sizes import VAEConfig
from ..interface.tiling import Tiling
from .vae_layers import CausalConv3d, Step, Stream, flow
from .vae_tiles import DecodedTile, decoded_tiles, decoder_tiles, encoded_tiles, encoder_tiles


class Half(Protocol):
    """An encoder or decoder as lists of steps; those of `fine` can work in tiles, one of `coarse` sees whole frames."""

    def fine(self) -> list[Step]:
        """Return the steps between pixels and the coarse ones, where the memory goes."""

    def coarse(self) -> list[Step]:
        """Return the steps next to the latent."""

    def needs(self, start: int, stop: int) -> tuple[int, int]:
        """Return what rows (or columns) start:stop of the fine steps' result depend on, in rows of what they take."""


class WanVAE(nn.Module):
    """Both halves, float32 throughout. Latents are [C, T, H, W], normalised per channel.

    Tiles give the result of whole frames (vae_tiles.py): only the fine layers, whose reach is small, work in tiles.
    """

    def __init__(self, config: VAEConfig, encoder: Half, decoder: Half, space: LatentSpace):
        super().__init__()
        self._config = config
        self._space = space
        self.encoder = encoder
        self.conv1 = CausalConv3d(2 * config.z_dim, 2 * config.z_dim, (1, 1, 1))
        self.conv2 = CausalConv3d(config.z_dim, config.z_dim, (1, 1, 1))
        self.decoder = decoder

    @property
    def config(self) -> VAEConfig:
        """The sizes it was built with."""
        return self._config

    @property
    def space(self) -> LatentSpace:
        """What its latents are."""
        return self._space

    def encode(
        self,
        pixels: mx.array,
        check_cancelled: Callable[[], None] = never,
        tiling: Tiling | None = None,
        tell: Callable[[float], None] = ignored,
    ) -> mx.array:
        """Encode pixels [4k+1, H, W, 3] in -1..1 to the mean latent [C, k+1, h, w], normalised.

        `tell` is called with the share that is done.
        """
        tiles = encoder_tiles(self.encoder.needs, pixels.shape[1:3], self._config.stride, tiling)
        coarse = Stream(check_cancelled)
        pieces = []
        for frame in encoded_tiles(self.encoder.fine(), pixels, tiles, check_cancelled, tell):
            for moments in flow(self.encoder.coarse(), frame, coarse):
                pieces.append(mx.contiguous(self.conv1(moments, coarse)[..., : self._config.z_dim]))
                mx.eval(pieces[-1])
        raw = mx.stack(pieces).transpose(3, 0, 1, 2)
        latent = (raw - _column(self._space.mean)) / _column(self._space.std)
        mx.eval(latent)
        return latent

    def decode(self, latent: mx.array, check_cancelled: Callable[[], None] = never) -> Iterator[mx.array]:
        """Decode [C, T, h, w], normalised, to pieces of pixels [1 or 4, H, W, 3]: 1 + 4 (T - 1) frames.

        The pixels are in -1..1 but not clamped.
        """
        return (tile.pixels for tile in self.decode_tiles(latent, None, check_cancelled))

    def decode_tiles(
        self, latent: mx.array, tiling: Tiling | None, check_cancelled: Callable[[], None] = never
    ) -> Iterator[DecodedTile]:
        """Decode to the same pixels, tile by tile, each through all frames; without `tiling` one tile is the frame."""
        tiles = decoder_tiles(self.decoder.needs, latent.shape[2:], self._config.stride, tiling)
        stream = Stream(check_cancelled)
        steps = [lambda z, stream: [self.conv2(z, stream)], *self.decoder.coarse()]
        raw = latent.astype(mx.float32) * _column(self._space.std) + _column(self._space.mean)
        z = raw.transpose(1, 2, 3, 0)
        frames = (made for frame in z for made in flow(steps, frame, stream))
        return decoded_tiles(self.decoder.fine(), frames, len(z), tiles, check_cancelled)


def _column(values: tuple[float, ...]) -> mx.array:
    return mx.array(values).reshape(-1, 1, 1, 1)
