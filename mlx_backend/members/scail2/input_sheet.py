"""One picture of a run's inputs: as pictures, and as the 28 mask channels that the model sees."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ...interface.segments import Segment, SegmentPlan
from ...media.contact_sheet import contact_sheet
from ...media.resize import halved
from .masks import IDENTITIES, PLANES, TEMPORAL, packed, planes
from .scene import PreparedScene

TINT = 0.5  # of a person's colour over the picture
DARK = 0.16  # a cell without the colour; lighter than black, so that the frame can be told
LINE = 0.4  # between the four frames of a tile
HEIGHT = 256  # pixels of a row: four for a cell of 896 x 512
COLOURS = np.array(list(PLANES.values()), np.float32)
PEOPLE = [list(PLANES).index(name) for name in IDENTITIES]


def input_sheet(scene: PreparedScene, plan: SegmentPlan, first: int) -> np.ndarray:
    """Return uint8 [H, W, 3]: references and driving frames under their masks, and what becomes of the masks.

    Driving frames are counted from `first`; the first, middle and last one are shown. Of the seven planes of a mask
    that the model gets, those that are on are shown at an eighth of the size (of the half size, for the driving mask):
    a reference's in a row, and the driving mask's in a row each, below each driving frame the four frames that its
    latent frame stands for.
    """
    rows = []
    for number, (picture, mask) in enumerate(zip(scene.references, scene.reference_masks, strict=True)):
        name = "reference" if number == 0 else f"extra reference {number}"
        shown, what = [np.clip(picture, 0, 1)], "as the model gets it, no mask"
        if mask is not None:
            shown += [tinted(shown[0], mask[0]), mask[0]]
            what = "as the model gets it, with its mask, the mask"
        rows.append((f"{name}, {what}", np.stack(shown)))
        if mask is not None:
            rows.append(_still_coverage(f"{name}'s mask", packed(mask)[: len(PLANES), 0]))  # the rest repeats them
    moments = _moments(len(scene.driving))
    numbers = ", ".join(str(first + moment) for moment in moments)
    if scene.driving_mask is None:
        rows.append((f"driving video, frame {numbers}, no mask", np.clip(scene.driving[moments], 0, 1)))
        return contact_sheet(rows, height=HEIGHT)
    pairs = zip(scene.driving[moments], scene.driving_mask[moments], strict=True)
    rows.append((f"driving video, frame {numbers}, with the mask", np.stack([tinted(*pair) for pair in pairs])))
    groups = []
    for moment in moments:
        number, latent = _place(plan, moment)
        groups.append(_latent_mask(scene.driving_mask, plan.segments[number], latent))
    rows += _coverage("driving mask", groups)
    return contact_sheet(rows, height=HEIGHT)


def raw_sheet(pictures: Mapping[str, np.ndarray | None]) -> np.ndarray | None:
    """Return a sheet of the pictures of a Scene, by name, as far as they can be shown: for one that cannot be made."""
    rows = []
    named = {
        "reference image": "references",
        "reference mask": "reference_masks",
        "driving video": "driving",
        "driving mask": "driving_mask",
    }
    for name, given in ((name, pictures.get(field)) for name, field in named.items()):
        if given is None or given.ndim not in (3, 4) or 0 in given.shape or (given.ndim == 4 and given.shape[3] != 3):
            continue
        moments = _moments(len(given))
        frames = np.nan_to_num(given[moments].astype(np.float32))
        shown = frames if given.ndim == 4 else np.repeat(frames[..., None], 3, axis=-1)
        numbers = ", ".join(map(str, moments))
        rows.append((f"{name} as connected, {numbers} of {len(given)}, {given.shape[2]} x {given.shape[1]}", shown))
    return contact_sheet(rows, height=HEIGHT) if rows else None


def tinted(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return a picture [H, W, 3] with the people of its mask [H, W, 3] in their colours; what the model takes for none
    stays as it is.
    """
    picture = np.clip(picture, 0, 1)
    people = planes(mask)[..., PEOPLE]
    return picture + TINT * (people @ COLOURS[PEOPLE] - picture * people.any(axis=-1, keepdims=True))


def _moments(frames: int) -> list[int]:
    return sorted({0, (frames - 1) // 2, frames - 1})


def _place(plan: SegmentPlan, frame: int) -> tuple[int, int]:
    """Return the number of the segment that makes a frame, and which of its latent frames does."""
    made = [n for n, segment in enumerate(plan.segments) if segment.start + segment.history <= frame]
    within = frame - plan.segments[made[-1]].start
    return made[-1], -(-within // TEMPORAL)


def _latent_mask(mask: np.ndarray, segment: Segment, latent: int) -> np.ndarray:
    """Return the 28 channels [28, h, w] of a latent frame of a segment.

    The same functions as in streams.py, on the frames of one group: cells do not depend on other frames.
    """
    last = segment.start + TEMPORAL * latent
    frames = [last] if latent == 0 else [last, *range(last - TEMPORAL + 1, last + 1)]  # packed() repeats the first
    return packed(halved(mask[np.minimum(frames, len(mask) - 1)]))[:, -1]


def _coverage(name: str, groups: list[np.ndarray]) -> list[tuple[str, np.ndarray]]:
    """Return rows of the sheet for latent frames [28, h, w] of a mask: a plane each, if it is on in one of them."""
    height, width = groups[0].shape[1:]
    cells = np.stack(groups).reshape(len(groups), TEMPORAL, len(PLANES), height, width)
    shares = 100 * cells.mean(axis=(1, 3, 4))
    size = f"{width} x {height} cells"
    rows = []
    for plane, (colour, rgb) in enumerate(zip(PLANES, COLOURS, strict=True)):
        if shares[:, plane].any():
            found = ", ".join(f"{share:.1f} %" for share in shares[:, plane])
            tiles = np.stack([_tile(group[:, plane], rgb) for group in cells])
            rows.append((f"{name}, 4 frames in {size}, {colour}: {found}", tiles))
    return rows or [
        (f"{name}, 4 frames in {size}: nothing but black", np.stack([_tile(g[:, 0], COLOURS[0]) for g in cells]))
    ]


def _still_coverage(name: str, cells: np.ndarray) -> tuple[str, np.ndarray]:
    """Return a row of the sheet: those of the planes [7, h, w] of a still mask that are on."""
    on = [n for n, plane in enumerate(cells) if plane.any()] or [0]
    shares = ", ".join(f"{list(PLANES)[n]} {100 * cells[n].mean():.1f} %" for n in on)
    tiles = np.stack([_coloured(cells[n], COLOURS[n]) for n in on])
    return f"{name} in {cells.shape[2]} x {cells.shape[1]} cells: {shares}", tiles


def _coloured(cells: np.ndarray, colour: np.ndarray, height: int = HEIGHT) -> np.ndarray:
    """Return planes [..., h, w] as pictures [..., H, W, 3] of their colour, at least `height` high."""
    pixels = max(1, -(-height // cells.shape[-2]))  # of a cell, so that the sheet never enlarges it
    return (DARK + (1 - DARK) * cells[..., None] * colour).repeat(pixels, axis=-3).repeat(pixels, axis=-2)


def _tile(cells: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """Return four planes [4, h, w] as one picture of their colour, the frames in reading order."""
    pictures = _coloured(cells, colour, HEIGHT // 2)
    pictures = np.pad(pictures, ((0, 0), (0, 1), (0, 1), (0, 0)), constant_values=LINE)
    upper, lower = (np.concatenate(list(pair), axis=1) for pair in (pictures[:2], pictures[2:]))
    return np.concatenate([upper, lower])
