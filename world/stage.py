"""Puppets on a backdrop: pictures, clips and their identity masks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .backdrops import Backdrop
from .puppets import PART_STRIDE, PARTS, Dance, Puppet
from .shapes import paint

MAX_PUPPETS = 3
SCALES = {1: (0.70, 0.80), 2: (0.62, 0.72), 3: (0.52, 0.60)}  # heights in frame widths, by the number of puppets
# The colours of identities, as masks have them (RGB), in the order in which people are given them.
IDENTITIES = {
    "blue": (0, 0, 255),
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "magenta": (255, 0, 255),
    "cyan": (0, 255, 255),
    "yellow": (255, 255, 0),
}


@dataclass(frozen=True, slots=True, eq=False)
class Shot:
    """Pictures [F, size, size, 3] in 0..255 and the labels of their parts [F, size, size], uint8."""

    pictures: np.ndarray
    labels: np.ndarray

    def puppets(self) -> np.ndarray:
        """Return which puppet each pixel shows, counted from 1; 0 is the backdrop."""
        return np.where(self.labels > 0, (self.labels.astype(np.int16) - 1) // PART_STRIDE + 1, 0)

    def shows(self, puppet: int, part: str) -> np.ndarray:
        """Return where one part of a puppet (counted from 0) is seen, bool [F, size, size]."""
        return self.labels == 1 + puppet * PART_STRIDE + PARTS.index(part)

    def mask(self, identities: tuple[str, ...], background: int) -> np.ndarray:
        """Return the coloured mask [F, size, size, 3] uint8; `background` is 0 (black) or 255 (white)."""
        table = np.array([(background,) * 3, *(IDENTITIES[identity] for identity in identities)], np.uint8)
        return table[self.puppets()]


def perform(
    backdrop: Backdrop, puppets: tuple[Puppet, ...], dances: tuple[Dance, ...], times: np.ndarray, size: int
) -> Shot:
    """Return the Shot of puppets that perform one dance each, at `times` [F]; later ones are in front."""
    parts = []
    for number, (puppet, dance) in enumerate(zip(puppets, dances, strict=True)):
        parts += puppet.parts(dance.pose(times), number)
    return Shot(*paint(backdrop.image(size), parts, len(times), size))


def random_count(rng: np.random.Generator) -> int:
    """Draw how many puppets there are: seldom three."""
    return int(rng.choice(MAX_PUPPETS, p=(0.4, 0.5, 0.1))) + 1


def random_dances(rng: np.random.Generator, count: int, wander: float = 1.0) -> tuple[Dance, ...]:
    """Draw dances for `count` puppets, one beside the other in random order.

    With `wander` 1 neighbours may cross, with 0 each stays in its place.
    """
    scale = rng.uniform(*SCALES[count])
    room = 1 / count
    places = rng.permutation((np.arange(count) + 0.5) * (0.8 if count > 1 else 1) * room + (0.1 if count > 1 else 0))
    reach = 0.16 if count == 1 else 0.5 * room
    return tuple(
        Dance.random(rng, (x + rng.uniform(-0.1, 0.1) * room, wander * reach), scale * rng.uniform(0.94, 1.06))
        for x in places
    )
