"""Self-attention over the whole sequence and cross-attention to text and reference picture, row chunk by row chunk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import mlx.core as mx
from mlx import nn

from ..interface.sizes import WanConfig
from .linear import Linear
from .norms import RMSNorm


@dataclass(frozen=True, slots=True)
class Rotation:
    """cos and sin [rows, 1, head_dim/2] of one chunk of tokens."""

    cos: mx.array
    sin: mx.array

    def apply(self, x: mx.array) -> mx.array:
        """Rotate adjacent channel pairs of x [rows, heads, head_dim], float32."""
        pairs = x.reshape(*x.shape[:-1], -1, 2)
        even, odd = pairs[..., 0], pairs[..., 1]
        turned = (even * self.cos - odd * self.sin, even * self.sin + odd * self.cos)
        return mx.stack(turned, axis=-1).reshape(x.shape)


@dataclass(frozen=True, slots=True)
class Time:
    """The embedded timestep: e [dim], which the head sees, and e0 [6, dim], which every block does; float32."""

    e: mx.array
    e0: mx.array


@dataclass(slots=True)
class Rows:
    """A chunk of the hidden stream: x [rows, dim], float32, rewritten by each part of a block; its turns; its time."""

    x: mx.array
    rotation: Rotation
    time: Time


Modulated = Callable[[Rows], mx.array]


@dataclass(frozen=True, slots=True)
class Context:
    """What cross-attention looks at: embedded text [512, dim]; CLIP tokens [257, dim], None without that branch."""

    text: mx.array
    image: mx.array | None


@dataclass(frozen=True, slots=True)
class KeysValues:
    """Keys and values [1, heads, length, head_dim], contiguous."""

    keys: mx.array
    values: mx.array

    @classmethod
    def joined(cls, keys: list[mx.array], values: list[mx.array]) -> KeysValues:
        """Join chunks [heads, rows, head_dim] along the rows, contiguously: a strided K is copied at every use.

        The lists are emptied, so that the chunks of the keys are gone before the values are joined.
        """
        made = []
        for parts in (keys, values):
            made.append(mx.contiguous(mx.concatenate(parts, axis=1))[None])
            parts.clear()
            mx.eval(made[-1])
        return cls(*made)

    def attend(self, queries: mx.array) -> mx.array:
        """Return the attention output [rows, dim] for queries [rows, heads, head_dim] in the dtype of the values."""
        rows, heads, head_dim = queries.shape
        out = mx.fast.scaled_dot_product_attention(
            queries.astype(self.values.dtype).transpose(1, 0, 2)[None],
            self.keys,
            self.values,
            scale=head_dim**-0.5,
        )
        return out.transpose(0, 2, 1, 3).reshape(rows, heads * head_dim)


class SelfAttention(nn.Module):
    """Queries and keys normalised over the full width, rotated; one softmax over all tokens."""

    def __init__(self, config: WanConfig, compute_dtype: mx.Dtype | None):
        super().__init__()
        dim = config.dim
        self.q = Linear(dim, dim, compute_dtype=compute_dtype)
        self.k = Linear(dim, dim, compute_dtype=compute_dtype)
        self.v = Linear(dim, dim, compute_dtype=compute_dtype)
        self.o = Linear(dim, dim, compute_dtype=compute_dtype)
        self.norm_q = RMSNorm(dim, config.eps)
        self.norm_k = RMSNorm(dim, config.eps)
        self._heads = (config.num_heads, config.head_dim)

    def reader(self, chunks: list[Rows], modulated: Modulated, groups: int = 1) -> Callable[[Rows], mx.array]:
        """Return what gives the attention output [rows, dim] of each of `chunks`, to be asked in their order.

        `modulated` makes the input [rows, dim] of a chunk: normalised, shifted and scaled. In several groups of heads
        (a divisor of their number), keys, values and results are never in memory all at once.
        """
        if groups > 1:
            outputs = self._in_groups(chunks, modulated, groups)
            o = self.o.prepared()
            return lambda rows: o(mx.concatenate(outputs.pop(0), axis=1))  # noqa: ARG005 - the next one's
        context = self._keys_values(chunks, modulated)
        q, o = self.q.prepared(), self.o.prepared()

        def read(rows: Rows) -> mx.array:
            queries = rows.rotation.apply(self.norm_q(q(modulated(rows))).reshape(-1, *self._heads))
            return o(context.attend(queries))

        return read

    def _keys_values(self, chunks: list[Rows], modulated: Modulated) -> KeysValues:
        """Project all tokens."""
        k, v = self.k.prepared(), self.v.prepared()
        keys, values = [], []
        for rows in chunks:
            x = modulated(rows)
            value = v(x)
            key = rows.rotation.apply(self.norm_k(k(x)).reshape(-1, *self._heads)).astype(value.dtype)
            mx.eval(key, value)
            keys.append(key.transpose(1, 0, 2))
            values.append(value.reshape(-1, *self._heads).transpose(1, 0, 2))
        return KeysValues.joined(keys, values)

    def _in_groups(self, chunks: list[Rows], modulated: Modulated, groups: int) -> list[list[mx.array]]:
        """Attend with a group of heads after another; return the results [rows, dim / groups] of each chunk.

        Values and queries are made for a group, from its rows of the weights. Keys are made for all heads at once,
        because their norm is over all: as the results of a group come, its keys go.
        """
        heads, head_dim = self._heads[0] // groups, self._heads[1]
        keys, scales = self._keys_by_group(chunks, modulated, groups)
        outputs: list[list[mx.array]] = [[] for _ in chunks]
        for number in range(groups):
            own = slice(number * heads * head_dim, (number + 1) * heads * head_dim)
            v, values = self.v.prepared(own), []
            for rows in chunks:
                values.append(v(modulated(rows)).reshape(-1, heads, head_dim).transpose(1, 0, 2))
                mx.eval(values[-1])
            context, q = KeysValues.joined(keys[number], values), self.q.prepared(own)
            for rows, scale, made in zip(chunks, scales, outputs, strict=True):
                queries = self.norm_q.part(q(modulated(rows)), scale, own).reshape(-1, heads, head_dim)
                made.append(context.attend(rows.rotation.apply(queries)))
                mx.eval(made[-1])
            del context, v, q
        return outputs

    def _keys_by_group(
        self, chunks: list[Rows], modulated: Modulated, groups: int
    ) -> tuple[list[list[mx.array]], list[mx.array]]:
        """Return the keys [heads / groups, rows, head_dim] of each group and chunk, and the scales of the queries.

        A query's scale is over all heads too: the queries themselves are made again, for a group, when it is attended.
        """
        k, q = self.k.prepared(), self.q.prepared()
        keys: list[list[mx.array]] = [[] for _ in range(groups)]
        scales = []
        for rows in chunks:
            x = modulated(rows)
            product = k(x)
            key = rows.rotation.apply(self.norm_k(product).reshape(-1, *self._heads)).astype(product.dtype)
            parts = [mx.contiguous(part.transpose(1, 0, 2)) for part in mx.split(key, groups, axis=1)]
            scales.append(self.norm_q.scale(q(x)))
            mx.eval(parts, scales[-1])
            for made, part in zip(keys, parts, strict=True):
                made.append(part)
        return keys, scales


class CrossAttention(nn.Module):
    """Softmax attention to the text and, where the model has that branch, to CLIP tokens; summed before `o`."""

    def __init__(self, config: WanConfig, compute_dtype: mx.Dtype | None):
        super().__init__()
        dim = config.dim
        self.q = Linear(dim, dim, compute_dtype=compute_dtype)
        self.k = Linear(dim, dim, compute_dtype=compute_dtype)
        self.v = Linear(dim, dim, compute_dtype=compute_dtype)
        self.o = Linear(dim, dim, compute_dtype=compute_dtype)
        self.norm_q = RMSNorm(dim, config.eps)
        self.norm_k = RMSNorm(dim, config.eps)
        if config.clip_dim:
            self.k_img = Linear(dim, dim, compute_dtype=compute_dtype)
            self.v_img = Linear(dim, dim, compute_dtype=compute_dtype)
            self.norm_k_img = RMSNorm(dim, config.eps)
        self._heads = (config.num_heads, config.head_dim)

    def reader(self, context: Context) -> Callable[[mx.array], mx.array]:
        """Return x [rows, dim] -> attention output [rows, dim]; keys and values are projected here, once."""
        text = self._keys_values(self.norm_k(self.k(context.text)), self.v(context.text))
        image = None
        if context.image is not None:
            image = self._keys_values(self.norm_k_img(self.k_img(context.image)), self.v_img(context.image))
        q, o = self.q.prepared(), self.o.prepared()

        def read(x: mx.array) -> mx.array:
            queries = self.norm_q(q(x)).reshape(-1, *self._heads)
            seen = text.attend(queries)
            return o(seen if image is None else seen + image.attend(queries))

        return read

    def _keys_values(self, keys: mx.array, values: mx.array) -> KeysValues:
        split = [a.reshape(-1, *self._heads).transpose(1, 0, 2) for a in (keys.astype(values.dtype), values)]
        return KeysValues.joined([split[0]], [split[1]])
