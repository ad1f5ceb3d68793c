"""One thing that was looked at: what was found, how far it is from right, and what that means."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

Verdict = Literal["ok", "note", "fault"]
MARKS: dict[Verdict, str] = {"ok": "ok", "note": "note", "fault": "FAULT"}


@dataclass(frozen=True, slots=True)
class Check:
    """A verdict in words: "fault" spoils results or runs, "note" costs time or needs attention.

    `error` and `bar`, both None where nothing was compared, are of the same unit; `reason` says why the bar is there.
    `rows`: the row count at which it was looked at; 0 concerns every run.
    """

    name: str
    found: str
    verdict: Verdict
    sentence: str
    error: float | None = None
    bar: float | None = None
    reason: str = ""
    rows: int = 0

    def as_json(self) -> dict[str, Any]:
        """Return the fields; an error that is no number becomes null, since JSON has no infinity."""
        error = None if self.error is None or not math.isfinite(self.error) else self.error
        return {
            "name": self.name,
            "found": self.found,
            "error": error,
            "bar": self.bar,
            "reason": self.reason,
            "verdict": self.verdict,
            "sentence": self.sentence,
        }

    def __str__(self) -> str:
        """Return the lines of a report."""
        return f"[{MARKS[self.verdict]}] {self.name}: {self.found}. {self.sentence}"
