"""`convert`: a model in any layout to a turnkey snapshot, dense or packed."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..interface.conversion import BITS, DTYPES, GROUP_SIZES, ConvertOptions
from ..runtime.device import require_mlx
from .listener import TerminalListener

CHOICES = (*map(str, BITS), "none")


def add_command(commands) -> None:  # noqa: ANN001 - argparse has no public type for it
    """Describe the command to argparse."""
    parser = commands.add_parser(
        "convert",
        help="write a model as a turnkey snapshot, dense or packed in 4 to 8 bits",
        description="Writes config.json, four safetensors files and tokenizer.json to the new folder DST. A single "
        "file as SRC gives a folder with that part alone.",
    )
    add = parser.add_argument
    add("source", type=Path, metavar="SRC", help="a folder in any known layout, or the file of one part")
    add("destination", type=Path, metavar="DST", help="the folder to make; it must not exist")
    add(
        "--dtype",
        choices=tuple(DTYPES),
        default="bfloat16",
        help="of what stays dense in the DiT and text encoder; VAE and CLIP are float32 (default %(default)s)",
    )
    add("--bits", choices=CHOICES, default="none", help="of the DiT's block linears (default %(default)s: dense)")
    add("--group-size", type=int, choices=GROUP_SIZES, default=64, help="weights per scale (default %(default)s)")
    add("--mixed", action="store_true", help="4 or 8 bits for each layer, by its error; about the size of 4")
    add("--text-encoder-bits", choices=CHOICES, default="none", help="of UMT5's block linears (default %(default)s)")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> None:
    """Convert, and say what was made. Raises BackendError."""
    require_mlx()
    from ..weights.checkpoints.convert import check_destination, convert, open_source

    options = ConvertOptions(
        dtype=chosen.dtype,
        bits=_bits(chosen.bits),
        group_size=chosen.group_size,
        mixed=chosen.mixed,
        text_encoder_bits=_bits(chosen.text_encoder_bits),
    )
    check_destination(chosen.destination, chosen.source)
    snapshot = open_source(chosen.source)
    convert(snapshot, chosen.destination, options, TerminalListener())
    size = sum(path.stat().st_size for path in chosen.destination.iterdir())
    part = "" if len(snapshot.files) > 1 else f", the {next(iter(snapshot.files))} alone"
    sys.stdout.write(f"{chosen.destination}: {size / 1e9:.3f} GB{part}\n")


def _bits(text: str) -> int | None:
    return None if text == "none" else int(text)
