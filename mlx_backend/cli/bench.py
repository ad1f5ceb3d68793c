"""`bench`: how close passes come to what the machine can do."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from typing import TYPE_CHECKING

from ..interface.errors import RequestError
from ..interface.events import LOGGER
from ..runtime.device import require_mlx

if TYPE_CHECKING:
    from ..diagnostics.report import Row


def add_command(commands) -> None:  # noqa: ANN001 - argparse has no public type for it
    """Describe the command to argparse."""
    parser = commands.add_parser(
        "bench",
        help="measure passes against their primitives: dense, packed and streamed blocks",
        description="Random weights; takes about two minutes on a GPU and needs no model. On a CPU the sizes are "
        "reduced; --full measures them all, which takes up to an hour and 16 GB of memory there.",
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="one small size, few rounds")
    size.add_argument("--full", action="store_true", help="every size, also on a CPU")
    parser.add_argument("--dim", type=int, choices=(1536, 5120), help="only the cases of this width")
    parser.add_argument("--tokens", type=int, metavar="N", help="only the cases of so many tokens, e.g. 8064")
    parser.add_argument("--rounds", type=int, choices=range(1, 100), metavar="N", help="other than the usual number")
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="count this process's processor time, where MLX computes on a CPU that others use too",
    )
    parser.add_argument("--json", action="store_true", help="print one object per row for programs instead of lines")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> None:
    """Print the table, row by row as it is measured. Raises RequestError for a width that the plan lacks."""
    require_mlx()
    from ..diagnostics.bench import FULL, QUICK, bench, default_plan
    from ..diagnostics.report import heading

    LOGGER.setLevel(logging.WARNING)  # which files its models are read from concerns nobody
    clock = time.process_time if chosen.cpu_time else time.perf_counter
    plan = QUICK if chosen.quick else FULL if chosen.full else default_plan()
    plan = plan.only(chosen.dim, chosen.rounds, chosen.tokens)
    if not plan.cases:
        sizes = ", ".join(case.name for case in FULL.cases)
        raise RequestError(f"No case here is of this width and length: add --full, and choose from {sizes}.")
    if not chosen.json:
        sys.stdout.write(heading(plan.rounds, processor_time=chosen.cpu_time) + "\n")
    rows = bench(plan, lambda: None, None if chosen.json else _print, clock)
    if chosen.json:
        sys.stdout.write(json.dumps([row.as_json() for row in rows], indent=1) + "\n")


def _print(row: Row) -> None:
    sys.stdout.write(f"{row}\n")
    sys.stdout.flush()
