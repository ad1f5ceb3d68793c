"""Draws the pictures of the workflows in ComfyUI's template browser: `python -m tools.draw_thumbnails`.

They are put together from the shipped samples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

from demo.pack import ROOT
from mlx_backend.media.read import read_video
from tools.draw_assets import Picture, person

ASSETS = ROOT / "assets"

SIDE = 400
FINE = 2
"""Everything is drawn this many times larger and reduced, which smooths the corners."""

TOP, BOTTOM = "#1d1640", "#4a1f52"
MARGIN, GAP, RADIUS = 20, 14, 12  # pixels
SPLIT = 207
"""Height in pixels at which the lower row begins: two square pictures fill a row."""

AMBER, BLUE, GREEN = "#a8742e", "#3668b8", "#3f8048"
QUALITY = 82
MOMENTS = (16, 26)
"""Frames of the dance that show it well."""


@dataclass(frozen=True, slots=True)
class Panel:
    """A picture with rounded corners, of which the middle is shown."""

    picture: Picture
    label: str = ""
    colour: str = AMBER


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
    left = (picture.width - width) // 2
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
    mask = np.where(mask > 127, np.uint8(255), np.uint8(0))  # a decoded one is only nearly pure
    ground = (mask == mask[..., :1]).all(axis=2, keepdims=True)
    return np.where(ground, picture, (0.45 * picture + 0.55 * mask).astype(np.uint8))


@cache
def sample(name: str) -> Picture:
    """Return the frames (frames, height, width, 3) of a shipped picture or video."""
    return (read_video(ASSETS / name).frames * 255).round().astype(np.uint8)


def shown(end: str = "") -> Picture:
    """Return a reference picture by the end of its name."""
    return sample(f"reference{end}.png")[0]


def dance(index: int, end: str = "") -> Picture:
    """Return a frame of a driving video by the end of its name."""
    return sample(f"driving{end}.mp4")[index]


def found(index: int, end: str = "") -> Picture:
    """Return a frame of a driving video with its masks laid over it."""
    return tinted(dance(index, end), dance(index, f"{end}_mask"))


def cut_out() -> Picture:
    """Return the reference's figure on black."""
    return np.where(person(shown("_mask")) > 0, shown(), np.uint8(0))


def character() -> list[Panel]:
    """Return the row that most workflows begin with."""
    return [Panel(shown(), "character and scene"), Panel(shown("_mask"), "its mask")]


def dances(label: str) -> list[Panel]:
    """Return a row of two moments of the dance."""
    first, second = MOMENTS
    return [Panel(dance(first), label, BLUE), Panel(dance(second), "", BLUE)]


def drawn() -> dict[str, Callable[[], Image.Image]]:
    """Return how to draw each picture, by the name of its workflow."""
    return {
        "scail2_animation": lambda: thumbnail(character(), dances("motion")),
        "scail2_replacement": lambda: thumbnail(
            dances("motion and scene"), [Panel(shown(), "character"), Panel(cut_out())]
        ),
        "scail2_one_node": lambda: thumbnail(
            character(), [Panel(dance(5), "one node", BLUE), Panel(dance(16), "motion", BLUE)]
        ),
        "scail2_two_people": lambda: thumbnail(
            [Panel(shown("_two"), "two characters"), Panel(shown("_two_mask"), "who is who")],
            [Panel(found(10, "_two"), "who is who", BLUE), Panel(dance(26, "_two"), "motion", BLUE)],
        ),
        "scail2_several_references": lambda: thumbnail(
            [Panel(shown(), "character"), Panel(shown("_other"), "another view")], dances("motion")
        ),
        "scail2_long_video": lambda: thumbnail(
            character(), [Panel(dance(48, "_long"), "24 fps", BLUE), Panel(dance(120, "_long"), "6 seconds", BLUE)]
        ),
        "scail2_still_image": lambda: thumbnail(
            character(), [Panel(dance(16), "one pose", BLUE), Panel(dance(16, "_mask"), "its mask", BLUE)]
        ),
        "scail2_masks_from_mask": lambda: thumbnail(
            [Panel(shown(), "picture"), Panel(shown("_person"), "plain mask")],
            [Panel(shown("_mask"), "coloured", GREEN), Panel(dance(16, "_mask"), "coloured", GREEN)],
            "down",
        ),
        "scail2_sam3_masks": lambda: thumbnail(
            [Panel(shown(), '"puppet"'), Panel(dance(16), '"puppet"')],
            [Panel(tinted(shown(), shown("_mask")), "found", GREEN), Panel(found(16), "followed", GREEN)],
            "down",
        ),
        "scail2_core_template": lambda: thumbnail(
            dances("scene and motion"),
            [Panel(dance(16, "_mask_replacement"), "ComfyUI's masks", GREEN), Panel(shown(), "character")],
        ),
    }


def main(folder: Path = ROOT / "workflows") -> None:
    """Write the pictures beside their workflows."""
    for name, draw in drawn().items():
        draw().save(folder / f"{name}.jpg", quality=QUALITY, optimize=True)


if __name__ == "__main__":
    main()
