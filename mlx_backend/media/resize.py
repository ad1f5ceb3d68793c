"""Resizing and cropping as upstream does it, for stacks of pictures [F, H, W, C].

Source: `wan/utils/scail_utils.py::resize_for_rectangle_crop` of zai-org/SCAIL-2.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

PHOTO = Image.Resampling.BICUBIC  # with antialias; the kernel of torchvision's (a = -0.5)
MASK = Image.Resampling.NEAREST  # colours stay pure


def fit(pictures: np.ndarray, width: int, height: int, method: Image.Resampling) -> np.ndarray:
    """Resize pictures [F, H, W, C] to cover width x height, keeping their shape, and cut out the centre. float32.

    Bicubic overshoot is kept.
    """
    source_height, source_width = pictures.shape[1:3]
    if source_width / source_height > width / height:
        size = int(source_width * height / source_height), height
    else:
        size = width, int(source_height * width / source_width)
    if (source_width, source_height) != size:
        pictures = np.stack([resized(picture, size, method) for picture in pictures])
    top, left = (size[1] - height) // 2, (size[0] - width) // 2
    return pictures[:, top : top + height, left : left + width]


def resized(
    picture: np.ndarray,
    size: tuple[int, int],
    method: Image.Resampling,
    box: tuple[float, float, float, float] | None = None,
) -> np.ndarray:
    """Stretch a picture [H, W, C], or its part `box`, to `size` (width, height). float32; overshoot is kept.

    `box` is (left, top, right, bottom) in pixels from the top left corner, which may be fractions.
    """
    # Pillow resizes floats one channel at a time.
    planes = (np.ascontiguousarray(picture[..., c], np.float32) for c in range(picture.shape[-1]))
    return np.stack([np.asarray(Image.fromarray(plane).resize(size, method, box)) for plane in planes], axis=-1)


def halved(pictures: np.ndarray) -> np.ndarray:
    """Return the 2x2 mean of [F, H, W, C]: what bilinear scaling by one half is."""
    frames, height, width, channels = pictures.shape
    return pictures.reshape(frames, height // 2, 2, width // 2, 2, channels).mean(axis=(2, 4))


def stretched_bicubic(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    """Stretch a picture [H, W, C] to a size as torch's `interpolate(mode="bicubic")`: a = -0.75, no antialias.

    Source: `wan/modules/clip.py` and `wan/image2video.py` of Wan-Video/Wan2.1 call it so.
    """
    rows, columns = _cubic_matrix(picture.shape[0], height), _cubic_matrix(picture.shape[1], width)
    return np.einsum("ih,hwc,jw->ijc", rows, picture, columns, optimize=True).astype(np.float32)


def _cubic_matrix(source: int, target: int) -> np.ndarray:
    """Return the [target, source] weights of cubic interpolation, edges repeated."""
    a = -0.75
    # torch reckons positions in float32, and far from the origin that shows.
    centre = (np.arange(target, dtype=np.float32) + np.float32(0.5)) * np.float32(source / target) - np.float32(0.5)
    first = np.floor(centre).astype(int)
    matrix = np.zeros((target, source))
    for tap in range(-1, 3):
        d = np.abs(centre - (first + tap))
        near = (a + 2) * d**3 - (a + 3) * d**2 + 1
        far = a * (d**3 - 5 * d**2 + 8 * d - 4)
        index = np.clip(first + tap, 0, source - 1)
        np.add.at(matrix, (np.arange(target), index), np.where(d <= 1, near, far))
    return matrix
