"""kill -9 in every phase: the next run must make what an undisturbed one makes."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from .child import PHASES, Fault
from .stage import COMMAND, Stage, made, outcome, set_up
from .tally import Tally


def attack(count: int, seed: int, folder: Path) -> Iterator[Tally]:
    """Kill `count` times, spread over the phases, at random moments of each. Yields a tally for each phase."""
    generator = np.random.default_rng(seed)
    with set_up(folder) as stage:
        whole = {command: _whole(stage, command) for command in dict.fromkeys(COMMAND.values())}
        times = {command: stage.times(command) for command in whole}
        shares = np.bincount(np.arange(count) % len(PHASES), minlength=len(PHASES))
        for phase, share in zip(PHASES, shares, strict=True):
            calls = times[COMMAND[phase]][phase]
            tally, late, left = Tally(f"kills, {phase}"), 0, 0
            for _ in range(int(share)):
                call = int(generator.integers(len(calls)))
                fault = Fault(kind="kill", phase=phase, call=call, delay=float(generator.uniform(0, calls[call])))
                finding, killed, extra = _killed(stage, fault, whole[COMMAND[phase]])
                tally.add(finding)
                late, left = late + (not killed), max(left, extra)
            tally.notes = [f"{late} came after the end", f"at most {left} bytes of begun files stayed"]
            yield tally


def _whole(stage: Stage, command: str) -> tuple[dict[str, bytes], set[str]]:
    """Return what an undisturbed command makes, and the names of all that it leaves."""
    sandbox = stage.folder / "whole"
    code, said = stage.run(command, sandbox)
    if code:
        raise SystemExit(said)
    kept = outcome(sandbox), set(made(sandbox))
    shutil.rmtree(sandbox)
    return kept


def _killed(stage: Stage, fault: Fault, whole: tuple[dict[str, bytes], set[str]]) -> tuple[str | None, bool, int]:
    """Return what did not hold, whether the kill came in time, and the bytes of files that stayed of the first run."""
    sandbox, command = stage.folder / "sandbox", COMMAND[fault.phase]
    code, said = stage.run(command, sandbox, fault)
    killed = code == -signal.SIGKILL
    if not killed and code:
        finding = f"{fault}: the run that was to be killed ended by itself: {said[-500:]}"
    elif command == "convert" and (sandbox / "converted").exists():
        finding = None if outcome(sandbox) == whole[0] else f"{fault}: a folder that is not whole has appeared"
    else:
        code, said = stage.run(command, sandbox)
        finding = f"{fault}: the next run ended with {code}: {said[-500:]}" if code else None
        if finding is None and outcome(sandbox) != whole[0]:
            finding = f"{fault}: the next run made something else"
    left = sum(len(content) for name, content in made(sandbox).items() if name not in whole[1])
    shutil.rmtree(sandbox)
    return finding, killed, left
