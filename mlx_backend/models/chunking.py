"""The row chunks of the device that MLX computes on."""

from __future__ import annotations

import mlx.core as mx

from ..interface import chunks


def chunk_bounds(
    tokens: int, dim: int, heads: int, dispatch_flops: float = chunks.GPU_DISPATCH_FLOPS
) -> list[tuple[int, int]]:
    """Cut `tokens` rows into even chunks (start, stop); see `spec.chunks.chunk_bounds`."""
    on_gpu = mx.default_device() == mx.Device(mx.gpu)
    return chunks.chunk_bounds(tokens, dim, heads, on_gpu=on_gpu, dispatch_flops=dispatch_flops)
