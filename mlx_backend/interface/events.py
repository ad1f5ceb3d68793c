"""What a run tells its caller while it works, and how the caller stops it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .workload import Workload

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


class Listener:
    """Receives the events of a run, and passes over them; the nodes, the command line and the tests say what to do."""

    wants_preview = False
    """Whether `preview` shows anything: what it takes is computed only then."""

    def progress(self, event: Progress) -> None:
        """Take note of how far the run is."""

    def warn(self, message: str) -> None:
        """Tell the user something that does not stop the run."""

    def note(self, message: str) -> None:
        """Tell the user what to expect: a plan, a time."""

    def held(self, peak: int) -> None:
        """Take note of the most bytes that MLX held in another process since this was told last."""

    def expect(self, work: Workload) -> None:
        """Take note of what the whole run is made of; told before its first phase."""

    def check_cancelled(self) -> None:
        """Raise to stop the run; called at least once per DiT block and per VAE frame."""

    def preview(self, latent: np.ndarray) -> None:
        """Show what the clip looks like so far: the latent [C, T, h, w], normalised, float32, that a step predicts."""


class LogListener(Listener):
    """Warnings and notes go to the log."""

    def warn(self, message: str) -> None:
        """Log the warning."""
        LOGGER.warning(message)

    def note(self, message: str) -> None:
        """Log the note."""
        LOGGER.info(message)


def never() -> None:
    """Cancel nothing."""


def ignored(_: float) -> None:
    """Tell nobody what share is done."""
