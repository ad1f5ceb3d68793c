"""The parts of Wan's causal video VAEs. They take one frame [H, W, C] at a time and never a whole clip.

Source: `wan/modules/vae.py` of Wan-Video/Wan2.1. A `Stream` carries what each causal convolution must remember of the
past, so that feeding single frames equals feeding the clip whole. Lists hold the official Sequentials' positions: None
or a module without parameters stands where the checkpoint has nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import mlx.core as mx
from mlx import nn

from ..interface.chunks import ATTENTION_SCORE_BYTES
from .activations import SiLU
from .conv import Padding, convolve, convolve_doubled

NORM_EPS = 1e-24  # upstream divides by max(|x|, 1e-12)


@dataclass(frozen=True, slots=True)
class Cut:
    """The sides of a tile behind which the picture goes on. Nothing is padded there: each layer eats its reach."""

    top: bool = False
    bottom: bool = False
    left: bool = False
    right: bool = False

    def padding(self, reach: int) -> Padding:
        """Return the zeros of a convolution that reaches this far: none on the cut sides."""
        top, bottom, left, right = (0 if cut else reach for cut in self._sides)
        return (top, bottom), (left, right)

    def trimmed(self, x: mx.array, reach: int) -> mx.array:
        """Return x [H, W, C] without what layers of this reach, in sum, have eaten."""
        top, bottom, left, right = (reach if cut else 0 for cut in self._sides)
        return x[top : x.shape[0] - bottom, left : x.shape[1] - right]

    @property
    def _sides(self) -> tuple[bool, bool, bool, bool]:
        return self.top, self.bottom, self.left, self.right


@dataclass(slots=True)
class Stream:
    """The memory of one pass over one clip, or over one tile of it: the last frames that each layer saw.

    `check_cancelled` is called between layers and may raise.
    """

    check_cancelled: Callable[[], None]
    cut: Cut = Cut()  # noqa: RUF009 - frozen
    past: dict[int, list[mx.array]] = field(default_factory=dict)

    def held(self, layer: nn.Module) -> list[mx.array]:
        """Return the list of frames that `layer` keeps, for it to change; empty before the first."""
        return self.past.setdefault(id(layer), [])

    def last(self, layer: nn.Module, frame: mx.array, count: int) -> list[mx.array]:
        """Return the last `count` frames that `layer` saw, this one included; fewer at the start of a clip.

        The frame may still be lazy: the layer's own output, which `step` evaluates, depends on it.
        """
        held = self.held(layer)
        frames = [*held, frame]
        held[:] = frames[1 - count :]
        return frames

    def step(self, x: mx.array) -> mx.array:
        """Evaluate x, so that nothing before it stays in memory, and see whether the user stopped the run."""
        mx.eval(x)
        self.check_cancelled()
        return x


Step = Callable[[mx.array, Stream], list[mx.array]]


def flow(steps: Sequence[Step], frame: mx.array, stream: Stream) -> Iterator[mx.array]:
    """Send a frame through steps that each return the frames they have ready: none, one or two.

    Depth first: a frame goes as far as it can before the next one starts, so that only one is being worked on.
    """
    waiting = [(0, frame)]
    del frame
    while waiting:
        position, frame = waiting.pop()
        if position == len(steps):
            yield frame
            continue
        ready = steps[position](frame, stream)
        del frame
        waiting.extend((position + 1, ready.pop()) for _ in range(len(ready)))


class CausalConv3d(nn.Module):
    """A convolution that sees only the past: `weight` [out, kt, kh, kw, in], zeros before the first frame."""

    def __init__(self, in_dim: int, out_dim: int, kernel: tuple[int, int, int]):
        super().__init__()
        self.weight = mx.zeros((out_dim, *kernel, in_dim))
        self.bias = mx.zeros((out_dim,))

    def __call__(self, x: mx.array, stream: Stream) -> mx.array:
        length = self.weight.shape[1]
        return self.apply(stream.last(self, x, length) if length > 1 else [x], stream)

    def apply(self, frames: Sequence[mx.array], stream: Stream) -> mx.array:
        """Return the one frame that these frames make."""
        return convolve(frames, self.weight, self.bias, stream.cut.padding(self.weight.shape[2] // 2))


class Conv2d(nn.Module):
    """`weight` [out, kh, kw, in] of a convolution per frame; applied with `padding` and `stride`."""

    def __init__(self, in_dim: int, out_dim: int, kernel: int):
        super().__init__()
        self.weight = mx.zeros((out_dim, kernel, kernel, in_dim))
        self.bias = mx.zeros((out_dim,))

    def __call__(self, x: mx.array, padding: Padding = ((0, 0), (0, 0)), stride: int = 1) -> mx.array:
        return convolve([x], self.weight[:, None], self.bias, padding, stride)


class RMSNorm(nn.Module):
    """x / |x| over the channels, times sqrt(C) and `gamma` [C, 1, 1(, 1)]."""

    def __init__(self, dim: int, axes: int):
        super().__init__()
        self.gamma = mx.ones((dim, *[1] * axes))

    def __call__(self, x: mx.array) -> mx.array:
        return mx.fast.rms_norm(x, self.gamma.reshape(-1).astype(x.dtype), NORM_EPS / x.shape[-1])


class ResidualBlock(nn.Module):
    """Norm, SiLU, convolution, twice, plus the input (through a 1x1x1 convolution where channels differ)."""

    REACH = 2  # pixels to each side: two convolutions

    def __init__(self, in_dim: int, out_dim: int):
        super().__init__()
        self.residual = [
            RMSNorm(in_dim, 3),
            SiLU(),
            CausalConv3d(in_dim, out_dim, (3, 3, 3)),
            RMSNorm(out_dim, 3),
            SiLU(),
            None,  # dropout
            CausalConv3d(out_dim, out_dim, (3, 3, 3)),
        ]
        if in_dim != out_dim:
            self.shortcut = CausalConv3d(in_dim, out_dim, (1, 1, 1))

    def __call__(self, x: mx.array, stream: Stream) -> list[mx.array]:
        norm1, silu, conv1, norm2, _, _, conv2 = self.residual
        out = conv1(silu(norm1(x)), stream)
        out = conv2(silu(norm2(out)), stream)
        if "shortcut" in self:
            x = self.shortcut(x, stream)
        return [stream.step(out + stream.cut.trimmed(x, self.REACH))]

    def needs(self, start: int, stop: int) -> tuple[int, int]:
        """Return the input rows (or columns) that the output rows start:stop depend on."""
        return start - self.REACH, stop + self.REACH


class AttentionBlock(nn.Module):
    """Single-head attention among all pixels of a frame."""

    def __init__(self, dim: int):
        super().__init__()
        self.norm = RMSNorm(dim, 2)
        self.to_qkv = Conv2d(dim, 3 * dim, 1)
        self.proj = Conv2d(dim, dim, 1)

    def __call__(self, x: mx.array, stream: Stream) -> list[mx.array]:
        height, width, dim = x.shape
        qkv = self.to_qkv(self.norm(x)).reshape(1, 1, height * width, 3 * dim)
        q, k, v = mx.split(qkv, 3, axis=-1)
        # No fused kernel takes heads of this size (384): the scores are written out, so a few rows at a time.
        rows = max(1, ATTENTION_SCORE_BYTES // (4 * height * width))
        seen = []
        for start in range(0, height * width, rows):
            part = q[:, :, start : start + rows]
            seen.append(mx.fast.scaled_dot_product_attention(part, k, v, scale=dim**-0.5))
            mx.eval(seen[-1])
        return [stream.step(x + self.proj(mx.concatenate(seen, axis=2).reshape(x.shape)))]


class Downsample(nn.Module):
    """Half the size in space and, where `temporal`, one frame of every two (the clip's first passes that part by)."""

    def __init__(self, dim: int, *, temporal: bool):
        super().__init__()
        self.resample = [None, Conv2d(dim, dim, 3)]
        if temporal:
            self.time_conv = CausalConv3d(dim, dim, (3, 1, 1))

    def __call__(self, x: mx.array, stream: Stream) -> list[mx.array]:
        (_, below), (_, right) = stream.cut.padding(1)
        x = stream.step(self.resample[1](x, ((0, below), (0, right)), stride=2))
        if "time_conv" not in self:
            return [x]
        held = stream.held(self.time_conv)
        held.append(x)
        if len(held) == 1:
            return [x]
        if len(held) < self.time_conv.weight.shape[1]:
            return []
        out = stream.step(self.time_conv.apply(held, stream))
        del held[:-1]
        return [out]

    def needs(self, start: int, stop: int) -> tuple[int, int]:
        """Return the input rows (or columns) that the output rows start:stop depend on."""
        return 2 * start, 2 * stop + 1


class Upsample(nn.Module):
    """Twice the size in space, `out_dim` channels, and, where `temporal`, two frames of one (but for the first)."""

    def __init__(self, dim: int, out_dim: int, *, temporal: bool):
        super().__init__()
        self.resample = [None, Conv2d(dim, out_dim, 3)]
        if temporal:
            self.time_conv = CausalConv3d(dim, 2 * dim, (3, 1, 1))

    def __call__(self, x: mx.array, stream: Stream) -> list[mx.array]:
        conv, ready = self.resample[1], []
        for frame in self._doubled(x, stream) if "time_conv" in self else [x]:
            larger = convolve_doubled(frame, conv.weight, conv.bias)
            ready.append(stream.step(stream.cut.trimmed(larger, 1)))
        return ready

    def _doubled(self, x: mx.array, stream: Stream) -> list[mx.array]:
        # The very first frame stays single and is not remembered: the second meets zeros.
        passed = stream.held(self)
        if not passed:
            passed.append(mx.zeros(0))
            return [x]
        return mx.split(stream.step(self.time_conv(x, stream)), 2, axis=-1)

    def needs(self, start: int, stop: int) -> tuple[int, int]:
        """Return the input rows (or columns) that the output rows start:stop depend on."""
        return (start - 1) // 2, -(-(stop + 1) // 2)
