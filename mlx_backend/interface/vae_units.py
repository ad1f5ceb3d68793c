"""The causal VAE as a list of units with their sizes, for counting FLOPs and planning memory.

Order and sizes are those of `models/vae21.py`, which sends one frame at a time through every unit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from .geometry import SPATIAL_STRIDE, latent_frames
from .sizes import VAEConfig

RGB = 3


@dataclass(frozen=True, slots=True)
class Volume:
    """Frames of the whole clip, rows, columns and channels of what lies between two units."""

    frames: int
    height: int
    width: int
    channels: int

    @property
    def pixels(self) -> int:
        """Positions per frame."""
        return self.height * self.width

    @property
    def plane(self) -> int:
        """Numbers per frame."""
        return self.pixels * self.channels


@dataclass(frozen=True, slots=True)
class Conv:
    """A convolution: what it takes and makes, and its kernel (t, h, w).

    `taps` is how many frames it multiplies over the whole clip: frames before the clip are zero and left out.
    `doubles` marks one that doubles the picture first: done as four kernels of 2x2, so with 4/9 of the products.
    """

    name: str
    kernel: tuple[int, int, int]
    taken: Volume
    made: Volume
    taps: int
    doubles: bool = False

    @property
    def flops(self) -> int:
        """Multiplications and additions over the whole clip."""
        area = 4 if self.doubles else self.kernel[1] * self.kernel[2]
        return 2 * self.taps * self.made.plane * self.taken.channels * area

    @property
    def parameters(self) -> int:
        """Numbers of its weight and bias."""
        time, height, width = self.kernel
        return self.made.channels * (self.taken.channels * time * height * width + 1)


@dataclass(frozen=True, slots=True)
class Unit:
    """A part of the network: "conv", "residual", "attention", "down", "up" or "head", with its convolutions.

    `fine` tells the units that can work in tiles, those above an eighth of the size.
    """

    name: str
    kind: str
    taken: Volume
    made: Volume
    convs: tuple[Conv, ...]
    fine: bool = False

    @property
    def flops(self) -> int:
        """FLOPs of its convolutions and, in an attention, of its two products among the pixels of each frame."""
        attention = 4 * self.taken.frames * self.taken.pixels * self.taken.plane
        return sum(conv.flops for conv in self.convs) + (attention if self.kind == "attention" else 0)


def decoder_units(config: VAEConfig, frames: int, height: int, width: int) -> list[Unit]:
    """Return the units that decode `frames` latent frames of height x width."""
    dims = [config.dim * m for m in (config.dim_mult[-1], *reversed(config.dim_mult))]
    temporal = config.temporal_downsample[::-1]
    latent = Volume(frames, height, width, config.z_dim)
    made = [_single("conv2", latent, config.z_dim, 1), _single("decoder.conv1", latent, dims[0])]
    made += _middle("decoder.middle", made[-1].made)
    number = 0
    for i, out_dim in enumerate(dims[1:]):
        for _ in range(config.num_res_blocks + 1):
            made.append(_residual(f"decoder.upsamples.{number}", made[-1].made, out_dim, fine=i > 0))
            number += 1
        if i < len(temporal):
            made.append(_up(f"decoder.upsamples.{number}", made[-1].made, temporal=temporal[i]))
            number += 1
    made.append(_head("decoder.head", made[-1].made, RGB, fine=True))
    return made


def encoder_units(config: VAEConfig, frames: int, height: int, width: int) -> list[Unit]:
    """Return the units that encode `frames` (4k+1) of height x width pixels."""
    dims = [config.dim * m for m in (1, *config.dim_mult)]
    made = [replace(_single("encoder.conv1", Volume(frames, height, width, RGB), dims[0]), fine=True)]
    number = 0
    for i, out_dim in enumerate(dims[1:]):
        is_fine = i < len(config.temporal_downsample)
        for _ in range(config.num_res_blocks):
            made.append(_residual(f"encoder.downsamples.{number}", made[-1].made, out_dim, fine=is_fine))
            number += 1
        if is_fine:
            temporal = config.temporal_downsample[i]
            made.append(_down(f"encoder.downsamples.{number}", made[-1].made, temporal=temporal))
            number += 1
    made += _middle("encoder.middle", made[-1].made)
    made.append(_head("encoder.head", made[-1].made, 2 * config.z_dim))
    made.append(_single("conv1", made[-1].made, 2 * config.z_dim, 1))
    return made


def vae_parameters(config: VAEConfig) -> int:
    """Return the numbers of the whole VAE, both halves."""
    units = [*encoder_units(config, 5, 8, 8), *decoder_units(config, 2, 1, 1)]
    gammas = 0
    for unit in units:
        gammas += unit.taken.channels if unit.kind in ("residual", "attention", "head") else 0
        gammas += unit.made.channels if unit.kind == "residual" else 0
    return gammas + sum(conv.parameters for unit in units for conv in unit.convs)


def decode_flops(config: VAEConfig, frames: int, width: int, height: int) -> int:
    """Return the FLOPs of decoding `frames` (4k+1) of width x height pixels, untiled."""
    size = (latent_frames(frames), height // SPATIAL_STRIDE, width // SPATIAL_STRIDE)
    return sum(unit.flops for unit in decoder_units(config, *size))


def encode_flops(config: VAEConfig, frames: int, width: int, height: int) -> int:
    """Return the FLOPs of encoding `frames` (4k+1) of width x height pixels, untiled."""
    return sum(unit.flops for unit in encoder_units(config, frames, height, width))


def _taps(frames: int, kernel: int) -> int:
    """Frames multiplied over a clip by a kernel over time that sees nothing before the first frame."""
    first = min(frames, kernel - 1)
    return first * (first + 1) // 2 + (frames - first) * kernel


def _conv(name: str, taken: Volume, out_dim: int, side: int = 3, time: int = 3) -> Conv:
    made = replace(taken, channels=out_dim)
    return Conv(name, (time, side, side), taken, made, _taps(taken.frames, time))


def _single(name: str, taken: Volume, out_dim: int, side: int = 3) -> Unit:
    conv = _conv(name, taken, out_dim, side, side)
    return Unit(name, "conv", taken, conv.made, (conv,))


def _residual(name: str, taken: Volume, out_dim: int, *, fine: bool = False) -> Unit:
    first = _conv(f"{name}.residual.2", taken, out_dim)
    convs = [first, _conv(f"{name}.residual.6", first.made, out_dim)]
    if taken.channels != out_dim:
        convs.append(_conv(f"{name}.shortcut", taken, out_dim, 1, 1))
    return Unit(name, "residual", taken, first.made, tuple(convs), fine)


def _middle(name: str, taken: Volume) -> list[Unit]:
    qkv = _conv(f"{name}.1.to_qkv", taken, 3 * taken.channels, 1, 1)
    proj = _conv(f"{name}.1.proj", taken, taken.channels, 1, 1)
    return [
        _residual(f"{name}.0", taken, taken.channels),
        Unit(f"{name}.1", "attention", taken, taken, (qkv, proj)),
        _residual(f"{name}.2", taken, taken.channels),
    ]


def _up(name: str, taken: Volume, *, temporal: bool) -> Unit:
    convs, frames = [], taken.frames
    if temporal:  # the first frame stays single and is not seen by the convolution over time
        made = replace(taken, frames=frames - 1, channels=2 * taken.channels)
        convs.append(Conv(f"{name}.time_conv", (3, 1, 1), taken, made, _taps(frames - 1, 3)))
        frames = 2 * frames - 1
    made = Volume(frames, 2 * taken.height, 2 * taken.width, taken.channels // 2)
    convs.append(Conv(f"{name}.resample.1", (1, 3, 3), replace(taken, frames=frames), made, frames, doubles=True))
    return Unit(name, "up", taken, made, tuple(convs), fine=True)


def _down(name: str, taken: Volume, *, temporal: bool) -> Unit:
    half = Volume(taken.frames, taken.height // 2, taken.width // 2, taken.channels)
    convs, made = [Conv(f"{name}.resample.1", (1, 3, 3), taken, half, taken.frames)], half
    if temporal:  # one frame of every two; the first passes by
        made = replace(half, frames=(half.frames - 1) // 2 + 1)
        convs.append(Conv(f"{name}.time_conv", (3, 1, 1), half, made, 3 * (made.frames - 1)))
    return Unit(name, "down", taken, made, tuple(convs), fine=True)


def _head(name: str, taken: Volume, out_dim: int, *, fine: bool = False) -> Unit:
    conv = _conv(f"{name}.2", taken, out_dim)
    return Unit(name, "head", taken, conv.made, (conv,), fine)
