"""Activations as modules without parameters, so that they can sit in lists named as the checkpoint's Sequentials."""

from __future__ import annotations

import mlx.core as mx
from mlx import nn


class GELUTanh(nn.Module):
    """The tanh form of GELU."""

    def __call__(self, x: mx.array) -> mx.array:
        return nn.gelu_approx(x)


class GELU(nn.Module):
    """The exact (erf) GELU."""

    def __call__(self, x: mx.array) -> mx.array:
        return nn.gelu(x)


class SiLU(nn.Module):
    """x * sigmoid(x)."""

    def __call__(self, x: mx.array) -> mx.array:
        return nn.silu(x)
