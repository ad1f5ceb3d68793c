"""Safetensors headers: what a file holds, without reading its data."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path

from ..spec.errors import WeightsError

MAX_HEADER_BYTES = 64 << 20  # a 14B checkpoint's header is about 0.2 MB


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Dtype as safetensors writes it ("BF16", "F32", "U32" ...), shape, and size in bytes."""

    dtype: str
    shape: tuple[int, ...]
    nbytes: int


def read_header(path: Path) -> dict[str, TensorInfo]:
    """Return the tensors of a safetensors file by name.

    Raises WeightsError for a missing, foreign, truncated or half-downloaded file.
    """
    if not path.is_file():
        raise WeightsError(f"{path} does not exist or is not a file: check the path, or download the model again.")
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else None
        if length is None or length > MAX_HEADER_BYTES or prefix[:1] in (b"<", b"v"):
            raise _foreign(path, size)
        text = file.read(length)
    if len(text) < length:
        raise WeightsError(
            f"{path} ends inside its header ({size} bytes on disk): the download is incomplete, download it again."
        )
    try:
        entries = json.loads(text)
        entries.pop("__metadata__", None)
        tensors = {
            name: TensorInfo(entry["dtype"], tuple(entry["shape"]), entry["data_offsets"][1] - entry["data_offsets"][0])
            for name, entry in entries.items()
        }
        end = max((entry["data_offsets"][1] for entry in entries.values()), default=0)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise _foreign(path, size) from error
    expected = 8 + length + end
    if size != expected:
        raise WeightsError(
            f"{path} has {size} bytes, but its header describes {expected}: "
            "the file is damaged or its download is incomplete, download it again."
        )
    return tensors


def _foreign(path: Path, size: int) -> WeightsError:
    return WeightsError(
        f"{path} ({size} bytes) is not a safetensors file: it may be a web page or a pointer saved in its place; "
        "download the file itself."
    )
