"""`inspect`: what a file or folder is, from its header alone."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

from ..members import member_named
from ..weights.checkpoints.snapshot import Snapshot, identify_file
from ..weights.formats.quantised import find_quantised
from ..weights.formats.sources import text_metadata


def add_command(commands) -> None:  # noqa: ANN001 - argparse has no public type for it
    """Describe the command to argparse."""
    parser = commands.add_parser("inspect", help="say what a model file or folder is, without loading it")
    parser.add_argument("path", type=Path, metavar="PATH")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> None:
    """Print one line per file. Raises WeightsError for damaged files."""
    if not chosen.path.is_dir():
        sys.stdout.write(f"{chosen.path}: {describe(chosen.path)}\n")
        return
    snapshot = Snapshot.open(chosen.path)
    turnkey = "turnkey " if snapshot.path("dit").parent == chosen.path and snapshot.settings else ""
    member = identify_file(snapshot.path("dit"))[1].member
    title = "" if member is None else f"{member_named(member).title} "
    sys.stdout.write(f"{chosen.path}: a {turnkey}{title}snapshot\n")
    for path in snapshot.files.values():
        sys.stdout.write(f"  {path.relative_to(chosen.path)}: {describe(path)}\n")
    sys.stdout.write(f"  {snapshot.tokenizer.relative_to(chosen.path)}: the tokenizer\n")


def describe(path: Path) -> str:
    """Return kind, layout, counts, packing and size of a file in one line. Raises WeightsError."""
    file, found = identify_file(path)
    dtypes = Counter(info.dtype for info in file.tensors.values())
    stored = ", ".join(f"{count} {dtype}" for dtype, count in dtypes.most_common())
    packed = sum(name.endswith(".scales") for name in file.tensors)
    note = f", {packed} layers packed" if packed else ""
    kinds = Counter(tensor.kind for tensor in find_quantised(file.tensors, file.read, text_metadata(file)).values())
    note += "".join(f", {count} weights in {kind}" for kind, count in kinds.most_common())
    return f"{found.description}, {len(file.tensors)} tensors ({stored}){note}, {path.stat().st_size / 1e9:.3f} GB"
