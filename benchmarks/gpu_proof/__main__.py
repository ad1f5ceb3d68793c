"""Is this GPU right, as fast as it should be, and as lean as planned? A table to paste into an issue, and a verdict.

python -m benchmarks.gpu_proof --output FILE
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from mlx_backend.runtime.device import require_mlx

require_mlx()

from benchmarks.gpu_proof import computing, running, speed  # noqa: E402 - after the BLAS
from benchmarks.gpu_proof.child import Work, apart, work  # noqa: E402
from benchmarks.gpu_proof.rows import Row, report, verdict  # noqa: E402
from benchmarks.gpu_proof.sizes import full, toy  # noqa: E402
from benchmarks.machine import heading  # noqa: E402
from mlx_backend.runtime.machine import this_machine  # noqa: E402

# By name: what is done, and the seconds it may take. All together are under twelve minutes. What must be right comes
# before what is only measured.
CHECKS: dict[str, tuple[Work, int]] = {
    "doctor": (computing.doctor, 150),
    "goldens": (computing.goldens, 70),
    "ways": (computing.ways, 70),
    "threads": (running.threads, 60),
    "memory": (running.memory, 60),
    "vae": (speed.vae, 140),
    "block": (speed.block, 150),
}


def main() -> int:
    """Do all checks, write the table after each, and return 0 where nothing is wrong and nothing failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_proof", description=__doc__)
    parser.add_argument("--output", type=Path, metavar="FILE", help="where the table is written, as Markdown")
    parser.add_argument("--only", nargs="+", choices=CHECKS, default=list(CHECKS), help="these checks alone")
    parser.add_argument("--toy", action="store_true", help="in a small size, as always on a CPU")
    parser.add_argument("--check", choices=CHECKS, help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=0, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    small = chosen.toy or not this_machine().on_gpu
    if chosen.check:
        sizes = toy() if small else full()
        return work(chosen.check, CHECKS[chosen.check][0], sizes, chosen.seconds, chosen.rows)
    if chosen.output is None:
        parser.error("--output FILE is missing: where is the table to be written?")
    if chosen.output.exists():
        parser.error(f"{chosen.output} is there already and is not overwritten: name another file.")
    return prove(chosen.output, chosen.only, small=small)


def prove(output: Path, names: list[str], *, small: bool) -> int:
    """Do these checks, each in a process of its own."""
    begun, rows, on_gpu = time.monotonic(), list[Row](), this_machine().on_gpu
    for number, name in enumerate(names, start=1):
        seconds = CHECKS[name][1]
        sys.stdout.write(f"{name}, at most {seconds} s ...\n")
        sys.stdout.flush()
        command = [sys.executable, "-m", "benchmarks.gpu_proof", "--check", name, "--seconds", str(seconds)]
        rows += apart(command + ["--toy"] * small, name, seconds)
        left = len(names) - number
        head = f"{heading('gpu_proof')}\n{time.monotonic() - begun:.0f} s{', in a small size' if small else ''}"
        _write(output, text := report(head, rows, verdict(rows, on_gpu=on_gpu, left=left)))
    sys.stdout.write(f"\n{text}\nWritten to {output}.\n")
    return int(any(row.mark in ("WRONG", "FAILED") for row in rows))


def _write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    aside = path.with_name(f"{path.name}.part")
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, path)  # noqa: PTH105 - as a name for what it does


if __name__ == "__main__":
    sys.exit(main())
