"""Files of tensors, whatever their format, behind one face; the format is told by how a file begins."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np

from ...interface.errors import WeightsError, listed
from ...interface.events import LOGGER
from .gguf_file import GGUFFile
from .safetensors_file import MAX_HEADER_BYTES, SafetensorsFile, TensorInfo
from .torch_file import TorchFile

FileState = tuple[tuple[int, int], ...]  # of each of its files: when it was written, and its size
# diffusers and transformers put a variant ("fp16") before an index's last ending, and before or behind the numbers.
INDEX = re.compile(r".*\.safetensors\.index(\.[\w-]+)?\.json")
SHARD = re.compile(r"(.+)-(\d+)-of-(\d+)((?:\.[\w-]+)?\.safetensors)")
MAX_SHARDS = 1000
ZIP_START, GGUF_START = b"PK\x03\x04", b"GGUF"


class TensorFile(Protocol):
    """What loading needs of a file: `tensors` by name, without their data, and one tensor's data at a time."""

    path: Path
    tensors: Mapping[str, TensorInfo]

    def read(self, name: str) -> np.ndarray:
        """Return a tensor; dtypes that numpy lacks come as their bits. Raises WeightsError."""


class ShardedFile:
    """A model in several safetensors files, as an index lists them, or without one as they are numbered from the first.

    Raises WeightsError for an index that points outside its folder, where it and the shards disagree, and for a shard
    that is missing.
    """

    def __init__(self, path: Path):
        self.path = path
        is_numbered = is_first_shard(path)
        weight_map = {} if is_numbered else _weight_map(path)
        self.paths = _numbered(path) if is_numbered else _listed(path, weight_map)
        self._shards: dict[str, SafetensorsFile] = {}
        self.tensors: dict[str, TensorInfo] = {}
        self.metadata: dict[str, str] = {}
        for shard in self.paths:
            file = SafetensorsFile(shard)
            twice = file.tensors.keys() & self.tensors.keys()
            if twice:
                raise WeightsError(f"{path}: tensor '{min(twice)}' stands in two shards: download the model again.")
            self.tensors |= file.tensors
            self.metadata |= file.metadata
            self._shards |= dict.fromkeys(file.tensors, file)
        missing = weight_map.keys() - self.tensors.keys()
        if missing:
            raise WeightsError(f"{path} lists '{min(missing)}', which no shard holds: download the model again.")

    @property
    def shards(self) -> tuple[SafetensorsFile, ...]:
        """Its files, those that hold a tensor."""
        return tuple({id(file): file for file in self._shards.values()}.values())

    def read(self, name: str) -> np.ndarray:
        """Return a tensor; dtypes that numpy lacks come as their bits. Raises WeightsError."""
        return self._shards[name].read(name)

    def read_rows(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Return some rows of a tensor, as `read` would. Raises WeightsError."""
        return self._shards[name].read_rows(name, rows)


def is_index(path: Path) -> bool:
    """Whether a file's name is that of an index of shards."""
    return INDEX.fullmatch(path.name) is not None


def is_first_shard(path: Path) -> bool:
    """Whether a file's name is that of the first of several shards."""
    found = SHARD.fullmatch(path.name)
    return found is not None and int(found[2]) == 1 < int(found[3])


def shard_paths(path: Path) -> list[Path]:
    """Return the files that an index names, all of them beside it, or those numbered from a first one.

    Raises WeightsError.
    """
    return _numbered(path) if is_first_shard(path) else _listed(path, _weight_map(path))


def _numbered(path: Path) -> list[Path]:
    stem, number, count, ending = SHARD.fullmatch(path.name).groups()
    if int(count) > MAX_SHARDS:
        raise WeightsError(f"{path} is one of {count} shards, more than any model has: choose another file.")
    numbers = (str(i).zfill(len(number)) for i in range(1, int(count) + 1))
    paths = [path.with_name(f"{stem}-{i}-of-{count}{ending}") for i in numbers]
    missing = [other.name for other in paths if not other.is_file()]
    if missing:
        raise WeightsError(
            f"{path} is the first of {len(paths)} shards, but {listed(missing)} is missing beside it: download all."
        )
    return paths


def _listed(path: Path, weight_map: Mapping[str, str]) -> list[Path]:
    names = sorted(set(weight_map.values()))
    for shard in names:
        if shard in ("", ".", "..") or "/" in shard or "\\" in shard or Path(shard).is_absolute():
            raise WeightsError(
                f"{path} names the file '{shard}', but shards must lie beside their index: do not use this model."
            )
    return [path.with_name(shard) for shard in names]


def _weight_map(path: Path) -> dict[str, str]:
    size = path.stat().st_size
    if size > MAX_HEADER_BYTES:
        raise WeightsError(f"{path} has {size} bytes, too many for an index of safetensors files: download it again.")
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): str(shard) for name, shard in index["weight_map"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise WeightsError(f"{path} is not an index of safetensors files ({error}): download it again.") from error


def open_tensors(path: Path) -> TensorFile:
    """Open a safetensors, PyTorch (.pt, .pth) or GGUF file, or an index of shards, by its content; the first shard, by
    its name, with the others.

    Raises WeightsError.
    """
    if is_first_shard(path):
        return ShardedFile(path)
    start, size = b"", 0
    if path.is_file():
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
    if start[:4] == ZIP_START:
        return TorchFile(path)
    if start[:4] == GGUF_START:
        return GGUFFile(path)
    # A safetensors file begins with its header's length, whose first byte may be any, "{" too.
    if start[:1] == b"{" and int.from_bytes(start, "little") > size:
        return ShardedFile(path)
    return SafetensorsFile(path)


def file_state(file: TensorFile) -> FileState:
    """Return what changes when a file or one of its shards is written anew; nothing where one is gone."""
    try:
        stats = [path.stat() for path in (file.path, *getattr(file, "paths", ()))]
    except OSError:
        return ()
    return tuple((stat.st_mtime_ns, stat.st_size) for stat in stats)


def read_rows(file: TensorFile, name: str, rows: np.ndarray) -> np.ndarray:
    """Return rows (indices along the first axis) of a tensor, without the others where the format allows it.

    Torch files and the dense tensors of GGUF are mapped, so that indexing reads no more than the rows.
    """
    if isinstance(file, (SafetensorsFile, ShardedFile, GGUFFile)):
        return file.read_rows(name, rows)
    return file.read(name)[rows]


def text_metadata(file: TensorFile) -> dict[str, str]:
    """Return what a file says of itself as texts: safetensors metadata, GGUF's keys, a checkpoint's plain entries."""
    found = getattr(file, "metadata", None) or getattr(file, "extras", {})
    return {str(key): str(value) for key, value in found.items()}


def warn_of_surplus(file: TensorFile) -> None:
    """Warn of each safetensors file in it that goes on behind its last tensor; what lies there is not read."""
    for part in file.shards if isinstance(file, ShardedFile) else (file,):
        if isinstance(part, SafetensorsFile) and part.surplus_bytes:
            LOGGER.warning(
                "%s has %d bytes behind its last tensor, which are not read: if the result looks wrong, download the "
                "file again.",
                part.path,
                part.surplus_bytes,
            )
