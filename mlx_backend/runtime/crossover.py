"""From how many rows on a packed matrix is better unpacked than multiplied as it is: measured, not assumed."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

import mlx.core as mx

# The rows of a short prompt, and of a long one. More never pay (Apple GPUs cross at about 768), and a choice among few
# comes out the same run after run, so that a seed keeps its picture.
CANDIDATES = (32, 512)
ROUNDS = 5
MARGIN = 1.1  # unpacking is the choice where the two are about equal


@functools.cache
def few_rows(shape: tuple[int, int], bits: int, group_size: int, dtype: mx.Dtype) -> int:
    """Return up to how many rows `quantized_matmul` is the faster way for a matrix [out, in], 0: it never is.

    Measured once per process, on its default device, in about a second.
    """
    rows, inputs = shape
    words = mx.full((rows, inputs * bits // 32), 0x98765432, mx.uint32)
    scales = mx.full((rows, inputs // group_size), 1e-3, dtype)
    packed = (words, scales, scales)
    how = {"group_size": group_size, "bits": bits}
    mx.eval(words, scales)
    few = 0
    for count in CANDIDATES:
        x = mx.ones((count, inputs), dtype)
        mx.eval(x)
        as_it_is = _seconds(lambda x=x: mx.quantized_matmul(x, *packed, transpose=True, **how))
        if as_it_is * MARGIN >= _seconds(lambda x=x: x @ mx.dequantize(*packed, **how).T):
            break
        few = count
    return few


def _seconds(work: Callable[[], mx.array]) -> float:
    """Return the least of several times, after one to warm up; slow work is timed once."""
    best = float("inf")
    for _ in range(1 + ROUNDS):
        start = time.perf_counter()
        mx.eval(work())
        spent = time.perf_counter() - start
        best = min(best, spent)
        if spent > 0.25:
            break
    return best
