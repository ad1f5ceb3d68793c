"""A wooden puppet with jointed limbs, drawn part by part over its skeleton."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from demo.drawing import (
    Light,
    Points,
    Shape,
    Tone,
    ellipse,
    flat,
    glow,
    line,
    lit,
    mirrored,
    points,
    ribbon,
    smooth,
    trace,
    turned,
)
from demo.skeleton import SIDES, Joints, Limb, Point, Pose, Proportions, joints

LIGHT = Light(rim=(0.9, 1.2), shade=(-2.6, -1.6))
"""The spots hang above the stage, the nearer one to the left."""

SMALL_LIGHT = Light(rim=(0.6, 0.8), shade=(-1.3, -1.1))
"""The same light on knobs and pins, where wide shadows would leave nothing lit."""


@dataclass(frozen=True)
class Palette:
    """Colours of a puppet."""

    wood: Tone = Tone("#e6b277", "#bb7f4c", "#ffe3b0")
    joint: Tone = Tone("#b9783f", "#8a5330", "#eab87c")
    grain: str = "#a96f4060"
    groove: str = "#9a633c"
    vest: Tone = Tone("#2fa58d", "#1c7a70", "#8fe3c6")
    shorts: Tone = Tone("#6a3d73", "#4a2858", "#a877ad")
    accent: Tone = Tone("#d8434e", "#a32a40", "#ff9a8a")
    sole: str = "#7a2038"
    brass: str = "#f6cf6e"
    hair: str = "#5a3428"
    ink: str = "#3a2230"
    cheek: str = "#e8776a"


def puppet(pose: Pose, size: Proportions, palette: Palette) -> list[Shape]:
    """The parts of a posed puppet, from the back to the front."""
    body = joints(pose, size)
    parts: list[Shape] = []
    for side, leg, angles in zip(SIDES, body.legs, pose.legs, strict=True):
        parts += _leg(side, leg, angles.ankle, palette)
    parts += _trunk(body, pose.lean, size, palette)
    parts += _head(body.head, pose.lean + pose.head, palette)
    for side, arm in zip(SIDES, body.arms, strict=True):
        parts += _arm(side, arm, palette)
    return parts


def floor_shadow(pose: Pose, size: Proportions, ground: float) -> list[Shape]:
    """Shadows on the floor below the body and the feet; part of the scene, not of the figure."""
    body = joints(pose, size)
    middle = float(body.pelvis[0])
    shapes = [glow((middle, ground + 1.0), 66, 9.5, "#1a0c2098", "#1a0c2060", "#1a0c2000")]
    for side, leg in zip(SIDES, body.legs, strict=True):
        height = ground - size.ankle - float(leg.tip[1])
        x = float(leg.tip[0]) + side * 4
        shapes.append(glow((x, ground), 19 + height, 4.2, "#12081ad0", "#12081a90", "#12081a00"))
    return shapes


def _bone(start: Point, end: Point, widths: tuple[float, ...], palette: Palette) -> Shape:
    """A turned piece of wood between two joints, with two lines of grain."""
    axis = start + np.linspace(0.0, 1.0, 12)[:, None] * (end - start)
    direction = (end - start) / np.linalg.norm(end - start)
    side = np.array([-direction[1], direction[0]])
    bow = np.sin(np.linspace(0.0, np.pi, 12))[:, None]
    grains = tuple(
        flat(ribbon(axis[2:-1] + side * offset + side * bow[2:-1] * curve, (0.2, 0.9, 0.2)), palette.grain)
        for offset, curve in ((-1.8, -1.2), (1.2, 1.4))
    )
    return lit(ribbon(axis, widths), palette.wood, LIGHT, *grains)


def _ball(centre: Point, radius: float, palette: Palette) -> Shape:
    """A ball joint with a brass pin."""
    pin = flat(ellipse(centre, radius * 0.34), palette.brass)
    dark = flat(ellipse(centre + (0.4, 0.5), radius * 0.44), palette.ink + "90")
    return lit(ellipse(centre, radius), palette.joint, SMALL_LIGHT, dark, pin)


def _leg(side: int, leg: Limb, tilt: float, palette: Palette) -> list[Shape]:
    """A shin in a painted shoe and a thigh in short trousers."""
    shoe = smooth(trace("-7.5,-3.5 -3,-7 4,-6.5 9,-2.5 16,0.5 19,5 17.5,8 -7,8 -8.5,4"), corners=(6, 7))
    sole = trace("-30,5.6 30,5.6 30,12 -30,12")
    placed, tread = (turned(outline * (side, 1.0), side * tilt) + leg.tip for outline in (shoe, sole))
    return [
        _bone(leg.middle, leg.tip, (11.0, 13.5, 12.0, 8.5), palette),
        _ball(leg.tip, 4.6, palette),
        lit(placed, palette.accent, LIGHT, flat(tread, palette.sole)),
        _bone(leg.root, leg.middle, (15.0, 16.0, 14.0, 10.5), palette),
        lit(_cloth(leg.root, leg.middle, 0.52, (17.0, 18.5, 18.5)), palette.shorts, LIGHT),
        _ball(leg.middle, 6.4, palette),
    ]


def _cloth(start: Point, end: Point, share: float, widths: tuple[float, ...]) -> Points:
    """Outline of cloth over the first `share` of a bone, cut off straight."""
    axis = start + np.linspace(0.0, share, 6)[:, None] * (end - start)
    return ribbon(axis, widths, round_end=False)


def _arm(side: int, arm: Limb, palette: Palette) -> list[Shape]:
    """A sleeve, a bare forearm and a mitten of a hand."""
    forward = arm.tip - arm.middle
    degrees = float(np.degrees(np.arctan2(-forward[0], forward[1])))
    palm = smooth(trace("-3.6,0 3.6,0 6,6 5.6,12 2.6,16.5 -2.6,16.5 -5.6,12 -6,6"))
    thumb = ellipse((-side * 5.4, 6.6), 2.6, 5.2, side * 28)
    fingers = [ribbon(points((x, 9.5), (x * 0.9, 15)), 0.7) for x in (-2.0, 0.6, 3.0)]
    drawn = [flat(turned(gap, degrees) + arm.tip, palette.groove + "90") for gap in fingers]
    return [
        lit(turned(thumb, degrees) + arm.tip, palette.wood, LIGHT),
        lit(turned(palm, degrees) + arm.tip, palette.wood, LIGHT, *drawn),
        _bone(arm.middle, arm.tip, (9.5, 11.5, 10.0, 7.5), palette),
        _ball(arm.tip, 4.0, palette),
        _bone(arm.root, arm.middle, (12.0, 13.0, 11.0, 9.0), palette),
        lit(_cloth(arm.root, arm.middle, 0.62, (14.5, 15.0, 14.5)), palette.vest, LIGHT),
        _ball(arm.middle, 5.4, palette),
    ]


def _trunk(body: Joints, lean: float, size: Proportions, palette: Palette) -> list[Shape]:
    """Hips, waist, waistcoat and neck; drawn upright about the middle of the hips and then leaned."""

    def place(outline: Points) -> Points:
        return turned(outline, lean) + body.pelvis

    top = -size.torso
    hips = smooth(mirrored(trace("0,-12 13,-11 18.5,-2 17.5,9 9,12 0,8.5")))
    shoulders = trace("0,-3 11,-3.5 21,0 24.5,8 21.5,20") + (0, top)
    chest = smooth(mirrored(np.concatenate([shoulders, trace("16,-20 14,-12 0,-9")])))
    shirt = points((-9, top - 8), (9, top - 8), (0, top + 25))
    seam = points((0, top + 24), (0, 0))
    lapels = [trace("9.6,-8 16,5 9.5,7.5 0.4,27") * (x, 1.0) + (0, top) for x in SIDES]
    buttons = [ellipse((3.2, y), 1.6) for y in (top + 30, top + 37)]
    hem = trace("-30,-14.5 30,-14.5 30,-5 -30,-5")
    belt = trace("-30,-7.5 30,-7.5 30,-3.5 -30,-3.5")
    bow = trace("0,0 9,-5 9.5,5 0,0 -9.5,5 -9,-5") + (0, top - 0.5)
    neck = np.stack([body.pelvis + turned(points((0, top - 1)), lean)[0], body.head])
    return [
        _bone(neck[0], neck[1], (11.0, 10.0), palette),
        lit(ellipse(place(points((0, -13)))[0], 10.0, 8.0), palette.joint, LIGHT),
        lit(place(hips), palette.shorts, LIGHT, flat(place(belt), palette.brass)),
        lit(
            place(chest),
            palette.vest,
            LIGHT,
            flat(place(shirt), "#fff1dc"),
            flat(place(ribbon(seam, 0.9)), palette.vest.shade),
            *(flat(place(lapel), palette.vest.shade) for lapel in lapels),
            *(flat(place(button), palette.brass) for button in buttons),
            flat(place(hem), palette.vest.shade),
        ),
        lit(place(smooth(bow, corners=(0, 3))), palette.accent, LIGHT),
        lit(place(ellipse((0, top - 0.5), 2.6)), palette.accent, SMALL_LIGHT),
    ]


def _head(pivot: Point, degrees: float, palette: Palette) -> list[Shape]:
    """A round head with painted hair and face and a small hat; drawn upright about its pivot at the chin."""

    def place(outline: Points) -> Points:
        return turned(outline, degrees) + pivot

    skull = smooth(mirrored(trace("0,-49 14,-46.5 23,-36 24.5,-23 20.5,-9 11,-0.5 0,2")))
    hair = smooth(
        trace("-30,-60 30,-60 30,-14 22.5,-15 21,-27 13,-36 4,-34 -6,-38 -16,-34 -21,-26 -22.5,-15 -30,-14"),
        corners=(3, 6, 10),
    )
    brim = smooth(trace("-17,-45 0,-43 17,-45 17.5,-48 0,-47 -17.5,-48"), corners=(0, 2, 3, 5))
    felt = trace("-12.5,-46.5 -10.5,-62 10.5,-62 12.5,-46.5 6,-45.4 0,-45 -6,-45.4")
    crown = smooth(felt, corners=(0, 1, 2, 3))
    band = flat(place(trace("-16,-51.5 16,-51.5 16,-47 -16,-47")), palette.brass)
    smile = smooth(trace("-7,-10.4 0,-8.8 7,-10.4 3.6,-5 0,-3.9 -3.6,-5"), corners=(0, 2))
    lip = ribbon(line("-7.4,-10.6 -3.6,-8.2 0,-7.6 3.6,-8.2 7.4,-10.6"), (0.8, 1.5, 0.8))
    face = []
    for x in SIDES:
        blush = tuple(place(points((x * 14.5, -13.5)))[0].tolist())
        brow = ribbon(line("5,-30.5 9.5,-32.6 14,-30") * (x, 1.0), (1.2, 2.2, 1.2))
        jaw = ribbon(line("6.5,-9 7,-3 6,4") * (x, 1.0), (0.5, 1.0, 0.9))
        face += [
            glow(blush, 6.2, 5.0, *(palette.cheek + alpha for alpha in ("e0", "a0", "00"))),
            flat(place(ellipse((x * 9.4, -21.8), 4.9, 5.9)), "#fff7e6"),
            flat(place(ellipse((x * 9.0, -21.2), 3.2, 4.5)), palette.ink),
            flat(place(ellipse((x * 9.0 - 1.2, -23.2), 1.25)), "#ffffff"),
            flat(place(brow), palette.ink),
            flat(place(jaw), palette.groove),
        ]
    face += [flat(place(smile), palette.sole), flat(place(lip), palette.ink)]
    face.append(flat(place(hair), palette.hair))
    ears = [lit(place(ellipse((x * 24.5, -21), 4.2, 5.6)), palette.joint, LIGHT) for x in SIDES]
    return [
        *ears,
        lit(place(skull), palette.wood, LIGHT, *face),
        lit(place(ellipse((0, -16), 3.9, 3.6)), palette.accent, SMALL_LIGHT),
        lit(place(crown), palette.accent, LIGHT, band),
        lit(place(brim), palette.accent, LIGHT),
    ]
