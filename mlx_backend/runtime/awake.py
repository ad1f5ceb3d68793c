"""Keeping a Mac awake while a run of hours lasts."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from ..interface.events import LOGGER

SECONDS_TO_END = 5


@contextmanager
def kept_awake() -> Iterator[None]:
    """Keep a Mac from going to sleep by itself while the block runs; elsewhere do nothing.

    macOS's own `caffeinate` keeps the machine awake, not the display, and ends with this process even if it is killed.
    """
    child = _caffeinate() if platform.system() == "Darwin" else None
    try:
        yield
    finally:
        if child is not None:
            _end(child)


def _caffeinate() -> subprocess.Popen | None:
    try:
        return subprocess.Popen(
            ["/usr/bin/caffeinate", "-i", "-w", str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    except OSError as error:
        LOGGER.warning("The Mac cannot be kept awake (%s): a run stops while it sleeps.", error)
        return None


def _end(child: subprocess.Popen) -> None:
    child.terminate()
    try:
        child.wait(SECONDS_TO_END)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
