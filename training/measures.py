"""What a result shows, as numbers: frames [F, size, size, 3] in 0..255 against an Example of the world."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from world.puppets import PART_STRIDE, PARTS, Puppet
from world.scenes import Example
from world.shapes import Colour, seen
from world.stage import Shot

RIM = 3  # pixels around a puppet that are not counted as background
REACH = 24  # pixels around its place in which a puppet is looked for: a quarter of the frame
SEEN = 0.5  # share of a puppet that has to lie within the frame where it is looked for
ALIKE = 60.0  # distance of two colours below which nobody could say which of them is seen


@dataclass(frozen=True, slots=True)
class Verdict:
    """One clip's measures; colours are in 0..255 and PSNR in dB."""

    motion: float  # mean distance of the puppets from their places in the target, as a share of the frame's width
    by_colour: float  # the same of the centroids of their colours, which softness and like hues move too
    followed: float  # share of the target's change over time that the result shows; a still picture has 0
    identity: float  # share of the parts whose colour is nearer to the reference's puppet than to the driving one
    kept: float  # PSNR of the background against the scene that should be kept
    other: float  # against the scene that should not
    whole: float  # PSNR against the target


def verdict(frames: np.ndarray, example: Example) -> Verdict:
    """Judge a result."""
    frames = frames.astype(np.float32)
    behind = background(example.target.puppets() > 0)
    return Verdict(
        motion=motion_error(frames, example.target),
        by_colour=colour_error(frames, example),
        followed=followed(frames, example.target.pictures),
        identity=identity_share(frames, example),
        kept=decibels(frames[behind], example.target.pictures[behind]),
        other=decibels(frames[behind], example.other_scene[behind]),
        whole=decibels(frames, example.target.pictures),
    )


def decibels(found: np.ndarray, wanted: np.ndarray) -> float:
    """Return the PSNR of pictures in 0..255."""
    error = np.square(found.astype(np.float64) - wanted).mean()
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def background(person: np.ndarray) -> np.ndarray:
    """Return where [F, size, size] there is no person within RIM pixels."""
    near = person.copy()
    for axis in (1, 2):
        near |= np.logical_or.reduce([np.roll(near, step, axis) for step in range(-RIM, RIM + 1)])
    return ~near


def motion_error(frames: np.ndarray, target: Shot) -> float:
    """Return how far the puppets' centroids are from the target's, mean over puppets and frames, in frame widths.

    A puppet is where its picture in the target fits best: that tells puppets of like colours from each other, and where
    a soft one stands as exactly as a sharp one (see `colour_error`).
    """
    puppets = target.puppets()
    errors = []
    for number in range(1, puppets.max() + 1):
        for found, wanted, where in zip(frames, target.pictures, puppets == number, strict=True):
            if where.any():
                errors.append(np.hypot(*misplacement(found, wanted, where)) / frames.shape[1])
    return float(np.mean(errors))


def misplacement(found: np.ndarray, wanted: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Return by how many (rows, columns) up to REACH what `wanted` shows at `where` is moved in `found`.

    Of all moves that leave SEEN of it within the frame, it is the one with the least mean squared error.
    """
    size = np.add(where.shape, REACH)  # room around, so that sums over moves do not wrap

    def over_moves(fixed: np.ndarray, moved: np.ndarray) -> np.ndarray:
        products = np.fft.rfft2(fixed, size, axes=(0, 1)).conj() * np.fft.rfft2(moved, size, axes=(0, 1))
        return np.fft.irfft2(products.sum(axis=-1), size)

    shape, frame = where[..., None].astype(np.float64), np.ones((*where.shape, 1))
    wanted, found = shape * wanted, found.astype(np.float64)
    squares, found_squares = (np.square(picture).sum(axis=-1, keepdims=True) for picture in (wanted, found))
    error = over_moves(squares, frame) - 2 * over_moves(wanted, found) + over_moves(shape, found_squares)
    pixels = over_moves(shape, frame)
    moves = np.arange(-REACH, REACH + 1)
    error = np.where(pixels > SEEN * where.sum(), error / pixels.clip(min=1), np.inf)[np.ix_(moves, moves)]
    return np.array(np.unravel_index(error.argmin(), error.shape)) - REACH


def recognised(frames: np.ndarray, empty: np.ndarray, puppets: tuple[Puppet, ...]) -> np.ndarray:
    """Return which puppet (from 1; 0: the backdrop) each pixel's colour is nearest to: [F, size, size].

    `empty` [size, size, 3] is the backdrop.
    """
    colours = np.array([puppet.colours[part] for puppet in puppets for part in PARTS], np.float32)
    to_parts = np.square(frames[..., None, :].astype(np.float32) - colours).sum(axis=-1)
    to_backdrop = np.square(frames.astype(np.float32) - empty).sum(axis=-1)
    nearest = to_parts.argmin(axis=-1) // PART_STRIDE + 1
    return np.where(to_backdrop < to_parts.min(axis=-1), 0, nearest)


def colour_error(frames: np.ndarray, example: Example) -> float:
    """Return the mean distance of centroids, both clips recognised by colours; a puppet not to be seen counts as 1.

    The edge between two soft puppets has the colours of a third: with a blur of 2 pixels the true clips themselves are
    wrong by 2 % on average, and by up to 8 % where three puppets share hues.
    """
    scene = 0 if example.mode == "replacement" else 1
    size = frames.shape[1]
    empty = np.asarray(seen(example.group.backdrops[scene].image(size)))
    puppets = example.group.casts[1].puppets
    found, wanted = (recognised(clip, empty, puppets) for clip in (frames, example.target.pictures))
    errors = []
    for number in range(1, len(puppets) + 1):
        for mine, theirs in zip(found == number, wanted == number, strict=True):
            if theirs.any():
                step = centroid(mine) - centroid(theirs) if mine.any() else np.array([size, 0])
                errors.append(np.hypot(*step) / size)
    return float(np.mean(errors))


def followed(frames: np.ndarray, wanted: np.ndarray) -> float:
    """Return the share of the change over time in `wanted` that a clip shows: 1 all of it, 0 as much as a still."""
    change, due = frames - frames.mean(axis=0), wanted - wanted.mean(axis=0)
    return float(1 - np.square(change - due).sum() / np.square(due).sum())


def centroid(where: np.ndarray) -> np.ndarray:
    """Return the mean (row, column) of the true pixels of a frame."""
    return np.argwhere(where).mean(axis=0)


def identity_share(frames: np.ndarray, example: Example) -> float:
    """Return the share of parts that have the reference's colour rather than the driving puppet's.

    Parts that are of about the same colour on both are not counted; with none left it is 1.
    """
    driving, reference = (cast.puppets for cast in example.group.casts)
    votes = []
    for number, (theirs, ours) in enumerate(zip(driving, reference, strict=True)):
        for part in PARTS:
            where = example.target.shows(number, part)
            if where.any() and _distance(ours.colours[part], theirs.colours[part]) > ALIKE:
                colour = frames[where].mean(axis=0)
                votes.append(_distance(colour, ours.colours[part]) < _distance(colour, theirs.colours[part]))
    return float(np.mean(votes)) if votes else 1.0


def routed(plain: np.ndarray, swapped: np.ndarray, example: Example, turned: Example) -> bool:
    """Whether swapping the identities of two people swapped them: each result is nearer to its own target.

    `example` and `turned` differ in the reference mask and the target only; only pixels count where the targets differ.
    """
    differ = (example.target.pictures != turned.target.pictures).any(axis=-1)
    first, second = (shot.target.pictures[differ].astype(np.float32) for shot in (example, turned))
    return all(
        np.square(mine[differ] - own).mean() < np.square(mine[differ] - other).mean()
        for mine, own, other in ((plain, first, second), (swapped, second, first))
    )


def seam_ratio(frames: np.ndarray, length: int, overlap: int) -> float:
    """Return the largest jump between segments over the largest frame difference within one."""
    steps = np.abs(np.diff(frames.astype(np.float32), axis=0)).mean(axis=(1, 2, 3))
    at_seam = np.zeros(len(steps), bool)
    at_seam[length - 1 :: length - overlap] = True
    return float(steps[at_seam].max() / steps[~at_seam].max())


def drift(frames: np.ndarray, example: Example) -> float:
    """Return how far the mean colour moved from the target's between first and last frames, as a share of 255."""
    away = (frames.astype(np.float32) - example.target.pictures).mean(axis=(1, 2))
    ends = len(frames) // 3
    return float(np.abs(away[-ends:].mean(axis=0) - away[:ends].mean(axis=0)).max() / 255)


def _distance(first: Colour | np.ndarray, second: Colour) -> float:
    return float(np.linalg.norm(np.subtract(first, second)))
