"""Prompts and pictures that were encoded once, on disk: a second run needs neither text encoder nor CLIP.

An entry is found by what it was made from (the numbers of the encoder's file, the tokens or the picture, the
precision), so another prompt or another file never meets it. The folder may be emptied at any time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import numpy as np

from ..interface.events import LOGGER
from ..runtime.device import compute_dtype
from ..weights.checkpoints.identity import file_identity
from .kept_files import keep_file, prune
from .store import Handle

FORMAT = "1"  # raised when what is stored under the same key would differ
SUFFIX = ".npy"
MAX_BYTES = 256 << 20  # a prompt takes up to 8 MB, a picture 1.3 MB; the oldest go first


@dataclass(frozen=True, slots=True)
class ConditioningCache:
    """Features [rows, dim], float32, by key, in `folder`; nothing is kept without one."""

    folder: Path | None

    def key(self, handle: Handle, made_from: bytes) -> str:
        """Return the key of what the handle's encoder makes from the bytes of its input."""
        if self.folder is None:
            return ""
        store = handle.store
        precision = compute_dtype(store.precision, handle.component)
        parts = (FORMAT, handle.component, file_identity(store.snapshot.path(handle.component)), str(precision))
        digest = hashlib.sha256("\n".join((*parts, str(mx.default_device()), "")).encode())
        digest.update(made_from)
        return digest.hexdigest()

    def get(self, key: str) -> np.ndarray | None:
        """Return what was kept under a key; None if there is nothing, or nothing whole."""
        if self.folder is None:
            return None
        path = self.folder / (key + SUFFIX)
        try:
            found = np.load(path, allow_pickle=False)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, EOFError) as error:
            LOGGER.info("%s is not whole (%s) and is made again.", path, error)
            return None
        return found if found.ndim == 2 and found.dtype == np.float32 and np.isfinite(found).all() else None

    def put(self, key: str, features: np.ndarray) -> None:
        """Keep features; a disk that cannot take them is only noted."""
        if self.folder is None:
            return
        try:
            kept = features.astype(np.float32)
            keep_file(self.folder / (key + SUFFIX), lambda file: np.save(file, kept, allow_pickle=False))
            prune(self.folder, SUFFIX, MAX_BYTES)
        except OSError as error:
            LOGGER.info("The encoded prompt or picture could not be kept in %s (%s).", self.folder, error)


def ids_bytes(ids: Iterable[int]) -> bytes:
    """Return the tokens of a prompt as a key's input."""
    return np.array(list(ids), np.int64).tobytes()


def picture_bytes(picture: np.ndarray) -> bytes:
    """Return a picture [H, W, 3] as a key's input."""
    return str(picture.shape).encode() + np.ascontiguousarray(picture, np.float32).tobytes()
