"""From what a file's reader returns to MLX."""

from __future__ import annotations

import mlx.core as mx
import numpy as np

MLX_DTYPES = {"BF16": mx.bfloat16, "F16": mx.float16, "F32": mx.float32}  # by safetensors' names


def as_stored(array: np.ndarray) -> mx.array:
    """Return an MLX copy of an array as it was read: bf16 stays its bits in uint16. Any thread may call it."""
    return mx.array(np.ascontiguousarray(array))


def typed(stored: mx.array, dtype: str) -> mx.array:
    """Return what `as_stored` made of an array that was read as `dtype` (safetensors' name), in that dtype."""
    return stored.view(mx.bfloat16) if dtype == "BF16" else stored


def to_mlx(array: np.ndarray, dtype: str) -> mx.array:
    """Return an MLX copy of an array that was read as `dtype`."""
    return typed(as_stored(array), dtype)
