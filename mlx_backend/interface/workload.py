"""What a whole run computes, part by part, and how much of it is behind: one bar and one time for all its phases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .events import Progress


@dataclass(frozen=True, slots=True)
class Part:
    """A phase of a run, in FLOPs of one network; `segment` counts from 1, and is 0 where the phase is in none."""

    phase: str
    network: str
    flops: float
    segment: int = 0

    def holds(self, event: Progress) -> bool:
        """Whether an event tells of this part."""
        return event.phase == self.phase and self.segment in (0, event.segment)

    def share(self, event: Progress) -> float:
        """Return how much of the part an event of it says to be done, 0..1.

        Events with steps count the passes of all segments, those of a phase within a segment its own units.
        """
        done = event.done / event.total if event.total else 0.0
        if self.segment and event.steps:
            done = done * event.segments - (self.segment - 1)
        return min(max(done, 0.0), 1.0)


@dataclass(frozen=True, slots=True)
class Workload:
    """The parts of a run in their order, and the rate of the machine, in FLOPs a second, before anything ran."""

    parts: tuple[Part, ...]
    flops_per_s: float


class Course:
    """Where a run is in its workload; `clock` returns seconds.

    A part costs its FLOPs over its network's rate: that of the machine, until parts of the network were timed. Parts
    that a run passes by (what it found kept on disk) cost nothing. Only the time between two events of the same part
    counts, so that loading and saving do not slow a network down.
    """

    def __init__(self, work: Workload, clock: Callable[[], float]) -> None:
        self._work = work
        self._clock = clock
        self._at, self._within = -1, 0.0
        self._since: float | None = None
        self._passed_by: set[int] = set()
        self._timed: dict[str, tuple[float, float]] = {}  # by network: FLOPs, and the seconds they took
        self._share = 0.0

    def follow(self, event: Progress) -> None:
        """Take note of an event, which comes after all those before; those of no part only stop the clock."""
        now, first = self._clock(), max(self._at, 0)
        found = next((n for n, part in enumerate(self._work.parts[first:], first) if part.holds(event)), None)
        if found is None:
            self._since = None
            return
        part = self._work.parts[found]
        within = part.share(event)
        if found == self._at and self._since is not None and within > self._within:
            flops, seconds = self._timed.get(part.network, (0.0, 0.0))
            fresh = (within - self._within) * part.flops
            self._timed[part.network] = flops + fresh, seconds + now - self._since
        self._passed_by.update(range(self._at + 1, found))
        self._at, self._within, self._since = found, within, now

    @property
    def share(self) -> float:
        """How much of the run is behind, 0..1; it never falls."""
        done, left = self._costs()
        if done + left:
            self._share = max(self._share, done / (done + left))
        return self._share

    @property
    def seconds_left(self) -> float:
        """What the rest takes."""
        return self._costs()[1]

    @property
    def is_timed(self) -> bool:
        """Whether the network with the most left to do was seen at work: before that, the rest takes longer."""
        left: dict[str, float] = {}
        for part in self._work.parts[max(self._at, 0) :]:
            left[part.network] = left.get(part.network, 0.0) + part.flops
        return not left or max(left, key=lambda network: left[network]) in self._timed

    def _costs(self) -> tuple[float, float]:
        """Return the seconds of what is done and of what is left."""
        done = left = 0.0
        for number, part in enumerate(self._work.parts):
            if number in self._passed_by:
                continue
            cost, share = self._cost(part), float(number < self._at)
            if number == self._at:
                share = self._within
            done, left = done + share * cost, left + (1 - share) * cost
        return done, left

    def _cost(self, part: Part) -> float:
        flops, seconds = self._timed.get(part.network, (0.0, 0.0))
        return part.flops * seconds / flops if flops else part.flops / self._work.flops_per_s
