"""How many rows of the hidden stream are worked on at once."""

from __future__ import annotations

import math

# macOS kills a process whose single GPU dispatch takes more than about 5 s; 4 TFLOP is about 1 s on a base chip.
GPU_DISPATCH_FLOPS = 4e12
DISPATCH_SECONDS = 1  # on chips that were measured to be slower still
# The CPU's attention writes out its scores (rows x tokens x heads): a small chunk stays near the caches.
CPU_SCORE_BYTES = 48 << 20
MIN_ROWS, MAX_ROWS = 64, 8192
# The VAE's one attention, whose heads no fused kernel takes, writes out so much of its scores at a time.
ATTENTION_SCORE_BYTES = 48 << 20
# What the CPU's convolutions write out of their patches. Measured: 6 to 20 MB are equally fast, 60 MB cost a third.
CPU_PATCH_BYTES = 12 << 20


def chunk_bounds(
    tokens: int, dim: int, heads: int, *, on_gpu: bool, dispatch_flops: float = GPU_DISPATCH_FLOPS
) -> list[tuple[int, int]]:
    """Cut `tokens` rows into even chunks (start, stop) for a self-attention of `heads` heads over width `dim`.

    On a GPU the attention of one chunk takes at most about `dispatch_flops`.
    """
    limit = dispatch_flops / (4 * tokens * dim) if on_gpu else CPU_SCORE_BYTES / (4 * tokens * heads)
    count = math.ceil(tokens / min(max(int(limit), MIN_ROWS), MAX_ROWS))
    edges = [round(i * tokens / count) for i in range(count + 1)]
    return list(zip(edges[:-1], edges[1:], strict=True))


def dispatch_limit(flops_per_s: float) -> float:
    """Return how much a GPU of this measured rate may do in one dispatch, in FLOPs."""
    return min(GPU_DISPATCH_FLOPS, DISPATCH_SECONDS * flops_per_s)
