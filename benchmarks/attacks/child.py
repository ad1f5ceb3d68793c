"""A command of the pack in a process to which something happens: `python -m benchmarks.attacks.child FAULT COMMAND...`.

FAULT is the JSON of a Fault. What happens, happens so many seconds after a function of the pack was called, in another
thread, so that it may meet any line of it.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# Where each phase of a command begins: a module and a function of it or of one of its classes.
PHASES = {
    "download": "mlx_backend.weights.checkpoints.hub:_download",
    "convert": "mlx_backend.weights.checkpoints.convert:_write_component",
    "caches": "mlx_backend.pipelines.conditioning_cache:keep_file",
    "encode": "mlx_backend.members.scail2.streams:EncodedScene.streams",
    "sampling": "mlx_backend.pipelines.denoising:Denoising.run",
    "segments": "mlx_backend.pipelines.finished:keep_file",
    "decode": "mlx_backend.pipelines.generate:decode_latents",
    "writing": "mlx_backend.cli.generate:write_video",
}
BALLAST = "ballast"


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """`kind`: "none", "kill", "full" (the disk of `place`), "limit" (no byte more to any file) or "closed" (no new file
    anywhere in `place`), `delay` seconds after the `call`th call of a phase, counted from 0.

    `times`: a file for the seconds of every call of every phase.
    """

    kind: str = "none"
    phase: str = ""
    call: int = 0
    delay: float = 0.0
    place: str = ""
    times: str = ""

    @property
    def argument(self) -> str:
        """What the command line takes."""
        return json.dumps(asdict(self))

    def happen(self) -> None:
        """Do it."""
        if self.kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.kind == "limit":
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        elif self.kind == "full":
            fill(Path(self.place))
        elif self.kind == "closed":
            for folder, _, _ in os.walk(self.place):
                Path(folder).chmod(0o555)


def fill(folder: Path) -> None:
    """Write a file until the disk is full."""
    with (folder / BALLAST).open("wb", buffering=0) as file:
        try:
            while file.write(bytes(1 << 20)):
                pass
        except OSError:
            return


def watched(fault: Fault, times: dict[str, list[float]]) -> None:
    """Put a watch on the beginning of every phase."""
    for phase, place in PHASES.items():
        module, _, path = place.partition(":")
        *owners, name = path.split(".")
        owner: Any = importlib.import_module(module)
        for part in owners:
            owner = getattr(owner, part)
        setattr(owner, name, _timed(getattr(owner, name), phase, fault, times.setdefault(phase, [])))


def _timed(function: Callable[..., Any], phase: str, fault: Fault, times: list[float]) -> Callable[..., Any]:
    def called(*arguments: Any, **named: Any) -> Any:
        since, number = time.perf_counter(), len(times)
        times.append(0.0)
        if (phase, number) == (fault.phase, fault.call):
            threading.Timer(fault.delay, fault.happen).start()
        try:
            return function(*arguments, **named)
        finally:
            times[number] = time.perf_counter() - since

    return called


def main(arguments: list[str]) -> int:
    """Run the command, and return its exit code."""
    from mlx_backend.runtime.device import require_mlx

    require_mlx()  # its BLAS before anything that brings MLX
    from mlx_backend.cli.main import main as command

    fault, times = Fault(**json.loads(arguments[0])), {}
    watched(fault, times)
    code = command(arguments[1:])
    if fault.times:
        Path(fault.times).write_text(json.dumps(times), encoding="utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
