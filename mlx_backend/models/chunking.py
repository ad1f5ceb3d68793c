"""The row chunks of the device that MLX computes on."""

from __future__ import annotations

import mlx.core as mx

from ..spec import chunks


def chunk_bounds(tokens: int, dim: int, heads: int) -> list[tuple[int, int]]:
    """Cut `tokens` rows into even chunks (start, stop) for a self-attention of `heads` heads over width `dim`."""
    return chunks.chunk_bounds(tokens, dim, heads, on_gpu=mx.default_device() == mx.Device(mx.gpu))
