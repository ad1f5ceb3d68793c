"""A tiny model, a tiny clip and a local Hub, and the commands of the pack that are attacked with them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlx_backend.interface.published import PUBLISHED

from .child import BALLAST, Fault
from .local_hub import served

ROOT = Path(__file__).parents[2]
SNAPSHOT = ROOT / "tests" / "data" / "goldens" / "snapshot"
SIDE, FRAMES, LENGTH, OVERLAP = 32, 13, 9, 5
GENERATE = ("caches", "encode", "sampling", "segments", "decode", "writing")
COMMAND = {"download": "download", "convert": "convert"} | dict.fromkeys(GENERATE, "generate")
PIECE_PAUSE = 0.0005  # seconds between two pieces of a download, which else takes no time
PATIENCE = 300  # seconds that a command may take


@dataclass(frozen=True, slots=True)
class Stage:
    """`folder` holds the inputs; `hub` is where the local Hub answers."""

    folder: Path
    hub: str

    def arguments(self, command: str, sandbox: Path) -> list[str]:
        """Return a command that keeps all that it writes in `sandbox`."""
        if command == "download":
            return ["download", "q4", str(sandbox / "models")]
        if command == "convert":
            return ["convert", str(SNAPSHOT), str(sandbox / "converted"), "--bits", "4"]
        inputs = ["--reference", self.folder / "reference.npy", "--driving", self.folder / "driving.npy"]
        size = ["--width", SIDE, "--height", SIDE, "--steps", 2, "--cfg", 1]
        parts = ["--segment-length", LENGTH, "--segment-overlap", OVERLAP, "--output", sandbox / "out.mp4"]
        return [str(part) for part in ("generate", "--model", SNAPSHOT, *inputs, *size, *parts)]

    def begin(self, command: str, sandbox: Path, fault: Fault | None = None) -> subprocess.Popen[str]:
        """Begin a command, as a user without power over closed folders."""
        (sandbox / "home").mkdir(parents=True, exist_ok=True)
        words = [sys.executable, "-m", "benchmarks.attacks.child", (fault or Fault()).argument]
        words += self.arguments(command, sandbox)
        if fault is not None and fault.kind == "closed" and os.geteuid() == 0:
            words = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *words]
        around = os.environ | {"HOME": str(sandbox / "home"), "HF_ENDPOINT": self.hub, "HF_HUB_DISABLE_TELEMETRY": "1"}
        return subprocess.Popen(words, cwd=ROOT, env=around, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def run(self, command: str, sandbox: Path, fault: Fault | None = None) -> tuple[int, str]:
        """Return a command's exit code, and what it said."""
        process = self.begin(command, sandbox, fault)
        try:
            said = process.communicate(timeout=PATIENCE)[1]
        except subprocess.TimeoutExpired:
            process.kill()
            return 0, f"It took more than {PATIENCE} s."
        return process.returncode, said


def made(sandbox: Path) -> dict[str, bytes]:
    """Return what lies in a sandbox, by its path."""
    files = [path for path in sandbox.rglob("*") if path.is_file() and path.name != BALLAST]
    return {path.relative_to(sandbox).as_posix(): path.read_bytes() for path in sorted(files)}


def outcome(sandbox: Path) -> dict[str, bytes]:
    """Return the files that a user asked for."""
    wanted = ("out.mp4", "converted/", "models/")
    return {
        name: content
        for name, content in made(sandbox).items()
        if name.startswith(wanted) and "/." not in name and not name.startswith(".")
    }


@contextmanager
def set_up(folder: Path) -> Iterator[Stage]:
    """Write the inputs, and serve the snapshot."""
    generator = np.random.default_rng(0)
    for name, frames in (("reference", 1), ("driving", FRAMES)):
        np.save(folder / f"{name}.npy", generator.integers(0, 256, (frames, SIDE, SIDE, 3), np.uint8))
    tier = next(iter(PUBLISHED.values()))
    with served(SNAPSHOT) as hub:
        hub.commit, hub.pause = tier.revision, PIECE_PAUSE
        yield Stage(folder, hub.address)
