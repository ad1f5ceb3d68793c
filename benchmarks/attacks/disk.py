"""A disk that becomes full, or folders that are closed, in every phase: a sentence, and nothing that harms."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from .child import BALLAST, PHASES, Fault
from .kills import undisturbed
from .stage import COMMAND, Stage, outcome, set_up
from .tally import Tally

DISK_BYTES = 1300 << 20  # a download leaves 1 GiB free; memory is taken only when it is full


def attack(count: int, seed: int, folder: Path) -> Iterator[Tally]:
    """Disturb `count` times each phase in each way. Yields a tally for each way.

    "full" needs a small disk of its own, which only root can make, on Linux; elsewhere "limit" stands for it: every
    file is at its end. "closed" needs nothing.
    """
    generator = np.random.default_rng(seed)
    with set_up(folder) as stage, small_disk(folder / "disk") as disk:
        whole = {command: undisturbed(stage, command) for command in dict.fromkeys(COMMAND.values())}
        for kind in ("full" if disk else "limit", "limit", "closed"):
            tally = Tally(f"disk, {kind}")
            for phase in list(PHASES) * count:
                calls = whole[COMMAND[phase]].times[phase]
                call = int(generator.integers(len(calls)))
                sandbox = (folder / "disk" if kind == "full" else folder) / "sandbox"
                delay = float(generator.uniform(0, calls[call] / 2))
                fault = Fault(kind=kind, phase=phase, call=call, delay=delay, place=str(sandbox))
                tally.add(_disturbed(stage, fault, sandbox, whole[COMMAND[phase]].outcome))
            yield tally


def _disturbed(stage: Stage, fault: Fault, sandbox: Path, whole: dict[str, bytes]) -> str | None:
    """Return what did not hold: in the disturbed run, or in the next one."""
    command = COMMAND[fault.phase]
    code, said = stage.run(command, sandbox, fault)
    for folder, _, _ in os.walk(sandbox):
        Path(folder).chmod(0o755)
    (sandbox / BALLAST).unlink(missing_ok=True)
    finding = None
    if code not in (0, 1, 2) or "Traceback" in said:
        finding = f"{fault}: ended with {code}: {said[-700:]}"
    elif code == 0 and outcome(sandbox) != whole:
        finding = f"{fault}: said that all went well, but made something else"
    elif code and command != "download" and outcome(sandbox):
        finding = f"{fault}: failed, and left {list(outcome(sandbox))}"
    if finding is None and code:
        code, said = stage.run(command, sandbox)
        if code or outcome(sandbox) != whole:
            finding = f"{fault}: the next run ended with {code}: {said[-500:]}"
    shutil.rmtree(sandbox)
    return finding


@contextmanager
def small_disk(place: Path) -> Iterator[bool]:
    """Have a small disk at `place` while the block runs, where the system lets this user make one."""
    place.mkdir()
    able = sys.platform == "linux" and os.geteuid() == 0
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(place)]
    able = able and subprocess.run(command, check=False, capture_output=True).returncode == 0
    try:
        yield able
    finally:
        if able:
            subprocess.run(["umount", str(place)], check=False)
