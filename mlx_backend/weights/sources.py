"""Files of tensors, whatever their format, behind one face; the format is told by how a file begins."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import mlx.core as mx
import numpy as np

from .formats import SafetensorsFile, TensorInfo
from .gguf_file import GGUFFile
from .torch_file import TorchFile

ZIP_START, GGUF_START = b"PK\x03\x04", b"GGUF"


class TensorFile(Protocol):
    """What loading needs of a file: `tensors` by name, without their data, and one tensor's data at a time."""

    path: Path
    tensors: Mapping[str, TensorInfo]

    def read(self, name: str) -> np.ndarray:
        """Return a tensor; dtypes that numpy lacks come as their bits. Raises WeightsError."""


def open_tensors(path: Path) -> TensorFile:
    """Open a safetensors, PyTorch (.pt, .pth) or GGUF file by its content. Raises WeightsError."""
    start = b""
    if path.is_file():
        with path.open("rb") as file:
            start = file.read(4)
    if start == ZIP_START:
        return TorchFile(path)
    if start == GGUF_START:
        return GGUFFile(path)
    return SafetensorsFile(path)


def text_metadata(file: TensorFile) -> dict[str, str]:
    """Return what a file says of itself as texts: safetensors metadata, GGUF's keys, a checkpoint's plain entries."""
    found = getattr(file, "metadata", None) or getattr(file, "extras", {})
    return {str(key): str(value) for key, value in found.items()}


def to_mlx(array: np.ndarray, dtype: str) -> mx.array:
    """Return an MLX copy of an array that was read as `dtype` (safetensors' name)."""
    made = mx.array(np.ascontiguousarray(array))
    return made.view(mx.bfloat16) if dtype == "BF16" else made
