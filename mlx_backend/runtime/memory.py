"""Memory that MLX holds but does not need goes back to the system."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import mlx.core as mx

CACHE_BYTES = 1 << 30  # MLX's own limit is nearly all memory, and its cache grew until macOS killed runs


def return_memory() -> None:
    """Give cached buffers back."""
    mx.clear_cache()


@contextmanager
def bounded_cache() -> Iterator[None]:
    """Keep MLX's buffer cache small while the block runs, then restore the limit and empty the cache."""
    previous = mx.set_cache_limit(CACHE_BYTES)
    try:
        yield
    finally:
        mx.set_cache_limit(previous)
        mx.clear_cache()
