"""`doctor`: whether this machine computes right, how fast it is, and what to expect of it."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..interface.errors import NumericsError
from ..runtime.device import require_mlx

if TYPE_CHECKING:
    from ..diagnostics.checks import Check


def add_command(commands) -> None:  # noqa: ANN001 - argparse has no public type for it
    """Describe the command to argparse."""
    parser = commands.add_parser(
        "doctor",
        help="compare this machine's numbers with float32 references, and say what to expect of it",
        description="Takes seconds and needs no model. Exit code 0: safe; 1: something would spoil results.",
    )
    parser.add_argument("--model", type=Path, metavar="DIR", help="also measure the disk that this folder is on")
    parser.add_argument("--json", action="store_true", help="print one object for programs instead of lines")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> None:
    """Print the report. Raises NumericsError when something is wrong, RequestError for a folder without a model."""
    require_mlx()
    from ..diagnostics.doctor import examine

    report = examine(chosen.model, lambda: None, None if chosen.json else _print)
    if chosen.json:
        sys.stdout.write(json.dumps(report.as_json(), indent=1) + "\n")
    else:
        sys.stdout.write("\n".join(["", str(report.probe.machine), *report.conclusions]) + "\n")
    if not report.is_safe:
        raise NumericsError("Something here computes wrong numbers: see the lines marked FAULT.")


def _print(check: Check) -> None:
    sys.stdout.write(f"{check}\n")
    sys.stdout.flush()
