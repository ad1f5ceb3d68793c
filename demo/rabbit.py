"""The second character, for pictures with two people: a rabbit in a red coat."""

from __future__ import annotations

from demo.character import INK, Outfit, coat, eye, limbs, part, placed, standing, warmth
from demo.drawing import Shape, Tone, ellipse, flat, line, mirrored, points, ribbon, smooth, trace
from demo.skeleton import SIDES, Proportions, joints

FUR = Tone("#cfc2d6", "#9c8bab", "#fff3ec")
WHITE = Tone("#fff6ee", "#dccbd2", "#fffdf8")
BOW = Tone("#7fc27a", "#4f9260", "#dcf5c0")
OUTFIT = Outfit(
    coat=Tone("#c8434f", "#952b46", "#ffb49a"),
    pocket="#b03548",
    flap="#dc5f60",
    seam="#7c233c88",
    button_shade="#6a1c3690",
    boot=Tone("#4d7fc0", "#325a94", "#b8dcff"),
    sole="#2c3f6c",
    sock=Tone("#8f7da0", "#66567c", "#d8c8dc"),
    lining=Tone("#8c2a42", "#641c38", "#d87a7c"),
)


def rabbit(size: Proportions, centre: float, ground: float) -> list[Shape]:
    """The parts of the rabbit, from the back to the front, at ease about x = `centre` (pixels)."""
    body = joints(standing(size, centre, ground), size)
    parts = placed(_tail(), body.pelvis) + limbs(body, OUTFIT)
    parts += placed(coat(size, OUTFIT), body.pelvis)
    parts += placed(_head(), body.head - (0.0, 24.0))
    return parts + placed(_bow(), body.pelvis - (0.0, size.torso - 1.0))


def _tail() -> list[Shape]:
    """A ball of fluff at the viewer's right; about the middle of the hips."""
    puff = smooth(trace("24,8 31,2 38,7 44,11 42,19 43,27 34,30 25,28 21,19"), corners=(1, 3, 5, 7))
    return [part(puff, WHITE)]


def _bow() -> list[Shape]:
    """A bow under the chin; about the point between the shoulders."""
    loops = smooth(trace("0,0 14,-8 17,0 14,8 0,0 -14,8 -17,0 -14,-8"), corners=(0, 4))
    ends = [ribbon(line("0,2 5,11 8,20") * (x, 1.0), (4.0, 6.5), round_end=False) for x in SIDES]
    return [*(part(end, BOW) for end in ends), part(loops, BOW), part(ellipse((0, 0), 4.4), BOW)]


def _ear(side: int, bent: bool) -> list[Shape]:
    """A long ear, upright or with its tip folded over; about the middle of the face."""
    text = "12,-16 17,-36 25,-50 37,-52 45,-42" if bent else "11,-16 15,-36 17,-54 17,-68"
    spine = line(text) * (side, 1.0)
    ear = ribbon(spine, (11.0, 17.0, 18.0, 8.0))
    inner = ribbon(spine[3:-3], (4.0, 8.5, 8.5, 2.0))
    return [part(ear, FUR, flat(inner, "#e8a0a4"))]


def _head() -> list[Shape]:
    """Ears and the face; about the middle of the face."""
    half = trace("0,-25 13,-23.5 24,-15.5 29,-2 30.5,11 24,22 11,28 0,29")
    skull = smooth(mirrored(half))
    cheeks = smooth(mirrored(trace("0,5 5,7 12,5 21,8 24,17 15,27 0,30")))
    nose = smooth(trace("-4.2,8.6 0,7.6 4.2,8.6 2.6,11.8 0,13.2 -2.6,11.8"))
    whiskers = [
        flat(ribbon(line(text) * (x, 1.0), (0.9, 0.3)), "#7d6c8c90")
        for text in ("12,13 20,12 28,9", "12,16 21,17 29,16")
        for x in SIDES
    ]
    face = [
        flat(cheeks, WHITE.base, flat(cheeks + (22, 6), WHITE.shade + "a0", soft=3.0)),
        warmth((-34, 0), 40, 40),
        *eye(-1),
        *eye(1),
        *whiskers,
        flat(ribbon(points((0, 13), (0, 17)), 1.0), INK),
        *(flat(ribbon(line("0,17 3,19 7,17") * (x, 1.0), (1.2, 1.3, 0.7)), INK) for x in SIDES),
        flat(nose, "#d8788a", flat(ellipse((-1.2, 9.7), 1.4, 0.7), "#ffffffa0")),
    ]
    tuft = smooth(trace("-7,-22 -5,-30 -1,-26 2,-32 4,-26 8,-28 7,-22"), corners=range(1, 6))
    return [*_ear(-1, bent=False), *_ear(1, bent=True), part(tuft, FUR), part(skull, FUR, *face)]
