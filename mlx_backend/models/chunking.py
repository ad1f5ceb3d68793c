"""The row chunks of the device that MLX computes on."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import mlx.core as mx

from ..interface import chunks


def chunk_bounds(
    tokens: int, dim: int, heads: int, dispatch_flops: float = chunks.GPU_DISPATCH_FLOPS
) -> list[tuple[int, int]]:
    """Cut `tokens` rows into even chunks (start, stop); see `interface.chunks.chunk_bounds`."""
    on_gpu = mx.default_device() == mx.Device(mx.gpu)
    return chunks.chunk_bounds(tokens, dim, heads, on_gpu=on_gpu, dispatch_flops=dispatch_flops)


def cut(bounds: Sequence[tuple[int, int]], edges: slice) -> list[tuple[int, int]]:
    """Return the chunks cut at both ends of a part of the rows, unless it is empty: each is in it or beside it."""
    ends = {edges.start, edges.stop} if edges.stop > edges.start else set()
    return list(pairwise(sorted({point for pair in bounds for point in pair} | ends)))
