"""What an attack has found."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Tally:
    """How often something was tried, and what did not hold: a sentence for each."""

    name: str
    tried: int = 0
    findings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, finding: str | None) -> None:
        """Count a trial, and what it found, if anything."""
        self.tried += 1
        if finding is not None:
            self.findings.append(finding)

    @property
    def lines(self) -> list[str]:
        """A row of the table, and the findings below it."""
        notes = "".join(f"; {note}" for note in self.notes)
        row = f"{self.name}: {self.tried - len(self.findings)} of {self.tried} held{notes}"
        return [row, *(f"    FOUND {finding}" for finding in self.findings)]
