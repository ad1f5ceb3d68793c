"""What the rest of the backend asks of a model of the family."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Defaults:
    """What a run of a member starts from: those of its publisher's program; `fps` is that of its training."""

    width: int
    height: int
    fps: float
    steps: int
    cfg: float
    shift: float
    solver: str
    segment_length: int
    segment_overlap: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """A row of the table. `title` is what sentences call it; `components` what a run needs beside the "dit"."""

    name: str
    title: str
    hub_repositories: tuple[str, ...]
    components: tuple[str, ...]
    defaults: Defaults
