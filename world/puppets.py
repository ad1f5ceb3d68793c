"""Puppets: random proportions, colours and hats; and the dances that they perform."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .colours import bright
from .shapes import Colour, Part, capsule, disc, placed

# What a label says: 1 + puppet * PART_STRIDE + part. Parts are counted in this order.
PARTS = ("legs", "arms", "shirt", "head", "hat")
PART_STRIDE = len(PARTS)
HATS = {
    "hood": ((-0.55, 0.0), (-0.4, -0.5), (0.0, -0.75), (0.4, -0.5), (0.55, 0.0)),
    "cone": ((-0.55, 0.0), (0.0, -1.5), (0.55, 0.0)),
    "top hat": ((-0.8, 0.0), (-0.8, -0.18), (-0.45, -0.18), (-0.45, -0.95), (0.45, -0.95), (0.45, -0.18), (0.8, -0.18),
                (0.8, 0.0)),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Puppet:
    """A look, with lengths and radii in units of the figure's height (about 1)."""

    colours: dict[str, Colour]
    hat: str
    torso: float
    leg: float
    arm: float
    width: float
    limb: float
    head: float

    @classmethod
    def random(cls, rng: np.random.Generator, colours: list[Colour]) -> Puppet:
        """Draw a puppet with four colours: of trousers, skin, shirt and hat."""
        trousers, skin, shirt, hat = colours
        return cls(
            colours={"legs": trousers, "arms": skin, "shirt": shirt, "head": skin, "hat": hat},
            hat=str(rng.choice(list(HATS))),
            torso=rng.uniform(0.28, 0.33),
            leg=rng.uniform(0.20, 0.235),
            arm=rng.uniform(0.165, 0.195),
            width=rng.uniform(0.10, 0.13),
            limb=rng.uniform(0.050, 0.065),
            head=rng.uniform(0.115, 0.14),
        )

    def parts(self, pose: Pose, number: int) -> list[Part]:
        """Return the parts of the `number`th puppet of a picture in `pose`, from the back to the front."""
        s, lean = pose.scale, pose.lean
        neck = pose.pelvis + _towards(lean + np.pi, self.torso * s)
        head = neck + _towards(lean + pose.head + np.pi, (self.head + 0.02) * s)
        radius, width = self.limb * s, self.width * s
        limbs = {"legs": [], "arms": []}
        for side in (-1, 1):
            sideways = np.stack([np.cos(lean), np.sin(lean)], axis=-1) * side
            hip, shoulder = pose.pelvis + sideways * width * 0.6, neck + sideways * width + (0, 0.03 * s)
            i = (side + 1) // 2
            for name, root, length, angles in (
                ("legs", hip, self.leg * s, pose.legs[i]),
                ("arms", shoulder, self.arm * s, pose.arms[i]),
            ):
                middle = root + _towards(angles[0], length)
                tip = middle + _towards(angles[0] + angles[1], length)
                limbs[name] += [capsule(root, middle, radius, radius), capsule(middle, tip, radius, radius * 0.85)]
        crown = head + _towards(lean + pose.head + np.pi, self.head * 0.5 * s)
        hat = np.asarray(HATS[self.hat]) * self.head * 1.35 * s
        drawn = (
            *(("legs", outline) for outline in limbs["legs"]),
            ("shirt", capsule(neck, pose.pelvis, width, width * 0.85)),
            ("head", disc(head, self.head * s)),
            ("hat", placed(hat, crown, lean + pose.head)),
            *(("arms", outline) for outline in limbs["arms"]),
        )
        first = 1 + number * PART_STRIDE
        return [Part(outline, self.colours[name], first + PARTS.index(name)) for name, outline in drawn]


def random_puppets(rng: np.random.Generator, count: int) -> tuple[Puppet, ...]:
    """Draw puppets; two share no hue."""
    colours = bright(rng, 4 * count)
    return tuple(Puppet.random(rng, colours[4 * i : 4 * i + 4]) for i in range(count))


@dataclass(frozen=True, slots=True, eq=False)
class Pose:
    """Where a figure is in each of F frames: angles [F] in radians, 0 hanging down; `pelvis` [F, 2] in frame widths."""

    pelvis: np.ndarray
    lean: np.ndarray
    head: np.ndarray
    arms: tuple[tuple[np.ndarray, np.ndarray], ...]  # (shoulder, elbow) of the left and of the right arm
    legs: tuple[tuple[np.ndarray, np.ndarray], ...]  # (hip, knee)
    scale: float


@dataclass(frozen=True, slots=True, eq=False)
class Dance:
    """A smooth motion without end: each number swings about its middle, `swings` [3, joints] = amplitude, speed, phase.

    `middle` and `swings` hold x, y, lean, head, then shoulder, elbow, hip, knee of the left and of the right side.
    """

    middle: np.ndarray
    swings: np.ndarray
    scale: float

    @classmethod
    def random(cls, rng: np.random.Generator, place: tuple[float, float], scale: float) -> Dance:
        """Draw a dance about `place` = (x, reach): the pelvis stays about `reach` from x."""
        x, reach = place
        arms = [rng.uniform(0.2, 2.6, 2), rng.uniform(-0.2, 1.1, 2)]
        legs = [rng.uniform(0.05, 0.5, 2), rng.uniform(-0.2, 0.2, 2)]
        middle = np.array(
            [x, 0.97 - 0.46 * scale, 0, 0]
            + [sign * angles[side] for side, sign in ((0, 1), (1, -1)) for angles in (*arms, *legs)]
        )
        most = np.array([reach, 0.02, 0.18, 0.2] + 2 * [0.75, 0.6, 0.35, 0.3])
        amplitude = most * rng.uniform(0.3, 1.0, len(most))
        speed = rng.uniform(0.10, 0.26, len(most))
        speed[0] = rng.uniform(0.06, 0.16)
        return cls(middle, np.stack([amplitude, speed, rng.uniform(0, 2 * np.pi, len(most))]), scale)

    def pose(self, times: np.ndarray) -> Pose:
        """Return the pose at `times` [F], in frames from the start of the clip."""
        amplitude, speed, phase = self.swings
        values = self.middle + amplitude * np.sin(times[:, None] * speed + phase)
        x, y, lean, head, *joints = values.T
        left, right = joints[:4], joints[4:]
        return Pose(
            pelvis=np.stack([x, y], axis=-1),
            lean=lean,
            head=head,
            arms=((left[0], left[1]), (right[0], right[1])),
            legs=((left[2], left[3]), (right[2], right[3])),
            scale=self.scale,
        )


def _towards(angle: np.ndarray, length: float) -> np.ndarray:
    """A step of `length` in direction `angle`: 0 down, positive to the left of the picture."""
    return length * np.stack([-np.sin(angle), np.cos(angle)], axis=-1)
