"""What a run tells its caller while it works, and how the caller stops it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Protocol

import numpy as np

LOGGER = logging.getLogger("scail2_mlx")


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """Where a run is. `done` of `total` counts what the phase is made of: passes of the model, latent frames, bytes.

    `segment` counts from 1, `step` how many are finished; `segments` and `steps` are 0 where the phase has none.
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

    @property
    def wants_preview(self) -> bool:
        """Whether `preview` shows anything: what it takes is computed only then."""

    def preview(self, latent: np.ndarray) -> None:
        """Show what the clip looks like so far: the latent [16, T, h, w], normalised, float32, that a step predicts."""


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

    @property
    def wants_preview(self) -> bool:
        """There is nothing to show it on."""
        return False

    def preview(self, latent: np.ndarray) -> None:
        """Ignore previews."""
