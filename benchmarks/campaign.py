"""Attacks on the pack: `python -m benchmarks.campaign KIND [--count N] [--seed N]`; see docs/robustness.md.

Everything is made in a folder for the purpose. A row says how often something was tried and how often it held; what did
not hold stands below it, and makes the exit code 1.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
from pathlib import Path

from benchmarks.machine import heading
from mlx_backend.runtime.device import require_mlx

# What each kind of attack counts, and how often it is tried unless it is said otherwise.
KINDS = {
    "kills": ("kill -9, spread over the phases", 100),
    "disk": ("in each phase, a full disk, files at their end and closed folders", 2),
    "together": ("of each command, twice at once on the same folders", 5),
    "mutations": ("mutated files, spread over the readers", 3000),
    "long_run": ("runs in one process, a third cancelled, a third failed", 30),
    "stale": ("changed inputs, one of each kind in turn", 35),
}


def main() -> None:
    """Attack, and print what held."""
    parser = argparse.ArgumentParser(description=__doc__)
    told = "; ".join(f"{kind}: {about} ({count})" for kind, (about, count) in KINDS.items())
    parser.add_argument("kind", choices=KINDS, help=told)
    parser.add_argument("--count", type=int, help="how often")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, metavar="DIR", help="a new folder to work in, which stays")
    options = parser.parse_args()
    sys.stdout.write(heading("campaign") + "\n")
    require_mlx()
    attack = importlib.import_module(f"benchmarks.attacks.{options.kind}").attack
    count, found = options.count or KINDS[options.kind][1], 0
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) if options.keep is None else options.keep
        place.mkdir(exist_ok=options.keep is None)
        for tally in attack(count, options.seed, place):
            found += len(tally.findings)
            sys.stdout.write("\n".join(tally.lines) + "\n")
            sys.stdout.flush()
    if found:
        sys.exit(1)


if __name__ == "__main__":
    main()
