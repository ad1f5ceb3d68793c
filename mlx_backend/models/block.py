"""The modulated transformer block and the output head of every Wan model."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import mlx.core as mx
from mlx import nn

from ..interface.sizes import WanConfig
from .activations import GELUTanh
from .attention import Context, CrossAttention, Rows, SelfAttention, Time
from .linear import Linear
from .norms import LayerNorm

Update = Callable[[Rows], mx.array]


class Block(nn.Module):
    """Self-attention, cross-attention, feed-forward; the first and the last are modulated by the time embedding.

    The hidden stream is float32 and comes as a list of row chunks, which the block rewrites: each chunk is evaluated
    before the next begins, so that working memory is one chunk's and one GPU dispatch stays short.
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
        self, chunks: list[Rows], context: Context, check_cancelled: Callable[[], None], head_groups: int = 1
    ) -> None:
        """Rewrite the `x` of every chunk. `check_cancelled` is called before each chunk of each part and may raise.

        Self-attention is done in so many groups of heads, see SelfAttention.
        """
        # Each part is a call of its own, so that its ready weights, keys and values are gone when the next one starts.
        attend = partial(self._attend, chunks, check_cancelled, head_groups)
        for update in (attend, partial(self._look, context), self._feed):
            _rewrite(chunks, update(), check_cancelled)

    def _modulation(self, time: Time) -> list[mx.array]:
        """Return shift, scale and gate of the attention and of the feed-forward, each [1, dim]."""
        return mx.split(self.modulation[0].astype(mx.float32) + time.e0, 6)

    def _attend(self, chunks: list[Rows], check_cancelled: Callable[[], None], head_groups: int) -> Update:
        def modulated(rows: Rows) -> mx.array:
            check_cancelled()
            shift, scale, *_ = self._modulation(rows.time)
            return self.norm1(rows.x) * (1 + scale) + shift

        attend = self.self_attn.reader(chunks, modulated, head_groups)
        return lambda rows: rows.x + attend(rows) * self._modulation(rows.time)[2]

    def _look(self, context: Context) -> Update:
        look = self.cross_attn.reader(context)
        return lambda rows: rows.x + look(self.norm3(rows.x))

    def _feed(self) -> Update:
        up, gelu, down = self.ffn[0].prepared(), self.ffn[1], self.ffn[2].prepared()

        def feed(rows: Rows) -> mx.array:
            *_, shift, scale, gate = self._modulation(rows.time)
            return rows.x + down(gelu(up(self.norm2(rows.x) * (1 + scale) + shift))) * gate

        return feed


def _rewrite(chunks: list[Rows], update: Update, check_cancelled: Callable[[], None]) -> None:
    for rows in chunks:
        check_cancelled()
        rows.x = update(rows)
        mx.eval(rows.x)


class Head(nn.Module):
    """Modulated norm and projection to patches, float32."""

    def __init__(self, config: WanConfig, patch_values: int):
        super().__init__()
        self.norm = LayerNorm(config.dim, config.eps, affine=False)
        self.head = Linear(config.dim, patch_values, compute_dtype=mx.float32)
        self.modulation = mx.zeros((1, 2, config.dim))

    def __call__(self, rows: Rows) -> mx.array:
        """Project a chunk to [rows, patch values]."""
        shift, scale = mx.split(self.modulation[0].astype(mx.float32) + rows.time.e, 2)
        return self.head(self.norm(rows.x) * (1 + scale) + shift)
