"""Memory that MLX holds but does not need goes back to the system; what it reads all the time stays in place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import mlx.core as mx

from ..interface.events import LOGGER
from ..interface.machine import CACHE_BYTES

WIRED_SPARE = 1 << 30  # beside the weights, for what a pass works on
WIRED_SHARE = 0.9  # of what the device recommends: MLX raises above all of it
LEFT_FREE, LEFT_SHARE = 8 << 30, 0.35  # for the system and other programs: Macs froze that were left less


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


def wired_bytes(weights: int, memory: int, recommended: int) -> int:
    """Return how much to keep from being paged out for weights of so many bytes; 0: leave it to the system.

    `memory` is the machine's, `recommended` the working set that the device allows, both in bytes.
    """
    if weights > memory - max(LEFT_FREE, LEFT_SHARE * memory):
        return 0
    return int(min(weights + WIRED_SPARE, WIRED_SHARE * recommended))


@contextmanager
def wired(weights: int) -> Iterator[None]:
    """Keep weights of so many bytes in place while the block runs, then restore the limit; on a Mac only."""
    info = mx.device_info() if mx.metal.is_available() else {}
    memory, recommended = (int(info.get(key, 0)) for key in ("memory_size", "max_recommended_working_set_size"))
    limit = wired_bytes(weights, memory, recommended) if weights and memory and recommended else 0
    if not limit:
        yield
        return
    previous = None
    try:
        previous = mx.set_wired_limit(limit)
    except (RuntimeError, ValueError) as error:  # an older macOS: slower at worst
        LOGGER.info("Memory could not be wired (%s).", error)
    try:
        yield
    finally:
        if previous is not None:
            mx.set_wired_limit(previous)
