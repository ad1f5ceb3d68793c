"""What a run tells its caller while it works, and how the caller stops it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Protocol

LOGGER = logging.getLogger("scail2_mlx")


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """Where a run is. `done` of `total` counts whatever the phase is made of (solver steps, latent frames).

    `segment` and `step` count from 1; `segments` and `steps` are 0 where the phase has none.
    """

    phase: str
    done: int
    total: int
    segment: int = 0
    segments: int = 0
    step: int = 0
    steps: int = 0


class Listener(Protocol):
    """Receives the events of a run; the nodes, the command line and the tests each bring their own."""

    def progress(self, event: Progress) -> None:
        """Take note of how far the run is."""

    def warn(self, message: str) -> None:
        """Tell the user something that does not stop the run."""

    def note(self, message: str) -> None:
        """Tell the user what to expect: a plan, a time."""

    def check_cancelled(self) -> None:
        """Raise to stop the run; called at least once per DiT block and per VAE frame."""


class LogListener:
    """Warnings go to the log, progress nowhere, and nothing stops the run."""

    def progress(self, event: Progress) -> None:
        """Ignore progress."""

    def warn(self, message: str) -> None:
        """Log the warning."""
        LOGGER.warning(message)

    def note(self, message: str) -> None:
        """Log the note."""
        LOGGER.info(message)

    def check_cancelled(self) -> None:
        """Never stop."""
