"""The reference picture scaled and placed so that its person stands where the driving video's person does."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from ...interface.errors import RequestError
from ...interface.events import Listener
from ...interface.geometry import check_size, oriented_size
from ...interface.pictures import Pictures
from ...interface.requests import check_mode
from ...interface.variants import MODES
from ...media.resize import MASK, PHOTO, fit, resized
from ...media.video import to_uint8
from .checks import EMPTY_SHARE, check_mask, checked_pixels
from .masks import PLANES, driving_background, painted, planes, reference_background
from .scene import black_around, coloured, tell_size

METHODS = ("fit", "match_height", "off")
BLURRED = 2.0  # the reference is enlarged by more than this: its person lacks detail
INVENTED = 0.5  # share of the picture above which the reference's own scene is the smaller part of it
HALO = 4  # pixels around a person in which the picture may still show it
LINE = (255, 140, 0)
PEOPLE = tuple(PLANES)[1:]  # without white


@dataclass(frozen=True, kw_only=True, slots=True)
class Framing:
    """How the reference is to be placed in a picture of `width` x `height` pixels, multiples of 32.

    `method`: "fit" scales its person into the driving person's box, "match_height" to its height; both put it on the
    middle of the box's bottom edge. "off" crops as the sampler does. `start_frame` is the first frame of the driving
    mask that counts.
    """

    mode: str = MODES[0]
    method: str = METHODS[0]
    width: int
    height: int
    start_frame: int = 0

    def __post_init__(self) -> None:
        """Raise RequestError for settings that fit no picture."""
        check_size(self.width, self.height)
        check_mode(self.mode)
        if self.method not in METHODS:
            raise RequestError(f"The framing method '{self.method}' is unknown: choose one of {', '.join(METHODS)}.")

    @property
    def is_replacement(self) -> bool:
        """Whether the driving video's scene is kept, and the reference's is blacked out."""
        return self.mode == "replacement"

    @property
    def is_off(self) -> bool:
        """Whether nothing is moved."""
        return self.method == "off"


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels from the top left corner; right and bottom are the first pixels outside."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        """Pixels across."""
        return self.right - self.left

    @property
    def height(self) -> float:
        """Pixels down."""
        return self.bottom - self.top


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a picture goes: its pixel (x, y) to (left + scale * x, top + scale * y)."""

    scale: float
    left: float
    top: float

    def __call__(self, box: Box) -> Box:
        """Return where a box of the picture comes to lie."""
        return Box(
            self.left + self.scale * box.left,
            self.top + self.scale * box.top,
            self.left + self.scale * box.right,
            self.top + self.scale * box.bottom,
        )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FittedReference:
    """References [N, H, W, 3] and masks [M, H, W, 3] at the size asked for, float32 in 0..1.

    `preview` [1, H, W, 3] is the first reference with the driving person's box. `scale`: how much larger its person is
    than the sampler's own crop would show it.
    """

    references: np.ndarray
    masks: np.ndarray
    preview: np.ndarray
    scale: float


def fit_reference(
    references: np.ndarray, masks: np.ndarray, driving_mask: Pictures, framing: Framing, listener: Listener
) -> FittedReference:
    """Place the first reference [N, H, W, 3]; extra views behind it are cropped as the sampler does.

    `masks` go with the references in order; like `driving_mask` they are coloured [F, H, W, 3] or one person's
    [F, H, W]. The driving person is taken from the first frame that shows somebody of the reference, cropped as the
    sampler crops it. Several people are matched by the box around all that both sides show.

    Space that the moved picture leaves empty continues the picture's edges in animation mode, people left out: no
    border shows where it begins, and nothing is invented. In replacement mode all around the people is black.

    Raises RequestError for pictures that are none, and where the two sides share no identity.
    """
    size = framing.width, framing.height
    references = checked_pixels("reference image", references, listener)
    background = reference_background(replacement=framing.is_replacement)
    masks = coloured("reference mask", masks, background, listener)
    check_mask("reference mask", masks, background, framing.mode, listener, scenes=1)
    tell_size("reference mask", masks, "reference image", references, listener)
    source_height, source_width = references.shape[1:3]
    mask = fit(masks[:1], source_width, source_height, MASK)[0]

    people = people_boxes(mask)
    frame, target, shared = _driving_box(people, driving_mask, framing, listener)
    person = union([people[colour] for colour in shared])

    pictures, moved_masks = [*fit(references, *size, PHOTO)], [*fit(masks, *size, MASK)]
    scale = cover = max(size[0] / source_width, size[1] / source_height)
    empty = 0.0
    if not framing.is_off:
        scale = _scale(person, target, framing.method)
        left = (target.left + target.right) / 2 - scale * (person.left + person.right) / 2
        placement = Placement(scale, left, target.bottom - scale * person.bottom)
        pictures[0], moved_masks[0], empty = _moved(references[0], mask, placement, size, background)
        _warn(placement, person, target, (source_width, source_height), empty, framing, listener)

    if framing.is_replacement:
        shaded = [black_around(one, its) for one, its in zip(pictures, moved_masks, strict=False)]
        pictures[: len(shaded)] = shaded
    fitted = np.clip(np.stack(pictures), 0, 1).astype(np.float32)
    factor = scale / cover
    listener.note(
        f"Frame {frame} of the driving mask shows {' and '.join(shared)} in {target.width:.0f} x {target.height:.0f} "
        f"of {size[0]} x {size[1]} pixels. The reference's person is {factor:.2f} times as large as the sampler's "
        f"crop would show it; {100 * empty:.0f} % of the new picture lies beyond the old one's edges."
    )
    return FittedReference(
        references=fitted, masks=np.stack(moved_masks), preview=_with_box(fitted[0], target)[None], scale=factor
    )


def people_boxes(mask: np.ndarray) -> dict[str, Box]:
    """Return the box of each person in a coloured mask [H, W, 3], by colour in the model's order.

    Specks and lines of fewer than three pixels belong to nobody, and so do colours too small to see.
    """
    boxes = {}
    for colour, plane in zip(PEOPLE, np.moveaxis(planes(mask)[..., 1:] > 0, -1, 0), strict=True):
        if plane.mean() < EMPTY_SHARE:
            continue
        inner = plane[:-2] & plane[1:-1] & plane[2:]
        rows, columns = np.nonzero(inner[:, :-2] & inner[:, 1:-1] & inner[:, 2:])
        if len(rows):
            boxes[colour] = Box(*(int(n) for n in (columns.min(), rows.min(), columns.max() + 3, rows.max() + 3)))
    return boxes


def _driving_box(
    people: Collection[str], driving_mask: Pictures, framing: Framing, listener: Listener
) -> tuple[int, Box, list[str]]:
    """Return the first frame that shows one of `people`, the box around those it shows, and who they are."""
    driving_mask = checked_pixels("driving mask", driving_mask, listener, is_mask=True)
    if not 0 <= framing.start_frame < len(driving_mask):
        raise RequestError(
            f"The start frame is {framing.start_frame}, but the driving mask has {len(driving_mask)} frames: "
            f"choose 0 to {len(driving_mask) - 1}."
        )
    background = driving_background(replacement=framing.is_replacement)
    seen: set[str] = set()
    for number, picture in enumerate(driving_mask[framing.start_frame :], framing.start_frame):
        listener.check_cancelled()
        frame = painted(picture[None], background) if picture.ndim == 2 else picture[None]
        boxes = people_boxes(fit(frame, framing.width, framing.height, MASK)[0])
        shared = [colour for colour in boxes if colour in people]
        if shared:
            return number, union([boxes[colour] for colour in shared]), shared
        seen |= boxes.keys()
    raise RequestError(
        f"The reference mask shows {' and '.join(people) or 'nobody'} and the driving mask "
        f"{' and '.join(sorted(seen)) or 'nobody'} from frame {framing.start_frame} on: the same colour on both sides "
        "means the same person, so paint at least one person in the same colour on both."
    )


def union(boxes: list[Box]) -> Box:
    """Return the smallest box around all of them."""
    return Box(
        min(box.left for box in boxes),
        min(box.top for box in boxes),
        max(box.right for box in boxes),
        max(box.bottom for box in boxes),
    )


def _scale(person: Box, target: Box, method: str) -> float:
    by_height = target.height / person.height
    return by_height if method == "match_height" else min(by_height, target.width / person.width)


def _moved(
    picture: np.ndarray,
    mask: np.ndarray,
    placement: Placement,
    size: tuple[int, int],
    background: tuple[float, float, float],
) -> tuple[np.ndarray, np.ndarray, float]:
    """Return picture and mask [H, W, 3] placed in a frame of `size`, and the share of it that they leave empty."""
    source = Box(0, 0, picture.shape[1], picture.shape[0])
    placed = placement(source)
    left, right = _seen(placed.left, placed.right, size[0])
    top, bottom = _seen(placed.top, placed.bottom, size[1])
    edges = np.array([left, top, right, bottom]) - np.tile([placement.left, placement.top], 2)
    limits = (source.right, source.bottom, source.right, source.bottom)
    box = tuple(float(edge) for edge in np.clip(edges / placement.scale, 0, limits))

    seen = right - left, bottom - top
    part = resized(mask, seen, MASK, box)
    room = ((top, size[1] - bottom), (left, size[0] - right))
    frame = np.broadcast_to(np.asarray(background, np.float32), (size[1], size[0], 3)).copy()
    frame[top:bottom, left:right] = part
    photo = _continued(resized(picture, seen, PHOTO, box), planes(part)[..., 1:].any(axis=-1), room)
    return photo, frame, 1 - seen[0] * seen[1] / (size[0] * size[1])


def _seen(first: float, last: float, length: int) -> tuple[int, int]:
    """Return the pixels of 0..length that first..last covers, at least one."""
    start = min(max(round(first), 0), length - 1)
    return start, max(min(round(last), length), start + 1)


def _continued(picture: np.ndarray, people: np.ndarray, room: tuple[tuple[int, int], tuple[int, int]]) -> np.ndarray:
    """Continue the edges of a picture [h, w, 3] by `room` pixels (before, after) in rows and columns.

    Where an edge shows `people` [h, w], it is continued as if the scene went on behind them.
    """
    elsewhere = picture[~people] if not people.all() else picture.reshape(-1, 3)
    edges = picture.copy()
    for at in (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1]):
        edges[at] = _without_people(edges[at], people[at], elsewhere)
    whole = np.pad(edges, (*room, (0, 0)), mode="edge")
    (top, _), (left, _) = room
    whole[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return whole


def _without_people(line: np.ndarray, people: np.ndarray, elsewhere: np.ndarray) -> np.ndarray:
    """Return a line of pixels [n, 3] with its people bridged from beside them, or all of it the mean of `elsewhere`."""
    if people.all():
        return np.broadcast_to(elsewhere.mean(axis=0), line.shape)
    near = np.convolve(people, np.ones(2 * HALO + 1))[HALO:-HALO] > 0
    hidden = people if near.all() else near
    at, scene = np.arange(len(line)), np.flatnonzero(~hidden)
    return np.stack([np.interp(at, scene, line[scene, channel]) for channel in range(3)], axis=-1)


def _warn(
    placement: Placement,
    person: Box,
    target: Box,
    source: tuple[int, int],
    empty: float,
    framing: Framing,
    listener: Listener,
) -> None:
    size = framing.width, framing.height
    if oriented_size(*size, *source) != size:
        listener.warn(
            f"The reference is {source[0]} x {source[1]} pixels and the size {size[0]} x {size[1]}: the sampler would "
            "have turned the size to the reference's orientation, but keeps it now that the reference has that size."
        )
    for edge, reference_cut, driving_cut in (
        ("top", person.top <= 0, target.top <= 0),
        ("bottom", person.bottom >= source[1], target.bottom >= size[1]),
    ):
        if reference_cut != driving_cut:
            whose, other = ("reference", "driving") if reference_cut else ("driving", "reference")
            listener.warn(
                f"The {whose} person reaches the {edge} edge of the picture and the {other} one does not: somebody cut "
                "off there is matched by the visible part alone, so look at the preview, and use 'off' or a reference "
                "that shows as much of the person."
            )
    moved = placement(person)
    outside = 1 - max(0, min(moved.right, size[0]) - max(moved.left, 0)) / moved.width
    if outside * moved.width > 1:
        listener.warn(
            f"{100 * outside:.0f} % of the width of the reference's person lies outside the picture: use 'fit' "
            "instead of 'match_height'."
        )
    if placement.scale > BLURRED:
        listener.warn(
            f"The reference is enlarged {placement.scale:.1f} times and will look soft: use a picture that shows its "
            "person larger."
        )
    if empty > INVENTED and not framing.is_replacement:
        listener.warn(
            f"{100 * empty:.0f} % of the picture lies beyond the reference's edges, which are only continued there: "
            "use a reference with more of its surroundings, or 'off'."
        )


def _with_box(picture: np.ndarray, box: Box) -> np.ndarray:
    image = Image.fromarray(to_uint8(picture))
    corners = (box.left, box.top, box.right - 1, box.bottom - 1)
    ImageDraw.Draw(image).rectangle(corners, outline=LINE, width=max(2, min(image.size) // 200))
    return np.asarray(image, np.float32) / np.float32(255)
