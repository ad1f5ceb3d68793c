"""How a picture is cut into tiles, so that the VAE needs less memory at a time."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import RequestError

MIN_TILE = 128  # pixels
TILE_STEP = 8


@dataclass(frozen=True, slots=True)
class Tiling:
    """Square tiles of `size` pixels, computed from surroundings of which neighbours share `overlap` pixels.

    Both are multiples of 8. Tiles are exact: an overlap below what the network sees of the surroundings is raised to
    it, and a larger one changes nothing but the time.
    """

    size: int
    overlap: int

    def __post_init__(self) -> None:
        """Raise RequestError for tiles that cannot be cut."""
        if self.size < MIN_TILE or self.size % TILE_STEP or self.overlap % TILE_STEP:
            raise RequestError(
                f"Tiles of {self.size} pixels with {self.overlap} pixels of overlap cannot be cut: the size must be at "
                f"least {MIN_TILE}, and both must be multiples of {TILE_STEP}."
            )
        if not 0 < self.overlap <= self.size // 2:
            raise RequestError(
                f"A tile overlap of {self.overlap} pixels does not fit tiles of {self.size}: "
                f"use {TILE_STEP} to {self.size // 2}."
            )
