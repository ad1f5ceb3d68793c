"""Normalisations, all computed and returned in float32 whatever comes in."""

from __future__ import annotations

import mlx.core as mx
from mlx import nn


class LayerNorm(nn.Module):
    """Layer normalisation over the last axis; `weight` and `bias` only where `affine`."""

    def __init__(self, dim: int, eps: float, *, affine: bool = True):
        super().__init__()
        if affine:
            self.weight = mx.ones((dim,))
            self.bias = mx.zeros((dim,))
        self._eps = eps

    def __call__(self, x: mx.array) -> mx.array:
        weight, bias = self.get("weight"), self.get("bias")
        if weight is not None:
            weight, bias = weight.astype(mx.float32), bias.astype(mx.float32)
        return mx.fast.layer_norm(x.astype(mx.float32), weight, bias, self._eps)


class RMSNorm(nn.Module):
    """Root-mean-square normalisation over the last axis, times `weight`."""

    def __init__(self, dim: int, eps: float):
        super().__init__()
        self.weight = mx.ones((dim,))
        self._eps = eps

    def __call__(self, x: mx.array) -> mx.array:
        return mx.fast.rms_norm(x.astype(mx.float32), self.weight.astype(mx.float32), self._eps)

    def scale(self, x: mx.array) -> mx.array:
        """Return what brings each row of x [rows, dim] to a root mean square of 1: [rows, 1]."""
        return mx.rsqrt(mx.square(x.astype(mx.float32)).mean(axis=-1, keepdims=True) + self._eps)

    def part(self, x: mx.array, scale: mx.array, columns: slice) -> mx.array:
        """Return these columns of the result from x, those columns of a whole, and the whole's `scale`."""
        return x.astype(mx.float32) * scale * self.weight[columns].astype(mx.float32)
