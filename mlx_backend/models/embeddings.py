"""What goes into the stream: patches, the time of the step, text and CLIP tokens."""

from __future__ import annotations

import math

import mlx.core as mx
import numpy as np
from mlx import nn

from ..interface.sizes import PATCH, WanConfig
from .activations import GELU
from .linear import Linear, Product, affine
from .norms import LayerNorm


class PatchEmbedding(Product):
    """A convolution whose kernel is its stride, (1, 2, 2), done as one product over patches.

    `weight` keeps the checkpoint's layout [dim, channels, 1, 2, 2]: flattened, its columns run (c, t, h, w).
    """

    def __init__(self, channels: int, dim: int, compute_dtype: mx.Dtype | None):
        super().__init__(compute_dtype)
        self.weight = mx.zeros((dim, channels, 1, PATCH, PATCH))
        self.bias = mx.zeros((dim,))

    def __call__(self, x: mx.array) -> mx.array:
        """Embed x [channels, T, H, W] as float32 tokens [T * H/2 * W/2, dim] in (t, h, w) order."""
        channels, frames, height, width = x.shape
        patches = x.reshape(channels, frames, height // PATCH, PATCH, width // PATCH, PATCH)
        patches = patches.transpose(1, 2, 4, 0, 3, 5).reshape(-1, channels * PATCH * PATCH)
        dtype = self._compute_dtype or self.weight.dtype
        return affine(self.weight.reshape(len(self.weight), -1).astype(dtype), self.bias)(patches).astype(mx.float32)


class ImageEmbedding(nn.Module):
    """CLIP tokens [tokens, clip_dim] to the model's width; its norms have eps 1e-5 and its GELU is the exact one.

    `emb_pos` [1, image_positions, clip_dim] is added before, where a model has learnt it (first and last frame).
    """

    def __init__(self, config: WanConfig, compute_dtype: mx.Dtype | None):
        super().__init__()
        if config.image_positions:
            self.emb_pos = mx.zeros((1, config.image_positions, config.clip_dim))
        self.proj = [
            LayerNorm(config.clip_dim, 1e-5),
            Linear(config.clip_dim, config.clip_dim, compute_dtype=compute_dtype),
            GELU(),
            Linear(config.clip_dim, config.dim, compute_dtype=compute_dtype),
            LayerNorm(config.dim, 1e-5),
        ]

    def __call__(self, tokens: mx.array) -> mx.array:
        positions = self.get("emb_pos")
        if positions is not None:
            tokens = tokens + positions[0].astype(mx.float32)
        for layer in self.proj:
            tokens = layer(tokens)
        return tokens


def sinusoid(t: float, dim: int) -> mx.array:
    """Return [cos | sin] of t over `dim`/2 frequencies, [1, dim]: computed in float64, returned in float32."""
    half = dim // 2
    angles = t * np.exp(-math.log(10000.0) * np.arange(half, dtype=np.float64) / half)
    return mx.array(np.concatenate([np.cos(angles), np.sin(angles)])[None].astype(np.float32))
