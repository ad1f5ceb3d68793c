"""The size of a clip that a picture begins: its shape, at the area that was asked for."""

from __future__ import annotations

import math


def stretched_size(width: int, height: int, area: int, stride: int, patch: int) -> tuple[int, int]:
    """Return the width and height in pixels of a clip of about `area` pixels in the shape of a picture.

    Source: `wan/image2video.py` of Wan-Video/Wan2.1, which stretches the picture to it.
    """
    shape = height / width
    rows = round(math.sqrt(area * shape) // stride // patch * patch)
    columns = round(math.sqrt(area / shape) // stride // patch * patch)
    return columns * stride, rows * stride


def covered_size(width: int, height: int, area: int, step: int) -> tuple[int, int]:
    """Return the size of multiples of `step` that has at most `area` pixels and is nearest to a picture's shape.

    Source: `wan/utils/utils.py::best_output_size` of Wan-Video/Wan2.2; the picture is scaled to cover it and cut.
    """
    shape = width / height
    across = math.sqrt(area * shape)
    wide = int(across // step * step)
    wide = wide, int(area / wide // step * step)
    tall = int(area / across // step * step)
    tall = int(area / tall // step * step), tall
    return min((tall, wide), key=lambda size: _misfit(shape, size[0] / size[1]))


def _misfit(shape: float, other: float) -> float:
    return max(shape / other, other / shape)
