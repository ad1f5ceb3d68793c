"""How a driving video of any length is cut into overlapping segments, without losing a frame."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import RequestError
from .geometry import covering_frames

LONGEST = 1025  # frames of a segment that can be asked for
KEPT = "scail2_resume"  # the folder of finished segments: in ComfyUI's output folder, or beside an output


@dataclass(frozen=True, slots=True)
class Segment:
    """One window: `start` in the driving video, `frames` generated (4k+1), of which the first `history` are known."""

    start: int
    frames: int
    history: int


@dataclass(frozen=True, slots=True)
class SegmentPlan:
    """The windows of a run. Joined (each later one without its history) they hold at least `frames` pictures."""

    segments: tuple[Segment, ...]
    frames: int
    overlap: int

    @property
    def padded_frames(self) -> int:
        """Frames that the windows cover; the driving video is padded with its last frame up to here."""
        last = self.segments[-1]
        return last.start + last.frames


def check_segments(length: int, overlap: int) -> None:
    """Raise RequestError unless both are 4k+1 and 0 < overlap < length."""
    for name, value in (("segment length", length), ("segment overlap", overlap)):
        if value < 1 or value % 4 != 1:
            near = max(1, (value - 1) // 4 * 4 + 1)
            raise RequestError(
                f"The {name} is {value} frames, but the VAE works on 4k+1 frames: use {near} or {near + 4}."
            )
    if overlap >= length:
        raise RequestError(
            f"The segment overlap ({overlap} frames) must be smaller than the segment length ({length} frames)."
        )


def plan_segments(frames: int, length: int, overlap: int) -> SegmentPlan:
    """Cut `frames` driving frames into windows of `length` that advance by `length - overlap`.

    The last window is the smallest 4k+1 that covers the overlap and what is left. Upstream drops that
    tail (`wan/scail.py::build_segments`); here it is generated, padded by the last frame, and trimmed.
    Raises RequestError for impossible lengths or an empty video.
    """
    check_segments(length, overlap)
    if frames < 1:
        raise RequestError("The driving video has 0 frames: connect a video with at least one frame.")
    segments = [Segment(0, min(length, covering_frames(frames)), 0)]
    while segments[-1].start + segments[-1].frames < frames:
        start = segments[-1].start + length - overlap
        segments.append(Segment(start, min(length, covering_frames(frames - start)), overlap))
    return SegmentPlan(tuple(segments), frames, overlap)
