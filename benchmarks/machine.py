"""What a measurement was made on, and what it took of it."""

from __future__ import annotations

import resource
import sys

from mlx_backend.runtime.machine import this_machine


def heading(script: str) -> str:
    """Return the command as it was given, and processor, cores, memory, system, device and versions, on two lines."""
    return f"$ {' '.join(['python -m', f'benchmarks.{script}', *sys.argv[1:]])}\n{this_machine()}"


def peak_resident() -> int:
    """Return the most memory that this process has held so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10  # Linux counts kibibytes
