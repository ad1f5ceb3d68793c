"""Colours with names: bright ones for puppets, pale or dark ones for what is behind them."""

from __future__ import annotations

import colorsys

import numpy as np

HUES = ("red", "orange", "yellow", "green", "turquoise", "blue", "purple", "pink")
_DEGREES = (2, 28, 54, 115, 175, 220, 275, 322)


def bright(rng: np.random.Generator, count: int) -> list[tuple[int, int, int]]:
    """Draw `count` saturated colours, any eight in a row of different hues."""
    hues = np.concatenate([rng.permutation(len(HUES)) for _ in range(-(-count // len(HUES)))])[:count]
    return [_rgb(_DEGREES[hue] + rng.uniform(-7, 7), rng.uniform(0.75, 1.0), rng.uniform(0.75, 1.0)) for hue in hues]


def quiet(rng: np.random.Generator) -> tuple[int, int, int]:
    """Draw a pale or dark colour of any hue."""
    if rng.random() < 0.5:
        return _rgb(rng.uniform(0, 360), rng.uniform(0.05, 0.35), rng.uniform(0.75, 0.98))
    return _rgb(rng.uniform(0, 360), rng.uniform(0.2, 0.6), rng.uniform(0.12, 0.4))


def name(colour: tuple[int, int, int]) -> str:
    """Return the word for a colour."""
    hue, saturation, value = colorsys.rgb_to_hsv(*(c / 255 for c in colour))
    if saturation < 0.7:
        return "pale" if value > 0.5 else "dark"
    distances = [abs((hue * 360 - degrees + 180) % 360 - 180) for degrees in _DEGREES]
    return HUES[int(np.argmin(distances))]


def _rgb(hue: float, saturation: float, value: float) -> tuple[int, int, int]:
    r, g, b = colorsys.hsv_to_rgb(hue % 360 / 360, saturation, value)
    return round(r * 255), round(g * 255), round(b * 255)
