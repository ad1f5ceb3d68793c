"""A check in a process of its own: what ends that process costs its rows alone."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.gpu_proof.rows import Row
from benchmarks.gpu_proof.sizes import Sizes

ROOT = Path(__file__).parents[2]
WORDS = 300  # characters of what a process said last

Work = Callable[[Sizes, float], Iterator[Row]]


def apart(command: list[str], check: str, seconds: float) -> list[Row]:
    """Return the rows of a check that `command` writes, a line each, into the file that it gets as `--rows`.

    Where the process does not end well, or within so many seconds, a last row says so.
    """
    with tempfile.TemporaryDirectory(prefix="scail2-proof-") as folder:
        written = Path(folder) / "rows"
        written.touch()
        said = Path(folder) / "said"
        with said.open("w", encoding="utf-8") as words:
            ending = _ended([*command, "--rows", str(written)], seconds, words)
        rows = [Row.read(json.loads(line)) for line in written.read_text(encoding="utf-8").splitlines()]
        if ending:
            last = " ".join(said.read_text(encoding="utf-8", errors="replace").split())[-WORDS:]
            rows.append(Row(check, "its end", f"{ending}{f': {last}' if last else ''}", "FAILED"))
        elif not rows:
            rows.append(Row(check, "its end", "it found nothing", "FAILED"))
    return rows


def _ended(command: list[str], seconds: float, words: object) -> str:
    """Run a command; return how it ended, empty for well."""
    try:
        done = subprocess.run(
            command, cwd=ROOT, stdout=words, stderr=subprocess.STDOUT, timeout=seconds, check=False
        ).returncode
    except subprocess.TimeoutExpired:
        return f"not finished in {seconds:.0f} s"
    if done < 0:
        return f"the process was ended by {signal.Signals(-done).name}"
    return f"exit code {done}" if done else ""


def work(check: str, do: Work, sizes: Sizes, seconds: float, written: Path) -> int:
    """Do a check and write each row as soon as it is there; return the exit code."""
    try:
        for row in do(sizes, seconds):
            with written.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row.as_json()) + "\n")
    except Exception:  # noqa: BLE001 - whatever a check meets becomes its row
        sys.stderr.write(f"{check}: {traceback.format_exc(limit=-3)}")
        return 1
    return 0
