"""Published snapshots: downloaded when a run needs one, never at import."""

from __future__ import annotations

import hashlib
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path

from ...interface.errors import DependencyError, WeightsError
from ...interface.events import LOGGER, Listener, Progress
from .snapshot import COMPONENTS, CONFIG, TOKENIZER, Snapshot

FILES = (CONFIG, TOKENIZER, *(f"{component}.safetensors" for component in COMPONENTS))
SPARE_BYTES = 1 << 30  # that a download leaves free: a disk that is quite full stops more than a download
PART = ".part"
CHUNK = 1 << 20
PARTIAL = 206  # the status of an answer that begins where it was asked to
TIMEOUT = 20  # seconds without an answer
RETRIES, PAUSE = 3, 2.0  # tries without a byte, and the seconds between two


def download_snapshot(repository: str, root: Path, listener: Listener) -> Path:
    """Download a snapshot from the Hub into `root`/<name> and return that folder; what is there already is kept.

    A download that was broken off goes on where it stopped. Raises WeightsError, also where the disk has too little
    room for what is missing, DependencyError, and whatever the listener raises to stop.
    """
    folder = root / repository.rsplit("/", 1)[-1]
    try:
        Snapshot.open(folder)
    except WeightsError:
        LOGGER.info("Downloading %s to %s.", repository, folder)
        listener.check_cancelled()
        _check_room(repository, folder)
        for name in FILES:
            listener.progress(Progress(phase=f"downloading {name}", done=0, total=1))
            _download(repository, name, folder, listener)
        listener.progress(Progress(phase="downloading", done=len(FILES), total=len(FILES)))
    return folder


def missing_bytes(sizes: dict[str, int], folder: Path) -> int:
    """Return how many bytes of files of these sizes, by name, are not in the folder yet, begun ones counted."""
    missing = sum(size for name, size in sizes.items() if not _is_whole(folder / name, size))
    return max(missing - sum(path.stat().st_size for path in folder.glob(f".*{PART}")), 0)


def _is_whole(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _check_room(repository: str, folder: Path) -> None:
    """Raise WeightsError where what is missing does not fit on the folder's disk, as far as the Hub tells sizes."""
    needed = missing_bytes(_sizes(repository), folder)
    disk = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(disk).free
    if needed and free < needed + SPARE_BYTES:
        raise WeightsError(
            f"Downloading {repository} takes {needed / 1e9:.1f} GB more, but the disk of {folder} has {free / 1e9:.1f} "
            f"GB free, of which {SPARE_BYTES / 1e9:.1f} GB stay free: make room, or put models/scail2 on another disk "
            "(extra_model_paths.yaml, or a link). Nothing was downloaded now."
        )


def _sizes(repository: str) -> dict[str, int]:
    """Return the sizes of the snapshot's files in bytes; none where the Hub cannot be asked, or does not say."""
    errors = _download_errors()
    from huggingface_hub import model_info

    try:
        siblings = model_info(repository, files_metadata=True, timeout=TIMEOUT).siblings or ()
    except (*errors, ValueError) as error:
        LOGGER.info("The Hub does not say how large %s is (%s).", repository, " ".join(str(error).split()))
        return {}
    return {file.rfilename: file.size for file in siblings if file.rfilename in FILES and file.size is not None}


def _download(repository: str, name: str, folder: Path, listener: Listener) -> None:
    errors = _download_errors()
    try:
        _fetch(repository, name, folder / name, listener)
    except errors as error:
        raise WeightsError(
            f"Downloading {name} of {repository} to {folder} failed ({' '.join(str(error).split())}): "
            "check the connection and the free space, then queue again; what has arrived is kept."
        ) from error


def _fetch(repository: str, name: str, target: Path, listener: Listener) -> None:
    """Fetch a file into a part beside it, from where that ends; check its SHA-256 where the Hub tells it; rename it.

    By plain HTTP: the Hub library's own download, by version, reports no progress, cannot be stopped within a file
    (hf_xet) or throws away what has arrived.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    url = hf_hub_url(repository, name)
    found = get_hf_file_metadata(url, timeout=TIMEOUT)
    if found.size is not None and _is_whole(target, found.size):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    etag = re.sub(r"\W", "", found.etag or "")
    part = target.with_name(f".{name}.{etag[:16]}{PART}")
    retries = RETRIES
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            _receive(url, part, found.size, name, listener)
            break
        except _download_errors() as error:
            grown = part.exists() and part.stat().st_size > before
            retries = RETRIES if grown else retries - 1
            if not retries:
                raise
            LOGGER.info("Downloading %s was broken off (%s) and goes on.", name, " ".join(str(error).split()))
            listener.check_cancelled()
            time.sleep(PAUSE)
    if len(etag) == hashlib.sha256().digest_size * 2 and _sha256(part, listener) != etag:
        part.unlink()
        raise OSError(f"the SHA-256 of {name} is not the Hub's, so it was thrown away")
    part.replace(target)


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


def _sha256(path: Path, listener: Listener) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(CHUNK):
            listener.check_cancelled()
            digest.update(block)
    return digest.hexdigest()


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
