"""Decodes a video: what is in it is told from its packets, and only the pictures that are asked for become pixels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from ..interface.errors import MediaError
from .tone import NOMINAL_PEAK, Signal, ToneMap

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

REORDERED = 32  # frames before the wanted one at which a search aims: codecs keep at most 16 back to sort them
TAIL = 16  # frames at the end that an index may have and no decoder gives


def require_av(path: Path, action: str) -> ModuleType:
    """Returns the module `av`; raises MediaError that `action` ("Reading", "Writing") `path` needs it."""
    try:
        import av
    except ImportError as error:
        raise MediaError(f"{action} {path} needs PyAV: pip install av") from error
    return av


def reason_of(error: Exception) -> str:
    """The short cause of an error of the system, of Pillow or of FFmpeg, without path or error number."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class VideoFile:
    """A video track: its size upright in pixels, its average rate, and when each of its pictures is shown.

    `moments` int64 [frames], in units of `time_base` seconds; None where the file tells none, or the same twice.
    """

    path: Path
    width: int
    height: int
    frames: int
    fps: float | None
    moments: np.ndarray | None
    time_base: Fraction
    signal: Signal

    @classmethod
    def of(cls, path: Path) -> VideoFile:
        """Read the packets, and decode the first picture. Raises MediaError for what is no video, damaged or empty."""
        with _opened(path) as (container, stream):
            rate, time_base = stream.average_rate, stream.time_base
            told = [packet.pts for packet in container.demux(stream) if packet.size and not packet.is_discard]
        moments = sorted(moment for moment in told if moment is not None)
        is_told = len(moments) == len(told) == len(set(moments))
        count, first = 0, None
        with _opened(path) as (container, stream):
            for frame in container.decode(stream):
                first = first or frame
                count += 1
                if is_told:
                    break
        if first is None:
            raise MediaError(f"The video {path} holds no frame that can be decoded; export it anew.")
        height, width, _ = _upright(first, None).shape
        made = cls(
            path=path,
            width=width,
            height=height,
            frames=len(moments) if is_told else count,
            fps=float(rate) if rate else None,
            moments=np.array(moments, np.int64) if is_told else None,
            time_base=time_base,
            signal=_signal(first),
        )
        # What a header calls the average may be the rate that was asked of a camera.
        return replace(made, fps=made._measured_rate()) if made.is_variable else made

    def _measured_rate(self) -> float:
        return (self.frames - 1) / float((self.moments[-1] - self.moments[0]) * self.time_base)

    def seconds(self, numbers: np.ndarray) -> np.ndarray:
        """Return when pictures are shown; by the average rate where the file does not tell it."""
        return numbers / self.fps if self.moments is None else self.moments[numbers] * float(self.time_base)

    @property
    def is_variable(self) -> bool:
        """Whether some picture is shown half a picture or more beside the time that the average rate has for it."""
        if self.moments is None or not self.fps:
            return False
        shown = self.seconds(np.arange(self.frames))
        return bool(np.abs((shown - shown[0]) * self.fps - np.arange(self.frames)).max() >= 0.5)

    def pictures(self, numbers: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the pictures of ascending numbers as uint8 [H, W, 3]; one that no decoder gives is the one before it.

        HDR and the colours of BT.2020 become SDR of BT.709, see tone.py; all else is as FFmpeg has it.
        Raises MediaError where the file is damaged or the size changes.
        """
        left = list(map(int, numbers[::-1]))
        held: tuple[int, VideoFrame] | None = None
        tone = None if self.signal.is_plain else ToneMap.of(self.signal)
        for number, frame in self._decoded(left[-1]):
            while left and left[-1] < number:
                yield self._pixels(*(held or (number, frame)), tone)
                left.pop()
            held = number, frame
            while left and left[-1] == number:
                yield self._pixels(number, frame, tone)
                left.pop()
            if not left:
                return
        if held is None or left[0] - held[0] > TAIL:
            found = 0 if held is None else held[0] + 1
            raise MediaError(
                f"The video {self.path} says that it has {self.frames} frames, but only the first {found} can be "
                "decoded: it is damaged; export it anew, as H.264 in .mp4 for example."
            )
        for _ in left:
            yield self._pixels(*held, tone)

    def _pixels(self, number: int, frame: VideoFrame, tone: ToneMap | None) -> np.ndarray:
        try:
            pixels = _upright(frame, tone)
        except (OSError, ValueError) as error:  # FFmpeg's errors are of either kind, save those of its own
            raise MediaError(
                f"Frame {number} of the video {self.path} cannot be turned into pixels ({reason_of(error)}): it is "
                "damaged; export it anew, as H.264 in .mp4 for example."
            ) from error
        if pixels.shape[:2] != (self.height, self.width):
            raise MediaError(
                f"The video {self.path} changes its size from {self.width}x{self.height} to "
                f"{pixels.shape[1]}x{pixels.shape[0]} at frame {number}; convert it to one size."
            )
        return pixels

    def _decoded(self, first: int) -> Iterator[tuple[int, VideoFrame]]:
        """Yield numbered frames that begin at `first` or before, in order."""
        if self.moments is not None and first > 2 * REORDERED:
            with _opened(self.path) as (container, stream):
                container.seek(int(self.moments[first - REORDERED]), stream=stream)
                numbered = self._numbered(container.decode(stream))
                found = next(numbered, None)
                if found is not None and found[0] <= first:
                    yield found
                    yield from numbered
                    return
        with _opened(self.path) as (container, stream):
            yield from self._numbered(container.decode(stream))

    def _numbered(self, frames: Iterator[VideoFrame]) -> Iterator[tuple[int, VideoFrame]]:
        for count, frame in enumerate(frames):
            if self.moments is None:
                yield count, frame
            elif frame.pts is not None:
                yield int(np.searchsorted(self.moments, frame.pts, side="right")) - 1, frame


@contextmanager
def _opened(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a video and find its track; what goes wrong with it in the block is a MediaError."""
    av = require_av(path, "Reading")
    try:
        # An absolute path, as FFmpeg takes a colon in a relative one for the end of a protocol's name.
        with av.open(str(path.resolve()), metadata_errors="replace") as container:
            stream = _video_stream(path, container)
            stream.thread_type = "AUTO"
            yield container, stream
    except (av.error.FFmpegError, OSError, ValueError, RuntimeError) as error:
        raise MediaError(
            f"The video {path} cannot be decoded ({reason_of(error)}): it is damaged or cut off; export it anew, as "
            "H.264 in .mp4 for example."
        ) from error


def _video_stream(path: Path, container: InputContainer) -> VideoStream:
    av = require_av(path, "Reading")
    cover = av.stream.Disposition.attached_pic
    streams = [stream for stream in container.streams.video if not stream.disposition & cover]
    if not streams:
        raise MediaError(f"{path} has no video track, only sound or other data; give a file with a picture track.")
    if streams[0].codec_context is None:
        raise MediaError(f"The video track of {path} is in a format that cannot be decoded here; export it as H.264.")
    # FFmpeg plays a cut-off file silently up to the cut; only the index tells (older PyAV has none).
    index = getattr(streams[0], "index_entries", None) or ()
    end, size = max((entry.pos + entry.size for entry in index), default=0), path.stat().st_size
    if end > size:
        raise MediaError(
            f"The video {path} is cut off: it has {size} bytes and its frames reach to byte {end}; copy or "
            "export it anew."
        )
    return streams[0]


def _signal(frame: VideoFrame) -> Signal:
    """What the numbers of a frame mean, and of those like it."""
    return Signal(int(frame.color_trc), int(frame.color_primaries), _peak(frame))


def _peak(frame: VideoFrame) -> float:
    """The brightest of the screen that a film was graded on, in nits, where the frame tells it."""
    told = frame.side_data.get("MASTERING_DISPLAY_METADATA")
    # AVMasteringDisplayMetadata: 8 rationals of colours, 2 of luminance, and whether either is there.
    numbers = [] if told is None else np.frombuffer(bytes(told), np.int32)[:22].tolist()
    if len(numbers) < 22 or not numbers[21] or numbers[19] <= 0:
        return NOMINAL_PEAK
    return min(max(numbers[18] / numbers[19], 400.0), 10000.0)


def _upright(frame: VideoFrame, tone: ToneMap | None) -> np.ndarray:
    """The frame as uint8 [H, W, 3], turned and mirrored as its display matrix asks."""
    pixels = frame.to_ndarray(format="rgb24") if tone is None else tone.pictures(frame.to_ndarray(format="rgb48le"))
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return pixels
    # x' = a x + c y and y' = b x + d y, y pointing down.
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
    if abs(b) + abs(c) > abs(a) + abs(d):
        pixels = pixels.swapaxes(0, 1)
        mirror_x, mirror_y = c < 0, b < 0
    else:
        mirror_x, mirror_y = a < 0, d < 0
    return pixels[:: -1 if mirror_y else 1, :: -1 if mirror_x else 1]
