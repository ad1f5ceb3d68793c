"""The widths that a random DiT of a measurement may have."""

from __future__ import annotations

import argparse

HEAD_DIM = 128
FFN_DIMS = {1536: 8960, 5120: 13824}  # Wan's 1.3B and 14B


def width(text: str) -> int:
    """Read a width from the command line: a number of whole heads."""
    dim = int(text)
    if dim < HEAD_DIM or dim % HEAD_DIM:
        raise argparse.ArgumentTypeError(f"{dim} is not a multiple of {HEAD_DIM}, the channels of a head")
    return dim


def ffn_dim(dim: int) -> int:
    """Return the width within the feed-forward: that of Wan's models, and four times the width of any other."""
    return FFN_DIMS.get(dim, 4 * dim)
