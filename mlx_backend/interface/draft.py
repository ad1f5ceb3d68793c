"""What a draft is: the same run at half the width and height, of its first frames only."""

from __future__ import annotations

from .geometry import SIZE_STEP

DRAFT_FRAMES = 33  # two seconds at 16 fps, nine latent frames
HALF = 2


def draft_size(width: int, height: int) -> tuple[int, int]:
    """Return the width and height (pixels, multiples of 32) of the draft of a run of width x height.

    Halves are rounded down: a draft shows the run at exactly half its scale, and where a half is no multiple of 32, 8
    pixels are cut from both ends of that side. Stretching instead would leave no pixel of the noise where the run has
    it. A size with a side of 32 pixels cannot be halved, and stays as it is.
    """
    scale = HALF if min(width, height) >= HALF * SIZE_STEP else 1
    return width // scale // SIZE_STEP * SIZE_STEP, height // scale // SIZE_STEP * SIZE_STEP
