"""What the samples show: puppets of the drawn world, chosen by their seeds; and the prompts for them.

In each scene the first cast is that of the driving clip, and the second one that of the reference picture.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from world.scenes import Group
from world.stage import IDENTITIES

SIZE = 512
"""Pixels on each side of every picture and video."""

FRAME_COUNT = 33
"""Two seconds and a frame: 4 n + 1 frames, as video models like them."""

FRAME_RATE = 16
"""Frames a second, and the steps a second in which the world counts time."""

LONG_RATE = 24
LONG_COUNT = 144
"""Six seconds at the rate of films: at 16 frames a second 96 frames, which is more than one segment of 81."""

SOLO_SEED = 530_643
PAIR_SEED = 563_213
"""Seeds whose puppets stay within the picture, differ from those that drive them, and stand out from both scenes.
Training uses none below 1,000,000."""


def solo() -> Group:
    """Return the scene of one puppet."""
    return _with_colours(Group.random(SOLO_SEED, 1))


def pair() -> Group:
    """Return the scene of two puppets, the blue one on the left and the red one on the right."""
    return _with_colours(Group.random(PAIR_SEED, 2))


def times(count: int = FRAME_COUNT, rate: int = FRAME_RATE) -> NDArray[np.float64]:
    """Return the moments [count] of a clip's frames as the world counts them."""
    return np.arange(count) * FRAME_RATE / rate


def prompt(group: Group, mode: str) -> str:
    """Return the caption of what should come out: the puppets of the reference, before the scene that is kept."""
    return group.caption(1, 0 if mode == "replacement" else 1)


def _with_colours(group: Group) -> Group:
    return replace(group, identities=tuple(IDENTITIES)[: len(group.dances)])
