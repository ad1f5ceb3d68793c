"""The causal VAE as a list of units with their sizes, for counting FLOPs and planning memory.

They are the layers of the network itself (`models/vae21.py`, `models/vae22.py`), which sends one frame at a time
through every one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mlx import nn

from ..interface.geometry import latent_frames
from ..interface.sizes import VAEConfig
from ..models.vae22 import DownStage, UpStage
from ..models.vae_layers import AttentionBlock, Downsample, ResidualBlock, Upsample
from .weights import network

Span = tuple[int, int]


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

    @classmethod
    def of(cls, name: str, layer: nn.Module, taken: Volume) -> Conv:
        """Return that of a layer whose `weight` is [out, (t,) h, w, in]."""
        out, *kernel, _ = layer.weight.shape
        time, height, width = (1, *kernel)[-3:]
        return cls(name, (time, height, width), taken, replace(taken, channels=out), _taps(taken.frames, time))

    @property
    def flops(self) -> int:
        """Multiplications and additions over the whole clip."""
        area = 4 if self.doubles else self.kernel[1] * self.kernel[2]
        return 2 * self.taps * self.made.plane * self.taken.channels * area


def _around(start: int, stop: int) -> Span:
    return start - 1, stop + 1


@dataclass(frozen=True, slots=True)
class Unit:
    """A part of the network: "conv", "residual", "attention", "down", "up" or "head", with its convolutions.

    `fine` tells the units that can work in tiles, those above an eighth of the size; `needs(start, stop)` are the rows
    (or columns) that its rows start:stop depend on. `beside`: numbers of a frame that its stage keeps, to add them to
    its result.
    """

    name: str
    kind: str
    taken: Volume
    made: Volume
    convs: tuple[Conv, ...]
    needs: Callable[[int, int], Span] = _around
    fine: bool = False
    beside: int = 0

    @property
    def flops(self) -> int:
        """FLOPs of its convolutions and, in an attention, of its two products among the pixels of each frame."""
        attention = 4 * self.taken.frames * self.taken.pixels * self.taken.plane
        return sum(conv.flops for conv in self.convs) + (attention if self.kind == "attention" else 0)


def decoder_units(config: VAEConfig, frames: int, height: int, width: int) -> list[Unit]:
    """Return the units that decode `frames` latent frames of height x width."""
    vae: Any = network(config)
    half = vae.decoder
    first = _single("conv2", vae.conv2, Volume(frames, height, width, config.z_dim))
    stem = _single("decoder.conv1", half.conv1, first.made)
    made = [first, stem, *_layers("decoder.middle", half.middle, stem.made)]
    coarse = 1 + len(half.coarse())  # of Wan 2.1 some of `upsamples` are
    made += _layers("decoder.upsamples", half.upsamples, made[-1].made)
    made.append(_head("decoder.head", half.head, made[-1].made))
    return [replace(unit, fine=number >= coarse) for number, unit in enumerate(made)]


def encoder_units(config: VAEConfig, frames: int, height: int, width: int) -> list[Unit]:
    """Return the units that encode `frames` (4k+1) of height x width pixels."""
    vae: Any = network(config)
    half = vae.encoder
    seen = Volume(frames, height // config.patch, width // config.patch, half.conv1.weight.shape[-1])
    made = [_single("encoder.conv1", half.conv1, seen)]
    fine = sum(isinstance(step, nn.Module) for step in half.fine())
    for number, layer in enumerate(half.downsamples):
        if number == fine:
            made = [replace(unit, fine=True) for unit in made]
        made += _layers("encoder.downsamples", [layer], made[-1].made, number)
    made += _layers("encoder.middle", half.middle, made[-1].made)
    made.append(_head("encoder.head", half.head, made[-1].made))
    made.append(_single("conv1", vae.conv1, made[-1].made))
    return made


def decode_flops(config: VAEConfig, frames: int, width: int, height: int) -> int:
    """Return the FLOPs of decoding `frames` (4k+1) of width x height pixels, untiled."""
    size = (latent_frames(frames), height // config.stride, width // config.stride)
    return sum(unit.flops for unit in decoder_units(config, *size))


def encode_flops(config: VAEConfig, frames: int, width: int, height: int) -> int:
    """Return the FLOPs of encoding `frames` (4k+1) of width x height pixels, untiled."""
    return sum(unit.flops for unit in encoder_units(config, frames, height, width))


def _taps(frames: int, kernel: int) -> int:
    """Frames multiplied over a clip by a kernel over time that sees nothing before the first frame."""
    first = min(frames, kernel - 1)
    return first * (first + 1) // 2 + (frames - first) * kernel


def _layers(name: str, layers: Sequence[nn.Module], taken: Volume, first: int = 0) -> Iterator[Unit]:
    units = {ResidualBlock: _residual, AttentionBlock: _attention, Upsample: _up, Downsample: _down}
    for number, layer in enumerate(layers, start=first):
        if isinstance(layer, (DownStage, UpStage)):
            part = "downsamples" if isinstance(layer, DownStage) else "upsamples"
            inner = list(_layers(f"{name}.{number}.{part}", layer[part], taken))
            yield from (replace(unit, beside=layer.kept * taken.plane) for unit in inner)
            taken = inner[-1].made
            continue
        made = units[type(layer)](f"{name}.{number}", layer, taken)
        yield made
        taken = made.made


def _single(name: str, layer: Any, taken: Volume) -> Unit:
    conv = Conv.of(name, layer, taken)
    return Unit(name, "conv", taken, conv.made, (conv,))


def _head(name: str, layers: Sequence[Any], taken: Volume) -> Unit:
    conv = Conv.of(f"{name}.2", layers[2], taken)
    return Unit(name, "head", taken, conv.made, (conv,))


def _residual(name: str, layer: Any, taken: Volume) -> Unit:
    first = Conv.of(f"{name}.residual.2", layer.residual[2], taken)
    convs = [first, Conv.of(f"{name}.residual.6", layer.residual[6], first.made)]
    if "shortcut" in layer:
        convs.append(Conv.of(f"{name}.shortcut", layer.shortcut, taken))
    return Unit(name, "residual", taken, first.made, tuple(convs), layer.needs)


def _attention(name: str, layer: Any, taken: Volume) -> Unit:
    qkv, proj = (Conv.of(f"{name}.{part}", layer[part], taken) for part in ("to_qkv", "proj"))
    return Unit(name, "attention", taken, taken, (qkv, proj))


def _up(name: str, layer: Any, taken: Volume) -> Unit:
    convs, frames = [], taken.frames
    if "time_conv" in layer:  # the first frame stays single and is not seen by the convolution over time
        conv = Conv.of(f"{name}.time_conv", layer.time_conv, taken)
        later = replace(conv.made, frames=frames - 1)
        convs.append(replace(conv, made=later, taps=_taps(frames - 1, conv.kernel[0])))
        frames = 2 * frames - 1
    conv = Conv.of(f"{name}.resample.1", layer.resample[1], replace(taken, frames=frames))
    made = Volume(frames, 2 * taken.height, 2 * taken.width, conv.made.channels)
    convs.append(replace(conv, made=made, doubles=True))
    return Unit(name, "up", taken, made, tuple(convs), layer.needs)


def _down(name: str, layer: Any, taken: Volume) -> Unit:
    conv = Conv.of(f"{name}.resample.1", layer.resample[1], taken)
    made = replace(conv.made, height=taken.height // 2, width=taken.width // 2)
    convs = [replace(conv, made=made)]
    if "time_conv" in layer:  # one frame of every two; the first passes by
        conv = Conv.of(f"{name}.time_conv", layer.time_conv, made)
        made = replace(made, frames=(made.frames - 1) // 2 + 1)
        convs.append(replace(conv, made=made, taps=conv.kernel[0] * (made.frames - 1)))
    return Unit(name, "down", taken, made, tuple(convs), layer.needs)
