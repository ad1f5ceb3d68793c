"""The sound of a file, or the part of it that goes with some of its pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..interface.errors import MediaError
from .decode import reason_of, require_av

DRIFT = 0.1  # seconds between a time stamp and the samples so far that are no rounding, but a gap or an overlap


@dataclass(frozen=True, slots=True, eq=False)
class Sound:
    """Samples `waveform` float32 [channels, N] in -1..1, `rate` of them per second."""

    waveform: np.ndarray
    rate: int


def read_sound(path: Path, start: float, seconds: float) -> Sound | None:
    """Return `seconds` of the first sound track from `start` on, in seconds of the file; None where there is no track.

    Where the track begins later, has a gap or ends before, there is silence. Raises MediaError for a damaged file.
    """
    av = require_av(path, "Reading the sound of")
    try:
        with av.open(str(path.resolve()), metadata_errors="replace") as container:
            if not container.streams.audio:
                return None
            stream = container.streams.audio[0]
            rate, layout = stream.codec_context.sample_rate, stream.codec_context.layout
            waveform = np.zeros((layout.nb_channels, round(seconds * rate)), np.float32)
            planes = av.AudioResampler(format="fltp", layout=layout, rate=rate)
            if start > 1:
                container.seek(int((start - 1) / stream.time_base), stream=stream)
            place: int | None = None
            for frame in container.decode(stream):
                told = place if frame.time is None else round((frame.time - start) * rate)
                if place is None or abs(told - place) > DRIFT * rate:
                    place = told or 0
                for piece in planes.resample(frame):
                    place = _put(waveform, piece.to_ndarray(), place)
                if place >= waveform.shape[1]:
                    break
    except (av.error.FFmpegError, OSError, ValueError, RuntimeError) as error:
        raise MediaError(
            f"The sound of {path} cannot be decoded ({reason_of(error)}): export the file anew, or take its sound away."
        ) from error
    return Sound(waveform, rate)


def _put(waveform: np.ndarray, samples: np.ndarray, place: int) -> int:
    """Write samples [C, n] where they belong, as far as they lie within; return the place behind them."""
    end = place + samples.shape[1]
    first, last = max(place, 0), min(end, waveform.shape[1])
    if first < last:
        waveform[:, first:last] = samples[:, first - place : last - place]
    return end
