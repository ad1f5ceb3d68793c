"""The parts of Wan's causal video VAEs, channels-last: x is [T, H, W, C], one clip, fed piece by piece in time.

Source: `wan/modules/vae.py` of Wan-Video/Wan2.1. A `Stream` carries what each causal convolution must remember of the
past, so that feeding a clip in pieces equals feeding it whole. Lists hold the official Sequentials' positions: None or
a module without parameters stands where the checkpoint has nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import mlx.core as mx
from mlx import nn

from .activations import SiLU


@dataclass(slots=True)
class Stream:
    """The memory of one pass over one clip: the last frames that each layer saw, by layer.

    `check_cancelled` is called between layers and may raise.
    """

    check_cancelled: Callable[[], None]
    past: dict[int, mx.array] = field(default_factory=dict)

    def take(self, layer: nn.Module) -> mx.array | None:
        """Return what `layer` kept, None before its first piece."""
        return self.past.get(id(layer))

    def keep(self, layer: nn.Module, frames: mx.array) -> None:
        """Remember `frames` for the next piece, as a copy of their own (a view would hold the whole piece)."""
        self.past[id(layer)] = mx.contiguous(frames)
        mx.eval(self.past[id(layer)])

    def step(self, x: mx.array) -> mx.array:
        """Evaluate x, so that nothing before it stays in memory, and see whether the user stopped the run."""
        mx.eval(x)
        self.check_cancelled()
        return x


class CausalConv3d(nn.Module):
    """A convolution that sees only the past: `weight` [out, kt, kh, kw, in], zeros before the first frame."""

    def __init__(self, in_dim: int, out_dim: int, kernel: tuple[int, int, int], stride: int = 1):
        super().__init__()
        self.weight = mx.zeros((out_dim, *kernel, in_dim))
        self.bias = mx.zeros((out_dim,))
        self._stride = stride

    def __call__(self, x: mx.array, stream: Stream) -> mx.array:
        frames, height, width = self.weight.shape[1:4]
        if frames > 1:
            past = stream.take(self)
            if past is None:
                past = mx.zeros((frames - self._stride, *x.shape[1:]), dtype=x.dtype)
            x = mx.concatenate([past, x])
            stream.keep(self, x[self._stride - frames :])
        # The past stands before x already: with batch 1 and no padding in time MLX takes its fast decomposition.
        padding = (0, height // 2, width // 2)
        out = mx.conv3d(x[None], self.weight.astype(x.dtype), stride=(self._stride, 1, 1), padding=padding)
        return out[0] + self.bias.astype(x.dtype)


class Conv2d(nn.Module):
    """A convolution per frame: `weight` [out, kh, kw, in]."""

    def __init__(self, in_dim: int, out_dim: int, kernel: int, stride: int = 1, padding: int = 0):
        super().__init__()
        self.weight = mx.zeros((out_dim, kernel, kernel, in_dim))
        self.bias = mx.zeros((out_dim,))
        self._geometry = (stride, padding)

    def __call__(self, x: mx.array) -> mx.array:
        return mx.conv2d(x, self.weight.astype(x.dtype), *self._geometry) + self.bias.astype(x.dtype)


class RMSNorm(nn.Module):
    """x / |x| over the channels, times sqrt(C) and `gamma` [C, 1, 1(, 1)]."""

    def __init__(self, dim: int, axes: int):
        super().__init__()
        self.gamma = mx.ones((dim, *[1] * axes))

    def __call__(self, x: mx.array) -> mx.array:
        length = mx.maximum(mx.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
        return x / length * (x.shape[-1] ** 0.5 * self.gamma.reshape(-1).astype(x.dtype))


class ResidualBlock(nn.Module):
    """Norm, SiLU, convolution, twice, plus the input (through a 1x1x1 convolution where channels differ)."""

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

    def __call__(self, x: mx.array, stream: Stream) -> mx.array:
        norm1, silu, conv1, norm2, _, _, conv2 = self.residual
        out = conv1(silu(norm1(x)), stream)
        out = conv2(silu(norm2(out)), stream)
        return stream.step(out + (self.shortcut(x, stream) if "shortcut" in self else x))


class AttentionBlock(nn.Module):
    """Single-head attention among the pixels of each frame."""

    def __init__(self, dim: int):
        super().__init__()
        self.norm = RMSNorm(dim, 2)
        self.to_qkv = Conv2d(dim, 3 * dim, 1)
        self.proj = Conv2d(dim, dim, 1)

    def __call__(self, x: mx.array, stream: Stream) -> mx.array:
        frames, height, width, dim = x.shape
        qkv = self.to_qkv(self.norm(x)).reshape(frames, 1, height * width, 3 * dim)
        seen = []
        for frame in qkv:  # frame by frame: the scores are (H W) x (H W)
            q, k, v = (part[None] for part in mx.split(frame, 3, axis=-1))
            seen.append(mx.fast.scaled_dot_product_attention(q, k, v, scale=dim**-0.5)[0])
            mx.eval(seen[-1])
        return stream.step(x + self.proj(mx.concatenate(seen).reshape(x.shape)))


class Downsample(nn.Module):
    """Half the size in space and, where `temporal`, in time (a clip's first piece passes that part by)."""

    def __init__(self, dim: int, *, temporal: bool):
        super().__init__()
        self.resample = [None, Conv2d(dim, dim, 3, stride=2)]
        if temporal:
            self.time_conv = CausalConv3d(dim, dim, (3, 1, 1), stride=2)

    def __call__(self, x: mx.array, stream: Stream) -> mx.array:
        x = self.resample[1](mx.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0))))
        if "time_conv" in self:
            if stream.take(self.time_conv) is None:
                stream.keep(self.time_conv, x[-1:])
            else:
                x = self.time_conv(x, stream)
        return stream.step(x)


class Upsample(nn.Module):
    """Twice the size in space, half the channels, and, where `temporal`, twice the frames (but for the first)."""

    def __init__(self, dim: int, *, temporal: bool):
        super().__init__()
        self.resample = [None, Conv2d(dim, dim // 2, 3, padding=1)]
        if temporal:
            self.time_conv = CausalConv3d(dim, 2 * dim, (3, 1, 1))

    def __call__(self, x: mx.array, stream: Stream) -> mx.array:
        if "time_conv" in self:
            x = self._twice_the_frames(x, stream)
        x = mx.repeat(mx.repeat(x, 2, axis=1), 2, axis=2)
        return stream.step(self.resample[1](x))

    def _twice_the_frames(self, x: mx.array, stream: Stream) -> mx.array:
        # The very first frame stays single and is not remembered: the second meets zeros.
        if stream.take(self) is None:
            stream.keep(self, x[:0])
            return x
        frames, height, width, dim = x.shape
        pairs = self.time_conv(x, stream).reshape(frames, height, width, 2, dim)
        return pairs.transpose(0, 3, 1, 2, 4).reshape(2 * frames, height, width, dim)
