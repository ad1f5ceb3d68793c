"""Safetensors files: what one holds, from its header alone, and one tensor at a time from its data."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...interface.errors import WeightsError

MAX_HEADER_BYTES = 64 << 20  # a 14B checkpoint's header is about 0.2 MB
# What numpy reads a dtype as; those that it lacks come as their bits.
NUMPY_DTYPES = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "I64": np.dtype("<i8"),
    "U64": np.dtype("<u8"),
    "I32": np.dtype("<i4"),
    "U32": np.dtype("<u4"),
    "I16": np.dtype("<i2"),
    "U16": np.dtype("<u2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
    "F8_E4M3": np.dtype("u1"),
    "F8_E5M2": np.dtype("u1"),
    "F8_E8M0": np.dtype("u1"),
}

# How files begin that are saved as .safetensors by mistake: what they are, and what to do.
FOREIGN = (
    (b"<", "a web page", "download the file itself, and log in or accept its licence if the page asks for it"),
    (b"version https://git-lfs", "a Git LFS pointer", "run git lfs pull, or download the file itself"),
)


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Dtype as safetensors writes it ("BF16", "F32", "U32" ...), shape, and size in bytes."""

    dtype: str
    shape: tuple[int, ...]
    nbytes: int


class SafetensorsFile:
    """A safetensors file: `tensors` by name and the texts of its `metadata`; data is read one tensor at a time.

    `surplus_bytes` lie behind the last tensor, where the format has none: some tools pad, some append.
    Raises WeightsError for a missing, foreign, truncated or half-downloaded file.
    """

    def __init__(self, path: Path):
        self.path = path
        size, start = _size_and_start(path)
        length = struct.unpack("<Q", start[:8])[0] if len(start) >= 8 else None
        if length is None or length > MAX_HEADER_BYTES:
            raise _foreign(path, size, start)
        with path.open("rb") as file:
            file.seek(8)
            text = file.read(length)
        if len(text) < length:
            raise WeightsError(
                f"{path} ends inside its header ({size} bytes on disk): the download is incomplete, download it again."
            )
        try:
            entries = json.loads(text, object_pairs_hook=_without_duplicates)
            metadata = entries.pop("__metadata__", None) or {}
            self.tensors = {name: _tensor(**entry) for name, entry in entries.items()}
            end = _end(entry["data_offsets"] for entry in entries.values())
            self._offsets = {name: 8 + length + entry["data_offsets"][0] for name, entry in entries.items()}
            self.metadata = {str(key): str(value) for key, value in metadata.items()}
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise _foreign(path, size, start) from error
        expected = 8 + length + end
        self.surplus_bytes = size - expected
        if size < expected:
            raise WeightsError(
                f"{path} has {size} bytes, but its header describes {expected}: "
                "the file is damaged or its download is incomplete, download it again."
            )
        for name, info in self.tensors.items():
            _check_bytes(path, name, info)

    def read(self, name: str) -> np.ndarray:
        """Return a tensor; BF16 comes as its bits in uint16, 8-bit floats as theirs in uint8. Raises WeightsError."""
        dtype, shape = self._kind(name)
        return np.fromfile(self.path, dtype, math.prod(shape), offset=self._offsets[name]).reshape(shape)

    def read_rows(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Return some rows (indices along the first axis) as `read` would, reading no others. Raises WeightsError."""
        dtype, shape = self._kind(name)
        return np.memmap(self.path, dtype, "r", self._offsets[name], shape)[rows]

    def _kind(self, name: str) -> tuple[np.dtype, tuple[int, ...]]:
        info = self.tensors[name]
        if info.dtype not in NUMPY_DTYPES:
            raise WeightsError(
                f"{self.path}: tensor '{name}' is stored as {info.dtype}, which this program cannot read: "
                "use a bf16, fp16 or fp32 file."
            )
        return NUMPY_DTYPES[info.dtype], info.shape


def read_header(path: Path) -> dict[str, TensorInfo]:
    """Return the tensors of a safetensors file by name. Raises WeightsError."""
    return SafetensorsFile(path).tensors


def _size_and_start(path: Path) -> tuple[int, bytes]:
    if not path.is_file():
        raise WeightsError(f"{path} does not exist or is not a file: check the path, or download the model again.")
    size = path.stat().st_size
    if size == 0:
        raise WeightsError(f"{path} is empty (0 bytes): its download has failed, download it again.")
    with path.open("rb") as file:
        return size, file.read(64)


def _check_bytes(path: Path, name: str, info: TensorInfo) -> None:
    if info.dtype not in NUMPY_DTYPES:
        return
    wanted = math.prod(info.shape) * NUMPY_DTYPES[info.dtype].itemsize
    if info.nbytes != wanted:
        raise WeightsError(
            f"{path}: tensor '{name}' has {info.nbytes} bytes, but {info.dtype} of shape {list(info.shape)} has "
            f"{wanted}: the file is damaged, download it again."
        )


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("a name occurs twice")
    return made


def _tensor(dtype: str, shape: list[int], data_offsets: list[int]) -> TensorInfo:
    start, stop = data_offsets
    return TensorInfo(dtype, tuple(map(int, shape)), stop - start)


def _end(spans: Iterable[list[int]]) -> int:
    """Return where the data ends. Raises ValueError when tensors overlap or leave gaps, as the format forbids."""
    end = 0
    for start, stop in sorted(spans):
        if start != end:
            raise ValueError(f"a tensor starts at {start}, the one before ends at {end}")
        end = stop
    return end


def _foreign(path: Path, size: int, start: bytes) -> WeightsError:
    for prefix, kind, advice in FOREIGN:
        if start.lstrip().startswith(prefix):
            return WeightsError(f"{path} ({size} bytes) is {kind}, not a safetensors file: {advice}.")
    return WeightsError(
        f"{path} ({size} bytes) is not a safetensors file, or its header is damaged: download the file again."
    )
