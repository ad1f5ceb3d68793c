"""`inspect`: what a file or folder is, from its header alone."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

from ..weights.detect import identify
from ..weights.formats import TensorInfo, read_header
from ..weights.layouts import official_name
from ..weights.snapshot import COMPONENTS, Snapshot


def add_command(commands) -> None:  # noqa: ANN001 - argparse has no public type for it
    """Describe the command to argparse."""
    parser = commands.add_parser("inspect", help="say what a model file or folder is, without loading it")
    parser.add_argument("path", type=Path, metavar="PATH")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> None:
    """Print one line per file. Raises WeightsError for damaged files."""
    if not chosen.path.is_dir():
        sys.stdout.write(f"{chosen.path}: {describe(read_header(chosen.path))}\n")
        return
    snapshot = Snapshot.open(chosen.path)
    sys.stdout.write(f"{chosen.path}: a turnkey SCAIL-2 snapshot\n")
    for component in COMPONENTS:
        path = snapshot.path(component)
        tensors = {official_name(component, name): info for name, info in read_header(path).items()}
        sys.stdout.write(f"  {path.name}: {describe(tensors)}\n")
    sys.stdout.write(f"  {snapshot.tokenizer.name}: the tokenizer\n")


def describe(tensors: dict[str, TensorInfo]) -> str:
    """Return kind, counts and sizes of a set of tensors in one line."""
    dtypes = Counter(info.dtype for info in tensors.values())
    stored = ", ".join(f"{count} {dtype}" for dtype, count in dtypes.most_common())
    packed = sum(name.endswith(".scales") for name in tensors)
    size = sum(info.nbytes for info in tensors.values()) / 1e9
    note = f", {packed} layers packed" if packed else ""
    return f"{identify(tensors)}, {len(tensors)} tensors ({stored}){note}, {size:.3f} GB"
