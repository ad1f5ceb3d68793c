"""A Hub on this machine with one snapshot, spoken to through the real library: HF_ENDPOINT names it to a process."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

BRANCH = "main"
PIECE = 1 << 14


class LocalHub(ThreadingHTTPServer):
    """Serves a folder's files for any repository, at `commit` and by the branch that names it.

    `asked` are the files that were fetched and from which byte, in order. `cuts` are how many bytes each of the next
    answers for the DiT sends before the connection ends, `spoilt` files whose content is not what was promised,
    `unsized` whether sizes are kept secret, `pause` the seconds between two pieces of an answer. `others` holds what
    files are at another commit, by (commit, name).
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.commit = "0" * 40
        self.asked: list[tuple[str, int]] = []
        self.cuts: list[int] = []
        self.spoilt: set[str] = set()
        self.others: dict[tuple[str, str], bytes] = {}
        self.unsized = False
        self.pause = 0.0
        super().__init__(("127.0.0.1", 0), Page)

    @property
    def address(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.server_port}"

    def url(self, repository: str, name: str, revision: str = BRANCH) -> str:
        """Return what `hf_hub_url` would, if this were the Hub."""
        return f"{self.address}/{repository}/resolve/{revision}/{name}"

    def content(self, name: str, commit: str) -> bytes:
        """Return the bytes of a file at a commit."""
        return self.others.get((commit, name)) or (self.folder / name).read_bytes()


class Page(BaseHTTPRequestHandler):
    """An answer of it."""

    server: LocalHub

    def do_HEAD(self) -> None:
        """Promise a file: its size, its SHA-256 and its commit."""
        name, commit, body = self._found()
        length = {} if self.server.unsized else {"Content-Length": str(len(body))}
        self._begin(200, length | {"ETag": f'"{hashlib.sha256(body).hexdigest()}"', "X-Repo-Commit": commit})

    def do_GET(self) -> None:
        """Send a file, or what is missing of it."""
        name, _, body = self._found()
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        self.server.asked.append((name, start))
        cut = self.server.cuts.pop(0) if name == "dit.safetensors" and self.server.cuts else None
        if name in self.server.spoilt:
            body = bytes(len(body))
        self._begin(206 if start else 200, {"Content-Length": str(len(body) - start)})
        sent = memoryview(body)[start:][:cut]
        for place in range(0, len(sent), PIECE):
            try:
                self.wfile.write(sent[place : place + PIECE])
            except OSError:  # the other side was killed
                break
            time.sleep(self.server.pause)
        self.close_connection = True

    def _found(self) -> tuple[str, str, bytes]:
        revision, _, name = self.path.partition("/resolve/")[2].partition("/")
        commit = self.server.commit if revision == BRANCH else revision
        name = name.rsplit("/", 1)[-1]
        return name, commit, self.server.content(name, commit)

    def _begin(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def served(folder: Path) -> Iterator[LocalHub]:
    """Serve a folder while the block runs."""
    hub = LocalHub(folder)
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
