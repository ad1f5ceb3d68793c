"""The skeleton that the character and the puppet share: proportions, joint angles and joint positions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Point = NDArray[np.float64]
"""A place in the picture: (2,) x and y in pixels."""

SIDES = (-1, 1)
"""The viewer's left and right; every pair of limbs in this package is in this order."""


@dataclass(frozen=True)
class Proportions:
    """Lengths between the joints of a figure seen from the front, in pixels."""

    shoulder_half: float = 22.0
    hip_half: float = 10.5
    torso: float = 56.0
    """From the middle of the hips to the height of the shoulders."""
    neck: float = 9.0
    """From the height of the shoulders to the pivot of the head, at the chin."""
    upper_arm: float = 34.0
    lower_arm: float = 31.0
    upper_leg: float = 43.0
    lower_leg: float = 43.0
    ankle: float = 8.0
    """Height of the ankle above the sole."""

    @property
    def leg(self) -> float:
        """Length of a straight leg from the hip to the ankle."""
        return self.upper_leg + self.lower_leg


class Arm(NamedTuple):
    """Joint angles in degrees; 0 hangs along the body and positive angles lift outwards."""

    shoulder: float
    elbow: float


class Leg(NamedTuple):
    """Joint angles in degrees: the thigh outwards, the knee back inwards, the toes down."""

    hip: float
    knee: float
    ankle: float = 0.0


@dataclass(frozen=True)
class Pose:
    """Where the hips are (x, y in pixels) and how the joints are turned (degrees, the trunk clockwise)."""

    pelvis: tuple[float, float]
    lean: float
    head: float
    arms: tuple[Arm, Arm]
    legs: tuple[Leg, Leg]


class Limb(NamedTuple):
    """Joints of an arm (shoulder, elbow, wrist) or of a leg (hip, knee, ankle), each (2,) in pixels."""

    root: Point
    middle: Point
    tip: Point


@dataclass(frozen=True)
class Joints:
    """Joint positions of a posed figure, (2,) pixels each."""

    pelvis: Point
    head: Point
    arms: tuple[Limb, Limb]
    legs: tuple[Limb, Limb]


def along(side: int, degrees: float, length: float) -> Point:
    """The step (2,) along a limb turned outwards from straight down."""
    angle = np.deg2rad(degrees)
    return length * np.array([side * np.sin(angle), np.cos(angle)])


def joints(pose: Pose, size: Proportions) -> Joints:
    """Place the joints of a figure by walking from the hips outwards along the bones."""
    pelvis = np.asarray(pose.pelvis, dtype=np.float64)
    lean = np.deg2rad(pose.lean)
    up, right = np.array([np.sin(lean), -np.cos(lean)]), np.array([np.cos(lean), np.sin(lean)])

    def arm(side: int, angles: Arm) -> Limb:
        shoulder = pelvis + up * size.torso + right * side * size.shoulder_half
        # Arms hang from a trunk that leans; clockwise lifts the limb on the left and lowers the other.
        lift = angles.shoulder - side * pose.lean
        elbow = shoulder + along(side, lift, size.upper_arm)
        return Limb(shoulder, elbow, elbow + along(side, lift + angles.elbow, size.lower_arm))

    def leg(side: int, angles: Leg) -> Limb:
        hip = pelvis + np.array([side * size.hip_half, 0.0])
        knee = hip + along(side, angles.hip, size.upper_leg)
        return Limb(hip, knee, knee + along(side, angles.hip - angles.knee, size.lower_leg))

    return Joints(
        pelvis=pelvis,
        head=pelvis + up * (size.torso + size.neck),
        arms=(arm(-1, pose.arms[0]), arm(1, pose.arms[1])),
        legs=(leg(-1, pose.legs[0]), leg(1, pose.legs[1])),
    )


def reach(side: int, hip: Point, ankle: Point, size: Proportions, tilt: float = 0.0) -> Leg:
    """Bend a leg so that its ankle comes to a given place, with the knee outwards.

    A place beyond the leg's length is reached for with a straight leg.
    """
    gap = ankle - hip
    distance = min(float(np.hypot(*gap)), size.leg - 1e-6)
    upper, lower = size.upper_leg, size.lower_leg
    towards = np.degrees(np.arctan2(side * gap[0], gap[1]))
    # The law of cosines in the triangle of hip, knee and ankle.
    at_hip = np.degrees(np.arccos((upper**2 + distance**2 - lower**2) / (2 * upper * distance)))
    at_knee = np.degrees(np.arccos((upper**2 + lower**2 - distance**2) / (2 * upper * lower)))
    return Leg(float(towards + at_hip), float(180.0 - at_knee), tilt)
