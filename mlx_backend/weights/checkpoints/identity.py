"""What makes a model file the same one: its size, its header and samples of its numbers; not its name or its date."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from ..formats.sources import is_first_shard, is_index, shard_paths

HEAD_BYTES = 1 << 20  # more than the header of a 14B checkpoint
SAMPLES, SAMPLE_BYTES = 64, 16 << 10
TENSOR_BYTES = 4 << 10  # of each tensor of a safetensors file, which else could be another one between two samples


def file_identity(path: Path) -> str:
    """Return a digest of a file, of an index of shards with all that it names. Raises OSError and WeightsError.

    About 2 MB are read of a file of any size, and the start of each tensor of a safetensors file, so that asking costs
    nothing next to loading: a file that was trained further or merged differs nearly everywhere, one in which a single
    tensor was replaced in that tensor, one that was copied or touched nowhere.
    """
    parts = [path]
    if is_index(path):
        parts += shard_paths(path)
    elif is_first_shard(path):
        parts = shard_paths(path)
    digest = hashlib.sha256()
    for part in parts:
        size = part.stat().st_size
        digest.update(f"{size}\n".encode())
        with part.open("rb") as file:
            head = file.read(HEAD_BYTES)
            digest.update(head)
            for i in range(SAMPLES):
                file.seek(max(HEAD_BYTES, i * size // SAMPLES))
                digest.update(file.read(SAMPLE_BYTES))
            for start, end in _tensors(head):
                file.seek(start)
                digest.update(file.read(min(TENSOR_BYTES, end - start)))
            file.seek(max(0, size - SAMPLE_BYTES))
            digest.update(file.read())
    return digest.hexdigest()


def _tensors(head: bytes) -> Iterator[tuple[int, int]]:
    """Yield where each tensor begins and ends, of a file that begins as a safetensors file; nothing of another one."""
    length = int.from_bytes(head[:8], "little")
    if 8 + length > len(head):
        return
    try:
        entries = json.loads(head[8 : 8 + length])
        spans = [entry["data_offsets"] for name, entry in entries.items() if name != "__metadata__"]
        yield from ((8 + length + int(start), 8 + length + int(end)) for start, end in spans)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return
