"""What makes a model file the same one: its size, its header and samples of its numbers; not its name or its date."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ..formats.sources import is_first_shard, is_index, shard_paths

HEAD_BYTES = 1 << 20  # more than the header of a 14B checkpoint
SAMPLES, SAMPLE_BYTES = 64, 16 << 10


def file_identity(path: Path) -> str:
    """Return a digest of a file, of an index of shards with all that it names. Raises OSError and WeightsError.

    About 2 MB are read of a file of any size, so that asking costs nothing next to loading: a file that was trained
    further or merged differs nearly everywhere, one that was copied or touched nowhere.
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
            digest.update(file.read(HEAD_BYTES))
            for i in range(SAMPLES):
                file.seek(max(HEAD_BYTES, i * size // SAMPLES))
                digest.update(file.read(SAMPLE_BYTES))
            file.seek(max(0, size - SAMPLE_BYTES))
            digest.update(file.read())
    return digest.hexdigest()
