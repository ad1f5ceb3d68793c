"""Activations as modules without parameters, so that they can sit in lists named as the checkpoint's Sequentials."""

from __future__ import annotations

import math

import mlx.core as mx
from mlx import nn


class GELUTanh(nn.Module):
    """The tanh form of GELU: x (1 + tanh(y)) / 2 with y = sqrt(2 / pi) (x + 0.044715 x^3).

    On the CPU it is computed as x / (1 + exp(-2 y)), the same function in half the time.
    """

    def __call__(self, x: mx.array) -> mx.array:
        if mx.default_device() == mx.Device(mx.gpu):
            return nn.gelu_approx(x)
        return x / (1 + mx.exp(-2 * math.sqrt(2 / math.pi) * x * (1 + 0.044715 * (x * x))))


class GELU(nn.Module):
    """The exact (erf) GELU."""

    def __call__(self, x: mx.array) -> mx.array:
        return nn.gelu(x)


class SiLU(nn.Module):
    """x * sigmoid(x)."""

    def __call__(self, x: mx.array) -> mx.array:
        return nn.silu(x)
