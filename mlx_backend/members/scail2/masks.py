"""Identity masks: what their colours mean, and how they are packed into 28 channels.

Colours are identities, white is visible background, black is background that is not seen.
Source: `extract_and_compress_mask_to_latent` in `wan/utils/scail_utils.py` of zai-org/SCAIL-2.
"""

from __future__ import annotations

import numpy as np

THRESHOLD = 225 / 255  # a channel counts as on above this; compression and scaling blur colours
PERSON_THRESHOLD = 0.1  # a reference pixel belongs to the person where its mask has any channel above this
TEMPORAL = 4
SPATIAL = 8
# Channels on in each of the seven planes, in the model's order.
PLANES = {
    "white": (1, 1, 1),
    "red": (1, 0, 0),
    "green": (0, 1, 0),
    "blue": (0, 0, 1),
    "yellow": (1, 1, 0),
    "magenta": (1, 0, 1),
    "cyan": (0, 1, 1),
}
# The colours that the model was trained to see for the first, second ... person.
IDENTITIES = ("blue", "red", "green", "magenta", "cyan", "yellow")
WHITE, BLACK = (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)


def driving_background(*, replacement: bool) -> tuple[float, float, float]:
    """Return the colour around the people of a driving mask: its scene is kept in replacement, unseen in animation."""
    return WHITE if replacement else BLACK


def reference_background(*, replacement: bool) -> tuple[float, float, float]:
    """Return the colour around the person of a reference mask: its scene is kept in animation only."""
    return BLACK if replacement else WHITE


def painted(mask: np.ndarray, background: tuple[float, float, float]) -> np.ndarray:
    """Paint a one-person mask [F, H, W] in 0..1 in the first identity's colour on a background: [F, H, W, 3]."""
    person = np.asarray(PLANES[IDENTITIES[0]], np.float32)
    return np.where(mask[..., None] > 0.5, person, np.asarray(background, np.float32))


def planes(mask: np.ndarray) -> np.ndarray:
    """Return the seven binary planes [..., 7], float32, of a coloured mask [..., 3] in 0..1; black has none."""
    on = mask > THRESHOLD
    colour = on[..., 0] + 2 * on[..., 1] + 4 * on[..., 2].astype(np.uint8)  # one number is compared faster than three
    return np.stack([colour == red + 2 * green + 4 * blue for red, green, blue in PLANES.values()], axis=-1).astype(
        np.float32
    )


def packed(mask: np.ndarray) -> np.ndarray:
    """Pack a coloured mask [4k+1, H, W, 3] in 0..1 into [28, k+1, H/8, W/8]: shares of each colour in 0..1.

    The first frame stands for four. Channel = frame within its group of four x 7 + colour.
    """
    seven = planes(mask)
    frames, height, width, colours = seven.shape
    cells = seven.reshape(frames, height // SPATIAL, SPATIAL, width // SPATIAL, SPATIAL, colours).mean(axis=(2, 4))
    grouped = np.concatenate([np.repeat(cells[:1], TEMPORAL, axis=0), cells[1:]])
    grouped = grouped.reshape(-1, TEMPORAL, *cells.shape[1:])
    return grouped.transpose(1, 4, 0, 2, 3).reshape(TEMPORAL * colours, -1, *cells.shape[1:3])
