"""Outlines of parts for all frames of a clip at once, and the canvas that they are painted on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SUPERSAMPLING = 3  # odd, so that the middle of a pixel is a sample
SOFTNESS = 0.7  # of the lens, in pixels: a small VAE spends little on edges that are no sharper than this
Colour = tuple[int, int, int]


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Something of one colour: `outlines` [F, points, 2] in frame widths, y down; `label` is what masks know it by."""

    outlines: np.ndarray
    colour: Colour
    label: int


def capsule(start: np.ndarray, end: np.ndarray, start_radius: float, end_radius: float) -> np.ndarray:
    """Return the outline [F, 14, 2] of a limb with round ends from `start` [F, 2] to `end` [F, 2]."""
    along = end - start
    angle = np.arctan2(along[:, 1], along[:, 0])[:, None]
    half = np.linspace(-np.pi / 2, np.pi / 2, 7)[None]

    def cap(centre: np.ndarray, radius: float, turn: float) -> np.ndarray:
        angles = angle + half + turn
        return centre[:, None] + radius * np.stack([np.cos(angles), np.sin(angles)], axis=-1)

    return np.concatenate([cap(end, end_radius, 0.0), cap(start, start_radius, np.pi)], axis=1)


def disc(centre: np.ndarray, radius: float, points: int = 18) -> np.ndarray:
    """Return the outline [F, points, 2] of discs about `centre` [F, 2]."""
    angles = np.linspace(0, 2 * np.pi, points, endpoint=False)
    return centre[:, None] + radius * np.stack([np.cos(angles), np.sin(angles)], axis=-1)


def placed(outline: np.ndarray, centre: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Turn an outline [points, 2] by `angle` [F] radians and move it to `centre` [F, 2]: [F, points, 2]."""
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    x, y = outline[None, :, 0], outline[None, :, 1]
    return centre[:, None] + np.stack([x * cos - y * sin, x * sin + y * cos], axis=-1)


def seen(picture: Image.Image) -> Image.Image:
    """Return what the camera makes of a picture that was drawn SUPERSAMPLING times as large."""
    return picture.reduce(SUPERSAMPLING).filter(ImageFilter.GaussianBlur(SOFTNESS))


def paint(base: Image.Image, parts: list[Part], frames: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Paint parts, the first one at the back, over `base` (the backdrop, `size` x SUPERSAMPLING on each side).

    Returns pictures [F, size, size, 3] and the labels [F, size, size] at the middles of the pixels, both uint8;
    0 is the backdrop.
    """
    scale = size * SUPERSAMPLING
    outlines = [(part.outlines * scale).reshape(frames, -1).tolist() for part in parts]
    pictures = np.empty((frames, size, size, 3), np.uint8)
    labels = np.empty((frames, size, size), np.uint8)
    middle = slice(SUPERSAMPLING // 2, None, SUPERSAMPLING)
    for frame in range(frames):
        picture, label = base.copy(), Image.new("L", base.size, 0)
        on_picture, on_label = ImageDraw.Draw(picture), ImageDraw.Draw(label)
        for part, outline in zip(parts, outlines, strict=True):
            on_picture.polygon(outline[frame], fill=part.colour)
            on_label.polygon(outline[frame], fill=part.label)
        pictures[frame] = np.asarray(seen(picture))
        labels[frame] = np.asarray(label)[middle, middle]
    return pictures, labels
