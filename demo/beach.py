"""The character's background: a beach at dusk."""

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
    upright,
)

WIDTH, HEIGHT = FRAME_SIZE
HORIZON = 172.0
SUN = (136.0, 152.0)


def beach() -> Canvas:
    """An empty beach while the sun sets over the sea."""
    canvas = Canvas()
    canvas.paint(*_sky(), *_headlands(), *_sea(), *_shore(), *_dune_grass())
    return canvas


def _sky() -> list[Shape]:
    rng = np.random.default_rng(5)
    sky = rectangle(0, 0, WIDTH, HORIZON)
    colours = ("#231f55", "#3a2a6c", "#613a82", "#97498a", "#cf6282", "#f08a6c", "#ffb873", "#ffd791")
    shapes = [upright(sky, *colours)]
    stars = np.stack([rng.uniform(0, WIDTH, 46), rng.uniform(3, 76, 46), rng.uniform(0.35, 0.95, 46)], axis=1)
    for x, y, size in stars.tolist():
        faint = int(235 * (1 - y / 90))
        shapes.append(flat(ellipse((x, y), size), f"#fff3dc{faint:02x}"))
    shapes.append(glow(SUN, 210, 150, "#ffe2a0b0", "#ffb87060", "#ff8c6a22", "#ff806000"))
    shapes.append(glow(SUN, 60, 60, "#fff2c8c0", "#ffdc9060", "#ffc87800"))
    shapes.append(Shape(ellipse(SUN, 25), Paint(("#fffbe6", "#ffe9a6"), (SUN[0], 127.0), (SUN[0], 177.0))))
    # Each bank of cloud: centre, half its length, its height, and its colours from the top to the lit belly.
    banks = (
        (70, 66, 92, 11, "#6b3f87c0", "#c4608ad0"),
        (176, 48, 58, 7, "#5b3a82a0", "#a4528ab0"),
        (430, 60, 96, 13, "#59397fc8", "#b4588ad8"),
        (352, 92, 70, 8, "#8a4588b8", "#e07c7ed0"),
        (22, 104, 74, 9, "#a44f86c0", "#f09274d8"),
        (478, 112, 76, 8, "#a04d86b0", "#ee8d76d0"),
        (222, 118, 52, 5, "#d86c7ca8", "#ffb67ad0"),
        (84, 133, 60, 4, "#f08f6cb0", "#ffd48ce0"),
        (336, 136, 60, 4, "#e07a74a0", "#ffbe82d0"),
    )
    for x, y, reach, height, dark, bright in banks:
        shapes.append(_cloud(rng, (x, y), reach, height, dark, bright))
    shapes += [_gull(318, 66, 7.0), _gull(338, 56, 5.0), _gull(304, 50, 4.2)]
    return shapes


def _cloud(
    rng: np.random.Generator, centre: tuple[float, float], reach: float, height: float, dark: str, bright: str
) -> Shape:
    """A flat bank of cloud with a puffy top."""
    x, y = centre
    along = np.linspace(-1.0, 1.0, 17)
    hump = np.where(np.arange(17) % 2 == 0, 1.0, 0.72)
    puffs = height * (1 - along**2) ** 1.4 * hump * rng.uniform(0.75, 1.15, len(along))
    top = np.stack([x + along * reach, y - puffs], axis=1)
    belly = np.stack([x + along[::-1] * reach * 0.96, y + 0.22 * height * (1 - along[::-1] ** 2)], axis=1)
    return upright(smooth(np.concatenate([top, belly[1:-1]]), corners=(0, 16)), dark, bright)


def _gull(x: float, y: float, reach: float) -> Shape:
    """A gull far away: two arched wings."""
    wings = trace("-1,-0.1 -0.5,-0.42 0,0.05 0.5,-0.5 1,-0.25") * reach + (x, y)
    return flat(ribbon(smooth(wings, closed=False), (0.3, 1.3, 1.5, 1.3, 0.3)), "#33234f")


def _headlands() -> list[Shape]:
    far = trace("0,158 26,152 52,156 84,163 112,169 128,172")
    middle = trace("300,172 330,164 366,160 400,150 440,152 476,142 520,138")
    near = trace("372,174 392,165 412,154 438,147 462,149 488,160 520,163")
    tower = trace("430.2,149 432.4,112 439.6,112 441.8,149")
    bands = tuple(flat(rectangle(426, y, 446, y + 7.5), "#c9506a") for y in (119, 134))
    shade = flat(rectangle(436.6, 100, 446, 152), "#4b2a6470")
    beam = trace("436,107.6 250,84 250,102 436,108.4")
    return [
        land(far, HORIZON, "#b4608a", "#e88a7c"),
        land(middle, HORIZON + 1, "#8a4a86", "#c66c80"),
        Shape(beam, Paint(("#fff0b850", "#fff0b800"), (436.0, 108.0), (270.0, 94.0)), soft=1.0),
        flat(tower, "#ffe3cc", *bands, shade),
        flat(rectangle(430.4, 110, 441.6, 112.6), "#3c2455"),
        flat(rectangle(432.8, 104, 439.2, 110.4), "#ffe9a0"),
        flat(points((431, 104.4), (436, 98.6), (441, 104.4)), "#a83e5e"),
        glow((436.0, 107.4), 15, 15, "#fff6c8d0", "#ffe29050", "#ffe29000"),
        land(near, HORIZON + 2, "#4a2d68", "#6a3a72"),
    ]


def _sea() -> list[Shape]:
    rng = np.random.default_rng(11)
    colours = ("#f59d78", "#cf6f80", "#8f5288", "#5f4487", "#4a3c80")
    shapes = [upright(rectangle(0, HORIZON, WIDTH, 228), *colours)]
    shapes.append(glow((SUN[0], HORIZON), 120, 46, "#ffe6a0b0", "#ffb47850", "#ffa07000"))
    # Short level dashes: a path of light below the sun, scattered glints of the sky elsewhere.
    for _ in range(150):
        depth = rng.uniform(0, 1) ** 1.3
        y = HORIZON + 1.2 + 46 * depth
        x = SUN[0] + rng.normal(0, 7 + 15 * depth)
        length = rng.uniform(3, 8 + 12 * depth)
        colour = "#fff0bcd8" if rng.uniform() < 0.6 else "#ffc987c8"
        shapes.append(_dash(x, y, length, 0.7 + 1.3 * depth, colour))
    for _ in range(150):
        depth = rng.uniform(0, 1)
        y = HORIZON + 1.5 + 46 * depth
        colour = "#ffb8925c" if rng.uniform() < 0.55 else "#3c34743c"
        shapes.append(_dash(rng.uniform(0, WIDTH), y, rng.uniform(5, 16 + 22 * depth), 0.6 + depth, colour))
    return shapes


def _dash(x: float, y: float, length: float, width: float, colour: str) -> Shape:
    line = points((x - length / 2, y), (x, y), (x + length / 2, y))
    return flat(ribbon(line, (0.2, width, 0.2)), colour)


def _shore() -> list[Shape]:
    rng = np.random.default_rng(23)
    wash = trace("-10,221 50,216 120,222 190,215 262,220 330,213 400,218 460,211 522,214")
    edge = wash + (0.0, 9.0) + np.stack([np.zeros(9), 3.0 * np.cos(np.arange(9) * 2.1)], axis=1)
    foam, film = smooth(wash, closed=False), smooth(edge, closed=False)
    shapes = [
        land(wash + (0.0, -1.5), HEIGHT, "#7d5a92", "#7d5a92"),
        flat(ribbon(foam, (1.2, 2.8, 1.6, 3.0, 1.4, 2.6)), "#ffe3d2"),
        flat(ribbon(foam + (4.0, -6.0), (0.3, 1.4, 0.4, 1.5, 0.3)), "#ffd2c488"),
        land(edge, HEIGHT, "#b87c83", "#c98b7e", "#b5767a", "#8d5b73"),
        flat(ribbon(film, (0.8, 2.0, 1.0, 2.2, 0.9)), "#fff0e2c0"),
        glow((SUN[0], 226.0), 74, 13, "#ffe2a890", "#ffc08c40", "#ffc08c00"),
        glow((150.0, 256.0), 200, 40, "#ffcf9a70", "#ffc08c30", "#ffc08c00"),
    ]
    for _ in range(26):
        x, y = rng.uniform(0, WIDTH), rng.uniform(238, 286)
        line = points((x - 18, y + rng.uniform(-1, 1)), (x, y - 1.2), (x + 18, y + rng.uniform(-1, 1)))
        shapes.append(flat(ribbon(smooth(line, closed=False), (0.2, 1.3, 0.2)), "#7f506e58"))
        shapes.append(flat(ribbon(smooth(line - (0.0, 1.2), closed=False), (0.2, 0.9, 0.2)), "#ffd0a070"))
    for _ in range(40):
        x, y, size = rng.uniform(0, WIDTH), rng.uniform(236, 285), rng.uniform(0.5, 1.3)
        shapes.append(flat(ellipse((x + 1.2, y + 0.5), size * 1.6, size * 0.7), "#5d3a5c70"))
        shapes.append(flat(ellipse((x, y), size * 1.2, size * 0.8), "#f2c3a2"))
    return [*shapes, *_starfish(118.0, 262.0, 7.5)]


def _starfish(x: float, y: float, size: float) -> list[Shape]:
    turn = np.arange(10) * np.pi / 5 + 0.35
    reach = np.where(np.arange(10) % 2 == 0, size, size * 0.42)
    # Flattened because the sand is seen from a low angle.
    star = smooth(np.stack([np.cos(turn) * reach, np.sin(turn) * reach * 0.55], axis=1))
    places = trace("0,0 2.6,0.8 -1.6,1.9 -2,-1") + (x, y)
    dots = [flat(ellipse(place, 0.55), "#ffd2a8") for place in places]
    return [flat(star + (x + 1.8, y + 1.2), "#5d3a5c80"), flat(star + (x, y), "#e8606a", *dots)]


def _dune_grass() -> list[Shape]:
    """Two dark tufts in the lower corners, which frame the picture."""
    rng = np.random.default_rng(3)
    shapes = []
    for corner, lean in ((6.0, 1.0), (506.0, -1.0)):
        mound = trace("-96,300 -50,279 0,270 50,279 96,300") + (corner, 0.0)
        shapes.append(land(mound, 310, "#5a3763", "#43294f"))
        for index in range(34):
            foot = corner + rng.normal(0, 22)
            height, bend = rng.uniform(20, 62), lean * rng.uniform(-8, 26)
            blade = points((0, 0), (bend * 0.15, -height * 0.55), (bend, -height)) + (foot, HEIGHT)
            colour = ("#3a2450", "#4d2d5d", "#6d3d66", "#c46a6a")[index % 4]
            shapes.append(flat(ribbon(smooth(blade, closed=False), (2.6, 2.0, 0.3)), colour))
    return shapes
