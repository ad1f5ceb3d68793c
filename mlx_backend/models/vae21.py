"""Wan 2.1's causal video VAE: 16 latent channels, 8 x 8 in space, 4 in time after the first frame.

Source: `wan/modules/vae.py` of Wan-Video/Wan2.1. One frame at a time goes through every layer, so memory does not grow
with the length of a clip.
"""

from __future__ import annotations

import mlx.core as mx
from mlx import nn

from ..interface.latent_space import WAN21
from ..interface.sizes import VAEConfig
from .activations import SiLU
from .vae import WanVAE
from .vae_layers import AttentionBlock, CausalConv3d, Downsample, ResidualBlock, RMSNorm, Step, Stream, Upsample


class StemAndHead(nn.Module):
    """What encoder and decoder begin and end with: `conv1`, and the list `head` of norm, SiLU and convolution."""

    def _stem(self, x: mx.array, stream: Stream) -> list[mx.array]:
        return [stream.step(self.conv1(x, stream))]

    def _head(self, x: mx.array, stream: Stream) -> list[mx.array]:
        norm, silu, conv = self.head
        return [stream.step(conv(silu(norm(x)), stream))]


class Encoder(StemAndHead):
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


class Decoder(StemAndHead):
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
                self.upsamples.append(Upsample(out_dim, out_dim // 2, temporal=temporal_upsample[i]))
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


class WanVAE21(WanVAE):
    """Both halves; latents are [16, T, H/8, W/8]."""

    def __init__(self, config: VAEConfig):
        super().__init__(config, Encoder(config), Decoder(config), WAN21)
