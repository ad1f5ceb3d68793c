"""Draws the pictures of the workflows in ComfyUI's template browser: `python -m demo.draw_thumbnails`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

from demo import scenes
from demo.drawing import Picture
from demo.scenes import Mode
from demo.stage import stage

SIDE = 400
FINE = 2
"""Everything is drawn this many times larger and reduced, which smooths the corners."""

TOP, BOTTOM = "#1d1640", "#4a1f52"
MARGIN, GAP, RADIUS = 20, 14, 12  # pixels
SPLIT = 236
"""Height in pixels at which the lower row begins."""

AMBER, BLUE, GREEN = "#a8742e", "#3668b8", "#3f8048"
QUALITY = 82


@dataclass(frozen=True, slots=True)
class Panel:
    """A picture with rounded corners; `middle` says where across it (0..1) its window lies."""

    picture: Picture
    label: str = ""
    colour: str = AMBER
    middle: float = 0.5


def thumbnail(upper: list[Panel], lower: list[Panel], arrow: str = "up") -> Image.Image:
    """Return two rows of panels, with an arrow between them that points up or down."""
    size = SIDE * FINE
    ramp = Image.linear_gradient("L").resize((size, size))
    canvas = Image.composite(Image.new("RGB", (size, size), BOTTOM), Image.new("RGB", (size, size), TOP), ramp)
    for row, (top, bottom) in ((upper, (MARGIN, SPLIT - GAP)), (lower, (SPLIT, SIDE - MARGIN))):
        width = (SIDE - 2 * MARGIN - GAP * (len(row) - 1)) / len(row)
        for index, panel in enumerate(row):
            left = MARGIN + index * (width + GAP)
            _paste(canvas, panel, tuple(round(FINE * v) for v in (left, top, left + width, bottom)))
    _arrow(canvas, arrow)
    return canvas.reduce(FINE)


def _paste(canvas: Image.Image, panel: Panel, box: tuple[int, ...]) -> None:
    width, height = box[2] - box[0], box[3] - box[1]
    picture = Image.fromarray(panel.picture)
    scale = max(width / picture.width, height / picture.height)
    picture = picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.LANCZOS)
    left = round((picture.width - width) * panel.middle)
    top = (picture.height - height) // 2
    mask = Image.new("L", (width, height))
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, width - 1, height - 1), RADIUS * FINE, fill=255)
    shadow = Image.new("L", canvas.size)
    shadow.paste(mask, (box[0], box[1] + 3 * FINE))
    shadow = ImageChops.multiply(shadow.filter(ImageFilter.GaussianBlur(5 * FINE)), Image.new("L", canvas.size, 150))
    canvas.paste("#0c0618", (0, 0), shadow)
    canvas.paste(picture.crop((left, top, left + width, top + height)), box[:2], mask)
    if panel.label:
        _label(canvas, panel, box)


def _label(canvas: Image.Image, panel: Panel, box: tuple[int, ...]) -> None:
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(13 * FINE)
    length = draw.textlength(panel.label, font=font)
    x, y, high = box[0] + 8 * FINE, box[3] - 30 * FINE, 22 * FINE
    draw.rounded_rectangle((x, y, x + length + 16 * FINE, y + high), high // 2, fill=panel.colour)
    # Drawn twice, a little apart: the font that comes with Pillow has no bold face.
    for dx in (0, 1):
        draw.text((x + 8 * FINE + dx, y + high / 2), panel.label, font=font, fill="white", anchor="lm")


def _arrow(canvas: Image.Image, direction: str) -> None:
    draw = ImageDraw.Draw(canvas)
    x, y, r = SIDE * FINE * 0.5, (SPLIT - GAP / 2) * FINE, 20 * FINE
    draw.ellipse((x - r, y - r, x + r, y + r), fill="white")
    arm, thick = 11 * FINE, 3 * FINE
    turn = 1 if direction == "up" else -1
    head = [(x - arm, y + turn * 0.5), (x, y - turn * arm), (x + arm, y + turn * 0.5)]
    draw.polygon(head, fill=TOP)
    draw.rectangle((x - thick, min(y, y + turn * arm), x + thick, max(y, y + turn * arm)), fill=TOP)


def tinted(picture: Picture, mask: Picture) -> Picture:
    """Return a picture with the colours of its mask's figures laid over it; black and white of the mask are ground."""
    ground = (mask == mask[..., :1]).all(axis=2, keepdims=True)
    return np.where(ground, picture, (0.45 * picture + 0.55 * mask).astype(np.uint8))


def drawn() -> dict[str, Callable[[], Image.Image]]:
    """Return how to draw each picture, by the name of its workflow."""
    theatre = stage()

    def dance(index: int) -> Picture:
        return scenes.driving_picture(theatre, index)

    def pair(index: int) -> Picture:
        return scenes.pair_driving_picture(theatre, index)

    def mask(index: int) -> Picture:
        return scenes.driving_mask(Mode.ANIMATION, index)

    def found(index: int) -> Picture:
        return tinted(dance(index), mask(index))

    fox, fox_mask = scenes.reference_picture(), scenes.reference_mask(Mode.ANIMATION)
    return {
        "scail2_one_node": lambda: thumbnail(
            [Panel(fox, "character and scene")], [Panel(dance(13), "motion: one node", BLUE)]
        ),
        "scail2_two_people": lambda: thumbnail(
            [Panel(scenes.pair_picture(), "two characters")],
            [Panel(tinted(pair(8), scenes.pair_driving_mask(8)), "who is who", BLUE), Panel(pair(14), "motion", BLUE)],
        ),
        "scail2_several_references": lambda: thumbnail(
            [
                Panel(fox, "character"),
                Panel(scenes.back_picture(), "from behind"),
                Panel(scenes.close_picture(), "near"),
            ],
            [Panel(dance(8)), Panel(dance(13), "motion", BLUE), Panel(dance(24))],
        ),
        "scail2_long_video": lambda: thumbnail(
            [Panel(fox, "character and scene")],
            [Panel(dance(index), "24 fps" if not index else "", BLUE) for index in (0, 8, 24)],
        ),
        "scail2_still_image": lambda: thumbnail(
            [Panel(fox, "character and scene")], [Panel(dance(13), "one pose", BLUE), Panel(mask(13), "its mask", BLUE)]
        ),
        "scail2_masks_from_mask": lambda: thumbnail(
            [Panel(fox, "picture"), Panel(scenes.person_mask(), "plain mask")],
            [Panel(fox_mask, "coloured", GREEN), Panel(mask(13), "coloured", GREEN)],
            "down",
        ),
        "scail2_sam3_masks": lambda: thumbnail(
            [Panel(fox, '"fox"'), Panel(dance(13), '"puppet"')],
            [Panel(tinted(fox, fox_mask), "found", GREEN), Panel(found(13), "followed", GREEN)],
            "down",
        ),
        "scail2_core_template": lambda: thumbnail(
            [Panel(dance(8), "scene and motion", BLUE)],
            [
                Panel(scenes.driving_mask(Mode.REPLACEMENT, 8), "ComfyUI's masks", GREEN),
                Panel(fox, "character"),
            ],
        ),
    }


def main(folder: Path = Path("workflows")) -> None:
    """Write the pictures beside their workflows."""
    for name, draw in drawn().items():
        draw().save(folder / f"{name}.jpg", quality=QUALITY, optimize=True)


if __name__ == "__main__":
    main()
