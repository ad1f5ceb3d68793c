"""Wan 2.1's causal video VAE: 16 latent channels, 8 x 8 in space, 4 in time after the first frame.

Source: `wan/modules/vae.py` of Wan-Video/Wan2.1. Encoding takes 1, 4, 4, ... frames at a time and decoding one latent
frame, so memory does not grow with the length of a clip.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import mlx.core as mx
from mlx import nn

from .activations import SiLU
from .config import VAEConfig
from .vae_layers import AttentionBlock, CausalConv3d, Downsample, ResidualBlock, RMSNorm, Stream, Upsample

# Mean and standard deviation of the latent channels (upstream `WanVAE`).
MEAN = (
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
    0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
)  # fmt: skip
STD = (
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
    3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160,
)  # fmt: skip


def never() -> None:
    """Cancel nothing."""


class Encoder(nn.Module):
    """Pixels [T, H, W, 3] to 2 x z_dim channels at an eighth of the size."""

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

    def __call__(self, x: mx.array, stream: Stream) -> mx.array:
        x = stream.step(self.conv1(x, stream))
        for layer in (*self.downsamples, *self.middle):
            x = layer(x, stream)
        norm, silu, conv = self.head
        return conv(silu(norm(x)), stream)


class Decoder(nn.Module):
    """z_dim channels to pixels [T, H, W, 3]."""

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

    def __call__(self, x: mx.array, stream: Stream) -> mx.array:
        x = stream.step(self.conv1(x, stream))
        for layer in (*self.middle, *self.upsamples):
            x = layer(x, stream)
        norm, silu, conv = self.head
        return stream.step(conv(silu(norm(x)), stream))


class WanVAE21(nn.Module):
    """Both halves, float32 throughout. Latents are [16, T, H, W], normalised per channel."""

    def __init__(self, config: VAEConfig):
        super().__init__()
        self._config = config
        self.encoder = Encoder(config)
        self.conv1 = CausalConv3d(2 * config.z_dim, 2 * config.z_dim, (1, 1, 1))
        self.conv2 = CausalConv3d(config.z_dim, config.z_dim, (1, 1, 1))
        self.decoder = Decoder(config)

    def encode(self, pixels: mx.array, check_cancelled: Callable[[], None] = never) -> mx.array:
        """Encode pixels [4k+1, H, W, 3] in -1..1 to the mean latent [16, k+1, H/8, W/8], normalised."""
        stream = Stream(check_cancelled)
        pieces = []
        for start, stop in zip([0, *range(1, len(pixels), 4)], range(1, len(pixels) + 1, 4), strict=True):
            moments = self.conv1(self.encoder(pixels[start:stop].astype(mx.float32), stream), stream)
            pieces.append(moments[..., : self._config.z_dim])
            mx.eval(pieces[-1])
        latent = normalised(mx.concatenate(pieces).transpose(3, 0, 1, 2))
        mx.eval(latent)
        return latent

    def decode(self, latent: mx.array, check_cancelled: Callable[[], None] = never) -> Iterator[mx.array]:
        """Decode [16, T, H, W], normalised, to pieces of pixels [1 or 4, 8H, 8W, 3]: 1 + 4 (T - 1) frames.

        The pixels are in -1..1 but not clamped.
        """
        stream = Stream(check_cancelled)
        z = denormalised(latent.astype(mx.float32)).transpose(1, 2, 3, 0)
        for i in range(len(z)):
            yield self.decoder(self.conv2(z[i : i + 1], stream), stream)


def normalised(raw: mx.array) -> mx.array:
    """(raw - mean) / std per channel of [16, ...]."""
    return (raw - _column(MEAN, raw)) / _column(STD, raw)


def denormalised(latent: mx.array) -> mx.array:
    """The reverse: the raw latent that other programs exchange."""
    return latent * _column(STD, latent) + _column(MEAN, latent)


def _column(values: tuple[float, ...], like: mx.array) -> mx.array:
    return mx.array(values).reshape(-1, *[1] * (like.ndim - 1))
