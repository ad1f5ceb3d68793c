"""A very small vector drawing kit: outlines, paints and an oversampled canvas.

All coordinates are in pixels of the finished picture, x to the right and y downwards; the canvas multiplies
them by its oversampling factor, so a drawing looks the same at any factor.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageChops, ImageColor, ImageDraw, ImageFilter

FRAME_SIZE = (512, 288)
"""Width and height in pixels of every picture and video."""

OVERSAMPLING = 4
"""Pictures are drawn this many times larger and averaged down, which is what antialiases them."""

Points = NDArray[np.float64]
"""An outline or a line: (N, 2) x and y in pixels."""

Picture = NDArray[np.uint8]
"""A finished picture: (height, width, 3) RGB, 0..255."""


def points(*pairs: tuple[float, float]) -> Points:
    """Collect x, y pairs into an (N, 2) array."""
    return np.array(pairs, dtype=np.float64)


def trace(text: str) -> Points:
    """Read an outline written as in SVG, `x,y x,y ...`, into an (N, 2) array."""
    return np.array([pair.split(",") for pair in text.split()], dtype=np.float64)


def turned(outline: Points, degrees: float) -> Points:
    """Turn (N, 2) points about the origin, clockwise on the screen."""
    angle = np.deg2rad(degrees)
    cos, sin = np.cos(angle), np.sin(angle)
    return outline @ np.array([[cos, sin], [-sin, cos]])


def mirrored(half: Points) -> Points:
    """Close the right half of a symmetric outline, listed from top to bottom, with its mirror image."""
    other = half[::-1] * (-1.0, 1.0)
    return np.concatenate([half, other[np.abs(other[:, 0]) > 1e-9]])


def smooth(knots: Points, *, closed: bool = True, corners: Iterable[int] = (), samples: int = 12) -> Points:
    """Run a curve through the (N, 2) knots; at the knots numbered in `corners` it comes to a sharp point."""
    before, after = np.roll(knots, 1, axis=0), np.roll(knots, -1, axis=0)
    tangents = (after - before) / 2
    if not closed:
        tangents[0], tangents[-1] = knots[1] - knots[0], knots[-1] - knots[-2]
    tangents[list(corners)] = 0.0
    t = np.linspace(0.0, 1.0, samples, endpoint=False)[None, :, None]
    # Cubic Hermite pieces: the curve meets every knot with the knot's tangent.
    pieces = (
        (2 * t**3 - 3 * t**2 + 1) * knots[:, None]
        + (t**3 - 2 * t**2 + t) * tangents[:, None]
        + (3 * t**2 - 2 * t**3) * after[:, None]
        + (t**3 - t**2) * np.roll(tangents, -1, axis=0)[:, None]
    )
    if closed:
        return pieces.reshape(-1, 2)
    return np.concatenate([pieces[:-1].reshape(-1, 2), knots[-1:]])


def rectangle(left: float, top: float, right: float, bottom: float) -> Points:
    """Outline of an upright rectangle."""
    return points((left, top), (right, top), (right, bottom), (left, bottom))


def line(text: str) -> Points:
    """An open curve through knots written as `x,y x,y ...`."""
    return smooth(trace(text), closed=False)


def ellipse(centre: ArrayLike, rx: float, ry: float | None = None, degrees: float = 0.0) -> Points:
    """Outline of an ellipse with the half-axes `rx` and `ry` in pixels (a circle without `ry`)."""
    angle = np.linspace(0.0, 2 * np.pi, 72, endpoint=False)
    outline = np.stack([rx * np.cos(angle), (rx if ry is None else ry) * np.sin(angle)], axis=1)
    return turned(outline, degrees) + np.asarray(centre, dtype=np.float64)


def ribbon(line: Points, widths: float | Sequence[float], *, round_end: bool = True) -> Points:
    """Outline of a line drawn with a round pen, or with its end cut off straight.

    `line` is (N, 2); `widths` in pixels is one number or several, spread evenly over the line's points.
    """
    given = np.atleast_1d(np.asarray(widths, dtype=np.float64))
    along = np.linspace(0.0, 1.0, len(line))
    radius = np.interp(along, np.linspace(0.0, 1.0, len(given)), given) / 2
    forward = np.gradient(line, axis=0)
    forward /= np.maximum(np.linalg.norm(forward, axis=1, keepdims=True), 1e-9)
    side = np.stack([-forward[:, 1], forward[:, 0]], axis=1)
    sweep = np.linspace(0.0, np.pi, 14)[:, None]
    end_cap = line[-1] + radius[-1] * (np.cos(sweep) * side[-1] + np.sin(sweep) * forward[-1])
    start_cap = line[0] - radius[0] * (np.cos(sweep) * side[0] + np.sin(sweep) * forward[0])
    left, right = line + side * radius[:, None], line - side * radius[:, None]
    return np.concatenate([left, end_cap if round_end else left[-1:], right[::-1], start_cap])


@dataclass(frozen=True)
class Paint:
    """A colour, or a gradient of colours spread evenly from `start` to `end` (pixels).

    Colours are `#rrggbb` or `#rrggbbaa`.  A radial gradient is centred on `start` and reaches its last colour
    on the ellipse with the half-axes `end - start`.
    """

    colours: tuple[str, ...]
    start: tuple[float, float] = (0.0, 0.0)
    end: tuple[float, float] = (0.0, 0.0)
    radial: bool = False

    def moved(self, dx: float, dy: float) -> Paint:
        """The same paint for a shape that is moved."""
        (x0, y0), (x1, y1) = self.start, self.end
        return replace(self, start=(x0 + dx, y0 + dy), end=(x1 + dx, y1 + dy))

    def rgba(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.uint8]:
        """Colours (len(y), len(x), 4) of the pixels with the centres `x` and `y`."""
        (x0, y0), (x1, y1) = self.start, self.end
        dx, dy = x[None, :] - x0, y[:, None] - y0
        if self.radial:
            position = np.hypot(dx / (x1 - x0), dy / (y1 - y0))
        else:
            position = (dx * (x1 - x0) + dy * (y1 - y0)) / max((x1 - x0) ** 2 + (y1 - y0) ** 2, 1e-9)
        table = np.array([ImageColor.getcolor(colour, "RGBA") for colour in self.colours], dtype=np.float64)
        stops = np.linspace(0.0, 1.0, len(table))
        channels = [np.interp(position, stops, table[:, channel]) for channel in range(4)]
        return (np.stack(channels, axis=-1) + 0.5).astype(np.uint8)


@dataclass(frozen=True)
class Shape:
    """One painted outline; its `details` are painted over it and cut off at its edge.

    `soft` is the standard deviation in pixels of the blur of the edge.
    """

    outline: Points
    paint: Paint
    details: tuple[Shape, ...] = ()
    soft: float = 0.0

    def moved(self, offset: ArrayLike) -> Shape:
        """The same shape with its details and gradients, moved by (2,) pixels."""
        dx, dy = np.asarray(offset, dtype=np.float64).tolist()
        details = tuple(detail.moved(offset) for detail in self.details)
        return Shape(self.outline + (dx, dy), self.paint.moved(dx, dy), details, self.soft)

    def enlarged(self, corner: tuple[float, float], factor: float) -> Shape:
        """The same outline as it lies in `Canvas.close_up` of the same window; for silhouettes, its paint stays."""
        return replace(self, outline=(self.outline - corner) * factor)


def flat(outline: Points, colour: str, *details: Shape, soft: float = 0.0) -> Shape:
    """A shape in a single colour."""
    return Shape(outline, Paint((colour,)), details, soft)


def glow(centre: tuple[float, float], rx: float, ry: float, *colours: str) -> Shape:
    """An ellipse that fades through `colours` from its centre outwards."""
    end = (centre[0] + rx, centre[1] + ry)
    return Shape(ellipse(centre, rx, ry), Paint(colours, centre, end, radial=True))


def upright(outline: Points, *colours: str) -> Shape:
    """A shape painted with a gradient from its top to its bottom."""
    top, bottom = float(outline[:, 1].min()), float(outline[:, 1].max())
    return Shape(outline, Paint(colours, (0.0, top), (0.0, bottom)))


def land(skyline: Points, bottom: float, *colours: str) -> Shape:
    """Everything between a smoothed skyline and the height `bottom`."""
    line = smooth(skyline, closed=False)
    return upright(np.concatenate([line, points((line[-1, 0], bottom), (line[0, 0], bottom))]), *colours)


@dataclass(frozen=True)
class Tone:
    """The colours of one material: in the light, in its own shadow and along the lit edge."""

    base: str
    shade: str
    rim: str


@dataclass(frozen=True)
class Light:
    """Where shading falls: how far in pixels the bright edge and the shadow reach into a shape."""

    rim: tuple[float, float]
    shade: tuple[float, float]


def lit(outline: Points, tone: Tone, light: Light, *details: Shape) -> Shape:
    """A shape with a bright edge towards the light and a crescent of shadow away from it."""
    body = flat(outline + light.rim + light.shade, tone.base)
    return flat(outline, tone.rim, flat(outline + light.rim, tone.shade, body), *details)


class Canvas:
    """An oversampled RGB picture of `FRAME_SIZE` to paint shapes on."""

    def __init__(self, background: Canvas | None = None) -> None:
        width, height = (side * OVERSAMPLING for side in FRAME_SIZE)
        self.image = background.image.copy() if background else Image.new("RGB", (width, height))

    def paint(self, *shapes: Shape) -> None:
        """Paint the shapes in order, the later over the earlier."""
        for shape in shapes:
            self._paint(shape, None, (0, 0))

    def picture(self) -> Picture:
        """The finished (height, width, 3) picture."""
        return np.asarray(self.image.reduce(OVERSAMPLING))

    def close_up(self, corner: tuple[float, float], factor: float) -> Picture:
        """The finished picture (height, width, 3) of the window at `corner` (pixels), `factor` times as large."""
        left, top = (round(side * OVERSAMPLING) for side in corner)
        width, height = (round(side / factor) for side in self.image.size)
        window = self.image.crop((left, top, left + width, top + height))
        return np.asarray(window.resize(FRAME_SIZE, Image.Resampling.BOX))

    def _paint(self, shape: Shape, clip: Image.Image | None, clip_origin: tuple[int, int]) -> None:
        box = _box(shape, self.image.size)
        if box is None:
            return
        mask = _stencil(shape, box)
        if clip is not None:
            dx, dy = clip_origin
            # Cropping beyond an image's edge gives zeros, which is what lies outside the clip.
            window = (box[0] - dx, box[1] - dy, box[2] - dx, box[3] - dy)
            mask = ImageChops.multiply(mask, clip.crop(window))
        x = (np.arange(box[0], box[2]) + 0.5) / OVERSAMPLING
        y = (np.arange(box[1], box[3]) + 0.5) / OVERSAMPLING
        rgba = Image.fromarray(shape.paint.rgba(x, y))
        strength = ImageChops.multiply(mask, rgba.getchannel("A"))
        self.image.paste(rgba.convert("RGB"), box, strength)
        for detail in shape.details:
            self._paint(detail, mask, (box[0], box[1]))


def silhouette(shapes: Iterable[Shape]) -> NDArray[np.bool_]:
    """The pixels (height, width) that the shapes cover by at least half."""
    width, height = FRAME_SIZE
    cover = Image.new("L", (width * OVERSAMPLING, height * OVERSAMPLING))
    draw = ImageDraw.Draw(cover)
    for shape in shapes:
        draw.polygon((shape.outline * OVERSAMPLING).ravel().tolist(), fill=255)
    return np.asarray(cover.reduce(OVERSAMPLING)) >= 128


def _box(shape: Shape, size: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """The canvas pixels a shape may touch (left, top, right, bottom), or None off the canvas."""
    margin = 3 * shape.soft * OVERSAMPLING + 2  # a Gaussian is spent after three standard deviations
    low = np.floor(shape.outline.min(axis=0) * OVERSAMPLING - margin).astype(int)
    high = np.ceil(shape.outline.max(axis=0) * OVERSAMPLING + margin).astype(int)
    left, top = max(int(low[0]), 0), max(int(low[1]), 0)
    right, bottom = min(int(high[0]), size[0]), min(int(high[1]), size[1])
    return (left, top, right, bottom) if right > left and bottom > top else None


def _stencil(shape: Shape, box: tuple[int, int, int, int]) -> Image.Image:
    """The coverage (8 bit) of a shape within a box of canvas pixels."""
    mask = Image.new("L", (box[2] - box[0], box[3] - box[1]))
    local = shape.outline * OVERSAMPLING - box[:2]
    ImageDraw.Draw(mask).polygon(local.ravel().tolist(), fill=255)
    return mask.filter(ImageFilter.GaussianBlur(shape.soft * OVERSAMPLING)) if shape.soft else mask
