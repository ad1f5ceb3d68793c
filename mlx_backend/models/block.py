"""The modulated transformer block and the output head of every Wan model."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
from mlx import nn

from ..interface.sizes import WanConfig
from .activations import GELUTanh
from .attention import Context, CrossAttention, Rotation, SelfAttention
from .linear import Linear
from .norms import LayerNorm

Modulated = Callable[[mx.array], mx.array]
Update = Callable[[mx.array, Rotation], mx.array]


class Block(nn.Module):
    """Self-attention, cross-attention, feed-forward; the first and the last are modulated by the time embedding.

    The hidden stream is float32 and comes as a list of row chunks, which the block rewrites in place: each chunk is
    evaluated before the next begins, so that working memory is one chunk's and one GPU dispatch stays short.
    """

    def __init__(self, config: WanConfig, compute_dtype: mx.Dtype | None):
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

    def __call__(
        self,
        chunks: list[mx.array],
        rotations: list[Rotation],
        time: mx.array,
        context: Context,
        check_cancelled: Callable[[], None],
    ) -> None:
        """Rewrite `chunks` (each [rows, dim]); `time` is e0 [6, dim], float32.

        `check_cancelled` is called before every chunk of every part and may raise.
        """
        shift_sa, scale_sa, gate_sa, shift_ffn, scale_ffn, gate_ffn = mx.split(
            self.modulation[0].astype(mx.float32) + time, 6
        )

        def attention_input(x: mx.array) -> mx.array:
            check_cancelled()
            return self.norm1(x) * (1 + scale_sa) + shift_sa

        def ffn_input(x: mx.array) -> mx.array:
            return self.norm2(x) * (1 + scale_ffn) + shift_ffn

        def rewrite(update: Update) -> None:
            for i, (x, rotation) in enumerate(zip(chunks, rotations, strict=True)):
                check_cancelled()
                chunks[i] = update(x, rotation)
                mx.eval(chunks[i])

        # Each part is a call of its own, so that its ready weights, keys and values are gone when the next one starts.
        rewrite(self._attend(chunks, rotations, attention_input, gate_sa))
        rewrite(self._look(context))
        rewrite(self._feed(ffn_input, gate_ffn))

    def _attend(
        self, chunks: list[mx.array], rotations: list[Rotation], modulated: Modulated, gate: mx.array
    ) -> Update:
        attend = self.self_attn.reader(self.self_attn.keys_values(map(modulated, chunks), rotations))
        return lambda x, rotation: x + attend(modulated(x), rotation) * gate

    def _look(self, context: Context) -> Update:
        look = self.cross_attn.reader(context)
        return lambda x, _: x + look(self.norm3(x))

    def _feed(self, modulated: Modulated, gate: mx.array) -> Update:
        up, gelu, down = self.ffn[0].prepared(), self.ffn[1], self.ffn[2].prepared()
        return lambda x, _: x + down(gelu(up(modulated(x)))) * gate


class Head(nn.Module):
    """Modulated norm and projection to patches, float32."""

    def __init__(self, config: WanConfig, patch_values: int):
        super().__init__()
        self.norm = LayerNorm(config.dim, config.eps, affine=False)
        self.head = Linear(config.dim, patch_values, compute_dtype=mx.float32)
        self.modulation = mx.zeros((1, 2, config.dim))

    def __call__(self, x: mx.array, time: mx.array) -> mx.array:
        """Project x [rows, dim] to [rows, patch values]; `time` is e [dim], not e0."""
        shift, scale = mx.split(self.modulation[0].astype(mx.float32) + time, 2)
        return self.head(self.norm(x) * (1 + scale) + shift)
