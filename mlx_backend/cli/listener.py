"""Progress in a terminal."""

from __future__ import annotations

import sys
import time

from ..interface.events import LogListener, Progress
from ..interface.workload import Course, Workload


class TerminalListener(LogListener):
    """One line per phase and segment on stderr, with its seconds; a terminal also sees the steps as they pass.

    On a terminal a run whose work is known also says how much of all of it is done.
    """

    def __init__(self) -> None:
        self._line = ""
        self._since = time.perf_counter()
        self._course: Course | None = None

    def expect(self, work: Workload) -> None:
        """Follow the whole run."""
        self._course = Course(work, time.perf_counter)

    def note(self, message: str) -> None:
        """Print the note."""
        sys.stderr.write(f"{message}\n")

    def progress(self, event: Progress) -> None:
        """Show how far the run is."""
        if self._course is not None:
            self._course.follow(event)
        line = event.phase
        if event.segments > 1:
            line += f", segment {event.segment} of {event.segments}"
        if line != self._line:
            self._line, self._since = line, time.perf_counter()
        ended = event.done == event.total or (event.steps and event.step == event.steps)
        if not ended and not sys.stderr.isatty():
            return
        count = f" {event.step}/{event.steps}" if event.steps else ""
        seconds = time.perf_counter() - self._since
        whole = "" if self._course is None else f", {self._course.share:.0%} of the run"
        sys.stderr.write(f"\r{line}{count} ({seconds:.1f} s{whole})\033[K" if sys.stderr.isatty() else f"{line}{count}")
        if ended or not sys.stderr.isatty():
            sys.stderr.write("\n")
        sys.stderr.flush()
