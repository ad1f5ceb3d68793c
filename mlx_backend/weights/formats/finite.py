"""Whether weights are numbers: a look at each tensor as it is loaded, which costs less than reading it."""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx

from ...interface.errors import WeightsError

FLOATS = (mx.float32, mx.float16, mx.bfloat16)


def check_finite(path: Path, name: str, array: mx.array) -> None:
    """Raise WeightsError, naming file and tensor, where an array [...] of floats holds a NaN or an infinity.

    Evaluated here. A NaN or an infinity is never lost in a sum, so one sum clears a tensor; only where it is not finite
    (which large numbers can do, too) is every number looked at.
    """
    if array.dtype not in FLOATS or mx.isfinite(mx.sum(array)).item():
        return
    bad = int(mx.sum(mx.logical_not(mx.isfinite(array))).item())
    if bad:
        raise WeightsError(
            f"{path}: tensor '{name}' holds {bad} of {array.size} values that are no numbers (NaN or infinite): the "
            "file is damaged or was made so, download it again or use another."
        )
