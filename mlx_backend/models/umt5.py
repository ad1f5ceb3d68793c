"""The UMT5 encoder that reads the prompt. Source: `wan/modules/t5.py` of Wan-Video/Wan2.1.

No scaling of the scores, a position bias of its own in every layer, GELU (tanh) on the gate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import mlx.core as mx
import numpy as np
from mlx import nn

from ..interface.sizes import UMT5Config
from .activations import GELUTanh
from .linear import Linear
from .norms import RMSNorm
from .offload import BlockNetwork


class Embedding(nn.Module):
    """A table of rows: `weight` [entries, dim]."""

    def __init__(self, entries: int, dim: int):
        super().__init__()
        self.weight = mx.zeros((entries, dim))
        self._read_rows: Callable[[mx.array], mx.array] | None = None

    def take_rows_from(self, read_rows: Callable[[mx.array], mx.array]) -> None:
        """Let rows come from `read_rows` (ids -> rows) from now on, and not from `weight`."""
        self._read_rows = read_rows

    def __call__(self, ids: mx.array) -> mx.array:
        rows = self.weight[ids] if self._read_rows is None else self._read_rows(ids)
        return rows.astype(mx.float32)


class RelativeEmbedding(nn.Module):
    """One bias per head for each bucket of distance between two tokens."""

    def __init__(self, config: UMT5Config):
        super().__init__()
        self.embedding = Embedding(config.num_buckets, config.num_heads)

    def __call__(self, buckets: mx.array) -> mx.array:
        """Return [heads, L, L] for buckets [L, L]."""
        return self.embedding(buckets).transpose(2, 0, 1)


class Attention(nn.Module):
    """Bidirectional attention without scaling and without biases in its projections."""

    def __init__(self, config: UMT5Config, compute_dtype: mx.Dtype | None):
        super().__init__()
        inner = config.dim_attn
        self.q = Linear(config.dim, inner, bias=False, compute_dtype=compute_dtype)
        self.k = Linear(config.dim, inner, bias=False, compute_dtype=compute_dtype)
        self.v = Linear(config.dim, inner, bias=False, compute_dtype=compute_dtype)
        self.o = Linear(inner, config.dim, bias=False, compute_dtype=compute_dtype)
        self._num_heads = config.num_heads

    def __call__(self, x: mx.array, bias: mx.array) -> mx.array:
        q, k, v = (p(x).reshape(len(x), self._num_heads, -1).transpose(1, 0, 2) for p in (self.q, self.k, self.v))
        scores = (q @ k.transpose(0, 2, 1)).astype(mx.float32) + bias
        seen = mx.softmax(scores, axis=-1).astype(v.dtype) @ v
        return self.o(seen.transpose(1, 0, 2).reshape(len(x), -1))


class FeedForward(nn.Module):
    """fc2(fc1(x) * gelu(gate(x)))."""

    def __init__(self, config: UMT5Config, compute_dtype: mx.Dtype | None):
        super().__init__()
        self.gate = [Linear(config.dim, config.dim_ffn, bias=False, compute_dtype=compute_dtype), GELUTanh()]
        self.fc1 = Linear(config.dim, config.dim_ffn, bias=False, compute_dtype=compute_dtype)
        self.fc2 = Linear(config.dim_ffn, config.dim, bias=False, compute_dtype=compute_dtype)

    def __call__(self, x: mx.array) -> mx.array:
        gate, gelu = self.gate
        return self.fc2(self.fc1(x) * gelu(gate(x)))


class Block(nn.Module):
    """Attention and feed-forward, each normalised before and added after; the stream is float32."""

    def __init__(self, config: UMT5Config, compute_dtype: mx.Dtype | None):
        super().__init__()
        self.norm1 = RMSNorm(config.dim, config.eps)
        self.attn = Attention(config, compute_dtype)
        self.norm2 = RMSNorm(config.dim, config.eps)
        self.ffn = FeedForward(config, compute_dtype)
        self.pos_embedding = RelativeEmbedding(config)

    def __call__(self, x: mx.array, buckets: mx.array) -> mx.array:
        x = x + self.attn(self.norm1(x), self.pos_embedding(buckets))
        return x + self.ffn(self.norm2(x))


class UMT5Encoder(BlockNetwork):
    """Token ids [L] to features [L, dim], float32."""

    def __init__(self, config: UMT5Config, compute_dtype: mx.Dtype | None = None):
        super().__init__()
        self._config = config
        self.token_embedding = Embedding(config.vocab_size, config.dim)
        self.blocks = [Block(config, compute_dtype) for _ in range(config.num_layers)]
        self.norm = RMSNorm(config.dim, config.eps)

    @property
    def config(self) -> UMT5Config:
        """The sizes it was built with."""
        return self._config

    def __call__(self, ids: mx.array) -> mx.array:
        """Encode the ids of one prompt; see `encode`."""
        return self.encode([ids], lambda: None)[0]

    def encode(self, prompts: Sequence[mx.array], check_cancelled: Callable[[], None]) -> list[mx.array]:
        """Encode several prompts, each the ids [L] with their end token and without padding, in one run of the blocks.

        Upstream pads to 512, masks the padding and trims it away again: the same numbers. `check_cancelled` is called
        in every block and may raise.
        """
        config = self._config
        buckets = [mx.array(distance_buckets(len(ids), config.num_buckets, config.max_distance)) for ids in prompts]
        streams = [self.token_embedding(ids) for ids in prompts]
        mx.eval(streams)
        with self.due_blocks() as blocks:
            for block in blocks:
                check_cancelled()
                for i, bucket in enumerate(buckets):  # one by one: each has its own ready weights
                    streams[i] = block(streams[i], bucket)
                    mx.eval(streams[i])
        return [self.norm(x) for x in streams]


def distance_buckets(length: int, num_buckets: int, max_distance: int) -> np.ndarray:
    """Return T5's bucket of (key - query) for every pair, int32 [length, length]: exact when near, logarithmic far."""
    half = num_buckets // 2
    exact = half // 2
    relative = np.arange(length)[None, :] - np.arange(length)[:, None]
    distance = np.abs(relative)
    far = exact + np.floor(
        np.log(np.maximum(distance, 1).astype(np.float32) / exact) / math.log(max_distance / exact) * (half - exact)
    ).astype(np.int32)
    near_or_far = np.where(distance < exact, distance, np.minimum(far, half - 1))
    return (near_or_far + np.where(relative > 0, half, 0)).astype(np.int32)
