"""Where a downloaded snapshot is from: its commit, sizes and digests, in a file beside what they are of."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import BinaryIO

from ...interface.errors import WeightsError
from ...interface.events import LOGGER, Listener, never

NAME = "origin.json"
LOCK = ".download.lock"
CHUNK = 1 << 20
SHA256_LETTERS, SHA1_LETTERS = 64, 40
PAUSE = 1.0  # seconds between two looks at a lock


@dataclass(frozen=True, slots=True)
class Expected:
    """A file as the Hub promises it: its bytes, if told, and its digest in hexadecimal, "" if none is told.

    Large files are named by their SHA-256, small ones by git's SHA-1 of "blob", their size and their bytes.
    """

    size: int | None
    digest: str

    def is_met(self, path: Path, check_cancelled: Callable[[], None] = never) -> bool:
        """Whether a file is this one; all of it is read, and first sent to the disk. Raises OSError."""
        size = path.stat().st_size
        if self.size not in (None, size):
            return False
        if len(self.digest) == SHA256_LETTERS:
            digest = hashlib.sha256()
        elif len(self.digest) == SHA1_LETTERS:
            digest = hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
        else:
            return True
        with path.open("rb") as file:
            os.fsync(file.fileno())
            while block := file.read(CHUNK):
                check_cancelled()
                digest.update(block)
        return digest.hexdigest() == self.digest


@dataclass(frozen=True, slots=True)
class Origin:
    """The files of a folder by name, all of one commit; `whole` are those that arrived and have these digests."""

    repository: str
    revision: str
    folder: str
    files: Mapping[str, Expected]
    whole: tuple[str, ...] = ()

    @classmethod
    def read(cls, folder: Path) -> Origin | None:
        """Return what a folder's file says; None without one. Raises WeightsError for one that says nothing."""
        path = folder / NAME
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            files = {str(name): Expected(told["size"], str(told["digest"])) for name, told in told["files"].items()}
            parts = (str(told[name]) for name in ("repository", "revision", "folder"))
            return cls(*parts, files, tuple(map(str, told["whole"])))
        except FileNotFoundError:
            return None
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise WeightsError(
                f"{path} does not say where its folder is from ({type(error).__name__}): remove it, and what lies "
                "there is compared with the Hub's digests when you download again."
            ) from error

    def write(self, folder: Path) -> None:
        """Write the file aside and rename it. Raises OSError."""
        path = folder / NAME
        aside = path.with_name(f".{NAME}.new")
        with aside.open("w", encoding="utf-8") as file:
            json.dump(asdict(self), file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)

    def arrived(self, name: str) -> Origin:
        """Return the same with one file more that is whole."""
        return replace(self, whole=(*self.whole, name))

    def is_complete(self, folder: Path) -> bool:
        """Whether every file has been found whole and still has its size. Raises OSError."""
        return all(name in self.whole and self.has_size(folder, name) for name in self.files)

    def has_size(self, folder: Path, name: str) -> bool:
        """Whether a file is there with its size. Raises OSError."""
        path, size = folder / name, self.files[name].size
        return path.is_file() and size in (None, path.stat().st_size)


@contextmanager
def alone(folder: Path, listener: Listener) -> Iterator[None]:
    """Let one program at a time download to a folder, which is made; another one waits, and can be stopped meanwhile.

    The lock ends with its program, however that ends. Raises OSError, and what the listener raises to stop.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("ab") as file:
        told = False
        while not _locked(file):
            if not told:
                listener.note(f"Another program is downloading to {folder}; this one waits for it.")
                told = True
            listener.check_cancelled()
            time.sleep(PAUSE)
        yield


def _locked(file: BinaryIO) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows, where MLX does not run
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:  # a disk on the network that knows no locks
        LOGGER.info("%s cannot be locked (%s).", file.name, error)
    return True
