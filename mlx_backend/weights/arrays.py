"""From what a file's reader returns to MLX."""

from __future__ import annotations

import mlx.core as mx
import numpy as np


def to_mlx(array: np.ndarray, dtype: str) -> mx.array:
    """Return an MLX copy of an array that was read as `dtype` (safetensors' name)."""
    made = mx.array(np.ascontiguousarray(array))
    return made.view(mx.bfloat16) if dtype == "BF16" else made
