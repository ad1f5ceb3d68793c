"""What the sample pictures and videos show: characters on a beach, puppets on a stage, and their masks."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from demo.beach import beach
from demo.character import fox, fox_from_behind, ground_shadow
from demo.dance import STEP_SECONDS, STEPS, pose_at
from demo.drawing import FRAME_SIZE, Canvas, Picture, Shape, Tone, silhouette
from demo.puppet import Palette, floor_shadow, puppet
from demo.rabbit import rabbit
from demo.skeleton import Pose, Proportions

FRAME_COUNT = 33
"""Two seconds of dance and the frame that closes the round: 4 n + 1 frames, as video models like them."""

FRAME_RATE = 16

CENTRE = 256.0
"""The x in pixels about which both figures stand."""

GROUND = 264.0
"""The y in pixels of the soles of both figures."""

Colour = tuple[int, int, int]
"""Red, green and blue, 0..255."""

BLUE = (0, 0, 255)
RED = (255, 0, 0)
BLACK = (0, 0, 0)
WHITE = (255, 255, 255)

CHARACTERS = (
    (fox, Proportions(), 144.0, BLUE),
    (rabbit, Proportions(torso=52.0, upper_leg=38.0, lower_leg=38.0), 364.0, RED),
)
"""The two people: how each is drawn, its proportions, where it stands and the colour of its identity.  Two puppets of
the same proportions drive them from the same places."""

GUEST = Palette(
    wood=Tone("#c98f63", "#9a6442", "#f2cb9a"),
    vest=Tone("#d9a437", "#a8742a", "#ffe39a"),
    shorts=Tone("#37628f", "#26466f", "#7fb0d8"),
    accent=Tone("#e0703a", "#a84a28", "#ffc08a"),
    sole="#6e2c18",
    hair="#2e2430",
)
"""Colours of the second puppet."""

CLOSE_UP = 2.0
CLOSE_UP_CORNER = (128.0, 32.0)
"""How much larger the close view is, and the upper left corner of its window in the reference picture (pixels)."""

LONG_RATE = 24
LONG_COUNT = 144
"""Six seconds at the rate of films: at 16 frames a second 96 frames, which is more than one segment of 81."""


class Mode(Enum):
    """What is done with the character; each mode has its own backgrounds for the masks."""

    ANIMATION = "animation"
    """The character moves in its own scene: white behind the character, black behind the driving figure."""
    REPLACEMENT = "replacement"
    """The character takes the place of the driving figure: black and white the other way round."""

    @property
    def reference_background(self) -> Colour:
        """Colour around the character in the mask of the reference picture."""
        return WHITE if self is Mode.ANIMATION else BLACK

    @property
    def driving_background(self) -> Colour:
        """Colour around the puppet in the masks of the driving video."""
        return BLACK if self is Mode.ANIMATION else WHITE

    @property
    def suffix(self) -> str:
        """What the names of this mode's mask files end in."""
        return "" if self is Mode.ANIMATION else "_replacement"


def reference_picture() -> Picture:
    """The character on the beach."""
    size = Proportions()
    canvas = beach()
    canvas.paint(*ground_shadow(size, CENTRE, GROUND), *fox(size, CENTRE, GROUND))
    return canvas.picture()


def reference_mask(mode: Mode) -> Picture:
    """The character in blue on the background of the mode."""
    return coloured_mask(fox(Proportions(), CENTRE, GROUND), BLUE, mode.reference_background)


def person_mask() -> Picture:
    """The character in white on black: a mask as other programs make them."""
    return coloured_mask(fox(Proportions(), CENTRE, GROUND), WHITE, BLACK)


def back_picture() -> Picture:
    """The character on the beach, seen from behind."""
    size = Proportions()
    canvas = beach()
    canvas.paint(*ground_shadow(size, CENTRE, GROUND), *fox_from_behind(size, CENTRE, GROUND))
    return canvas.picture()


def back_mask() -> Picture:
    """The character seen from behind in blue, on white as for animation."""
    return coloured_mask(fox_from_behind(Proportions(), CENTRE, GROUND), BLUE, WHITE)


def close_picture() -> Picture:
    """The character's head and shoulders, `CLOSE_UP` times as large as in the reference picture."""
    size = Proportions()
    canvas = beach()
    canvas.paint(*ground_shadow(size, CENTRE, GROUND), *fox(size, CENTRE, GROUND))
    return canvas.close_up(CLOSE_UP_CORNER, CLOSE_UP)


def close_mask() -> Picture:
    """The close character in blue, on white as for animation."""
    shapes = [shape.enlarged(CLOSE_UP_CORNER, CLOSE_UP) for shape in fox(Proportions(), CENTRE, GROUND)]
    return coloured_mask(shapes, BLUE, WHITE)


def pair_picture() -> Picture:
    """The fox on the left and the rabbit on the right of the beach."""
    canvas = beach()
    for _, size, centre, _ in CHARACTERS:
        canvas.paint(*ground_shadow(size, centre, GROUND))
    for character, size, centre, _ in CHARACTERS:
        canvas.paint(*character(size, centre, GROUND))
    return canvas.picture()


def pair_mask() -> Picture:
    """The fox in blue and the rabbit in red, on white as for animation."""
    figures = [(character(size, centre, GROUND), colour) for character, size, centre, colour in CHARACTERS]
    return identity_mask(figures, WHITE)


def driving_pose(index: int, rate: float = FRAME_RATE) -> Pose:
    """How the puppet stands in frame `index` at `rate` frames a second."""
    return pose_at(index / rate, Proportions(), CENTRE, GROUND)


def driving_picture(scene: Canvas, index: int, rate: float = FRAME_RATE) -> Picture:
    """Frame `index` of the dance on a given stage, at `rate` frames a second."""
    pose, size = driving_pose(index, rate), Proportions()
    canvas = Canvas(scene)
    canvas.paint(*floor_shadow(pose, size, GROUND), *puppet(pose, size, Palette()))
    return canvas.picture()


def driving_mask(mode: Mode, index: int, rate: float = FRAME_RATE) -> Picture:
    """The puppet of frame `index` in blue on the background of the mode."""
    shapes = puppet(driving_pose(index, rate), Proportions(), Palette())
    return coloured_mask(shapes, BLUE, mode.driving_background)


def driving_person_mask(index: int) -> Picture:
    """The puppet of frame `index` in white on black."""
    return coloured_mask(puppet(driving_pose(index), Proportions(), Palette()), WHITE, BLACK)


def dancers(index: int) -> list[tuple[Pose, Proportions, Palette, Colour]]:
    """How the two puppets stand in frame `index`: the right one is half a round ahead, so that they mirror each other.

    Returns pose, proportions, palette and identity of each, from the left to the right.
    """
    half = STEP_SECONDS * len(STEPS) / 2
    return [
        (pose_at(index / FRAME_RATE + lead, size, centre, GROUND), size, palette, colour)
        for (lead, palette), (_, size, centre, colour) in zip(
            ((0.0, Palette()), (half, GUEST)), CHARACTERS, strict=True
        )
    ]


def pair_driving_picture(scene: Canvas, index: int) -> Picture:
    """Frame `index` of the two dancers on a given stage."""
    canvas = Canvas(scene)
    for pose, size, _, _ in dancers(index):
        canvas.paint(*floor_shadow(pose, size, GROUND))
    for pose, size, palette, _ in dancers(index):
        canvas.paint(*puppet(pose, size, palette))
    return canvas.picture()


def pair_driving_mask(index: int) -> Picture:
    """The left dancer of frame `index` in blue and the right one in red, on black as for animation."""
    return identity_mask(
        [(puppet(pose, size, palette), colour) for pose, size, palette, colour in dancers(index)], BLACK
    )


def identity_mask(figures: Iterable[tuple[Iterable[Shape], Colour]], background: Colour) -> Picture:
    """Silhouettes (height, width, 3), each figure in exactly its colour; the later covers the earlier."""
    mask = np.broadcast_to(np.uint8(background), (FRAME_SIZE[1], FRAME_SIZE[0], 3)).copy()
    for figure, colour in figures:
        inside: NDArray[np.bool_] = silhouette(figure)
        mask[inside] = colour
    return mask


def coloured_mask(figure: Iterable[Shape], colour: Colour, background: Colour) -> Picture:
    """The figure's silhouette (height, width, 3) in exactly two colours, without antialiasing."""
    return identity_mask([(figure, colour)], background)
