"""The modulated transformer block and the output head of every Wan model."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
from mlx import nn

from .activations import GELUTanh
from .attention import Context, CrossAttention, Rotation, SelfAttention
from .config import DiTConfig
from .linear import Linear
from .norms import LayerNorm

Modulated = Callable[[mx.array], mx.array]


class Block(nn.Module):
    """Self-attention, cross-attention, feed-forward; the first and the last are modulated by the time embedding.

    The hidden stream is float32 and comes as a list of row chunks, which the block rewrites in place: each chunk is
    evaluated before the next begins, so that working memory is one chunk's and one GPU dispatch stays short.
    """

    def __init__(self, config: DiTConfig, compute_dtype: mx.Dtype | None):
        super().__init__()
        dim = config.dim
        self.norm1 = LayerNorm(dim, config.eps, affine=False)
        self.self_attn = SelfAttention(config, compute_dtype)
        self.norm3 = LayerNorm(dim, config.eps)
        self.cross_attn = CrossAttention(config, compute_dtype)
        self.norm2 = LayerNorm(dim, config.eps, affine=False)
        self.ffn = [
            Linear(dim, config.ffn_dim, compute_dtype=compute_dtype),
            GELUTanh(),
            Linear(config.ffn_dim, dim, compute_dtype=compute_dtype),
        ]
        self.modulation = mx.zeros((1, 6, dim))

    def __call__(self, chunks: list[mx.array], rotations: list[Rotation], time: mx.array, context: Context) -> None:
        """Rewrite `chunks` (each [rows, dim]); `time` is e0 [6, dim], float32."""
        shift_sa, scale_sa, gate_sa, shift_ffn, scale_ffn, gate_ffn = mx.split(
            self.modulation[0].astype(mx.float32) + time, 6
        )
        self._attend(chunks, rotations, lambda x: self.norm1(x) * (1 + scale_sa) + shift_sa, gate_sa)
        self._look(chunks, context)
        self._feed(chunks, lambda x: self.norm2(x) * (1 + scale_ffn) + shift_ffn, gate_ffn)

    # Each part is a method of its own so that its ready weights, keys and values are gone when the next one starts.

    def _attend(self, chunks: list[mx.array], rotations: list[Rotation], modulated: Modulated, gate: mx.array) -> None:
        attend = self.self_attn.reader(self.self_attn.keys_values(map(modulated, chunks), rotations))
        rewrite(chunks, lambda x, i: x + attend(modulated(x), rotations[i]) * gate)

    def _look(self, chunks: list[mx.array], context: Context) -> None:
        look = self.cross_attn.reader(context)
        rewrite(chunks, lambda x, _: x + look(self.norm3(x)))

    def _feed(self, chunks: list[mx.array], modulated: Modulated, gate: mx.array) -> None:
        up, gelu, down = self.ffn[0].prepared(), self.ffn[1], self.ffn[2].prepared()
        rewrite(chunks, lambda x, _: x + down(gelu(up(modulated(x)))) * gate)


class Head(nn.Module):
    """Modulated norm and projection to patches, float32."""

    def __init__(self, config: DiTConfig, patch_values: int):
        super().__init__()
        self.norm = LayerNorm(config.dim, config.eps, affine=False)
        self.head = Linear(config.dim, patch_values, compute_dtype=mx.float32)
        self.modulation = mx.zeros((1, 2, config.dim))

    def __call__(self, x: mx.array, time: mx.array) -> mx.array:
        """Project x [rows, dim] to [rows, patch values]; `time` is e [dim], not e0."""
        shift, scale = mx.split(self.modulation[0].astype(mx.float32) + time, 2)
        return self.head(self.norm(x) * (1 + scale) + shift)


def rewrite(chunks: list[mx.array], update: Callable[[mx.array, int], mx.array]) -> None:
    """Replace each chunk by its update, evaluated before the next one starts."""
    for i, x in enumerate(chunks):
        chunks[i] = update(x, i)
        mx.eval(chunks[i])
