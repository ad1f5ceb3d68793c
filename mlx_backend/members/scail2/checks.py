"""What can be wrong with pictures and masks, found before anything heavy is loaded."""

from __future__ import annotations

import numpy as np

from ...interface.errors import RequestError
from ...interface.events import Listener
from ...interface.pictures import Pictures
from ...interface.variants import MODES
from ...media.footage import Footage
from .defaults import SCAIL2
from .masks import IDENTITIES, PERSON_THRESHOLD, THRESHOLD, WHITE, planes

EMPTY_SHARE = 1e-4  # share of a frame below which a person is too small to see
GRID = 64  # cells along a frame's shorter side in which colours are counted
FLAT = 0.1  # a cell lies inside a person, not on a soft edge, where it and its neighbours differ by less
COLOURED = 0.25  # a pixel has a colour, rather than being black, grey or white, where its channels differ by more
PERSON_SHARE = 0.03  # share of the people's cells from which a colour is a person
NEAR_RATE = 0.5  # frames per second beside the trained rate that nobody sees
SURPLUS, SURPLUS_BYTES = 2, 1_000_000_000  # times what is needed, and bytes above it, that are worth a word
PURE = (0, 2)  # levels of a channel in a known colour, of 0, 1 and 2


def check_shape(name: str, pictures: Pictures, *, is_mask: bool = False) -> None:
    """Raise RequestError unless pictures are [F, H, W, 3] (or a mask, [F, H, W] too) with at least one pixel."""
    if not (pictures.ndim == 4 and pictures.shape[-1] == 3) and not (is_mask and pictures.ndim == 3):
        allowed = "[frames, height, width, 3]" + ", or [frames, height, width] for one person" * is_mask
        raise RequestError(
            f"The {name} has shape {list(pictures.shape)}, but {allowed} is needed: convert it to colour without alpha."
        )
    if len(pictures) == 0:
        raise RequestError(f"The {name} has 0 frames: connect one with at least one frame.")
    if min(pictures.shape[1:3]) == 0:
        raise RequestError(
            f"The {name} has pictures of {pictures.shape[2]} x {pictures.shape[1]} pixels: connect one that has any."
        )


def checked_pixels(
    name: str, pictures: Pictures, listener: Listener, *, is_mask: bool = False, first: int = 0
) -> Pictures:
    """Return pictures [F, H, W, 3] (or a mask, [F, H, W] too) as float32 within 0..1; `first` numbers its frame 0.

    Footage stays as it is: its pixels cannot be others.
    Raises RequestError for another shape, no frames or values that are not numbers; warns when it had to clip.
    """
    check_shape(name, pictures, is_mask=is_mask)
    if isinstance(pictures, Footage):
        return pictures
    low, high = float(pictures.min()), float(pictures.max())  # one NaN makes both NaN
    if np.isnan(low) or np.isnan(high):
        frames = np.flatnonzero(np.isnan(pictures).any(axis=tuple(range(1, pictures.ndim))))
        raise RequestError(
            f"The {name} has pixels that are not numbers (NaN), first in frame {first + frames[0]}: "
            "the node or file it comes from is broken, check it in a preview."
        )
    if low < 0 or high > 1:
        advice = " (if they are meant as 0..255, divide them by 255 first)" if high > 2 else ""
        listener.warn(f"The {name} has pixels from {low:.3g} to {high:.3g}; they are clipped to 0..1{advice}.")
        return np.clip(pictures, 0, 1).astype(np.float32)
    return pictures.astype(np.float32, copy=False)


def tell_surplus(name: str, pictures: Pictures | None, cut: slice, size: tuple[int, int], listener: Listener) -> None:
    """Warn of pictures in memory that are far more than a run needs: those of `cut`, at `size` (width, height).

    Footage and arrays on the disk take no memory.
    """
    if not isinstance(pictures, np.ndarray) or isinstance(pictures, np.memmap) or pictures.ndim < 3:
        return
    frames, height, width = pictures.shape[:3]
    used = len(range(frames)[cut])
    needed = pictures.nbytes * used * size[0] * size[1] // max(1, frames * width * height)
    if pictures.nbytes - needed > SURPLUS_BYTES and pictures.nbytes > SURPLUS * needed:
        listener.warn(
            f"The {name} takes {pictures.nbytes / 1e9:.1f} GB as {frames} images of {width}x{height}, and the "
            f"run needs {used} of {size[0]}x{size[1]}: connect the video output of SCAIL-2 Load Video to "
            f"'{_socket(name)}' instead, which saves about {(pictures.nbytes - needed) / 1e9:.1f} GB."
        )


def check_rate(fps: float, frames: int, listener: Listener) -> None:
    """Warn when `frames` frames at `fps` per second are not at the rate that the model was trained on."""
    trained = SCAIL2.driving_fps
    if frames > 1 and abs(fps - trained) > NEAR_RATE:
        listener.warn(
            f"The driving video has {fps:g} frames per second, and SCAIL-2 was trained on {trained:g}: it will "
            f"see the motion {fps / trained:.2g} times as slow. Bring it to {trained:g} first "
            "(Scail2ResampleFps), and back after decoding."
        )


def check_mask(
    name: str,
    mask: Pictures,
    background: tuple[float, float, float],
    mode: str,
    listener: Listener,
    *,
    first: int = 0,
    scenes: int | None = None,
) -> None:
    """Look at a coloured mask [F, H, W, 3]: people in it, how many, how pure, and the colour around them.

    `background` is what `mode` wants around the people in the first `scenes` frames, None for all: extra views of a
    reference may be cut out. `first` numbers the mask's frame 0. Raises RequestError when no
    frame shows a person or more than six colours are people; warns about frames without a person, colours that the
    model does not know, and another background.
    """
    people = [planes(frame)[..., 1:].any(axis=-1).mean() for frame in mask]  # all planes but white
    empty = np.flatnonzero(np.asarray(people) < EMPTY_SHARE)
    if len(empty) == len(mask):
        where = "" if len(mask) == 1 else f" in any of its {len(mask)} frames"
        raise RequestError(
            f"The {name} shows no person{where}: paint each person in a pure colour ({', '.join(IDENTITIES)}) with "
            "channels above 225 of 255, or connect a MASK of one person; white, grey and black are background."
        )
    if len(empty):
        listener.warn(
            f"The {name} shows no person in {len(empty)} of {len(mask)} frames ({100 * len(empty) / len(mask):.1f} %; "
            f"the first is frame {first + empty[0]}): the model cannot tell there who is the character."
        )
    _check_colours(name, mask, listener, first)
    _check_background(name, mask[:scenes], background, mode, listener)


def _check_colours(name: str, mask: Pictures, listener: Listener, first: int) -> None:
    known: set[bytes] = set()
    foreign: dict[bytes, str] = {}
    weak: dict[bytes, str] = {}
    for i, frame in enumerate(mask):
        for levels, mean in _people_colours(frame):
            where = "#{:02X}{:02X}{:02X} in frame {}".format(*np.rint(255 * mean).astype(int), first + i)
            if not np.isin(levels, PURE).all():
                foreign.setdefault(levels.tobytes(), where)
                continue
            known.add(levels.tobytes())
            if (mean[levels == PURE[1]] <= THRESHOLD).any():
                weak.setdefault(levels.tobytes(), where)
    if len(known) + len(foreign) > len(IDENTITIES):
        raise RequestError(
            f"The {name} shows {len(known) + len(foreign)} people by colour, but the model knows {len(IDENTITIES)} "
            f"({', '.join(IDENTITIES)}): remove some people from it, or check what is connected to '{_socket(name)}'."
        )
    if foreign:
        listener.warn(
            f"The {name} has colours that the model does not know ({', '.join(foreign.values())}) and takes for "
            f"background or another person: paint each person in one of {', '.join(IDENTITIES)}."
        )
    if weak:
        listener.warn(
            f"The {name} has people in colours too weak for the model ({', '.join(weak.values())}): a channel that is "
            "not above 225 of 255 is off, so they are background or another person. Paint them in pure colours; "
            "Scail2ColoredMask does so with what is connected to it."
        )


def _people_colours(frame: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Find the colours of a frame [H, W, 3] that cover enough to be people: levels [3] of 0 to 2, and their mean [3].

    Only cells like all their neighbours count, so blurred or compressed edges make no colours of their own.
    """
    step = max(1, min(frame.shape[:2]) // GRID)
    cells = frame[::step, ::step]
    around = np.lib.stride_tricks.sliding_window_view(cells, (3, 3), axis=(0, 1))
    flat = (np.ptp(around, axis=(-2, -1)) < FLAT).all(axis=-1)
    inner = cells[1:-1, 1:-1]
    people = inner[flat & (np.ptp(inner, axis=-1) > COLOURED)]
    found, member, counts = np.unique(np.rint(2 * people).astype(int), axis=0, return_inverse=True, return_counts=True)
    colours = []
    for i, levels in enumerate(found):
        if counts[i] > PERSON_SHARE * len(people):
            colours.append((levels, people[member.reshape(-1) == i].mean(axis=0)))
    return colours


def _check_background(
    name: str, mask: Pictures, wanted: tuple[float, float, float], mode: str, listener: Listener
) -> None:
    around, pixels = 0, {"white": 0, "black": 0}
    for frame in mask:
        red, green, blue = np.moveaxis(frame, -1, 0)  # reducing the last axis takes many times as long
        least, most = np.minimum(np.minimum(red, green), blue), np.maximum(np.maximum(red, green), blue)
        around += np.count_nonzero(most - least < COLOURED)
        pixels["white"] += np.count_nonzero(least > THRESHOLD)
        pixels["black"] += np.count_nonzero(most < PERSON_THRESHOLD)
    right, wrong = ("white", "black") if wanted == WHITE else ("black", "white")
    if pixels[right] < 0.5 * around:
        found = wrong if pixels[wrong] > 0.5 * around else "grey"
        other_mode = MODES[1 - MODES.index(mode)]
        listener.warn(
            f"The {name} has a {found} background, but {mode} mode wants {right} there ({wrong} is for "
            f"{other_mode}): check the mode, or what is connected to '{_socket(name)}'."
        )


def _socket(name: str) -> str:
    return name.replace(" ", "_")
