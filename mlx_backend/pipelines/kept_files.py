"""Files that may be made again: written aside and renamed, and the oldest removed when they become too many."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO

ABANDONED = 3600.0  # seconds without a byte more


def keep_file(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Have `write` fill a file, which appears at `path` when it is whole; its folder is made. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with aside.open("xb") as file:
            write(file)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def keep_new_file(paths: Iterable[Path], write: Callable[[BinaryIO], object]) -> Path:
    """Do the same at the first of `paths` where nothing stands yet, and return it. Raises OSError.

    Nothing is overwritten, also where two programs ask at once: an empty file holds the name until the whole one comes.
    """
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            path.open("xb").close()
        except FileExistsError:
            continue
        try:
            keep_file(path, write)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return path
    raise FileExistsError("Every name is taken.")


def prune(folder: Path, suffix: str, most: int) -> None:
    """Remove the oldest files with this suffix until they take at most `most` bytes. Raises OSError.

    Files that were begun and not touched for a while go too: the process that wrote them was killed.
    """
    for path in folder.glob(f".*{suffix}.*.part"):
        if time.time() - path.stat().st_mtime > ABANDONED:
            path.unlink(missing_ok=True)
    entries = [(entry.stat(), entry.path) for entry in os.scandir(folder) if entry.name.endswith(suffix)]
    total = sum(stat.st_size for stat, _ in entries)
    for stat, path in sorted(entries, key=lambda entry: entry[0].st_mtime):
        if total <= most:
            return
        Path(path).unlink(missing_ok=True)
        total -= stat.st_size
