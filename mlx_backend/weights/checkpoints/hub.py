"""Published snapshots: downloaded when a run needs one, never at import."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from ...interface.errors import DependencyError, WeightsError
from ...interface.events import LOGGER, Listener, Progress
from ...interface.published import BRANCH, Published, published
from .origin import Expected, Origin, alone
from .snapshot import COMPONENTS, CONFIG, TOKENIZER, Snapshot

FILES = (CONFIG, TOKENIZER, *(f"{component}.safetensors" for component in COMPONENTS))
SPARE_BYTES = 1 << 30  # that a download leaves free: a disk that is quite full stops more than a download
PART = ".part"
CHUNK = 1 << 20
PARTIAL = 206  # the status of an answer that begins where it was asked to
TIMEOUT = 20  # seconds without an answer
RETRIES, PAUSE = 3, 2.0  # tries without a byte, and the seconds between two


def download_snapshot(name: str, root: Path, listener: Listener) -> Path:
    """Download a published snapshot from the Hub below `root`, and return its folder; what is there already is kept.

    `name` is one of PUBLISHED, or a repository. All files are of one commit: the pinned one, that of an earlier try
    which is gone on with, or the one that the branch names now. A download that was broken off goes on where it
    stopped; every file is compared with its digest. Raises WeightsError, also where the disk has too little room for
    what is missing and for a file that is another one, DependencyError, and whatever the listener raises to stop.
    """
    wanted = published(name)
    older, folder = root / wanted.repository.rsplit("/", 1)[-1], root / wanted.place
    if name == wanted.repository and (older / CONFIG).is_file() and _is_there(older):  # from before there were tiers
        return older
    if _is_there(folder):
        return folder
    with _told(wanted.repository, folder), alone(folder, listener):
        if not _is_there(folder):  # another program may have brought it meanwhile
            _download(wanted, folder, listener)
    return folder


@contextmanager
def _told(what: str, folder: Path) -> Iterator[None]:
    """Turn what goes wrong outside this program into a WeightsError. Raises DependencyError."""
    try:
        yield
    except _download_errors() as error:
        raise WeightsError(
            f"Downloading {what} to {folder} failed ({' '.join(str(error).split())}): "
            "check the connection and the free space, then queue again; what has arrived is kept."
        ) from error


def _is_there(folder: Path) -> bool:
    """Whether a folder needs nothing more: as it was downloaded, or, if it came another way, by its files."""
    origin = Origin.read(folder)
    if origin is not None:
        return origin.is_complete(folder)
    try:
        Snapshot.open(folder)
    except WeightsError:
        return False
    return True


def _download(wanted: Published, folder: Path, listener: Listener) -> None:
    LOGGER.info("Downloading %s to %s.", wanted.repository, folder)
    listener.check_cancelled()
    origin = Origin.read(folder) or _ask(wanted, listener)
    if (origin.repository, origin.folder) != (wanted.repository, wanted.folder):
        raise WeightsError(
            f"{folder} holds files of {origin.repository}/{origin.folder}, and {wanted.repository}/{wanted.folder} is "
            "not mixed with them: move that folder away, then queue again."
        )
    if origin.revision != wanted.revision:
        listener.note(f"The files of {folder} are those of the commit {origin.revision}.")
    _check_room(origin, folder)
    origin.write(folder)
    for name in origin.files:
        listener.progress(Progress(phase=f"downloading {name}", done=0, total=1))
        if not (name in origin.whole and origin.has_size(folder, name)):
            with _told(f"{name} of {origin.repository}", folder):
                _bring(origin, name, folder, listener)
            origin = origin.arrived(name)
            origin.write(folder)
    listener.progress(Progress(phase="downloading", done=len(FILES), total=len(FILES)))


def missing_bytes(sizes: dict[str, int], folder: Path) -> int:
    """Return how many bytes of files of these sizes, by name, are not in the folder yet, begun ones counted."""
    missing = sum(size for name, size in sizes.items() if not _is_whole(folder / name, size))
    return max(missing - sum(path.stat().st_size for path in folder.glob(f".*{PART}")), 0)


def _is_whole(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _check_room(origin: Origin, folder: Path) -> None:
    """Raise WeightsError where what is missing does not fit on the folder's disk, as far as the Hub tells sizes."""
    needed = missing_bytes({name: told.size for name, told in origin.files.items() if told.size is not None}, folder)
    free = shutil.disk_usage(folder).free
    if needed and free < needed + SPARE_BYTES:
        raise WeightsError(
            f"Downloading {origin.repository} takes {needed / 1e9:.1f} GB more, but the disk of {folder} has "
            f"{free / 1e9:.1f} GB free, of which {SPARE_BYTES / 1e9:.1f} GB stay free: make room, or put models/scail2 "
            "on another disk (extra_model_paths.yaml, or a link). Nothing was downloaded now."
        )


def _ask(wanted: Published, listener: Listener) -> Origin:
    """Return what the Hub promises of each file, all at the commit that the first one's answer names."""
    from huggingface_hub import get_hf_file_metadata

    origin = Origin(wanted.repository, wanted.revision, wanted.folder, {})
    for name in FILES:
        listener.check_cancelled()
        found = get_hf_file_metadata(_url(origin, name), timeout=TIMEOUT)
        commit = found.commit_hash or origin.revision
        if commit != origin.revision and (origin.files or wanted.revision != BRANCH):
            raise WeightsError(
                f"The Hub answers for {name} of {wanted.repository} with the commit {commit}, but {origin.revision} "
                "was asked for, and commits are not mixed. Nothing was downloaded: try again later."
            )
        told = Expected(found.size, re.sub(r"\W", "", found.etag or ""))
        origin = replace(origin, revision=commit, files={**origin.files, name: told})
    total = sum(told.size or 0 for told in origin.files.values())
    if wanted.size and total != wanted.size:
        LOGGER.info("The Hub tells %d bytes in all for %s, its publisher %d.", total, wanted.place, wanted.size)
    return origin


def _url(origin: Origin, name: str) -> str:
    from huggingface_hub import hf_hub_url

    return hf_hub_url(origin.repository, "/".join(filter(None, (origin.folder, name))), revision=origin.revision)


def _bring(origin: Origin, name: str, folder: Path, listener: Listener) -> None:
    """Have a file whole at its place: fetched, or there already with the right digest. Raises WeightsError otherwise.

    A part has the digest in its name, so that it never goes on with another file's bytes.
    """
    target, expected = folder / name, origin.files[name]
    if target.exists():
        if expected.is_met(target, listener.check_cancelled):
            return
        raise WeightsError(
            f"{target} is there, but it is not the file of {origin.repository} at the commit {origin.revision} "
            f"({target.stat().st_size} bytes instead of {expected.size}, or other ones), and nothing is overwritten: "
            "move it away, then queue again."
        )
    part = target.with_name(f".{name}.{expected.digest[:16]}{PART}")
    _fetch(_url(origin, name), part, expected, listener)
    if not expected.is_met(part, listener.check_cancelled):
        part.unlink()
        raise OSError(f"the SHA-256 of {name} is not the Hub's, so it was thrown away")
    part.replace(target)
    for other in folder.glob(f".{name}.*{PART}"):  # of a commit that was given up
        other.unlink(missing_ok=True)


def _fetch(url: str, part: Path, expected: Expected, listener: Listener) -> None:
    """Fetch what is missing of a file, and try again after a connection that broke off.

    By plain HTTP: the Hub library's own download, by version, reports no progress, cannot be stopped within a file
    (hf_xet) or throws away what has arrived.
    """
    name = url.rsplit("/", 1)[-1]
    retries = RETRIES
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            _receive(url, part, expected.size, name, listener)
            return
        except _download_errors() as error:
            grown = part.exists() and part.stat().st_size > before
            retries = RETRIES if grown else retries - 1
            if not retries:
                raise
            LOGGER.info("Downloading %s was broken off (%s) and goes on.", name, " ".join(str(error).split()))
            listener.check_cancelled()
            time.sleep(PAUSE)


def _receive(url: str, part: Path, size: int | None, name: str, listener: Listener) -> None:
    """Append what is missing of a file of `size` bytes; one of unknown size is fetched from the start."""
    begun = part.stat().st_size if part.exists() and size is not None else 0
    if size is not None and begun > size:
        part.unlink()
        begun = 0
    if begun == size:
        return
    with _opened(url, begun) as (status, chunks), part.open("ab" if begun and status == PARTIAL else "wb") as file:
        for chunk in chunks:
            listener.check_cancelled()
            file.write(chunk)
            if size:
                listener.progress(Progress(phase=f"downloading {name}", done=file.tell(), total=size))
        arrived = file.tell()
    if size is not None and arrived != size:
        raise OSError(f"{arrived} of {size} bytes arrived")


@contextmanager
def _opened(url: str, start: int) -> Iterator[tuple[int, Iterator[bytes]]]:
    """Yield the status and the bytes of a file from `start` on, with the session and the token of the Hub's library."""
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    headers = build_hf_headers() | {"Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    session = get_session()
    if callable(getattr(session, "stream", None)):  # httpx
        with session.stream("GET", url, headers=headers, timeout=TIMEOUT, follow_redirects=True) as response:
            hf_raise_for_status(response)
            yield response.status_code, response.iter_bytes(CHUNK)
    else:  # requests, in huggingface_hub before 1.0
        with session.get(url, headers=headers, timeout=TIMEOUT, stream=True) as response:
            hf_raise_for_status(response)
            yield response.status_code, response.iter_content(CHUNK)


def _download_errors() -> tuple[type[Exception], ...]:
    """Return what the Hub's library raises: of disk and permissions, of the network, of its own.

    Raises DependencyError where the library is missing.
    """
    try:
        import huggingface_hub  # noqa: F401
    except ImportError as error:
        raise DependencyError("Downloading models needs huggingface_hub: pip install huggingface_hub.") from error
    errors: list[type[Exception]] = [OSError, RuntimeError]
    for client in ("httpx", "httpx2"):  # of the Hub library 1 and 2; before, its errors were OSErrors
        with suppress(ImportError):
            errors.append(import_module(client).HTTPError)
    return tuple(errors)
