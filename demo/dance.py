"""The puppet's dance: a table of steps on the half beat and the smooth pose between them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from demo.skeleton import Arm, Leg, Pose, Proportions, reach

STEP_SECONDS = 0.25
"""Time from one step to the next: half a beat at 120 beats a minute."""

ELBOW_LAG = 0.05
"""Seconds by which the forearms follow the upper arms, which makes the arms swing rather than march."""

FOOT_LIFT = 0.05
"""Height in pixels of a foot for each pixel a second that it moves sideways: feet step and do not slide."""

INSTANT = 0.001
"""Seconds before and after a moment between which the speed of the feet is measured."""

TOES_DOWN = 2.0
"""Degrees that the toes of a lifted foot hang for each pixel of its height."""

STANCE_HALF = 13.0
"""Half the distance in pixels between the ankles of a figure that stands."""


class Step(NamedTuple):
    """What the puppet does on one half beat; offsets in pixels, angles in degrees, left is the viewer's."""

    sway: float = 0.0
    """Hips to the right."""
    dip: float = 1.5
    """Hips below the height of straight legs."""
    lean: float = 0.0
    head: float = 0.0
    left_shoulder: float = 24.0
    left_elbow: float = 4.0
    right_shoulder: float = 24.0
    right_elbow: float = 4.0
    left_out: float = 0.0
    """Left foot outwards from its stance."""
    right_out: float = 0.0


STEPS = (
    Step(),
    Step(0, 13, 0, 0, 62, 62, 62, 62),
    Step(9, 6.5, 7, 7, 138, 26, 74, -34, left_out=18),
    Step(0, 13, 0, 0, 92, 58, 92, 58),
    Step(-9, 6.5, -7, -7, 74, -34, 138, 26, right_out=18),
    Step(0, 13, 0, 0, 88, 50, 88, 50),
    Step(0, 2, 0, 0, 146, 22, 146, 22),
    Step(0, 12, 0, 0, 82, -8, 82, -8),
)
"""One round of the dance; after the last step it begins again."""


def step_at(seconds: float) -> Step:
    """The step at any time, blended smoothly between the steps of the table."""
    table = np.array(STEPS, dtype=np.float64)
    place = seconds / STEP_SECONDS
    index, t = int(np.floor(place)), float(place - np.floor(place))
    before, here, there, after = (table[(index + offset) % len(table)] for offset in (-1, 0, 1, 2))
    slope_here, slope_there = _slope(here - before, there - here), _slope(there - here, after - there)
    blend = (
        (2 * t**3 - 3 * t**2 + 1) * here
        + (t**3 - 2 * t**2 + t) * slope_here
        + (3 * t**2 - 2 * t**3) * there
        + (t**3 - t**2) * slope_there
    )
    return Step(*blend.tolist())


def pose_at(seconds: float, size: Proportions, centre: float, ground: float) -> Pose:
    """The pose at a time, for a figure dancing about x = `centre` on a floor at y = `ground` (pixels)."""
    step, late = step_at(seconds), step_at(seconds - ELBOW_LAG)
    earlier, later = step_at(seconds - INSTANT), step_at(seconds + INSTANT)
    pelvis = np.array([centre + step.sway, ground - size.ankle - size.leg + step.dip])

    def leg(side: int, out: float, moved: float) -> Leg:
        lift = FOOT_LIFT * abs(moved) / (2 * INSTANT)
        ankle = np.array([centre + side * (STANCE_HALF + out), ground - size.ankle - lift])
        return reach(side, pelvis + (side * size.hip_half, 0.0), ankle, size, tilt=TOES_DOWN * lift)

    legs = (
        leg(-1, step.left_out, later.left_out - earlier.left_out),
        leg(1, step.right_out, later.right_out - earlier.right_out),
    )
    arms = (Arm(step.left_shoulder, late.left_elbow), Arm(step.right_shoulder, late.right_elbow))
    return Pose((float(pelvis[0]), float(pelvis[1])), step.lean, step.head, arms, legs)


def _slope(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Slope at a step between its two neighbours: their harmonic mean, and none at a turning point.

    This choice (monotone cubic interpolation) never overshoots: a foot that two steps leave on the floor
    stays exactly where it is in between.
    """
    product = left * right
    total = np.where(product > 0, left + right, 1.0)
    return np.where(product > 0, 2 * product / total, 0.0)
