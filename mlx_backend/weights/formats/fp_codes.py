"""The small number formats of quantised files, the order of their block scales, and the rotation of ConvRot.

Formats carry the names that safetensors gives them: "F8_E4M3" (the finite-only e4m3fn), "F8_E5M2", "F8_E8M0"; "F4"
is E2M1, two to a byte.
"""

from __future__ import annotations

import numpy as np

FP8 = ("F8_E4M3", "F8_E5M2")
FLOATS = ("F32", "F16", "BF16")
RUN = 1 << 20  # values decoded at once: numpy widens each index to 8 bytes, and each rotated value to 4
H4 = ((1, 1, 1, -1), (1, 1, -1, 1), (1, -1, 1, 1), (-1, 1, 1, 1))
SCALE_TILE = (128, 4)


def decode(array: np.ndarray, dtype: str) -> np.ndarray:
    """Return the values of a stored tensor as float32.

    `array` holds what the file holds: a dtype of its own where numpy has one, else the bits as uint8 or uint16.
    `dtype` is "F32", "F16", "BF16", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0" or "F4"; "F4" doubles the last axis.
    """
    if dtype == "F4":
        pairs = _lookup(_e2m1_pairs().view(np.uint64).reshape(-1), array)
        return pairs.view(np.float32)
    if dtype in FP8:
        return _lookup(e4m3_values() if dtype == "F8_E4M3" else e5m2_values(), array)
    if dtype == "F8_E8M0":
        return _lookup(e8m0_values(), array)
    if dtype == "BF16" and array.dtype.itemsize == 2:
        return (array.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    if dtype == "I8":
        array = array.view(np.int8)
    return array.astype(np.float32)


def e4m3_values() -> np.ndarray:
    """Return float32 [256]: the value of each E4M3 code. No infinity; 0x7f and 0xff are NaN. Source: OCP OFP8."""
    values = _minifloat(exponent_bits=4, mantissa_bits=3)
    values[[0x7F, 0xFF]] = np.nan
    return values


def e5m2_values() -> np.ndarray:
    """Return float32 [256]: the value of each E5M2 code, infinities and NaN as in IEEE 754. Source: OCP OFP8."""
    values = _minifloat(exponent_bits=5, mantissa_bits=2)
    values[[0x7C, 0xFC]] = np.inf, -np.inf
    values[[0x7D, 0x7E, 0x7F, 0xFD, 0xFE, 0xFF]] = np.nan
    return values


def e8m0_values() -> np.ndarray:
    """Return float32 [256]: the power of two that each E8M0 code stands for; 0xff is NaN. Source: OCP MX."""
    values = np.ldexp(1.0, np.arange(256) - 127)
    values[0xFF] = np.nan
    return values.astype(np.float32)


def e2m1_values() -> np.ndarray:
    """Return float32 [16]: the value of each E2M1 code; all are finite. Source: OCP MX."""
    return _minifloat(exponent_bits=2, mantissa_bits=1)


def padded_scales(rows: int, columns: int) -> tuple[int, int]:
    """Return the shape in which block scales of `rows` x `columns` are stored: whole tiles of 128 x 4."""
    tile_rows, tile_columns = SCALE_TILE
    return -(-rows // tile_rows) * tile_rows, -(-columns // tile_columns) * tile_columns


def unswizzle(scales: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Return block scales [rows, columns] in plain order from the order of cuBLAS, `padded_scales` in size.

    The tiles of 128 x 4 lie row by row. Within one, the scale of row r and column c lies at
    16 * (r % 32) + 4 * (r // 32) + c. Source: NVIDIA's cuBLAS documentation, "1D Block Scaling Factors Layout";
    Comfy-Org/comfy-kitchen, comfy_kitchen/float_utils.py.
    """
    stored_rows, stored_columns = padded_scales(rows, columns)
    tiles = scales.reshape(stored_rows // 128, stored_columns // 4, 32, 4, 4)
    return tiles.transpose(0, 3, 2, 1, 4).reshape(stored_rows, stored_columns)[:rows, :columns]


def is_rotation_size(size: object) -> bool:
    """Tell whether ConvRot has a rotation of this size: a power of four, at least 4."""
    return isinstance(size, int) and size >= 4 and size & (size - 1) == 0 and size.bit_length() % 2 == 1


def rotation(size: int) -> np.ndarray:
    """Return ConvRot's rotation, float32 [size, size]: symmetric, and its own inverse.

    It is the Kronecker power of `H4` over sqrt(size). That root is a power of two, so the entries are exact.
    Source: Comfy-Org/comfy-kitchen, comfy_kitchen/tensor/int8_utils.py.
    """
    factor = matrix = np.array(H4, np.float32)
    while len(matrix) < size:
        matrix = np.kron(matrix, factor)
    return matrix / np.float32(size**0.5)


def unrotate(codes: np.ndarray, size: int) -> np.ndarray:
    """Return int8 codes [rows, inputs] that are rotated in groups of `size` inputs as they were before: float32, exact.

    Every sum is a multiple of 1 / sqrt(size), and of fewer than 2**24 of them, which float32 holds.
    """
    matrix = rotation(size)
    found = np.empty(codes.shape, np.float32)
    step = max(1, RUN // codes.shape[1])
    for start in range(0, len(codes), step):
        rows = slice(start, start + step)
        values = decode(codes[rows], "I8").reshape(-1, size)
        with np.errstate(all="ignore"):  # on some Macs products of finite numbers raise numpy's warnings
            np.matmul(values, matrix, out=found[rows].reshape(-1, size))
    return found


def _minifloat(exponent_bits: int, mantissa_bits: int) -> np.ndarray:
    """Return the values of all codes of sign, exponent and mantissa as if none were special."""
    codes = np.arange(1 << (1 + exponent_bits + mantissa_bits))
    mantissa = codes & ((1 << mantissa_bits) - 1)
    exponent = (codes >> mantissa_bits) & ((1 << exponent_bits) - 1)
    sign = np.where(codes >> (exponent_bits + mantissa_bits), -1.0, 1.0)
    whole = mantissa + np.where(exponent > 0, 1 << mantissa_bits, 0)
    shift = np.maximum(exponent, 1) - (1 << (exponent_bits - 1)) + 1 - mantissa_bits
    return (sign * np.ldexp(whole.astype(np.float64), shift)).astype(np.float32)


def _e2m1_pairs() -> np.ndarray:
    """Return float32 [256, 2]: the two values of each byte, the high half first."""
    values, codes = e2m1_values(), np.arange(256)
    return np.stack([values[codes >> 4], values[codes & 15]], axis=-1)


def _lookup(table: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Return table[codes] with little memory beside the result."""
    flat = codes.view(np.uint8).reshape(-1)
    found = np.empty(flat.shape, table.dtype)
    for start in range(0, flat.size, RUN):
        run = slice(start, start + RUN)
        np.take(table, flat[run], out=found[run], mode="clip")  # clip: the other mode makes a copy
    return found.reshape(codes.shape)
