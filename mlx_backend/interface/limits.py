"""What a snapshot leaves no choice about: a small model may know one size only, and says so in its config.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from .errors import WeightsError

LIMITS = "limits"  # in config.json
MAX_VALUE = 1e9  # an integer beyond a float's range is no number to what computes with it
Wanted = TypeVar("Wanted")  # a dataclass that has some of the settings


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Values that a run must have, named as Scene and SamplingSettings name them; None is the user's choice."""

    width: int | None = None
    height: int | None = None
    segment_length: int | None = None
    segment_overlap: int | None = None
    cfg: float | None = None

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Limits:
        """Read them from a snapshot's settings. Raises WeightsError for a name or a value that is none of them."""
        given, names = settings.get(LIMITS, {}), [field.name for field in fields(cls)]
        if not isinstance(given, dict) or not all(
            name in names and isinstance(value, (int, float)) and abs(value) < MAX_VALUE
            for name, value in given.items()
        ):
            raise WeightsError(
                f"config.json says {LIMITS} = {given!r}, but only numbers for {', '.join(names)} are allowed: download "
                "it again."
            )
        return cls(**given)

    @property
    def values(self) -> dict[str, float]:
        """Those that are no choice, by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    def changed(self, wanted: object) -> dict[str, float]:
        """Return by name which values of `wanted` have to become which."""
        return {name: value for name, value in self.values.items() if getattr(wanted, name, value) != value}

    def held(self, wanted: Wanted) -> Wanted:
        """Return `wanted` with the values that are allowed. Raises what its class raises for values that it refuses."""
        changed = self.changed(wanted)
        return replace(wanted, **changed) if changed else wanted
