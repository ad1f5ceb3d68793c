"""The visual tower of CLIP ViT-H/14. Source: `wan/modules/clip.py` of Wan-Video/Wan2.1 (`use_31_block`).

SCAIL-2 takes what leaves the last block but one, without the closing norm and projection.
"""

from __future__ import annotations

import mlx.core as mx
from mlx import nn

from ..interface.sizes import ClipConfig
from .activations import GELU
from .linear import Linear, affine
from .norms import LayerNorm


class PatchConvolution(nn.Module):
    """A convolution whose kernel is its stride, without bias: `weight` [dim, 3, patch, patch]."""

    def __init__(self, dim: int, patch: int):
        super().__init__()
        self.weight = mx.zeros((dim, 3, patch, patch))

    def __call__(self, image: mx.array) -> mx.array:
        """Embed an image [3, H, W] as [patches, dim] in row-major order."""
        dim, channels, patch, _ = self.weight.shape
        _, height, width = image.shape
        cut = image.reshape(channels, height // patch, patch, width // patch, patch).transpose(1, 3, 0, 2, 4)
        weight = self.weight.reshape(dim, -1).astype(mx.float32)
        return affine(weight, None)(cut.reshape(-1, channels * patch * patch))


class Attention(nn.Module):
    """Multi-head attention over all tokens, with one projection for q, k and v."""

    def __init__(self, config: ClipConfig, compute_dtype: mx.Dtype | None):
        super().__init__()
        self.to_qkv = Linear(config.dim, 3 * config.dim, compute_dtype=compute_dtype)
        self.proj = Linear(config.dim, config.dim, compute_dtype=compute_dtype)
        self._num_heads = config.num_heads

    def __call__(self, x: mx.array) -> mx.array:
        length, dim = x.shape
        qkv = self.to_qkv(x).reshape(length, 3, self._num_heads, dim // self._num_heads).transpose(1, 2, 0, 3)
        q, k, v = (part[None] for part in qkv)
        seen = mx.fast.scaled_dot_product_attention(q, k, v, scale=q.shape[-1] ** -0.5)
        return self.proj(seen[0].transpose(1, 0, 2).reshape(length, dim))


class Block(nn.Module):
    """Attention and a four times wider feed-forward with exact GELU, each normalised before."""

    def __init__(self, config: ClipConfig, compute_dtype: mx.Dtype | None):
        super().__init__()
        self.norm1 = LayerNorm(config.dim, config.eps)
        self.attn = Attention(config, compute_dtype)
        self.norm2 = LayerNorm(config.dim, config.eps)
        self.mlp = [
            Linear(config.dim, config.mlp_dim, compute_dtype=compute_dtype),
            GELU(),
            Linear(config.mlp_dim, config.dim, compute_dtype=compute_dtype),
        ]

    def __call__(self, x: mx.array) -> mx.array:
        x = x + self.attn(self.norm1(x))
        up, gelu, down = self.mlp
        return x + down(gelu(up(self.norm2(x))))


class ClipVision(nn.Module):
    """An image of `image_size` square pixels to its tokens [1 + patches, dim], float32.

    The last block, `post_norm` and `head` belong to the checkpoint and are loaded, but take no part here.
    """

    def __init__(self, config: ClipConfig, compute_dtype: mx.Dtype | None = None):
        super().__init__()
        self._config = config
        self.patch_embedding = PatchConvolution(config.dim, config.patch_size)
        self.cls_embedding = mx.zeros((1, 1, config.dim))
        self.pos_embedding = mx.zeros((1, config.tokens, config.dim))
        self.pre_norm = LayerNorm(config.dim, config.eps)
        self.transformer = [Block(config, compute_dtype) for _ in range(config.num_layers)]
        self.post_norm = LayerNorm(config.dim, config.eps)
        self.head = mx.zeros((config.dim, config.out_dim))

    @property
    def config(self) -> ClipConfig:
        """The sizes it was built with."""
        return self._config

    def __call__(self, image: mx.array) -> mx.array:
        """Encode an image [3, image_size, image_size] that is already normalised to CLIP's mean and deviation."""
        tokens = mx.concatenate([self.cls_embedding[0].astype(mx.float32), self.patch_embedding(image)])
        x = self.pre_norm(tokens + self.pos_embedding[0].astype(mx.float32))
        for block in self.transformer[:-1]:
            x = block(x)
            mx.eval(x)
        return x
