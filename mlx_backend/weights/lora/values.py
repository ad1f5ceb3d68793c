"""A LoRA file's tensors as numbers: 8-bit floats decoded, and nothing that is not finite."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import mlx.core as mx
import numpy as np

from ...interface.errors import WeightsError
from ..formats.arrays import to_mlx
from ..formats.finite import check_finite
from ..formats.quantised import QuantisedTensor, model_tensors, quantised_of, restore
from ..formats.safetensors_file import TensorInfo
from ..formats.sources import open_tensors, text_metadata, warn_of_surplus

NUMBERS = ("F64", "F32", "F16", "BF16")
COUNTS = ("I64", "I32", "I16")  # an alpha may be a whole number


class LoraValues:
    """The tensors of a LoRA by name and shape, scales of 8-bit floats left out, and the numbers that each stands for.

    Raises WeightsError for a file that cannot be opened, and for a dtype of which nothing says what it means.
    """

    def __init__(self, path: Path):
        self.path = path
        self._file = open_tensors(path)
        self.metadata = text_metadata(self._file)
        self._quantised: Mapping[str, QuantisedTensor] = quantised_of(self._file)
        self.tensors: dict[str, TensorInfo] = model_tensors(self._file.tensors)
        for name, info in self.tensors.items():
            self._check_dtype(name, info)
        self.shapes = {name: info.shape for name, info in self.tensors.items()}
        self.shapes |= {name: found.shape for name, found in self._quantised.items()}

    def array(self, name: str) -> mx.array:
        """Return a tensor's numbers. Raises WeightsError, with file and tensor, where one is not finite."""
        if name in self._quantised:
            array = mx.array(restore(self._quantised[name], self._file.read))
        else:
            stored = self._file.read(name)
            wide = stored.astype(np.float32) if self.tensors[name].dtype == "F64" else stored
            array = to_mlx(wide, self.tensors[name].dtype)
        check_finite(self.path, name, array)
        return array

    def tell(self) -> None:
        """Warn of what the file holds too much."""
        warn_of_surplus(self._file)

    def _check_dtype(self, name: str, info: TensorInfo) -> None:
        is_count = info.dtype in COUNTS and math.prod(info.shape) == 1
        if name not in self._quantised and info.dtype not in NUMBERS and not is_count:
            raise WeightsError(
                f"{self.path}: tensor '{name}' is stored as {info.dtype}, and nothing in the file says which numbers "
                "that stands for: use the LoRA in bf16, fp16, fp32 or fp8."
            )
