"""Whether weights are numbers: a look at each tensor as it is loaded, which costs a fraction of reading it."""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx

from ...interface.errors import WeightsError


def check_finite(path: Path, name: str, array: mx.array) -> None:
    """Raise WeightsError, naming file and tensor, where an array [...] of floats holds a NaN or an infinity.

    Evaluated here. What is no number has the highest exponent of all, so its bits, taken as whole numbers, are the
    largest there are of its sign: two maxima tell, with no number being computed.
    """
    layout = _layout(array.dtype)
    if layout is None or not array.size:
        return
    signed, unsigned, infinity = layout
    bits = array.reshape(-1)
    positive, negative = mx.max(bits.view(signed)), mx.max(bits.view(unsigned))
    mx.eval(positive, negative)
    sign = 1 << (8 * array.dtype.size - 1)
    if positive.item() >= infinity or negative.item() >= sign + infinity:
        bad = int(mx.sum(mx.logical_not(mx.isfinite(array))).item())
        raise WeightsError(
            f"{path}: tensor '{name}' holds {bad} of {array.size} values that are no numbers (NaN or infinite): the "
            "file is damaged or was made so, download it again or use another."
        )


def _layout(dtype: mx.Dtype) -> tuple[mx.Dtype, mx.Dtype, int] | None:
    """Return whole numbers of a float's size, with and without a sign, and infinity's bits; None for other dtypes."""
    if dtype == mx.float32:
        return mx.int32, mx.uint32, 0x7F800000
    if dtype == mx.bfloat16:
        return mx.int16, mx.uint16, 0x7F80
    return (mx.int16, mx.uint16, 0x7C00) if dtype == mx.float16 else None
