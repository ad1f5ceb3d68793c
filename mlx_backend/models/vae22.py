"""Wan 2.2's causal video VAE: 48 latent channels, 16 x 16 in space, 4 in time after the first frame.

Source: `wan/modules/vae2_2.py` of Wan-Video/Wan2.2. As Wan 2.1's, on pixels taken 2 x 2 at a time, in stages whose
input is added to their output, brought to its size without a weight.
"""

from __future__ import annotations

import mlx.core as mx
from mlx import nn

from ..interface.latent_space import WAN22
from ..interface.sizes import VAEConfig
from .activations import SiLU
from .vae import WanVAE
from .vae21 import StemAndHead
from .vae_layers import AttentionBlock, CausalConv3d, Downsample, ResidualBlock, RMSNorm, Step, Stream, Upsample, flow

RGB = 3


class DownStage(nn.Module):
    """Residual blocks, then half the size where `halves`, and of two frames one where `temporal`, plus the input.

    The input's numbers are averaged in groups, in the order channel, frame, row, column; before the first frame lies
    one of zeros.
    """

    def __init__(self, in_dim: int, out_dim: int, blocks: int, *, halves: bool, temporal: bool):
        super().__init__()
        self.downsamples = [ResidualBlock(in_dim if i == 0 else out_dim, out_dim) for i in range(blocks)]
        if halves:
            self.downsamples.append(Downsample(out_dim, temporal=temporal))
        self._factors = (2 if temporal else 1, 2 if halves else 1)
        self._reach = blocks * ResidualBlock.REACH

    def __call__(self, x: mx.array, stream: Stream) -> list[mx.array]:
        held = stream.held(self)
        if not held and self._factors[0] > 1:
            held.append(mx.zeros_like(x))
        frames = [*held, x][-self._factors[0] :]
        held[:] = frames
        made = list(flow([*self.downsamples], x, stream))
        return [stream.step(main + self._averaged(frames, main, stream)) for main in made]

    @property
    def kept(self) -> int:
        """Frames of its input that it keeps while it works, to add them."""
        return self._factors[0]

    def needs(self, start: int, stop: int) -> tuple[int, int]:
        """Return the input rows (or columns) that the output rows start:stop depend on."""
        for layer in reversed(self.downsamples):
            start, stop = layer.needs(start, stop)
        return start, stop

    def _averaged(self, frames: list[mx.array], like: mx.array, stream: Stream) -> mx.array:
        """Return the input at the size [h, w, C] of the main path's result."""
        (height, width, dim), side = like.shape, self._factors[1]
        seen = [stream.cut.trimmed(frame, self._reach)[: side * height, : side * width] for frame in frames]
        x = mx.stack(seen).reshape(len(seen), height, side, width, side, -1).transpose(1, 3, 5, 0, 2, 4)
        return x.reshape(height, width, dim, -1).mean(axis=-1)


class UpStage(nn.Module):
    """Residual blocks, then, where `doubles`, twice the size (and two frames of one where `temporal`), plus the input.

    Each number of the input is repeated, in the order channel, frame, row, column. Without doubling nothing is added.
    """

    def __init__(self, in_dim: int, out_dim: int, blocks: int, *, doubles: bool, temporal: bool):
        super().__init__()
        self.upsamples = [ResidualBlock(in_dim if i == 0 else out_dim, out_dim) for i in range(blocks)]
        if doubles:
            self.upsamples.append(Upsample(out_dim, out_dim, temporal=temporal))
        self._doubles = doubles
        self._frames = 2 if temporal else 1
        self._reach = blocks * ResidualBlock.REACH

    def __call__(self, x: mx.array, stream: Stream) -> list[mx.array]:
        made = list(flow([*self.upsamples], x, stream))
        if not self._doubles:
            return made
        repeated = self._repeated(stream.cut.trimmed(x, self._reach), made[0].shape[-1])
        last = repeated[-len(made) :]  # the first frame of a clip is the later of its two
        return [stream.step(main + stream.cut.trimmed(frame, 1)) for main, frame in zip(made, last, strict=True)]

    @property
    def kept(self) -> int:
        """Frames of its input that it keeps while it works, to add them."""
        return 1

    def needs(self, start: int, stop: int) -> tuple[int, int]:
        """Return the input rows (or columns) that the output rows start:stop depend on."""
        for layer in reversed(self.upsamples):
            start, stop = layer.needs(start, stop)
        return start, stop

    def _repeated(self, x: mx.array, dim: int) -> list[mx.array]:
        """Return the input as frames [2h, 2w, dim]."""
        height, width, channels = x.shape
        numbers = mx.repeat(x, dim * self._frames * 4 // channels, axis=-1)
        frames = numbers.reshape(height, width, dim, self._frames, 2, 2).transpose(3, 0, 4, 1, 5, 2)
        return list(frames.reshape(self._frames, 2 * height, 2 * width, dim))


class Encoder(StemAndHead):
    """Pixels [H, W, 3], frame by frame, to 2 x z_dim channels at a sixteenth of the size."""

    def __init__(self, config: VAEConfig):
        super().__init__()
        dims = [config.dim * m for m in (1, *config.dim_mult)]
        self.conv1 = CausalConv3d(RGB * config.patch**2, dims[0], (3, 3, 3))
        temporal = (*config.temporal_downsample, False)
        self.downsamples = [
            DownStage(*pair, config.num_res_blocks, halves=i < len(config.temporal_downsample), temporal=temporal[i])
            for i, pair in enumerate(zip(dims[:-1], dims[1:], strict=True))
        ]
        self.middle = [ResidualBlock(dims[-1], dims[-1]), AttentionBlock(dims[-1]), ResidualBlock(dims[-1], dims[-1])]
        self.head = [RMSNorm(dims[-1], 3), SiLU(), CausalConv3d(dims[-1], 2 * config.z_dim, (3, 3, 3))]
        self._patch = config.patch

    def fine(self) -> list[Step]:
        """Return the steps from pixels to a sixteenth of the size, where the memory goes."""
        return [self._patched, self._stem, *self.downsamples[:-1]]

    def coarse(self) -> list[Step]:
        """Return the steps after `fine`; one of them looks at the whole frame."""
        return [self.downsamples[-1], *self.middle, self._head]

    def needs(self, start: int, stop: int) -> tuple[int, int]:
        """Return the pixel rows (or columns) that rows start:stop of the last fine step depend on."""
        for layer in reversed(self.downsamples[:-1]):
            start, stop = layer.needs(start, stop)
        return self._patch * (start - 1), self._patch * (stop + 1)

    def _patched(self, x: mx.array, stream: Stream) -> list[mx.array]:  # noqa: ARG002 - a Step
        """Take 2 x 2 pixels as one, channels in the order colour, column, row."""
        height, width, colours = x.shape
        side = self._patch
        cut = x.reshape(height // side, side, width // side, side, colours).transpose(0, 2, 4, 3, 1)
        return [cut.reshape(height // side, width // side, -1)]


class Decoder(StemAndHead):
    """z_dim channels [h, w, z_dim], frame by frame, to pixels [16h, 16w, 3]."""

    def __init__(self, config: VAEConfig):
        super().__init__()
        dim = config.decoder_dim or config.dim
        dims = [dim * m for m in (config.dim_mult[-1], *reversed(config.dim_mult))]
        self.conv1 = CausalConv3d(config.z_dim, dims[0], (3, 3, 3))
        self.middle = [ResidualBlock(dims[0], dims[0]), AttentionBlock(dims[0]), ResidualBlock(dims[0], dims[0])]
        temporal = (*reversed(config.temporal_downsample), False)
        self.upsamples = [
            UpStage(*pair, config.num_res_blocks + 1, doubles=i < len(config.temporal_downsample), temporal=temporal[i])
            for i, pair in enumerate(zip(dims[:-1], dims[1:], strict=True))
        ]
        self.head = [RMSNorm(dims[-1], 3), SiLU(), CausalConv3d(dims[-1], RGB * config.patch**2, (3, 3, 3))]
        self._patch = config.patch

    def coarse(self) -> list[Step]:
        """Return the steps at a sixteenth of the size; one of them looks at the whole frame."""
        return [self._stem, *self.middle]

    def fine(self) -> list[Step]:
        """Return the steps after `coarse` to pixels, where the memory goes."""
        return [*self.upsamples, self._head, self._unpatched]

    def needs(self, start: int, stop: int) -> tuple[int, int]:
        """Return the rows (or columns) of the last coarse step that pixel rows start:stop depend on."""
        start, stop = start // self._patch - 1, -(-stop // self._patch) + 1
        for layer in reversed(self.upsamples):
            start, stop = layer.needs(start, stop)
        return start, stop

    def _unpatched(self, x: mx.array, stream: Stream) -> list[mx.array]:  # noqa: ARG002 - a Step
        """The reverse of the encoder's patches."""
        height, width, _ = x.shape
        side = self._patch
        cut = x.reshape(height, width, RGB, side, side).transpose(0, 4, 1, 3, 2)
        return [cut.reshape(side * height, side * width, RGB)]


class WanVAE22(WanVAE):
    """Both halves; latents are [48, T, H/16, W/16]."""

    def __init__(self, config: VAEConfig):
        super().__init__(config, Encoder(config), Decoder(config), WAN22)
