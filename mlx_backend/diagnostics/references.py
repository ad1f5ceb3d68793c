"""What operations are compared with: float32 by numpy on samples, and sums over all rows in parts of few rows."""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx
import numpy as np

GROUP_SIZE = 64
PART = 4096  # rows of a part: far below every count at which a kernel has failed
PERIOD = 4099  # drawn rows repeat after so many: no multiple of it is near a power of two, where counts wrap
LAST_INT16, LAST_UINT16 = 1 << 15, 1 << 16
PROJECTIONS = 4


@dataclass(frozen=True, slots=True)
class Packed:
    """A matrix [out, in] as `mx.quantize` packs it."""

    weight: mx.array
    scales: mx.array
    biases: mx.array
    bits: int

    @classmethod
    def of(cls, matrix: mx.array, bits: int) -> Packed:
        """Pack a matrix."""
        return cls(*mx.quantize(matrix, group_size=GROUP_SIZE, bits=bits), bits)

    def unpacked(self) -> np.ndarray:
        """Return it in float32, by numpy alone; for 4 and 8 bits, which fill words evenly."""
        words, scales, biases = np.array(self.weight), as_numpy(self.scales), as_numpy(self.biases)
        codes = (words[..., None] >> np.arange(0, 32, self.bits, dtype=np.uint32)) & ((1 << self.bits) - 1)
        groups = codes.reshape(len(words), -1, GROUP_SIZE).astype(np.float32)
        groups *= scales[..., None]
        groups += biases[..., None]
        return groups.reshape(len(words), -1)


def product_error(found: mx.array, x: mx.array, weight: np.ndarray) -> float:
    """Return the largest error of `found` against x @ weight.T, as a part of the right values' spread.

    A sample of rows, with those where kernels have failed, is compared in full, by numpy. Of all rows random sums are
    compared, in parts of few rows: what is wrong in a row is wrong in its sums.
    """
    rows, outer = len(x), len(weight)
    if found.shape != (rows, outer):
        return float("inf")
    mx.eval(found)
    picked = mx.array(sample(rows, 16))
    right = as_numpy(x[picked]) @ weight.T
    error = relative(as_numpy(found[picked]), right)
    signs = np.random.default_rng(0).choice(np.float32([-1, 1]), (outer, PROJECTIONS))
    sums, through = mx.array(signs), mx.array(weight.T @ signs)
    spread = float(np.sqrt(np.mean(right**2))) * outer**0.5
    for start in range(0, rows, PART):
        part = slice(start, start + PART)
        off = found[part].astype(mx.float32) @ sums - x[part].astype(mx.float32) @ through
        if not mx.all(mx.isfinite(off)).item():
            return float("inf")
        error = max(error, mx.max(mx.abs(off)).item() / spread)
    return error


def attention_error(found: mx.array, queries: mx.array, keys: mx.array, values: mx.array) -> float:
    """Return the largest error among a few queries of all heads.

    `queries` are [rows, heads, channels], `keys` and `values` [heads, length, channels], `found` [rows, heads *
    channels].
    """
    rows, heads, channels = queries.shape
    if found.shape != (rows, heads * channels):
        return float("inf")
    picked = mx.array(sample(rows, 4))
    asked, given, right = as_numpy(queries[picked]), as_numpy(found[picked]), []
    for head in range(heads):
        scores = asked[:, head] @ as_numpy(keys[head]).T * channels**-0.5
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        right.append(weights @ as_numpy(values[head]))
    return relative(given, np.concatenate(right, axis=1))


def convolution_error(found: mx.array, x: mx.array, kernel: mx.array) -> float:
    """Return the largest error among a few inner points of a 3x3x3 convolution of x [1, 3, H, W, in]."""
    _, _, height, width, _ = x.shape
    if found.shape != (1, 1, height, width, len(kernel)):
        return float("inf")
    points = [divmod(int(point), width) for point in sample(height * width, 48)]
    inside = [(min(max(i, 1), height - 2), min(max(j, 1), width - 2)) for i, j in points]
    cubes = np.stack([np.array(x[0, :, i - 1 : i + 2, j - 1 : j + 2]).reshape(-1) for i, j in inside])
    right = cubes @ np.array(kernel).reshape(len(kernel), -1).T
    return relative(np.stack([np.array(found[0, 0, i, j]) for i, j in inside]), right)


def rows_that_differ(found: mx.array, right: mx.array) -> int:
    """Count the rows that are not equal, all of them where the shapes differ."""
    if found.shape != right.shape:
        return max(len(found), len(right))
    parts = (slice(start, start + PART) for start in range(0, len(right), PART))
    return sum(int(mx.sum(mx.any(found[part] != right[part], axis=1)).item()) for part in parts)


def relative(found: np.ndarray, right: np.ndarray) -> float:
    """Return the largest error as a part of the right values' root mean square; infinity for what is no number."""
    if not np.isfinite(found).all():
        return float("inf")
    return float(np.abs(found - right).max() / np.sqrt(np.mean(right**2)))


def sample(rows: int, count: int) -> np.ndarray:
    """Return `count` rows over the whole range, and those around the limits of 16-bit counts."""
    spread = np.linspace(0, rows - 1, count).astype(np.int64)
    edges = [edge + step for edge in (LAST_INT16, LAST_UINT16) for step in (-1, 0, 1)]
    return np.unique(np.concatenate([spread, [edge for edge in edges if edge < rows]]).astype(np.int64))


def random_rows(rows: int, columns: int, dtype: str) -> mx.array:
    """Return [rows, columns], evenly from [-1, 1), in the memory of the result: a block of rows repeats."""
    block = uniform((min(rows, PERIOD), columns), dtype)
    made = mx.tile(block, (-(-rows // len(block)), 1))[:rows]
    mx.eval(made)
    return made


def uniform(shape: tuple[int, ...], dtype: str) -> mx.array:
    """Draw evenly from [-1, 1)."""
    made = mx.random.uniform(-1, 1, shape, dtype=getattr(mx, dtype))
    mx.eval(made)
    return made


def as_numpy(array: mx.array) -> np.ndarray:
    """Return an array's values in float32."""
    return np.array(array.astype(mx.float32))
