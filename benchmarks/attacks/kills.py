"""kill -9 in every phase: the next run must make what an undisturbed one makes."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .child import PHASES, Fault
from .stage import COMMAND, Stage, made, outcome, set_up
from .tally import Tally


def attack(count: int, seed: int, folder: Path) -> Iterator[Tally]:
    """Kill `count` times, spread over the phases, at random moments of each. Yields a tally for each phase."""
    generator = np.random.default_rng(seed)
    with set_up(folder) as stage:
        shares = {phase: len(range(number, count, len(PHASES))) for number, phase in enumerate(PHASES)}
        whole = {COMMAND[phase]: undisturbed(stage, COMMAND[phase]) for phase, share in shares.items() if share}
        for phase, share in shares.items():
            if not share:
                continue
            calls = whole[COMMAND[phase]].times[phase]
            tally, late, left = Tally(f"kills, {phase}"), 0, 0
            for _ in range(share):
                call = int(generator.integers(len(calls)))
                fault = Fault(kind="kill", phase=phase, call=call, delay=float(generator.uniform(0, calls[call])))
                finding, killed, extra = _killed(stage, fault, whole[COMMAND[phase]])
                tally.add(finding)
                late, left = late + (not killed), max(left, extra)
            tally.notes = [f"{late} came after the end", f"at most {left} bytes of begun files stayed"]
            yield tally


@dataclass(frozen=True, slots=True)
class Undisturbed:
    """What a command makes, the names of all files that it leaves, and the seconds of every call of every phase."""

    outcome: dict[str, bytes]
    names: set[str]
    times: dict[str, list[float]]


def undisturbed(stage: Stage, command: str) -> Undisturbed:
    """Run a command with nothing in its way."""
    sandbox, times = stage.folder / "undisturbed", stage.folder / "times.json"
    code, said = stage.run(command, sandbox, Fault(times=str(times)))
    if code:
        raise SystemExit(said)
    found = Undisturbed(outcome(sandbox), set(made(sandbox)), json.loads(times.read_text(encoding="utf-8")))
    shutil.rmtree(sandbox)
    return found


def _killed(stage: Stage, fault: Fault, whole: Undisturbed) -> tuple[str | None, bool, int]:
    """Return what did not hold, whether the kill came in time, and the bytes of files that stayed of the first run."""
    sandbox, command = stage.folder / "sandbox", COMMAND[fault.phase]
    code, said = stage.run(command, sandbox, fault)
    killed = code == -signal.SIGKILL
    if not killed and code:
        finding = f"{fault}: the run that was to be killed ended by itself: {said[-500:]}"
    elif command == "convert" and (sandbox / "converted").exists():
        finding = None if outcome(sandbox) == whole.outcome else f"{fault}: a folder that is not whole has appeared"
    else:
        code, said = stage.run(command, sandbox)
        finding = f"{fault}: the next run ended with {code}: {said[-500:]}" if code else None
        if finding is None and outcome(sandbox) != whole.outcome:
            finding = f"{fault}: the next run made something else"
    left = sum(len(content) for name, content in made(sandbox).items() if name not in whole.names)
    shutil.rmtree(sandbox)
    return finding, killed, left
