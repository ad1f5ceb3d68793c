"""The reference character: a young fox in a raincoat, standing with the arms a little away from the body."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from demo.drawing import (
    Light,
    Paint,
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
)
from demo.skeleton import SIDES, Arm, Joints, Leg, Limb, Point, Pose, Proportions, joints, reach

LIGHT = Light(rim=(1.5, 0.7), shade=(-4.2, -1.4))
"""The sun is low on the left, a little behind the fox."""

FUR = Tone("#f0813c", "#c9542f", "#ffd193")
CREAM = Tone("#fff0dc", "#e8c4b4", "#fffdf2")
SCARF = Tone("#f7b93e", "#d68a2c", "#fff0b0")
SCARF_SHADED = Tone(SCARF.shade, "#b87026", SCARF.rim)
INK = "#35202f"


@dataclass(frozen=True)
class Outfit:
    """Colours of what a character wears: coat, boots, leggings and mittens."""

    coat: Tone = Tone("#1f8f9c", "#156878", "#a6f0dc")
    lining: Tone = Tone("#14596c", "#0f4658", "#5fb8b8")
    pocket: str = "#1a7a88"
    flap: str = "#27a0aa"
    seam: str = "#12586a88"
    button_shade: str = "#0f4a5a90"
    boot: Tone = Tone("#f2a93a", "#c4712c", "#ffe6a0")
    sole: str = "#8a4630"
    sock: Tone = Tone("#573052", "#3e2142", "#b67a8c")


FOX = Outfit()


def standing(size: Proportions, centre: float, ground: float) -> Pose:
    """At ease on both feet about x = `centre` on the ground at y = `ground` (pixels)."""
    pelvis = (centre, ground - size.ankle - size.leg + 1.0)

    def leg(side: int) -> Leg:
        hip = np.array([centre + side * size.hip_half, pelvis[1]])
        return reach(side, hip, np.array([centre + side * 13.0, ground - size.ankle]), size)

    arm = Arm(shoulder=31.0, elbow=-3.0)
    return Pose(pelvis, 0.0, 0.0, (arm, arm), (leg(-1), leg(1)))


def fox(size: Proportions, centre: float, ground: float) -> list[Shape]:
    """The parts of the fox, from the back to the front."""
    body = joints(standing(size, centre, ground), size)
    parts = placed(_tail(1), body.pelvis) + limbs(body, FOX)
    parts += placed(coat(size, FOX), body.pelvis)
    parts += placed(_scarf(1), body.pelvis - (0.0, size.torso))
    return parts + placed(_head(), body.head - (0.0, 24.0))


def fox_from_behind(size: Proportions, centre: float, ground: float) -> list[Shape]:
    """The fox as somebody sees it who stands behind it, from the back to the front."""
    body = joints(standing(size, centre, ground), size)
    parts = limbs(body, FOX) + placed(_coat_from_behind(size), body.pelvis)
    parts += placed(_tail(-1), body.pelvis)
    parts += placed(_head_from_behind(), body.head - (0.0, 24.0))
    neck = body.pelvis - (0.0, size.torso)
    return parts + placed(_scarf(-1), neck) + placed([part(_hood(), FOX.coat)], neck)


def limbs(body: Joints, outfit: Outfit) -> list[Shape]:
    """Legs in leggings and boots, and arms in the coat's sleeves."""
    parts: list[Shape] = []
    for side, leg in zip(SIDES, body.legs, strict=True):
        stocking = ribbon(np.stack([leg.root, leg.tip]), (16.0, 11.0))
        parts += [part(stocking, outfit.sock), *placed(_boot(side, outfit), leg.tip)]
    for side, arm in zip(SIDES, body.arms, strict=True):
        parts += _arm(side, arm, outfit)
    return parts


def ground_shadow(size: Proportions, centre: float, ground: float) -> list[Shape]:
    """The long shadow that the fox casts on the sand, away from the sun; part of the scene."""
    body = joints(standing(size, centre, ground), size)
    shadow = smooth(trace("-20,-1 20,-4 90,5 168,15 150,22 70,14 8,4")) + (centre, ground)
    start, end = (centre, ground), (centre + 175, ground + 18)
    shapes = [Shape(shadow, Paint(("#4a2a58b0", "#4a2a5870", "#4a2a5800"), start, end), soft=2.2)]
    for leg in body.legs:
        foot = (float(leg.tip[0]) + 5, ground + 0.5)
        shapes.append(glow(foot, 24, 4.4, "#2e1a40c0", "#2e1a4070", "#2e1a4000"))
    return shapes


def warmth(centre: tuple[float, float], rx: float, ry: float) -> Shape:
    """The sun's glow on the side of a part that faces it."""
    return glow(centre, rx, ry, "#ffdf9a60", "#ffdf9a2c", "#ffdf9a00")


def part(outline: Points, tone: Tone, *details: Shape) -> Shape:
    """A shape in the light of the setting sun."""
    return lit(outline, tone, LIGHT, *details)


def placed(shapes: list[Shape], origin: Point) -> list[Shape]:
    """Shapes that were drawn about (0, 0), moved to a joint."""
    return [shape.moved(origin) for shape in shapes]


def _tail(side: int) -> list[Shape]:
    """The brush with its pale tip, on the viewer's left or right; about the middle of the hips."""
    spine = line("4,20 26,45 53,51 76,36 85,8 80,-18 66,-37") * (side, 1.0)
    brush = ribbon(spine, (8, 15, 23, 29, 30, 22, 2))
    tip = smooth(trace("40,-60 106,-60 110,0 98,-8 92,1 85,-9 78,-2 72,-12 60,-9"), corners=(2, 4, 6, 8)) * (side, 1.0)
    strokes = []
    # How far each stroke of fur lies beside the spine, and from where to where along it.
    for offset, first, last in ((-5.0, 0.42, 0.6), (2.0, 0.34, 0.52), (7.0, 0.48, 0.64)):
        stretch = spine[int(first * len(spine)) : int(last * len(spine))]
        strokes.append(flat(ribbon(stretch + (offset, offset * 0.3), (0.3, 1.5, 0.3)), "#b8482c70"))
    shadow = flat(brush + (17.0, -2.0), CREAM.shade)
    return [part(brush, FUR, flat(tip, CREAM.base, shadow), *strokes)]


def _boot(side: int, outfit: Outfit) -> list[Shape]:
    """A rubber boot; about the ankle."""
    boot = smooth(trace("-8,-25 8,-25 8.4,-8 12.5,-2 15.5,4 14.5,8 -8.5,8 -8.2,-6"), corners=(0, 1, 5, 6))
    cuff = smooth(trace("-9.4,-28 9.4,-28 9.4,-22.5 -9.4,-22.5"), corners=(0, 1, 2, 3))
    sole = flat(trace("-30,5.4 30,5.4 30,12 -30,12"), outfit.sole)
    shine = flat(ribbon(points((-3.4, -18), (-3.8, -8)) - (side * 0.5, 0.0), (1.2, 2.0, 0.8)), "#fff2c8c0")
    return [part(boot * (side, 1.0), outfit.boot, sole, shine), part(cuff, outfit.boot)]


def _arm(side: int, arm: Limb, outfit: Outfit) -> list[Shape]:
    """A sleeve with a cuff and a dark paw."""
    forward = (arm.tip - arm.middle) / np.linalg.norm(arm.tip - arm.middle)
    across = np.array([-forward[1], forward[0]])
    paw = ellipse(arm.tip + forward * 7.5, 6.6, 7.6)
    thumb = ellipse(arm.tip + forward * 4.5 + across * side * 5.6, 2.7, 4.6)
    toes = [arm.tip + forward * np.array([[9.5], [14.0]]) + across * x for x in (-1.8, 1.8)]
    sleeve = smooth(np.stack([arm.root, arm.middle, arm.tip + forward]), closed=False)
    cuff = np.stack([arm.tip - forward * 4.5, arm.tip + forward * 1.5])
    fold = np.stack([arm.middle - across * 6, arm.middle + across * 1.5 + forward * 2])
    crease = flat(ribbon(fold, (0.4, 1.4, 0.4)), outfit.seam)
    return [
        part(thumb, outfit.sock),
        part(paw, outfit.sock, *(flat(ribbon(toe, 0.8), "#2c1530") for toe in toes)),
        part(ribbon(sleeve, (16.0, 16.5, 15.0, 16.5), round_end=False), outfit.coat, crease),
        part(ribbon(cuff, 17.5, round_end=False), outfit.coat),
    ]


def coat(size: Proportions, outfit: Outfit) -> list[Shape]:
    """The raincoat with its hood folded back; about the middle of the hips."""
    hood = smooth(mirrored(trace("0,-15 16,-14 26,-7 23,1 9,3 0,4"))) - (0.0, size.torso)
    details = [
        flat(ribbon(line("3.5,-56 3.2,-20 3.6,10 5,46"), 1.1), outfit.coat.shade),
        flat(ribbon(line("-40,31 -17,35.5 0,36.5 17,35.5 40,31"), 1.0), outfit.seam),
        flat(ribbon(line("-15,-4 -16.8,14 -20.1,34"), (0.2, 1.5, 0.8)), outfit.seam),
        flat(ribbon(line("14.5,-4 16.2,14 19.4,34"), (0.2, 1.5, 0.8)), outfit.seam),
    ]
    for side in SIDES:
        flap = trace("-7,0 7,0 7,4 0,6 -7,4") + (side * 16, 8)
        pocket = trace("-6.4,2 6.4,2 6.6,14 4.6,16 -4.6,16 -6.6,14") + (side * 16, 8)
        details += [flat(pocket, outfit.pocket), flat(flap + (0, 1.2), outfit.seam), flat(flap, outfit.flap)]
    for y in (-36.0, -19.0, -2.0, 15.0):
        details.append(flat(ellipse((-0.7, y + 0.8), 2.6), outfit.button_shade))
        details.append(flat(ellipse((-1.2, y), 2.4), "#ffe3a8"))
        details.append(flat(ellipse((-0.9, y + 0.4), 1.7), "#f2bc62"))
    details.append(warmth((-30, -8), 40, 78))
    return [part(hood, outfit.lining), part(_coat_outline(size), outfit.coat, *details)]


def _coat_outline(size: Proportions) -> Points:
    shoulders = trace("0,-6 11,-5.5 21,-1 25.5,10 22.5,28") - (0.0, size.torso)
    skirt = trace("24,0 29,20 33.5,36 17,40 0,41")
    return smooth(mirrored(np.concatenate([shoulders, skirt])), corners=(7, 11))


def _coat_from_behind(size: Proportions) -> list[Shape]:
    """The back of the raincoat with its half belt; about the middle of the hips."""
    belt = smooth(mirrored(trace("0,-14 17,-15 17,-8 0,-7")), corners=(1, 2, 3, 4))
    details = [
        flat(ribbon(line("0,-56 0,-14"), 1.1), FOX.coat.shade),
        flat(ribbon(line("0,-7 0,18 1.5,46"), (1.0, 1.6)), FOX.coat.shade),
        flat(ribbon(line("-40,31 -17,35.5 0,36.5 17,35.5 40,31"), 1.0), FOX.seam),
        flat(belt + (0.0, 1.4), FOX.seam),
        flat(belt, FOX.flap),
        *(flat(ellipse((x * 13.0, -11.0), 2.2), "#ffe3a8") for x in SIDES),
        warmth((-30, -8), 40, 78),
    ]
    return [part(_coat_outline(size), FOX.coat, *details)]


def _hood() -> Points:
    """Outline of the folded hood that hangs down the back; about the point between the shoulders."""
    return smooth(mirrored(trace("0,-9 13,-8 21,-2 18,10 9,22 0,29")), corners=(5,))


def _scarf(side: int) -> list[Shape]:
    """A scarf round the neck, its two ends in the wind to the left (1) or right (-1); about the shoulders' middle."""
    wrap = smooth(mirrored(trace("0,-14 15,-14.5 21,-8 18.5,-0.5 8,4 0,5")))
    folds = [
        flat(ribbon(line("-17,-8 0,-2.5 17,-8.5"), (0.3, 1.4, 0.3)), SCARF.shade),
        flat(ribbon(line("-15,-2.5 -4,1 8,0.6"), (0.3, 1.2, 0.3)), SCARF.shade),
    ]
    upper = ribbon(line("-14,-6 -32,-13 -47,-5 -66,-13"), (8, 9.5, 11, 12), round_end=False)
    lower = ribbon(line("-12,-3 -27,-3 -40,6 -55,3"), (7, 8.5, 10, 11), round_end=False)
    upper, lower = upper * (side, 1.0), lower * (side, 1.0)
    upper_stripes = [ribbon(line(text) * (side, 1.0), 3.0) for text in ("-59,-22 -60.5,2", "-53,-20 -54.5,4")]
    lower_stripes = [ribbon(line(text) * (side, 1.0), 2.6) for text in ("-49,-6 -48,14", "-43.5,-5 -42.5,15")]
    return [
        part(lower, SCARF_SHADED, *(flat(stripe, "#c9542f") for stripe in lower_stripes)),
        part(upper, SCARF, *(flat(stripe, "#e0603a") for stripe in upper_stripes)),
        part(wrap, SCARF, *folds),
    ]


def _ear(side: int) -> Shape:
    """A pointed ear with a dark tip and pale fluff inside; about the middle of the face."""
    ear = smooth(trace("4,-20 11,-36 25.5,-47.5 31.5,-30 28,-7"), corners=(2,))
    inner = smooth(trace("11,-22 15,-33 24,-41.5 27,-29 25.5,-14"), corners=(2,))
    tip = smooth(trace("5,-60 40,-60 40,-35 29,-38 23,-34 14,-37"), corners=(3, 4))
    fluff = smooth(trace("12,-14 14,-26 18,-21 21,-29 23,-20 27,-23 27,-12"), corners=range(1, 6))
    ear, inner, tip, fluff = (outline * (side, 1.0) for outline in (ear, inner, tip, fluff))
    return part(ear, FUR, flat(tip, FOX.sock.base), flat(inner, "#8e3f4a", flat(fluff, CREAM.base)))


def eye(side: int) -> list[Shape]:
    """An eye with its brow and a blush on the cheek below; about the middle of the face."""
    x = side * 12.6
    brow = ribbon(line("8.5,-11.2 12.5,-13.4 17,-11.6") * (side, 1.0), (0.8, 2.0, 0.8))
    return [
        glow((side * 20.5, 11.5), 6.5, 4.6, "#ff8a70b0", "#ff8a7070", "#ff8a7000"),
        flat(ellipse((x, -0.5), 4.6, 6.0), INK, flat(ellipse((x, 3.1), 3.4, 2.6), "#7a4a3c")),
        flat(ellipse((x - 1.5, -2.8), 1.75), "#ffffff"),
        flat(ellipse((x + 1.6, 1.5), 0.8), "#ffe9d0"),
        flat(brow, "#9a3f28"),
    ]


def _head() -> list[Shape]:
    """Ears, a tuft of hair and the face; about the middle of the face."""
    cheeks = smooth(mirrored(trace("0,6 4.5,2 13,0.5 24,3.5 40,6 40,24 20,34 0,36")))
    nose = smooth(trace("-4.6,9.4 0,8.4 4.6,9.4 3.2,13 0,14.8 -3.2,13"))
    face = [
        flat(cheeks, CREAM.base, flat(cheeks + (34, 5), CREAM.shade + "a0", soft=3.0)),
        warmth((-34, 0), 40, 40),
        *eye(-1),
        *eye(1),
        flat(ribbon(points((0, 14), (0, 17.2)), 1.0), INK),
        *(flat(ribbon(line("0,17 2.4,19.6 6.4,18.2") * (x, 1.0), (1.2, 1.3, 0.7)), INK) for x in SIDES),
        flat(nose, INK, flat(ellipse((-1.3, 10.6), 1.5, 0.8), "#ffffffa0")),
    ]
    return [_ear(-1), _ear(1), part(_tuft(), FUR), part(_skull(), FUR, *face)]


def _head_from_behind() -> list[Shape]:
    """Ears and the back of the head; about the middle of the face."""
    ears = []
    for side in SIDES:
        ear = smooth(trace("4,-20 11,-36 25.5,-47.5 31.5,-30 28,-7"), corners=(2,)) * (side, 1.0)
        tip = smooth(trace("5,-60 40,-60 40,-35 29,-38 23,-34 14,-37"), corners=(3, 4)) * (side, 1.0)
        ears.append(part(ear, FUR, flat(tip, FOX.sock.base)))
    strokes = ("-9,-12 -7,-3 -8,5", "1,-9 2,1 1,9", "11,-12 10,-2 12,6")
    fur = [flat(ribbon(line(text), (0.3, 1.7, 0.3)), "#b8482c70") for text in strokes]
    return [*ears, part(_tuft(), FUR), part(_skull(), FUR, warmth((-34, 0), 40, 40), *fur)]


def _skull() -> Points:
    half = trace("0,-26 13,-25.5 24.5,-18 30,-5 36.5,9.5 30.5,11.5 32,17.5 21,22.5 10,28 0,29.5")
    return smooth(mirrored(half), corners=(4, 6, 12, 14))


def _tuft() -> Points:
    return smooth(trace("-8,-23 -6,-33 -1.5,-28 2.5,-35.5 4.5,-28 9,-31 8.5,-23"), corners=range(1, 6))
