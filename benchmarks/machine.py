"""What a measurement was made on, and what it took of it."""

from __future__ import annotations

import resource
import sys

from mlx_backend.runtime.machine import this_machine


def describe_machine() -> str:
    """Return processor, cores, memory, system, device and versions in one line."""
    return str(this_machine())


def peak_resident() -> int:
    """Return the most memory that this process has held so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10  # Linux counts kibibytes
