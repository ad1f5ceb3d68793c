"""What parent and child tell each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


class Ended(Exception):
    """The other process has ended, or the way to it; the text says how."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Job:
    """What a child is to do: call `function`, a public one of the backend, with these arguments.

    `on_gpu`: the device that the parent chose. `gone`: the numbers of the stores that nobody has any more. `log_level`:
    of the parent's log.
    """

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    on_gpu: bool
    wants_preview: bool
    gone: frozenset[int]
    log_level: int


@dataclass(frozen=True, slots=True)
class Stop:
    """The job is to end at its next look at the Cancel button."""


@dataclass(frozen=True, slots=True, eq=False)
class Told:
    """What the job told its listener: the name of one of Listener's methods, and its argument."""

    event: str
    value: Any


@dataclass(frozen=True, slots=True)
class Logged:
    """A line of the child's log."""

    level: int
    text: str


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What a job has come to: its value, or its error; what its stores hold now, by number; its memory."""

    value: Any
    error: Exception | None
    loaded: dict[int, tuple[str, ...]]
    held_bytes: int
