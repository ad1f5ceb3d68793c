"""From masks of people to one coloured mask clip: who gets which colour, and what lies around them.

Colours and backgrounds are those of masks.py. Order, selection, overlaps and scaling are those of ComfyUI's node
`SCAIL2ColoredMask` (0.33), so that the same tracks give the same pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ...interface.errors import RequestError
from ...interface.events import Listener
from ...interface.pictures import Pictures
from .checks import EMPTY_SHARE, checked_pixels
from .masks import IDENTITIES, PLANES, THRESHOLD

ORDERS = ("none", "left_to_right", "area")
ON = 0.5  # a mask's pixel belongs to its person above this; a colour's channel is nearer to 1 than to 0
IMPURE_SHARE = 0.05  # share of pixels without a pure colour above which a picture hardly is a mask
PALETTE = tuple(PLANES[name] for name in IDENTITIES)
CHANNEL_BITS = (1, 2, 4)  # a colour whose channels are 0 or 1, as one number of 0 to 7


@dataclass(frozen=True, kw_only=True, slots=True)
class ColouredMask:
    """A coloured mask and what is in it.

    clip: float32 [F, H, W, 3], pure colours. shares: [F, 6], the part of each frame in each identity's colour.
    """

    clip: np.ndarray
    shares: np.ndarray

    @property
    def seen(self) -> list[str]:
        """The colours that some frame shows, in the palette's order."""
        return [name for name, present in zip(IDENTITIES, self._present.any(axis=0), strict=True) if present]

    @property
    def _present(self) -> np.ndarray:
        return self.shares >= EMPTY_SHARE

    def __str__(self) -> str:
        frames, height, width = self.clip.shape[:3]
        people = ", ".join(self._described(name) for name in self.seen) or "nobody"
        return f"{frames} frame{'s' * (frames != 1)} of {width} x {height}: {people}"

    def _described(self, name: str) -> str:
        frames = np.flatnonzero(self._present[:, IDENTITIES.index(name)])
        if len(frames) == len(self.clip):
            return f"{name} in all" if len(frames) > 1 else name
        return f"{name} in {len(frames)} (first in frame {frames[0]})"


@dataclass(frozen=True, kw_only=True, slots=True)
class Painter:
    """Gives people their colours: one and the same for the driving and the reference side, so that these agree.

    order: one of ORDERS. Whoever appears in an earlier frame comes first; among those of one frame the leftmost
    ("left_to_right") or the largest ("area"), by the mask in that frame; "none" keeps the masks' own order.
    numbers: who gets a colour, counted from 0 in that order; the first of them is blue. None: everybody.

    Every method takes the name of what it paints for its sentences, and a background colour. Where people overlap, the
    one whose colour comes first is seen. Beyond six people the colours begin again, which is warned about.
    """

    order: str
    numbers: tuple[int, ...] | None
    listener: Listener

    @classmethod
    def of(cls, order: str, numbers: str, listener: Listener) -> Painter:
        """Read `numbers` as "0,2"; empty means everybody. Raises RequestError for anything else."""
        if order not in ORDERS:
            raise RequestError(f"The order of the people is '{order}', but it can be {', '.join(ORDERS)}.")
        given = [part.strip() for part in numbers.split(",") if part.strip()]
        if numbers.strip() and not (given and all(part.isascii() and part.isdigit() for part in given)):
            raise RequestError(
                f"The selection of people is '{numbers}', but it must be numbers from 0 with commas between, as '0,2', "
                "or empty for everybody."
            )
        return cls(order=order, numbers=tuple(map(int, given)) if given else None, listener=listener)

    def track(
        self,
        name: str,
        packed: np.ndarray | None,
        frames: int,
        size: tuple[int, int],
        background: tuple[float, float, float],
    ) -> ColouredMask:
        """Paint a track of SAM3: `packed` uint8 [F, objects, h, w / 8], the lowest bit leftmost, at `size` (H, W).

        None, or no objects: `frames` of background. Raises RequestError for another array, no frames or no size.
        """
        if packed is None:
            packed = np.zeros((frames, 0, 1, 1), np.uint8)
        if packed.ndim != 4 or packed.dtype != np.uint8:
            raise RequestError(
                f"The masks of the {name} are {packed.dtype} of shape {list(packed.shape)}, but a SAM3 track holds "
                "uint8 of [frames, objects, height, width / 8]: connect the track_data of Run SAM3 Video Track."
            )
        if len(packed) == 0 or 0 in packed.shape[2:] or min(size) < 1:
            raise RequestError(
                f"The {name} has {len(packed)} frames of {size[1]} x {size[0]} pixels and masks of "
                f"{8 * packed.shape[3]} x {packed.shape[2]}: track at least one frame that has any pixel."
            )
        masks = np.unpackbits(packed, axis=-1, bitorder="little").view(bool)
        return self.people(name, masks.swapaxes(0, 1), size, background)

    def batch(self, name: str, mask: np.ndarray, people: int, background: tuple[float, float, float]) -> ColouredMask:
        """Paint a mask [people x F, H, W] in 0..1: all frames of one person, then all of the next, on above 0.5.

        One person is blue, whatever the selection says. Raises RequestError for a mask that cannot be divided so.
        """
        mask = checked_pixels(name, mask, self.listener, is_mask=True)
        if len(mask) % people:
            raise RequestError(
                f"The {name} is a MASK of {len(mask)} pictures, which {people} people cannot share equally: batch as "
                f"many pictures for each person, or change the number of people from {people}."
            )
        masks = mask.reshape(people, -1, *mask.shape[1:])
        painter = self if people > 1 else replace(self, numbers=None)
        return painter.people(name, masks, mask.shape[1:], background)

    def people(
        self, name: str, masks: np.ndarray, size: tuple[int, int], background: tuple[float, float, float]
    ) -> ColouredMask:
        """Paint masks [objects, F, h, w], bool or floats that are on above 0.5, at `size` (H, W)."""
        masks = masks if masks.dtype == bool else masks > ON
        ranks = _ranked(masks, self.order)
        self._tell_absent(name, range(len(ranks)))
        if self.numbers is not None:
            ranks = [ranks[number] for number in self.numbers if number < len(ranks)]
        if len(ranks) > len(IDENTITIES):
            self.listener.warn(
                f"The {name} shows {len(ranks)} people, but the model knows {len(IDENTITIES)} colours, so some share "
                "one: select at most six people, or track fewer."
            )
        rows = _nearest(masks.shape[2], size[0])[:, None]
        columns = _nearest(masks.shape[3], size[1])

        def identities(frame: int) -> np.ndarray:
            found = np.zeros(masks.shape[2:], np.uint8)
            for place, rank in reversed(list(enumerate(ranks))):
                found[masks[rank, frame]] = 1 + place % len(IDENTITIES)
            return found[rows, columns]

        return self._painted(masks.shape[1], size, identities, background)

    def pictures(self, name: str, pictures: Pictures, background: tuple[float, float, float]) -> ColouredMask:
        """Paint already coloured pictures [F, H, W, 3] in 0..1 again, in pure colours on the background.

        Each pixel becomes the nearest of the six colours, white and black; white and black are background. Colours are
        kept, without ordering, unless people are selected: number 0 is blue, 1 red and so on, and the first selected
        becomes blue, as with masks.
        """
        pictures = checked_pixels(name, pictures, self.listener)
        frames, height, width = pictures.shape[:3]
        identity = np.zeros(1 + sum(CHANNEL_BITS), np.uint8)  # of each colour whose channels are 0 or 1; 0: background
        for i, colour in enumerate(PALETTE):
            identity[np.dot(colour, CHANNEL_BITS)] = 1 + i
        repainted = np.zeros(1 + len(PALETTE), np.uint8)
        chosen = range(len(PALETTE)) if self.numbers is None else self.numbers
        for place, number in reversed(list(enumerate(chosen))):
            if number < len(PALETTE):
                repainted[1 + number] = 1 + place % len(PALETTE)
        before = np.zeros(1 + len(PALETTE), int)
        impure = 0
        one_by_one = iter(pictures)  # footage is decoded in one go then

        def identities(_frame: int) -> np.ndarray:
            nonlocal impure
            pixels = next(one_by_one)
            # The eight colours are the corners of a cube, so the nearest one is found channel by channel.
            found = identity[np.dot(pixels > ON, np.asarray(CHANNEL_BITS, np.uint8))]
            before[:] += np.bincount(found.reshape(-1), minlength=len(before))
            impure += np.count_nonzero(((pixels > 1 - THRESHOLD) & (pixels <= THRESHOLD)).any(axis=-1))
            return repainted[found]

        painted = self._painted(frames, (height, width), identities, background)
        self._tell_absent(name, np.flatnonzero(before[1:]))
        share = impure / (frames * height * width)
        if share > IMPURE_SHARE:
            self.listener.warn(
                f"In the {name} {share:.0%} of the pixels have no pure colour and became the nearest one: check that a "
                f"mask is connected, with people in {', '.join(IDENTITIES)}."
            )
        return painted

    def _painted(
        self,
        frames: int,
        size: tuple[int, int],
        identities: Callable[[int], np.ndarray],
        background: tuple[float, float, float],
    ) -> ColouredMask:
        """Colour what `identities` says of each frame: [H, W] of 0 for background and 1 to 6."""
        colours = np.asarray((background, *PALETTE), np.float32)
        clip = np.empty((frames, *size, 3), np.float32)
        shares = np.empty((frames, len(PALETTE)))
        for frame in range(frames):
            self.listener.check_cancelled()
            found = identities(frame)
            clip[frame] = colours[found]
            shares[frame] = np.bincount(found.reshape(-1), minlength=len(colours))[1:] / found.size
        return ColouredMask(clip=clip, shares=shares)

    def _tell_absent(self, name: str, present: np.ndarray | range) -> None:
        absent = sorted(set(self.numbers or ()) - set(present))
        if absent:
            there = ", ".join(map(str, present)) or "nobody"
            self.listener.warn(
                f"The selection names {', '.join(map(str, absent))}, but the {name} has only {there}: what is missing "
                "stays unpainted."
            )


def backdrop(like: ColouredMask, background: tuple[float, float, float]) -> ColouredMask:
    """Return one frame of background, of the size of another mask: what stands for a mask that is not there."""
    clip = np.empty_like(like.clip[:1])
    clip[:] = background
    return ColouredMask(clip=clip, shares=np.zeros((1, len(PALETTE))))


def tell(driving: ColouredMask, reference: ColouredMask | None, listener: Listener) -> None:
    """Say who is in the masks; warn where a side shows nobody, or a colour is on one side only."""
    sides = {"driving mask": driving, "reference mask": reference}
    for name, mask in sides.items():
        if mask is None:
            listener.warn(
                f"There is no {name}, so this one is background only, as that of ComfyUI's own node: give a mask of "
                "the reference too, or leave that input of SCAIL-2 Sampler unconnected."
            )
            continue
        listener.note(f"The {name}: {mask}.")
        if not mask.seen:
            listener.warn(f"The {name} shows nobody: check what is connected, and the selection of people.")
    if reference is None or not (driving.seen and reference.seen):
        return
    tell_one_sided(driving.seen, reference.seen, listener)


def tell_one_sided(driving: list[str], reference: list[str], listener: Listener) -> None:
    """Warn where a colour is seen in one mask only; both are lists of colours."""
    for name, seen, other in (("driving mask", driving, reference), ("reference mask", reference, driving)):
        alone = [colour for colour in seen if colour not in other]
        if alone:
            listener.warn(
                f"Only the {name} shows {', '.join(alone)}: the same person needs the same colour on both sides, so "
                "select the people who are on both."
            )


def _ranked(masks: np.ndarray, order: str) -> list[int]:
    """Return the objects of masks [objects, F, H, W], bool, in an order of ORDERS; who never appears comes last."""
    if order == "none":
        return list(range(len(masks)))
    height, width = masks.shape[2:]

    def key(index: int) -> tuple[int, np.float32]:
        appears = masks[index].any(axis=(1, 2))
        if not appears.any():
            return len(appears), np.float32(0)
        first = int(appears.argmax())
        mask = masks[index, first]
        # In float32, as torch reckons, so that two who are equally far are equal here too.
        area = np.float32(np.count_nonzero(mask))
        if order == "area":
            return first, -area / np.float32(height * width)
        return first, np.float32(mask.sum(axis=0) @ np.arange(width)) / area / np.float32(width)

    return sorted(range(len(masks)), key=key)


def _nearest(source: int, target: int) -> np.ndarray:
    """Return which of `source` pixels each of `target` pixels takes, as torch's `interpolate(mode="nearest")`."""
    step = np.float32(source) / np.float32(target)
    return np.minimum((np.arange(target, dtype=np.float32) * step).astype(int), source - 1)
