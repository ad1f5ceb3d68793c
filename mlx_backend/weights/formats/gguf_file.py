"""GGUF files, versions 2 and 3: dense tensors mapped as they are, quantised ones expanded to float32.

The header is parsed here, with every count held against the file (ggml's docs/gguf.md; the gguf package's own reader
trusts an array's length, and a damaged one keeps it busy for ever). Block sizes and dequantisation are the package's.
"""

from __future__ import annotations

import functools
import math
import mmap
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...interface.errors import DependencyError, WeightsError
from .safetensors_file import TensorInfo

VERSIONS = (2, 3)
MAX_HEADER_BYTES = 32 << 20  # with a vocabulary of 256384 tokens it has about 8 MB
MAX_ENTRIES = 100_000  # tensors, and metadata; a 14B model has about 1,100 tensors
MAX_DIMS = 8  # ggml has 4; converters of video models write convolutions of 5
MAX_ITEMS = 1 << 48
MAX_NESTING = 4  # of arrays in arrays
DEFAULT_ALIGNMENT = 32  # of tensors, in bytes
CHUNK_BYTES = 256 << 10  # of quantised data at a time: what dequantising needs beside its result stays in the cache
ORIGINAL_SHAPE = "comfy.gguf.orig_shape."  # ComfyUI-GGUF reshapes what does not divide into blocks, and notes it here

STRING, ARRAY = 8, 9
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}  # as struct names
INTEGERS = "BbHhIiQq"

# What is read without dequantisation: the type in GGUF and safetensors, and how numpy reads it.
DENSE = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
}


class GGUFFile:
    """The tensors of a GGUF file, under the names that it has.

    `tensors` tells shapes in torch's order (the file has them reversed) and what `read` returns: the dtype of a dense
    tensor, "F32" for a quantised one, and the bytes of that. `quantisation` names the type of each quantised tensor,
    e.g. "Q4_K". `metadata` has the header's scalars and texts, e.g. "general.architecture". No tensor data is read
    until `read`. Raises WeightsError for a file that is missing, damaged, of another format, or quantised in a way that
    cannot be undone, and DependencyError without the gguf package.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        self.tensors: dict[str, TensorInfo] = {}
        self.quantisation: dict[str, str] = {}
        self.metadata: dict[str, str | int | float | bool] = {}
        self._entries: dict[str, _Entry] = {}
        if not self.path.is_file():
            raise WeightsError(f"{path} does not exist or is not a file: check the path, or download the model again.")
        types = _types(self.path)
        try:
            header = _parse(self.path)
        except _Damaged as error:
            raise _damaged(self.path, str(error)) from error
        self.metadata.update(header.metadata)
        size = self.path.stat().st_size
        for name, (type_number, shape, offset) in header.tensors.items():
            where = f"{self.path}: tensor {_shown(name)}"
            entry = _entry(where, types, type_number, shape, header.data_start + offset)
            if entry.start + entry.nbytes > size:
                raise _damaged(where, f"ends at byte {entry.start + entry.nbytes}, but the file has {size}")
            shape = _original_shape(where, shape, header.shapes.get(name, shape))
            dtype = entry.type_name if entry.type_name in DENSE else "F32"
            self._entries[name] = entry
            self.tensors[name] = TensorInfo(dtype, shape, math.prod(shape) * np.dtype(DENSE[dtype]).itemsize)
            if entry.type_name not in DENSE:
                self.quantisation[name] = entry.type_name

    def read(self, name: str) -> np.ndarray:
        """Return a tensor in the shape and dtype that `tensors` tells; BF16 comes as its bits in uint16.

        A dense tensor is read-only and mapped from the file, a quantised one is new float32. Raises WeightsError.
        """
        entry, data = self._stored(name)
        shape = self.tensors[name].shape
        if entry.type_name in DENSE:
            return (data if data.flags.aligned else np.array(data)).reshape(shape)
        return _dequantise(data, entry).reshape(shape)

    def read_rows(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Return some rows (indices along the first axis) as `read` would, expanding no others. Raises WeightsError."""
        entry, data = self._stored(name)
        shape = self.tensors[name].shape
        if entry.type_name in DENSE or shape[-1] % entry.block_items:
            return self.read(name)[rows]
        wanted = data.reshape(shape[0], -1)[rows]
        return _dequantise(wanted.reshape(-1), replace(entry, nbytes=wanted.size)).reshape(len(wanted), *shape[1:])

    def _stored(self, name: str) -> tuple[_Entry, np.ndarray]:
        """Return a tensor's place, and what stands there, mapped from the file."""
        if name not in self._entries:
            raise WeightsError(f"{self.path} has no tensor {_shown(name)}: choose one of its {len(self.tensors)}.")
        entry = self._entries[name]
        dtype = np.dtype(DENSE.get(entry.type_name, "u1"))
        if not entry.nbytes:
            return entry, np.empty(0, dtype)
        try:
            return entry, np.memmap(self.path, dtype, "r", entry.start, (entry.nbytes // dtype.itemsize,))
        except (OSError, ValueError) as error:
            raise _damaged(f"{self.path}: tensor {_shown(name)}", f"cannot be read any more ({error})") from error


@dataclass(frozen=True, slots=True)
class _Entry:
    """Where a tensor lies, in bytes, and its type: blocks of `block_items` items in `block_bytes` bytes."""

    type_name: str
    type_number: int
    start: int
    nbytes: int
    block_items: int
    block_bytes: int


@dataclass(frozen=True, slots=True)
class _Header:
    """`tensors` are (type, shape in torch's order, offset from `data_start`); `shapes` those noted by ComfyUI-GGUF."""

    metadata: dict[str, str | int | float | bool]
    shapes: dict[str, list[Any]]
    tensors: dict[str, tuple[int, tuple[int, ...], int]]
    data_start: int


class _Damaged(Exception):
    """What is wrong with a header."""


class _Cursor:
    """Reads a header from its start, and never beyond its end."""

    def __init__(self, data: mmap.mmap):
        self.data = data
        self.end = min(len(data), MAX_HEADER_BYTES)
        self.position = 0

    def skip(self, count: int) -> int:
        """Move on by `count` bytes and return where they began."""
        start, self.position = self.position, self.position + count
        if self.position > self.end:
            raise _Damaged(f"ends inside its header ({len(self.data)} bytes on disk)")
        return start

    def number(self, code: str) -> Any:
        return struct.unpack_from(f"<{code}", self.data, self.skip(struct.calcsize(code)))[0]

    def text(self) -> str:
        length = self.number("Q")
        start = self.skip(length)
        try:
            return self.data[start : start + length].decode("utf-8")
        except UnicodeDecodeError as error:
            raise _Damaged(f"has a text at byte {start} that is not UTF-8") from error

    def value(self, kind: int, nesting: int = 0) -> Any:
        """Return a scalar, a text or a list; of a list of texts or lists only the place is taken up, not the values."""
        if kind in SCALARS:
            return self.number(SCALARS[kind])
        if kind == STRING:
            return self.text()
        if kind != ARRAY or nesting == MAX_NESTING:
            raise _Damaged(f"has a value of the unknown type {kind} at byte {self.position}")
        return self.array(nesting)

    def array(self, nesting: int) -> list[Any]:
        kind, length = self.number("I"), self.number("Q")
        if kind in SCALARS:
            code = SCALARS[kind]
            start = self.skip(length * struct.calcsize(code))
            few = length <= MAX_DIMS and code in INTEGERS
            return list(struct.unpack_from(f"<{length}{code}", self.data, start)) if few else []
        self.skip(0 if 8 * length <= self.end - self.position else self.end)  # the least that so many values take
        for _ in range(length):
            if kind == STRING:
                self.skip(self.number("Q"))
            else:
                self.value(kind, nesting + 1)
        return []


def _parse(path: Path) -> _Header:
    """Return what the header says, or raise _Damaged."""
    if path.stat().st_size < 24:
        raise _Damaged(f"has {path.stat().st_size} bytes, which is less than a GGUF header")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        cursor = _Cursor(data)
        magic, version = cursor.number("4s"), cursor.number("I")
        if magic != b"GGUF":
            raise _Damaged(f"begins with {magic!r}, where a GGUF file has b'GGUF'")
        if version not in VERSIONS:
            raise WeightsError(
                f"{path} is GGUF of version {version if version < 1 << 16 else 'big-endian'}, only versions 2 and 3 in "
                "little-endian order are read: convert the model again with a current converter."
            )
        tensor_count, pair_count = cursor.number("Q"), cursor.number("Q")
        if max(tensor_count, pair_count) > MAX_ENTRIES:
            raise _Damaged(f"claims {tensor_count} tensors and {pair_count} metadata, {MAX_ENTRIES} each are allowed")
        metadata, shapes = _pairs(cursor, pair_count)
        tensors = dict(_tensor(cursor) for _ in range(tensor_count))
        if len(tensors) != tensor_count:
            raise _Damaged(f"has {tensor_count - len(tensors)} tensors whose names occur twice")
        alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
        if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
            raise _Damaged(f"has general.alignment = {alignment!r}, a power of two is needed")
        return _Header(metadata, shapes, tensors, -(-cursor.position // alignment) * alignment)


def _pairs(cursor: _Cursor, count: int) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """Return the header's scalars and texts, and the shapes by tensor name."""
    metadata, shapes = {}, {}
    for _ in range(count):
        key = cursor.text()
        value = cursor.value(cursor.number("I"))
        if not isinstance(value, list):
            metadata[key] = value
        elif key.startswith(ORIGINAL_SHAPE):
            shapes[key.removeprefix(ORIGINAL_SHAPE)] = value
    return metadata, shapes


def _tensor(cursor: _Cursor) -> tuple[str, tuple[int, tuple[int, ...], int]]:
    name, ndim = cursor.text(), cursor.number("I")
    if ndim > MAX_DIMS:
        raise _Damaged(f"has tensor {_shown(name)} of {ndim} dimensions, at most {MAX_DIMS} are allowed")
    shape = tuple(cursor.number("Q") for _ in range(ndim))[::-1]
    if not _is_possible(shape):
        raise _Damaged(f"has tensor {_shown(name)} of the impossible shape {list(shape)}")
    return name, (cursor.number("I"), shape, cursor.number("Q"))


def _types(path: Path) -> dict[int, tuple[str, int, int]]:
    """Return each type's name, items per block and bytes per block, by its number in the file."""
    try:
        from gguf.constants import GGML_QUANT_SIZES
    except ImportError as error:
        raise DependencyError(f"Reading {path} needs the gguf package: pip install gguf.") from error
    return {int(kind): (kind.name, *sizes) for kind, sizes in GGML_QUANT_SIZES.items()}


def _entry(
    where: str, types: dict[int, tuple[str, int, int]], number: int, shape: tuple[int, ...], start: int
) -> _Entry:
    name, block_items, block_bytes = types.get(number, (f"type {number}", 1, 1))
    if number not in types or (name not in DENSE and not _can_dequantise(number, block_bytes)):
        raise WeightsError(
            f"{where} is quantised as {name}, which the installed gguf package cannot expand: use a file in Q8_0, Q4_0 "
            "to Q5_1, Q2_K to Q6_K, F16 or BF16, or update gguf."
        )
    row = shape[-1] if shape else 1
    if row % block_items:
        raise _damaged(where, f"has rows of {row} items, which {name} (blocks of {block_items}) cannot hold")
    nbytes = math.prod(shape) // block_items * block_bytes
    return _Entry(name, number, start, nbytes, block_items, block_bytes)


@functools.cache
def _can_dequantise(number: int, block_bytes: int) -> bool:
    from gguf import GGMLQuantizationType, quants

    try:
        quants.dequantize(np.zeros((1, block_bytes), np.uint8), GGMLQuantizationType(number))
    except NotImplementedError:
        return False
    return True


def _dequantise(data: np.ndarray, entry: _Entry) -> np.ndarray:
    """Expand quantised bytes to float32, one dimension each."""
    from gguf import GGMLQuantizationType, quants

    result = np.empty(entry.nbytes // entry.block_bytes * entry.block_items, np.float32)
    step = CHUNK_BYTES // entry.block_bytes
    with np.errstate(all="ignore"):  # a scale that is not finite stays so; that is for whoever checks the weights
        for done in range(0, entry.nbytes // entry.block_bytes, step):
            # One row at a time: the package works row group by row group, in Python.
            row = np.asarray(data[done * entry.block_bytes : (done + step) * entry.block_bytes]).reshape(1, -1)
            values = quants.dequantize(row, GGMLQuantizationType(entry.type_number))
            result[done * entry.block_items :][: values.size] = values.ravel()
    return result


def _original_shape(where: str, shape: tuple[int, ...], original: list[Any] | tuple[int, ...]) -> tuple[int, ...]:
    if math.prod(original) != math.prod(shape) or not _is_possible(original) or (shape and not original):
        raise _damaged(where, f"of shape {list(shape)} cannot have the shape {list(original)} that its file notes")
    return tuple(original)


def _is_possible(shape: list[Any] | tuple[int, ...]) -> bool:
    return min(shape, default=0) >= 0 and math.prod(max(n, 1) for n in shape) <= MAX_ITEMS


def _shown(name: str) -> str:
    return repr(name if len(name) <= 80 else f"{name[:80]}...")


def _damaged(where: Path | str, what: str) -> WeightsError:
    return WeightsError(f"{where} {what}: the file is damaged or not GGUF, download it again.")
