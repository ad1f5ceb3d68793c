"""What is behind the puppets: a wall or sky, a floor, and props, all still."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from .colours import name, quiet
from .shapes import SUPERSAMPLING, Colour

PROPS = ("ball", "box", "tree", "window")


@dataclass(frozen=True, slots=True)
class Prop:
    """A thing of a kind at (x, y) with a size, in frame widths, and two colours."""

    kind: str
    x: float
    y: float
    size: float
    colours: tuple[Colour, Colour]


@dataclass(frozen=True, slots=True)
class Backdrop:
    """A wall that fades from one colour to another, a floor from `horizon` down, and props."""

    wall: tuple[Colour, Colour]
    floor: Colour
    horizon: float
    props: tuple[Prop, ...]

    @classmethod
    def random(cls, rng: np.random.Generator) -> Backdrop:
        """Draw a backdrop with up to two props."""
        horizon = rng.uniform(0.68, 0.86)
        props = []
        for _ in range(rng.integers(0, 3)):
            kind = str(rng.choice(PROPS))
            size = rng.uniform(0.16, 0.28)
            y = rng.uniform(0.12, 0.4) if kind == "window" else horizon + rng.uniform(0.0, 0.1) - size / 2
            props.append(Prop(kind, rng.uniform(0.05, 0.95), y, size, (quiet(rng), quiet(rng))))
        wall = quiet(rng)
        other = quiet(rng) if rng.random() < 0.3 else wall
        return cls((wall, other), quiet(rng), horizon, tuple(props))

    @property
    def words(self) -> str:
        """A phrase for captions."""
        things = sorted({prop.kind for prop in self.props})
        with_things = f" with a {' and a '.join(things)}" if things else ""
        return f"before a {name(self.wall[0])} wall{with_things}"

    def image(self, size: int) -> Image.Image:
        """Draw it at `size` x SUPERSAMPLING."""
        side = size * SUPERSAMPLING
        share = np.linspace(0, 1, side)[:, None, None]
        wall = (1 - share) * np.asarray(self.wall[0]) + share * np.asarray(self.wall[1])
        image = Image.fromarray(np.broadcast_to(wall, (side, side, 3)).round().astype(np.uint8))
        draw = ImageDraw.Draw(image)
        draw.rectangle((0, self.horizon * side, side, side), fill=self.floor)
        for prop in self.props:
            _draw(draw, prop, side)
        return image


def _draw(draw: ImageDraw.ImageDraw, prop: Prop, side: int) -> None:
    x, y, half = prop.x * side, prop.y * side, prop.size * side / 2
    first, second = prop.colours
    if prop.kind == "ball":
        draw.ellipse((x - half, y - half, x + half, y + half), fill=first)
        draw.rectangle((x - half, y - half * 0.15, x + half, y + half * 0.15), fill=second)
    elif prop.kind == "tree":
        draw.rectangle((x - half * 0.2, y, x + half * 0.2, y + half), fill=second)
        draw.polygon([(x - half, y + half * 0.3), (x, y - half * 1.6), (x + half, y + half * 0.3)], fill=first)
    else:
        draw.rectangle((x - half, y - half, x + half, y + half), fill=first)
        inset = half * 0.6
        draw.rectangle((x - inset, y - inset, x + inset, y + inset), fill=second)
