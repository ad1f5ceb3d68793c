"""Rotary positions on three axes, and the rows of cos and sin that each kind of SCAIL-2 token is turned by.

Source: `rope_params`, `rope_apply_*` of zai-org/SCAIL-2 `wan/modules/model_scail2.py`. Tables are built in float64
and stored in float32.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

THETA = 10000.0


@dataclass(frozen=True, slots=True)
class TokenGrid:
    """A block of tokens: patches along (t, h, w) and the position of its first patch on each axis."""

    frames: int
    height: int
    width: int
    start: tuple[int, int, int]


def axis_dims(head_dim: int) -> tuple[int, int, int]:
    """Split a head's channels over (t, h, w) as Wan does: 128 -> 44, 42, 42."""
    spatial = 2 * (head_dim // 6)
    return head_dim - 2 * spatial, spatial, spatial


def rotations(grid: TokenGrid, head_dim: int) -> np.ndarray:
    """Return complex rotations [t, h, w, head_dim/2] of a grid, float64: unit circle, t lanes first, then h, w."""
    return _turned(_positions(grid), head_dim)


def pooled_rotations(grid: TokenGrid, head_dim: int) -> np.ndarray:
    """Return the rotations of a half-resolution grid: the 2x2 mean over (h, w) of the full-resolution ones.

    `grid` is the full-resolution grid; the result is [t, h/2, w/2, head_dim/2]. Its magnitude is below 1 on the fast
    lanes (cos of half the lane's step) and must not be renormalised: the weights were trained with it.
    """
    full = rotations(grid, head_dim)
    t, h, w, lanes = full.shape
    return full.reshape(t, h // 2, 2, w // 2, 2, lanes).mean(axis=(2, 4))


def midpoint_rotations(grid: TokenGrid, head_dim: int) -> np.ndarray:
    """Return the rotations of a half-resolution grid as ComfyUI has them: by the middle of each 2x2 patches.

    `grid` is the full-resolution grid; the result is [t, h/2, w/2, head_dim/2], of magnitude 1. The angles are those of
    `pooled_rotations`. Source: `SCAILWanModel.rope_encode` in `comfy/ldm/wan/model.py` of Comfy-Org/ComfyUI.
    """
    t, h, w = _positions(grid)
    return _turned((t, h[::2] + 0.5, w[::2] + 0.5), head_dim)


def rows(*blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Flatten and join blocks of rotations into (cos, sin), each float32 [tokens, 1, head_dim/2]."""
    joined = np.concatenate([block.reshape(-1, block.shape[-1]) for block in blocks])[:, None, :]
    return joined.real.astype(np.float32), joined.imag.astype(np.float32)


def _positions(grid: TokenGrid) -> tuple[np.ndarray, ...]:
    sizes = (grid.frames, grid.height, grid.width)
    return tuple(start + np.arange(size, dtype=np.float64) for size, start in zip(sizes, grid.start, strict=True))


def _turned(positions: tuple[np.ndarray, ...], head_dim: int) -> np.ndarray:
    """Return the rotations of every (t, h, w) of the positions on each axis."""
    lanes = []
    sizes = tuple(map(len, positions))
    for axis, (along, dim) in enumerate(zip(positions, axis_dims(head_dim), strict=True)):
        inverse = THETA ** (-np.arange(0, dim, 2, dtype=np.float64) / dim)
        shape = [1, 1, 1, dim // 2]
        shape[axis] = len(along)
        turned = np.exp(1j * np.outer(along, inverse)).reshape(shape)
        lanes.append(np.broadcast_to(turned, (*sizes, dim // 2)))
    return np.concatenate(lanes, axis=-1)
