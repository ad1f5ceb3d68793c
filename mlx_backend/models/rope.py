"""Rotary positions on three axes, and the rows of cos and sin that each kind of SCAIL-2 token is turned by.

Source: `rope_params`, `rope_apply_*` of zai-org/SCAIL-2 `wan/modules/model_scail2.py`. Tables are built in float64
and stored in float32.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

THETA = 10000.0


@dataclass(frozen=True, slots=True)
class Grid:
    """A block of tokens: patches along (t, h, w) and the position of its first patch on each axis."""

    frames: int
    height: int
    width: int
    start: tuple[int, int, int]


def axis_dims(head_dim: int) -> tuple[int, int, int]:
    """Split a head's channels over (t, h, w) as Wan does: 128 -> 44, 42, 42."""
    spatial = 2 * (head_dim // 6)
    return head_dim - 2 * spatial, spatial, spatial


def rotations(grid: Grid, head_dim: int) -> np.ndarray:
    """Return complex rotations [t, h, w, head_dim/2] of a grid, float64: unit circle, t lanes first, then h, w."""
    lanes = []
    sizes = (grid.frames, grid.height, grid.width)
    for axis, (size, start, dim) in enumerate(zip(sizes, grid.start, axis_dims(head_dim), strict=True)):
        inverse = THETA ** (-np.arange(0, dim, 2, dtype=np.float64) / dim)
        angles = np.outer(np.arange(start, start + size), inverse)
        shape = [1, 1, 1, dim // 2]
        shape[axis] = size
        lanes.append(np.broadcast_to(np.exp(1j * angles).reshape(shape), (*sizes, dim // 2)))
    return np.concatenate(lanes, axis=-1)


def pooled_rotations(grid: Grid, head_dim: int) -> np.ndarray:
    """Return the rotations of a half-resolution grid: the 2x2 mean over (h, w) of the full-resolution ones.

    `grid` is the full-resolution grid; the result is [t, h/2, w/2, head_dim/2]. Its magnitude is below 1 on the fast
    lanes (cos of half the lane's step) and must not be renormalised: the weights were trained with it.
    """
    full = rotations(grid, head_dim)
    t, h, w, lanes = full.shape
    return full.reshape(t, h // 2, 2, w // 2, 2, lanes).mean(axis=(2, 4))


def rows(*blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Flatten and join blocks of rotations into (cos, sin), each float32 [tokens, 1, head_dim/2]."""
    joined = np.concatenate([block.reshape(-1, block.shape[-1]) for block in blocks])[:, None, :]
    return joined.real.astype(np.float32), joined.imag.astype(np.float32)
