"""Two runs on the same folders at once: both come to their end, and what lies there then is whole."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from .kills import undisturbed
from .stage import COMMAND, PATIENCE, Stage, outcome, set_up
from .tally import Tally


def attack(count: int, seed: int, folder: Path) -> Iterator[Tally]:  # noqa: ARG001 - chance is the system's here
    """Run each command `count` times twice at once. Yields a tally for each command."""
    with set_up(folder) as stage:
        for command in dict.fromkeys(COMMAND.values()):
            tally, whole = Tally(f"together, {command}"), undisturbed(stage, command).outcome
            for _ in range(count):
                tally.add(_both(stage, command, whole))
            yield tally


def _both(stage: Stage, command: str, whole: dict[str, bytes]) -> str | None:
    sandbox = stage.folder / "sandbox"
    processes = [stage.begin(command, sandbox) for _ in range(2)]
    said = [process.communicate(timeout=PATIENCE)[1] for process in processes]
    codes = sorted(process.returncode for process in processes)
    # Only one of two can make a new folder; the other is told so.
    expected = [0, 2] if command == "convert" else [0, 0]
    finding = None
    if codes != expected or "Traceback" in "".join(said):
        finding = f"{command}: ended with {codes}: {' | '.join(words[-400:] for words in said)}"
    elif outcome(sandbox) != whole:
        finding = f"{command}: made something else"
    shutil.rmtree(sandbox)
    return finding
