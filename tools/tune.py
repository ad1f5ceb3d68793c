"""The music of the long sample: a music box, one note on each half beat."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

STEP_SECONDS = 0.25
"""Time from one note to the next: half a beat at 120 beats a minute."""

SAMPLE_RATE = 24000
A4 = 440.0
MELODY = (0, 4, 7, 12, 9, 7, 4, 2, 0, 5, 9, 12, 11, 7, 2, -1)
"""Semitones above A, one for each half beat; after the last the round begins again."""

PARTIALS = ((1.0, 1.0, 3.0), (2.0, 0.35, 5.0), (5.4, 0.12, 12.0))
"""Of a plucked comb tooth: frequency relative to the note, strength, and decay per second."""


def tune(seconds: float) -> NDArray[np.float32]:
    """Samples (N,) in -1..1 at `SAMPLE_RATE`."""
    total = round(seconds * SAMPLE_RATE)
    track = np.zeros(total)
    for index in range(int(np.ceil(seconds / STEP_SECONDS))):
        start = round(index * STEP_SECONDS * SAMPLE_RATE)
        note = A4 * 2.0 ** (MELODY[index % len(MELODY)] / 12.0)
        t = np.arange(min(SAMPLE_RATE, total - start)) / SAMPLE_RATE
        for ratio, strength, decay in PARTIALS:
            # The short rise keeps the start of a note from clicking.
            rise = np.minimum(t / 0.004, 1.0)
            track[start : start + len(t)] += strength * rise * np.exp(-decay * t) * np.sin(2 * np.pi * note * ratio * t)
    return (0.4 * track / np.abs(track).max()).astype(np.float32)
