"""How many rows of the hidden stream are worked on at once."""

from __future__ import annotations

import math

import mlx.core as mx

# macOS kills a process whose single GPU dispatch takes more than about 5 s; 4 TFLOP is about 1 s on a base chip.
GPU_DISPATCH_FLOPS = 4e12
# The CPU's attention writes out its scores (rows x tokens x heads): a small chunk stays near the caches.
CPU_SCORE_BYTES = 48 << 20


def chunk_bounds(tokens: int, dim: int, heads: int) -> list[tuple[int, int]]:
    """Cut `tokens` rows into even chunks (start, stop) for a self-attention of `heads` heads over width `dim`."""
    if mx.default_device() == mx.Device(mx.gpu):
        limit = GPU_DISPATCH_FLOPS / (4 * tokens * dim)
    else:
        limit = CPU_SCORE_BYTES / (4 * tokens * heads)
    count = math.ceil(tokens / min(max(int(limit), 64), 8192))
    edges = [round(i * tokens / count) for i in range(count + 1)]
    return list(zip(edges[:-1], edges[1:], strict=True))
