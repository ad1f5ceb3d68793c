"""What a person would notice in the masks of a scene before an hour of sampling, said in sentences.

checks.py finds what is wrong with one mask by itself. Here the two sides and the frames are compared: who comes and
goes, who crosses whom, and whether the reference's person is as large as the driving one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from ...interface.events import Listener, Progress
from .framing import Box, people_boxes, union
from .masks import IDENTITIES, PLANES, planes
from .people import tell_one_sided
from .scene import PreparedScene

LARGER = 1.5  # times as tall, or as large: a choice below the 1.7 at which users complained of oversized characters
CROSSED = 0.3  # of the smaller box: people who merely stand close share less
ENOUGH = 256  # pixels along a mask's shorter side
MANY = 4  # absences worth listing one by one
DRIVING, REFERENCE = "driving mask", "reference mask"


@dataclass(frozen=True, slots=True)
class Finding:
    """A sentence that says what was found and what to do. The sampler refuses to run with an error."""

    sentence: str
    is_error: bool = False


class FindingListener(Listener):
    """Keeps what the checks of a run tell: warnings as findings, notes as sentences; passes on all else."""

    def __init__(self, behind: Listener) -> None:
        self.findings: list[Finding] = []
        self.notes: list[str] = []
        self._behind = behind

    def error(self, message: str) -> None:
        """Keep what stops the sampler."""
        self.findings.append(Finding(message, is_error=True))

    def warn(self, message: str) -> None:
        """Keep a warning."""
        self.findings.append(Finding(message))

    def note(self, message: str) -> None:
        """Keep a note."""
        self.notes.append(message)

    def progress(self, event: Progress) -> None:
        """Pass on how far it is."""
        self._behind.progress(event)

    def check_cancelled(self) -> None:
        """Stop if the listener behind wants to."""
        self._behind.check_cancelled()


@dataclass(frozen=True, slots=True)
class Sightings:
    """Who is seen where in a mask: one dict of boxes by colour per frame, in pixels of the thinned mask.

    `first` is the number of the first frame in the video that the user gave.
    """

    boxes: tuple[dict[str, Box], ...]
    first: int = 0

    @classmethod
    def of(cls, name: str, mask: np.ndarray, first: int, listener: Listener) -> Sightings:
        """Look at a coloured mask [F, H, W, 3]."""
        boxes = []
        for number, frame in enumerate(mask):
            listener.check_cancelled()
            listener.progress(Progress(phase=f"looking at the {name}", done=number, total=len(mask)))
            boxes.append(people_boxes(_thinned(frame)))
        return cls(tuple(boxes), first)

    @property
    def seen(self) -> list[str]:
        """The colours that some frame shows, in the order in which people get them."""
        return [colour for colour in IDENTITIES if any(colour in boxes for boxes in self.boxes)]

    def where(self, colour: str) -> np.ndarray:
        """Return the numbers [n], from 0 here, of the frames that show a colour."""
        return np.flatnonzero([colour in boxes for boxes in self.boxes])

    def __str__(self) -> str:
        count = len(self.boxes)
        if count == 1:
            return " and ".join(self.seen) or "nobody"
        shown = [(colour, len(self.where(colour))) for colour in self.seen]
        return " and ".join(f"{c} in {'all' if n == count else n} of {count} frames" for c, n in shown) or "nobody"


def inspect_people(scene: PreparedScene, first: int, listener: Listener) -> None:
    """Note who is in the masks of a scene, whose driving frames count from `first`, and warn of what will go wrong.

    Warns of people on one side only, who appear late or vanish, who cross, and of a first reference whose people are
    much larger or smaller than the driving video's in the first frame that shows them. Masks that are missing are
    left out: the checks of the scene have told that.
    """
    driving = reference = None
    if scene.driving_mask is not None:
        driving = Sightings.of(DRIVING, scene.driving_mask, first, listener)
        listener.note(f"The {DRIVING} shows {driving}.")
        _tell_absences(driving, listener)
        _tell_crossings(driving, listener)
    masks = [mask for mask in scene.reference_masks if mask is not None]
    if masks:
        reference = Sightings.of(REFERENCE, np.concatenate(masks), 0, listener)
        listener.note(f"The {REFERENCE} shows {reference}.")
    if driving is not None and reference is not None:
        tell_one_sided(driving.seen, reference.seen, listener)
        if scene.reference_masks[0] is not None:
            _tell_size(driving, reference, scene, listener)


def _thinned(mask: np.ndarray) -> np.ndarray:
    """Return some of the rows and columns of a mask [H, W, 3]: where somebody is can be told from them.

    Unlike scaling it moves no edge: that would shrink people on black, and make them grow on white.
    """
    step = max(1, min(mask.shape[:2]) // ENOUGH)
    return mask[::step, ::step]


def _tell_absences(driving: Sightings, listener: Listener) -> None:
    count = len(driving.boxes)
    for colour in driving.seen:
        absent = list(_runs(np.setdiff1d(np.arange(count), driving.where(colour))))
        if not absent:
            continue
        parts, inner = [], absent
        if absent[0][0] == 0:
            parts.append(f"appears only in frame {driving.first + absent[0][1] + 1}")
            inner = absent[1:]
        away = [run for run in inner if run[1] < count - 1]
        if away:
            ranges = [_range(driving.first + start, driving.first + end) for start, end in away[:MANY]]
            more = f" and {len(away) - MANY} more times" if len(away) > MANY else ""
            parts.append(f"is away in {', '.join(ranges)}{more}")
        if absent[-1][1] == count - 1:
            parts.append(f"is gone from frame {driving.first + absent[-1][0]} on")
        listener.warn(
            f"In the {DRIVING} {colour} {', '.join(parts[:-1])}{' and ' * (len(parts) > 1)}{parts[-1]}: the model has "
            "nobody to follow there and may drop or invent the person. If the person is there, track them again; if "
            "not, choose start_frame and max_frames so that everybody is seen throughout."
        )


def _runs(numbers: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield the first and last of each run of consecutive numbers."""
    for run in np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1):
        if len(run):
            yield int(run[0]), int(run[-1])


def _range(start: int, end: int) -> str:
    return f"frame {start}" if start == end else f"frames {start} to {end}"


def _tell_crossings(driving: Sightings, listener: Listener) -> None:
    for one, other in combinations(driving.seen, 2):
        both = np.intersect1d(driving.where(one), driving.where(other))
        if not len(both):
            continue
        pairs = [(driving.boxes[n][one], driving.boxes[n][other]) for n in both]
        shared = np.array([_overlap(*pair) for pair in pairs])
        sides = np.sign([a.left + a.right - b.left - b.right for a, b in pairs])
        parts = []
        if shared.max() > CROSSED:
            start, worst = both[np.argmax(shared > CROSSED)], both[shared.argmax()]
            most = f", most in frame {driving.first + worst}" if worst != start else ""
            parts.append(f"overlap from frame {driving.first + start} on{most}")
        begun = sides[sides != 0]
        turned = np.flatnonzero(sides == -begun[0]) if len(begun) else []
        if len(turned):
            parts.append(f"change sides in frame {driving.first + both[turned[0]]}")
        if parts:
            listener.warn(
                f"In the {DRIVING} {one} and {other} {' and '.join(parts)}: trackers swap people there, and users "
                "report that the model goes by the place more than by the colour. Look whether everybody keeps their "
                "colour in the frames after it, or use a part of the video without the crossing."
            )


def _overlap(one: Box, other: Box) -> float:
    """Return which share of the smaller box lies in the other."""
    width = min(one.right, other.right) - max(one.left, other.left)
    height = min(one.bottom, other.bottom) - max(one.top, other.top)
    smaller = min(one.width * one.height, other.width * other.height)
    return max(width, 0) * max(height, 0) / smaller


def _tell_size(driving: Sightings, reference: Sightings, scene: PreparedScene, listener: Listener) -> None:
    people = reference.boxes[0]
    first = next((number for number, boxes in enumerate(driving.boxes) if boxes.keys() & people.keys()), None)
    if first is None:
        return
    boxes = driving.boxes[first]
    shared = [colour for colour in IDENTITIES if colour in boxes and colour in people]
    whose = union([people[colour] for colour in shared]), union([boxes[colour] for colour in shared])
    edge = len(_thinned(scene.driving_mask[first]))
    is_cut, driving_is_cut = (box.top <= 0 or box.bottom >= edge for box in whose)
    if is_cut == driving_is_cut:
        factor, what = whose[0].height / whose[1].height, "tall"
    else:  # whose height ends at the picture's edge says little
        areas = [_area(mask, shared) for mask in (scene.reference_masks[0][0], scene.driving_mask[first])]
        factor, what = (areas[0] / areas[1]) ** 0.5, "large"
    if 1 / LARGER <= factor <= LARGER:
        return
    cut = "reference" if is_cut else "driving video"
    whole = (
        "" if is_cut == driving_is_cut else f", or match how much both show: the {cut}'s picture cuts the person off"
    )
    who = "person is" if len(shared) == 1 else "people are"
    listener.warn(
        f"The reference's {who} {factor:.2g} times as {what} as the driving video's ({' and '.join(shared)}, frame "
        f"{driving.first + first}), so the character may come out too {'large' if factor > 1 else 'small'}: put "
        f"Scail2FitReference before the sampler, which scales and places the reference{whole}."
    )


def _area(mask: np.ndarray, colours: list[str]) -> int:
    """Return how many pixels of a mask [H, W, 3] have one of these colours."""
    return int(planes(mask)[..., [list(PLANES).index(colour) for colour in colours]].sum())
