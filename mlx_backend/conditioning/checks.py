"""What can be wrong with pictures and masks, found before anything heavy is loaded."""

from __future__ import annotations

import numpy as np

from ..spec.errors import RequestError
from ..spec.events import Listener
from .masks import BLACK, IDENTITIES, planes

EMPTY_SHARE = 1e-4  # share of a frame below which a person is too small to see
COLOUR_SHARE = 0.04  # share of the people's pixels from which a colour is a person, not a blurred edge
BACKGROUND_SHARE = 0.9  # share of the background that must have one colour to be called so


def checked_pixels(name: str, pictures: np.ndarray, listener: Listener) -> np.ndarray:
    """Return pictures [F, H, W, 3] (or a mask [F, H, W]) as float32 within 0..1.

    Raises RequestError for another shape, no frames or values that are not numbers; warns when it had to clip.
    """
    if pictures.ndim not in (3, 4) or (pictures.ndim == 4 and pictures.shape[-1] != 3):
        raise RequestError(
            f"The {name} has shape {list(pictures.shape)}, but pictures are [frames, height, width, 3] "
            "and one person's masks [frames, height, width]."
        )
    if len(pictures) == 0:
        raise RequestError(f"The {name} has 0 frames: connect one with at least one frame.")
    if min(pictures.shape[1:3]) == 0:
        raise RequestError(f"The {name} has pictures of {pictures.shape[2]} x {pictures.shape[1]} pixels: it is empty.")
    low, high = float(pictures.min()), float(pictures.max())  # one NaN makes both NaN
    if np.isnan(low) or np.isnan(high):
        frames = np.flatnonzero(np.isnan(pictures).any(axis=tuple(range(1, pictures.ndim))))
        raise RequestError(
            f"The {name} has pixels that are not numbers (NaN), first in frame {frames[0]}: "
            "the node or file it comes from is broken, check it in a preview."
        )
    if low < 0 or high > 1:
        listener.warn(f"The {name} has pixels from {low:.3g} to {high:.3g}; they are clipped to 0..1.")
        return np.clip(pictures, 0, 1).astype(np.float32)
    return pictures.astype(np.float32, copy=False)


def check_mask(name: str, mask: np.ndarray, background: tuple[float, float, float], listener: Listener) -> None:
    """Look at a coloured mask [F, H, W, 3]: people in it, how many, and the colour around them.

    Raises RequestError when no frame shows a person or more than six colours are people; warns about frames without a
    person and about a background that the mode does not want.
    """
    seven = planes(mask)
    people = seven[..., 1:].any(axis=-1)  # every colour but white
    shares = people.mean(axis=(1, 2))
    empty = np.flatnonzero(shares < EMPTY_SHARE)
    if len(empty) == len(mask):
        raise RequestError(
            f"The {name} shows no person in any of its {len(mask)} frames: paint each person in a pure colour "
            f"({', '.join(IDENTITIES)}), with channels above 225 of 255."
        )
    if len(empty):
        listener.warn(
            f"The {name} shows no person in {len(empty)} of {len(mask)} frames (the first is frame {empty[0]}): "
            "the character may vanish there."
        )
    colours = max(_people_colours(frame) for frame in mask)
    if colours > len(IDENTITIES):
        raise RequestError(
            f"The {name} shows {colours} people by colour, but the model knows {len(IDENTITIES)} "
            f"({', '.join(IDENTITIES)}): remove some people from it."
        )
    _check_background(name, mask, seven, people, background, listener)


def _people_colours(frame: np.ndarray) -> int:
    """Count the colours of a frame [H, W, 3] that cover enough to be people, off-palette ones included."""
    levels = np.minimum((frame * 3).astype(np.int32), 2)
    bins = np.bincount((levels @ np.array([9, 3, 1])).reshape(-1), minlength=27)
    bins[[0, 13, 26]] = 0  # black, grey and white
    return int((bins > COLOUR_SHARE * max(bins.sum(), 1)).sum())


def _check_background(
    name: str,
    mask: np.ndarray,
    seven: np.ndarray,
    people: np.ndarray,
    wanted: tuple[float, float, float],
    listener: Listener,
) -> None:
    around = ~people
    if not around.any():
        return
    white = float(seven[..., 0][around].mean())
    black = float((mask < 0.25).all(axis=-1)[around].mean())
    share, found, mode = (white, "white", "replacement") if wanted == BLACK else (black, "black", "animation")
    if name.startswith("reference"):
        mode = "animation" if mode == "replacement" else "replacement"
    if share > BACKGROUND_SHARE:
        wanted_name = "black" if wanted == BLACK else "white"
        listener.warn(
            f"The {name} has a {found} background, which is right for {mode} mode; this mode wants {wanted_name}: "
            f"check the mode, or what is connected to '{name.replace(' ', '_')}'."
        )
