"""`download`: a published snapshot, at the commit that this program knows, compared with the Hub's digests."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..interface.errors import RequestError
from ..interface.published import PUBLISHED
from ..weights.checkpoints.hub import download_snapshot
from .listener import TerminalListener

TIERS = {name.rsplit("/", 1)[-1]: name for name in PUBLISHED}


def add_command(commands) -> None:  # noqa: ANN001 - argparse has no public type for it
    """Describe the command to argparse."""
    told = "; ".join(f"{tier}, {PUBLISHED[name].needs}" for tier, name in TIERS.items())
    parser = commands.add_parser(
        "download",
        help="fetch the published model: q4, q8 or bf16",
        description=f"{told}. All files are of one commit, and compared with the Hub's digests; a download that was "
        "broken off goes on where it stopped.",
    )
    parser.add_argument("tier", metavar="|".join(TIERS), help="which of them")
    parser.add_argument(
        "folder", type=Path, metavar="DIR", help="where scail2-mlx/TIER is made, such as ComfyUI/models/scail2"
    )
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> None:
    """Download, and print the folder. Raises BackendError."""
    if chosen.tier not in TIERS:
        raise RequestError(f"There is no published model '{chosen.tier}': choose one of {', '.join(TIERS)}.")
    sys.stdout.write(f"{download_snapshot(TIERS[chosen.tier], chosen.folder, TerminalListener())}\n")
