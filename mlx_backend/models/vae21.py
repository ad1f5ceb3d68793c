"""Wan 2.1's causal video VAE: 16 latent channels, 8 x 8 in space, 4 in time after the first frame.

Source: `wan/modules/vae.py` of Wan-Video/Wan2.1. One frame at a time goes through every layer, so memory does not grow
with the length of a clip.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import mlx.core as mx
from mlx import nn

from ..interface.events import ignored, never
from ..interface.latent_space import WAN21, LatentSpace
from ..interface.sizes import VAEConfig
from ..interface.tiling import Tiling
from .activations import SiLU
from .vae_layers import (
    AttentionBlock,
    CausalConv3d,
    Downsample,
    ResidualBlock,
    RMSNorm,
    Step,
    Stream,
    Upsample,
    flow,
)
from .vae_tiles import DecodedTile, decoded_tiles, decoder_tiles, encoded_tiles, encoder_tiles


class _Half(nn.Module):
    """What encoder and decoder begin and end with: `conv1`, and the list `head` of norm, SiLU and convolution."""

    def _stem(self, x: mx.array, stream: Stream) -> list[mx.array]:
        return [stream.step(self.conv1(x, stream))]

    def _head(self, x: mx.array, stream: Stream) -> list[mx.array]:
        norm, silu, conv = self.head
        return [stream.step(conv(silu(norm(x)), stream))]


class Encoder(_Half):
    """Pixels [H, W, 3], frame by frame, to 2 x z_dim channels at an eighth of the size."""

    def __init__(self, config: VAEConfig):
        super().__init__()
        dims = [config.dim * m for m in (1, *config.dim_mult)]
        self.conv1 = CausalConv3d(3, dims[0], (3, 3, 3))
        self.downsamples = []
        for i, (in_dim, out_dim) in enumerate(zip(dims[:-1], dims[1:], strict=True)):
            self.downsamples.append(ResidualBlock(in_dim, out_dim))
            self.downsamples += [ResidualBlock(out_dim, out_dim) for _ in range(config.num_res_blocks - 1)]
            if i < len(config.temporal_downsample):
                self.downsamples.append(Downsample(out_dim, temporal=config.temporal_downsample[i]))
        self.middle = [ResidualBlock(dims[-1], dims[-1]), AttentionBlock(dims[-1]), ResidualBlock(dims[-1], dims[-1])]
        self.head = [RMSNorm(dims[-1], 3), SiLU(), CausalConv3d(dims[-1], 2 * config.z_dim, (3, 3, 3))]
        self._coarse = len(self.downsamples) - config.num_res_blocks  # the first layer at an eighth of the size

    def fine(self) -> list[Step]:
        """Return the steps from pixels to an eighth of the size, where the memory goes."""
        return [self._stem, *self.downsamples[: self._coarse]]

    def coarse(self) -> list[Step]:
        """Return the steps after `fine`; one of them looks at the whole frame."""
        return [*self.downsamples[self._coarse :], *self.middle, self._head]

    def needs(self, start: int, stop: int) -> tuple[int, int]:
        """Return the pixel rows (or columns) that rows start:stop of the last fine step depend on."""
        for layer in reversed(self.downsamples[: self._coarse]):
            start, stop = layer.needs(start, stop)
        return start - 1, stop + 1


class Decoder(_Half):
    """z_dim channels [h, w, z_dim], frame by frame, to pixels [8h, 8w, 3]."""

    def __init__(self, config: VAEConfig):
        super().__init__()
        dims = [config.dim * m for m in (config.dim_mult[-1], *reversed(config.dim_mult))]
        temporal_upsample = config.temporal_downsample[::-1]
        self.conv1 = CausalConv3d(config.z_dim, dims[0], (3, 3, 3))
        self.middle = [ResidualBlock(dims[0], dims[0]), AttentionBlock(dims[0]), ResidualBlock(dims[0], dims[0])]
        self.upsamples = []
        for i, (in_dim, out_dim) in enumerate(zip(dims[:-1], dims[1:], strict=True)):
            first = in_dim // 2 if i else in_dim  # an Upsample before it has halved the channels
            self.upsamples.append(ResidualBlock(first, out_dim))
            self.upsamples += [ResidualBlock(out_dim, out_dim) for _ in range(config.num_res_blocks)]
            if i < len(temporal_upsample):
                self.upsamples.append(Upsample(out_dim, temporal=temporal_upsample[i]))
        self.head = [RMSNorm(dims[-1], 3), SiLU(), CausalConv3d(dims[-1], 3, (3, 3, 3))]
        self._fine = config.num_res_blocks + 1  # the first layer that leaves an eighth of the size

    def coarse(self) -> list[Step]:
        """Return the steps at an eighth of the size; one of them looks at the whole frame."""
        return [self._stem, *self.middle, *self.upsamples[: self._fine]]

    def fine(self) -> list[Step]:
        """Return the steps after `coarse` to pixels, where the memory goes."""
        return [*self.upsamples[self._fine :], self._head]

    def needs(self, start: int, stop: int) -> tuple[int, int]:
        """Return the rows (or columns) of the last coarse step that pixel rows start:stop depend on."""
        start, stop = start - 1, stop + 1
        for layer in reversed(self.upsamples[self._fine :]):
            start, stop = layer.needs(start, stop)
        return start, stop


class WanVAE21(nn.Module):
    """Both halves, float32 throughout. Latents are [16, T, H, W], normalised per channel.

    Tiles give the result of whole frames (vae_tiles.py): only the layers above an eighth of the size, whose reach is
    small, work in tiles.
    """

    def __init__(self, config: VAEConfig):
        super().__init__()
        self._config = config
        self.encoder = Encoder(config)
        self.conv1 = CausalConv3d(2 * config.z_dim, 2 * config.z_dim, (1, 1, 1))
        self.conv2 = CausalConv3d(config.z_dim, config.z_dim, (1, 1, 1))
        self.decoder = Decoder(config)

    @property
    def config(self) -> VAEConfig:
        """The sizes it was built with."""
        return self._config

    def encode(
        self,
        pixels: mx.array,
        check_cancelled: Callable[[], None] = never,
        tiling: Tiling | None = None,
        tell: Callable[[float], None] = ignored,
    ) -> mx.array:
        """Encode pixels [4k+1, H, W, 3] in -1..1 to the mean latent [16, k+1, H/8, W/8], normalised.

        `tell` is called with the share that is done.
        """
        tiles = encoder_tiles(self.encoder.needs, pixels.shape[1:3], self._config.stride, tiling)
        coarse = Stream(check_cancelled)
        pieces = []
        for frame in encoded_tiles(self.encoder.fine(), pixels, tiles, check_cancelled, tell):
            for moments in flow(self.encoder.coarse(), frame, coarse):
                pieces.append(mx.contiguous(self.conv1(moments, coarse)[..., : self._config.z_dim]))
                mx.eval(pieces[-1])
        latent = _normalised(mx.stack(pieces).transpose(3, 0, 1, 2), WAN21)
        mx.eval(latent)
        return latent

    def decode(self, latent: mx.array, check_cancelled: Callable[[], None] = never) -> Iterator[mx.array]:
        """Decode [16, T, H, W], normalised, to pieces of pixels [1 or 4, 8H, 8W, 3]: 1 + 4 (T - 1) frames.

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
        z = _denormalised(latent.astype(mx.float32), WAN21).transpose(1, 2, 3, 0)
        frames = (made for frame in z for made in flow(steps, frame, stream))
        return decoded_tiles(self.decoder.fine(), frames, len(z), tiles, check_cancelled)


def _normalised(raw: mx.array, space: LatentSpace) -> mx.array:
    """(raw - mean) / std per channel of [C, ...]."""
    return (raw - _column(space.mean, raw)) / _column(space.std, raw)


def _denormalised(latent: mx.array, space: LatentSpace) -> mx.array:
    """The reverse: the raw latent that other programs exchange."""
    return latent * _column(space.std, latent) + _column(space.mean, latent)


def _column(values: tuple[float, ...], like: mx.array) -> mx.array:
    return mx.array(values).reshape(-1, *[1] * (like.ndim - 1))
