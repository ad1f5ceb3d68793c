"""Frame rates: which frames a clip shows at another rate, and sound cut to the same length. numpy only."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from ..interface.errors import RequestError
from ..interface.events import Listener

DENOMINATOR = 1001  # the largest in use: NTSC's 29.97 is 30000/1001
SLACK = 0.25  # seconds by which sound and pictures of one file may differ: sound is packed in blocks


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Resampling:
    """How a clip of `frames` frames at rate `source` is shown at rate `target`, both in frames per second.

    `picks` int64 [n]: for each new frame the number of the old frame that it shows.
    """

    frames: int
    source: Fraction
    target: Fraction
    picks: np.ndarray

    @property
    def seconds(self) -> float:
        """Duration of the new clip."""
        return float(len(self.picks) / self.target)

    @property
    def is_identity(self) -> bool:
        """Whether every frame is shown once."""
        return len(self.picks) == self.frames and self.source == self.target

    def __str__(self) -> str:
        before = f"{self.frames} frames at {float(self.source):.6g} fps ({float(self.frames / self.source):.2f} s)"
        after = f"{len(self.picks)} at {float(self.target):.6g} fps ({self.seconds:.2f} s)"
        return f"{before} become {after}; {self.frames - len(np.unique(self.picks))} are left out."


def resampling(frames: int, source_fps: float, target_fps: float, count: int | None = None) -> Resampling:
    """Pick for every moment of the new clip the last old frame at or before it; nothing is blended.

    The new clip is as long as the old one to within half a new frame, and has at least one frame; or it has `count`
    frames, at the end of which the last old one is held where there is no later one. Rates are read as
    fractions, so that 29.97002997 is 30000/1001 and moments that coincide do so exactly.

    Raises RequestError for no frames and for rates that are not numbers above 0.
    """
    if frames < 1:
        raise RequestError("The images have 0 frames: connect a batch with at least one.")
    source, target = _rate("source_fps", source_fps), _rate("target_fps", target_fps)
    if count is None:
        count = max(1, math.floor(frames * target / source + Fraction(1, 2)))
    step = source / target
    picks = np.minimum(np.arange(count, dtype=np.int64) * step.numerator // step.denominator, frames - 1)
    return Resampling(frames=frames, source=source, target=target, picks=picks)


def check_same_length(name: str, frames: int, images: int) -> None:
    """Raise RequestError unless a batch of `frames` goes with `images` frame by frame."""
    if frames != images:
        raise RequestError(
            f"The {name} has {frames} frame{'s' * (frames != 1)} and the images {images}: they must go frame by frame, "
            "so load both from the same range, or repeat a still mask."
        )


def fitted_waveform(waveform: np.ndarray, sample_rate: int, seconds: float, listener: Listener) -> np.ndarray:
    """Cut a waveform [B, C, N] at the end, or lengthen it by silence, to `seconds`; its samples stay as they are.

    Raises RequestError for another shape and for a sample rate that is not above 0; tells a difference that can be
    heard.
    """
    if waveform.ndim != 3 or not sample_rate > 0:
        raise RequestError(
            f"The audio has shape {list(waveform.shape)} and {sample_rate} samples per second, but [batch, channels, "
            "samples] and a rate above 0 are needed: connect the audio output of a node that loads video or audio."
        )
    lasts = waveform.shape[-1] / sample_rate
    if abs(lasts - seconds) > SLACK:
        done = "its end is cut" if lasts > seconds else "silence follows it"
        listener.note(
            f"The audio lasts {lasts:.2f} s and the clip {seconds:.2f} s: {done}. If they belong together, check "
            "source_fps, which may be that of another video."
        )
    wanted = round(seconds * sample_rate)
    cut = waveform[..., :wanted]
    return np.pad(cut, ((0, 0), (0, 0), (0, wanted - cut.shape[-1])))


def _rate(name: str, fps: float) -> Fraction:
    rate = Fraction(fps).limit_denominator(DENOMINATOR) if math.isfinite(fps) else Fraction(0)
    if rate <= 0:
        raise RequestError(
            f"The {name} is {fps}, but it must be a number of frames per second above 0 (usual: 16, 24, 25 or 30): "
            "connect the fps output of the node that loads the video."
        )
    return rate
