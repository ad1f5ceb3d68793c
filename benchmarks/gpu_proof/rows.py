"""What a check found, as a row of the table, and what all rows together mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Mark = Literal["right", "note", "WRONG", "FAILED"]
MARKS: tuple[Mark, ...] = ("right", "note", "WRONG", "FAILED")


@dataclass(frozen=True, slots=True)
class Row:
    """A result of `check`. "note" measures, or costs time; "WRONG" missed its bar; "FAILED" is an end without one."""

    check: str
    name: str
    found: str
    mark: Mark

    @classmethod
    def judged(cls, check: str, name: str, found: str, *, right: bool) -> Row:
        """Return a row that is right or wrong."""
        return cls(check, name, found, "right" if right else "WRONG")

    @classmethod
    def read(cls, fields: dict[str, Any]) -> Row:
        """Return the row that `as_json` was made of."""
        return cls(fields["check"], fields["name"], fields["found"], fields["mark"])

    def as_json(self) -> dict[str, Any]:
        """Return the fields."""
        return asdict(self)

    def __str__(self) -> str:
        """Return a line of the table."""
        cells = (self.check, self.name, self.found, self.mark)
        return f"| {' | '.join(cell.replace('|', '/').replace(chr(10), ' ') for cell in cells)} |"


def report(heading: str, rows: Sequence[Row], judgement: str) -> str:
    """Return what is pasted into an issue: heading, table, verdict."""
    table = ["| check | what | found | |", "| --- | --- | --- | --- |", *map(str, rows)]
    return "\n".join(["```", heading, "```", "", *table, "", judgement, ""])


def verdict(rows: Sequence[Row], *, on_gpu: bool, left: int) -> str:
    """Say in a sentence or two what a user wants to know; `left`: checks that are still to come."""
    counts = {mark: sum(row.mark == mark for row in rows) for mark in MARKS}
    wrong, failed = (_named(rows, mark) for mark in ("WRONG", "FAILED"))
    told = f"{counts['right']} results are right, {counts['WRONG']} wrong, {counts['FAILED']} checks did not end."
    if left:
        return f"**Not finished**: {left} checks are still to come. {told}"
    if wrong:
        return f"**Not safe here**: {wrong}. {told} Do not trust pictures of this machine; please report this table."
    if failed:
        return f"**Not proved**: {failed} did not end. {told} What ended is right; please report this table."
    if not on_gpu:
        return f"**Right on the CPU**, and nothing is said of a GPU: MLX computes on the CPU here. {told}"
    return f"**Safe**: on this GPU everything that was examined is as on the CPU. {told}"


def _named(rows: Sequence[Row], mark: Mark) -> str:
    return "; ".join(f"{row.check}, {row.name}" for row in rows if row.mark == mark)
