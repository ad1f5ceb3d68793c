"""Where a run is, in words: phase, segment, step, the time it took and the time it takes."""

from __future__ import annotations

from collections.abc import Callable

from ..mlx_backend.interface.events import Progress
from ..mlx_backend.interface.workload import Course, Workload


class Status:
    """Follows the events of one node's run; `clock` returns seconds.

    Where the whole run is known, what is left is told of all of it, else of the phase.
    """

    def __init__(self, clock: Callable[[], float]):
        self._clock = clock
        self._began = clock()
        self._last = Progress(phase="", done=0, total=0)
        self._last_at = self._began
        self._course: Course | None = None
        self._paces: dict[str, tuple[float, int]] = {}  # by phase: seconds, and the units done in them

    def expect(self, work: Workload) -> None:
        """Take note of what the whole run is made of."""
        self._course = Course(work, self._clock)

    @property
    def share(self) -> float | None:
        """How much of the whole run is behind, 0..1; None where that is not known."""
        return None if self._course is None else self._course.share

    def line(self, event: Progress) -> str:
        """Return the words for an event, which comes after all those before."""
        from ..mlx_backend.runtime.probe import duration  # it needs MLX, which is not imported before a node runs

        left, how = self._seconds_left(event), "about"
        if self._course is not None:
            self._course.follow(event)
            left, how = self._course.seconds_left or None, "about" if self._course.is_timed else "at least"
        words = [event.phase]
        if event.segments > 1:
            words.append(f"segment {event.segment}/{event.segments}")
        if event.steps:
            words.append(f"step {min(event.step + 1, event.steps)}/{event.steps}")
        elif event.total > 1:
            words.append(f"{event.done / event.total:.0%}")
        if left is not None:
            words.append(f"{how} {duration(left)} to go")
        return f"{', '.join(words)} ({duration(self._last_at - self._began)} so far)"

    def _seconds_left(self, event: Progress) -> float | None:
        """Return what the rest of the phase takes at its pace so far; None before anything of it was seen to pass.

        Between two events of a phase nothing else happens, so that what lies between segments does not count.
        """
        now, last = self._clock(), self._last
        if event.phase == last.phase and event.done > last.done:
            seconds, units = self._paces.get(event.phase, (0.0, 0))
            self._paces[event.phase] = seconds + now - self._last_at, units + event.done - last.done
        self._last, self._last_at = event, now
        seconds, units = self._paces.get(event.phase, (0.0, 0))
        return (event.total - event.done) * seconds / units if units and event.done < event.total else None
