"""What a measurement was made on, and what it took of it."""

from __future__ import annotations

import resource
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import psutil

from mlx_backend.runtime.machine import this_machine


def heading(script: str) -> str:
    """Return the command as it was given, and processor, cores, memory, system, device and versions, on two lines."""
    return f"$ {' '.join(['python -m', f'benchmarks.{script}', *sys.argv[1:]])}\n{this_machine()}"


def peak_resident() -> int:
    """Return the most memory that this process has held so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10  # Linux counts kibibytes


PROC = Path("/proc/self")
LOOK_SECONDS = 0.002  # between two looks at the resident memory, where the system keeps no peak that can be reset


def resident_growth(work: Callable[[], object]) -> int:
    """Return how many bytes more than before the process holds at most while `work` runs.

    Linux keeps a peak, which is reset. Elsewhere another thread looks all the time, and may miss what is short.
    """
    try:
        (PROC / "clear_refs").write_text("5", encoding="utf-8")  # forgets the peak
    except OSError:
        return _watched(work)
    before = _status("VmRSS")
    work()
    return max(0, _status("VmHWM") - before)


def _status(field: str) -> int:
    lines = (PROC / "status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{field}:"))


def _watched(work: Callable[[], object]) -> int:
    own, over = psutil.Process(), threading.Event()
    seen = [own.memory_info().rss]

    def look() -> None:
        while not over.wait(LOOK_SECONDS):
            seen.append(max(seen.pop(), own.memory_info().rss) if len(seen) > 1 else own.memory_info().rss)

    watch = threading.Thread(target=look)
    watch.start()
    try:
        work()
    finally:
        over.set()
        watch.join()
    return max(0, max(*seen, own.memory_info().rss) - seen[0])
