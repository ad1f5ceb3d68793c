"""The puppet's background: a small stage."""

from __future__ import annotations

import numpy as np

from demo.drawing import (
    FRAME_SIZE,
    Canvas,
    Paint,
    Shape,
    ellipse,
    flat,
    glow,
    land,
    points,
    rectangle,
    ribbon,
    smooth,
    trace,
    turned,
    upright,
)

WIDTH, HEIGHT = FRAME_SIZE
FLOOR_EDGE = 204.0
"""Height in pixels at which the floor meets the backdrop."""


def stage() -> Canvas:
    """An empty stage with curtains, in the light of two spots."""
    canvas = Canvas()
    canvas.paint(*_backdrop(), *_floor(), *_beams())
    for side in (-1.0, 1.0):
        canvas.paint(*_curtain(side))
    canvas.paint(*_valance(), *_footlights())
    return canvas


def _backdrop() -> list[Shape]:
    wall = rectangle(0, 0, WIDTH, FLOOR_EDGE)
    colours = ("#4f86a8", "#3a6a93", "#274a77", "#182f58", "#10203f")
    light = Paint(colours, (256.0, 120.0), (556.0, 330.0), radial=True)
    hills_far = trace("60,180 110,160 160,170 215,150 270,168 330,152 390,170 470,158")
    hills_near = trace("60,190 120,184 180,190 240,180 310,190 370,179 470,188")
    sweep = np.linspace(-np.pi / 2, np.pi / 2, 40)
    rim, hollow = (np.stack([width * np.cos(sweep), 18 * np.sin(sweep)], axis=1) for width in (18.0, 9.0))
    moon = upright(turned(np.concatenate([rim, hollow[::-1]]), 28.0) + (348.0, 72.0), "#fff3cf", "#f0d490")
    shapes = [Shape(wall, light), glow((352.0, 74.0), 46, 46, "#f6e7b440", "#f6e7b400"), moon]
    # Painted stars on threads: x, y and size in pixels.
    for x, y, size in (
        (150, 66, 5.0),
        (186, 92, 3.6),
        (322, 100, 3.2),
        (384, 108, 4.0),
        (132, 112, 3.4),
        (212, 58, 3.0),
    ):
        turn = np.arange(10) * np.pi / 5 - np.pi / 2
        reach = np.where(np.arange(10) % 2 == 0, size, size * 0.45)
        star = np.stack([x + np.cos(turn) * reach, y + np.sin(turn) * reach], axis=1)
        shapes.append(flat(ribbon(points((x, 0), (x, y)), 0.6), "#f6e7b450"))
        shapes.append(flat(star, "#f6dc94"))
    shapes.append(land(hills_far, FLOOR_EDGE, "#2f6483", "#24527a"))
    shapes.append(land(hills_near, FLOOR_EDGE, "#1f4c6c", "#1a3d60"))
    shapes.append(upright(rectangle(0, FLOOR_EDGE - 9, WIDTH, FLOOR_EDGE), "#0c1a3600", "#0c1a36a0"))
    return shapes


def _floor() -> list[Shape]:
    """Planks that run towards a vanishing point behind the backdrop."""
    rng = np.random.default_rng(17)
    vanishing = np.array([256.0, 70.0])
    shapes = [upright(rectangle(0, FLOOR_EDGE, WIDTH, HEIGHT), "#43283a", "#5d3643", "#74443f")]
    feet = np.arange(-400, 940, 42.0)
    slope = (FLOOR_EDGE - vanishing[1]) / (HEIGHT - vanishing[1])
    heads = vanishing[0] + (feet - vanishing[0]) * slope
    for index in range(len(feet) - 1):
        plank = points(
            (heads[index], FLOOR_EDGE),
            (heads[index + 1], FLOOR_EDGE),
            (feet[index + 1], HEIGHT),
            (feet[index], HEIGHT),
        )
        tint = ("#ffb98014", "#2a102a26", "#ffb98008", "#2a102a12")[int(rng.integers(4))]
        seam = points((heads[index], FLOOR_EDGE), (feet[index], HEIGHT))
        shapes += [flat(plank, tint), flat(ribbon(seam, (0.5, 1.3)), "#2b1628c0")]
        gleam = seam + (1.2, 0.0)
        shapes.append(flat(ribbon(gleam, (0.3, 0.7)), "#e8a07040"))
    shapes.append(glow((256.0, 258.0), 205, 44, "#ffd9a0a8", "#ffc88a70", "#ffb87830", "#ffb87800"))
    shapes.append(upright(rectangle(0, FLOOR_EDGE, WIDTH, FLOOR_EDGE + 12), "#150c2480", "#150c2400"))
    return shapes


def _beams() -> list[Shape]:
    """Two soft beams of light from above."""
    shapes = []
    for x, foot in ((96.0, 276.0), (416.0, 236.0)):
        cone = points((x - 4, -6), (x + 4, -6), (foot + 74, 262), (foot - 74, 262))
        paint = Paint(("#fff0c848", "#fff0c824", "#fff0c808"), (x, 0.0), (foot, 262.0))
        shapes.append(Shape(cone, paint, soft=3.0))
    return shapes


def _curtain(side: float) -> list[Shape]:
    """A curtain in folds, gathered by a golden cord; `side` is -1 for the left and +1 for the right one."""
    y = np.linspace(0.0, 276.0, 70)
    # Wide at the top, narrow at the cord (y = 168) and wide again below it.
    width = np.interp(y, [0, 40, 100, 150, 168, 190, 230, 276], [128, 121, 98, 66, 50, 66, 78, 84])
    width = np.convolve(np.pad(width, 4, mode="edge"), np.ones(9) / 9, mode="valid")
    strips = 66
    shapes = []
    edge = 0.0 if side < 0 else float(WIDTH)
    levels = np.linspace(0, 1, 4)
    table = np.array([(58, 8, 30), (122, 18, 42), (178, 32, 52), (222, 66, 70)], dtype=np.float64)
    for index in range(strips):
        at = (index + 0.5) / strips
        # Seven folds; lit on the side that faces the middle of the stage, darker towards the wings.
        fold = 0.5 - 0.5 * np.cos(2 * np.pi * 7 * at + 0.9)
        level = np.clip((0.15 + 0.85 * fold**1.3) * (0.42 + 0.58 * at), 0, 1)
        red, green, blue = (int(np.interp(level, levels, table[:, channel])) for channel in range(3))
        inner, outer = edge - side * width * (index + 1.4) / strips, edge - side * width * index / strips
        hem = 276.0 + 3.2 * fold
        depth = y * hem / y[-1]
        strip = np.concatenate([np.stack([outer, depth], axis=1), np.stack([inner, depth], axis=1)[::-1]])
        shapes.append(flat(strip, f"#{red:02x}{green:02x}{blue:02x}"))
    fall = np.concatenate([np.stack([edge - side * width, y], axis=1), points((edge, 276), (edge, 0))])
    shapes.insert(0, flat(fall - (side * 5.0, -2.0), "#0a061c78", soft=4.0))
    shapes.append(Shape(fall, Paint(("#14041a90", "#14041a00", "#14041a00"), (0.0, 24.0), (0.0, 130.0))))
    shapes.append(Shape(fall, Paint(("#14041a00", "#14041a60"), (0.0, 215.0), (0.0, 280.0))))
    cord = smooth(points((edge, 160), (edge - side * 26, 169), (edge - side * 53, 166)), closed=False)
    shapes.append(flat(ribbon(cord + (0.0, 2.0), 7.0), "#3a061c80", soft=1.0))
    shapes.append(flat(ribbon(cord, 6.0), "#b9782c", flat(ribbon(cord - (0.0, 1.2), 2.6), "#f7d27c")))
    knot = (edge - side * 50, 169.0)
    tassel = trace("-3,3 3,3 6,25 2,23.5 0,26 -3,23.5 -6,25") + knot
    shapes.append(upright(tassel, "#f3c868", "#a8682a"))
    shine = flat(ellipse((knot[0] - 1.2, knot[1] - 1.6), 2.4), "#ffe2a0")
    shapes.append(flat(ellipse(knot, 5.2), "#c98a34", shine))
    return shapes


def _valance() -> list[Shape]:
    """The short curtain along the top: a row of swags with a golden fringe."""
    shapes = [flat(rectangle(0, -4, WIDTH, 26), "#08041890", soft=6.0)]
    span = WIDTH / 6
    for index in range(6):
        middle = span * (index + 0.5)
        for drop, colours in (
            (1.0, ("#8e1836", "#c32d48", "#8a1634")),
            (0.72, ("#7c1230", "#b32542", "#74102e")),
            (0.45, ("#6c0e2b", "#9c1d3b", "#640c28")),
        ):
            swag = points(
                (-span * 0.56, -3),
                (-span * 0.4, 13 * drop),
                (-span * 0.2, 25 * drop),
                (0, 30 * drop),
                (span * 0.2, 25 * drop),
                (span * 0.4, 13 * drop),
                (span * 0.56, -3),
            )
            curve = smooth(swag, closed=False) + (middle, 0.0)
            if drop == 1.0:
                shapes.append(flat(curve + (0.0, 5.0), "#0a041870", soft=2.5))
                shapes.append(flat(ribbon(curve + (0.0, 1.4), 5.0), "#c08430"))
                shapes.append(flat(ribbon(curve + (0.0, 0.6), 2.0), "#f8d680"))
            ends = (middle - span / 2, 0.0), (middle + span / 2, 0.0)
            shapes.append(Shape(curve, Paint(colours, *ends)))
    for index in range(7):
        x = span * index
        tassel = trace("-4,4 4,4 6,26 0,28 -6,26") + (x, 0.0)
        shapes.append(upright(tassel, "#f3c868", "#9a5c26"))
        shapes.append(flat(ellipse((x, 4), 6), "#d49a40", flat(ellipse((x - 1.5, 2.2), 2.6), "#ffe6a8")))
    return shapes


def _footlights() -> list[Shape]:
    """The dark front edge of the stage with a row of small lamps."""
    shapes = [upright(rectangle(0, 279, WIDTH, HEIGHT), "#3a1f30", "#1c0e20")]
    shapes.append(flat(rectangle(0, 278.2, WIDTH, 279.6), "#c98d58"))
    for x in np.arange(32.0, WIDTH, 64.0):
        shapes.append(glow((x, 279.0), 26, 14, "#ffe4a090", "#ffc87030", "#ffc87000"))
        shapes.append(flat(ellipse((x, 281.5), 5.0, 4.4), "#5a3038"))
        shapes.append(flat(ellipse((x, 280.8), 3.4, 2.9), "#ffeec0"))
    return shapes
