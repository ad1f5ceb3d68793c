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
