"""Colours of pictures as moments in Lab, and pictures made to have those of others.

Source: Reinhard, Ashikhmin, Gooch and Shirley, "Color Transfer between Images", 2001, in CIE L*a*b* (D65) of sRGB.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

# Linear sRGB to XYZ over the white of D65, IEC 61966-2-1.
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
) / np.array([[0.95047], [1.0], [1.08883]])
FROM_XYZ = np.linalg.inv(TO_XYZ)
EDGE = 6 / 29  # below its cube Lab's cube root is a line
FLAT = 0.1  # of L* 0..100: a deviation below this is noise, and is not stretched


@dataclass(frozen=True, slots=True)
class Colours:
    """Mean and deviation of L*, a* and b* over all pixels."""

    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]


@dataclass(slots=True)
class ColourSum:
    """Gathers pictures piece by piece, whatever the pieces' shapes."""

    _count: int = 0
    _sum: np.ndarray = field(default_factory=lambda: np.zeros(3))
    _squares: np.ndarray = field(default_factory=lambda: np.zeros(3))

    def add(self, pictures: np.ndarray) -> None:
        """Add pictures [F, H, W, 3] in 0..1."""
        for picture in pictures:
            lab = to_lab(picture).reshape(-1, 3).astype(np.float64)
            self._count += len(lab)
            self._sum += lab.sum(axis=0)
            self._squares += (lab**2).sum(axis=0)

    def colours(self) -> Colours:
        """Return the moments of what was added, at least one pixel."""
        mean = self._sum / self._count
        deviation = np.sqrt(np.maximum(self._squares / self._count - mean**2, 0))
        return Colours(tuple(mean.tolist()), tuple(deviation.tolist()))


def colours_of(pictures: np.ndarray) -> Colours:
    """Return the moments of pictures [F, H, W, 3] in 0..1."""
    total = ColourSum()
    total.add(pictures)
    return total.colours()


def match_colours(pictures: np.ndarray, found: Colours, wanted: Colours) -> None:
    """Move pictures [F, H, W, 3], in place, from the moments `found` to those `wanted`; the result stays in 0..1."""
    own, aim = np.array(found.deviation), np.array(wanted.deviation)
    gain = np.where(own > FLAT, aim / np.maximum(own, FLAT), 1).astype(np.float32)
    shift = (np.array(wanted.mean) - gain * np.array(found.mean)).astype(np.float32)
    for picture in pictures:
        picture[:] = from_lab(to_lab(picture) * gain + shift)


def to_lab(rgb: np.ndarray) -> np.ndarray:
    """Return L*, a*, b* [..., 3] of sRGB in 0..1."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((np.maximum(rgb, 0) + 0.055) / 1.055) ** 2.4)
    xyz = linear @ TO_XYZ.T.astype(linear.dtype)
    root = np.where(xyz > EDGE**3, np.cbrt(xyz), xyz / (3 * EDGE**2) + 4 / 29)
    x, y, z = root[..., 0], root[..., 1], root[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def from_lab(lab: np.ndarray) -> np.ndarray:
    """Return sRGB [..., 3], clipped to 0..1."""
    y = (lab[..., 0] + 16) / 116
    root = np.stack([y + lab[..., 1] / 500, y, y - lab[..., 2] / 200], axis=-1)
    xyz = np.where(root > EDGE, root**3, 3 * EDGE**2 * (root - 4 / 29))
    linear = np.clip(xyz @ FROM_XYZ.T.astype(lab.dtype), 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
