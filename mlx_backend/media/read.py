"""Reads a picture, a video, a folder of pictures or a .npy array into a clip."""

import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ..interface.errors import MediaError
from .video import Video

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif")
VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi")
ARRAY_SUFFIX = ".npy"

# Further images of other formats (TIFF pages, the depth map in a phone's JPEG) are not later moments.
ANIMATED_FORMATS = ("GIF", "WEBP", "PNG")
ARRAY_FLOATS = (np.float16, np.float32, np.float64)
BAD_PICTURE = (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError)


def read_video(path: Path, start: int = 0, limit: int | None = None) -> Video:
    """Reads frames [start, start + limit) of what lies at `path`; all from `start` on when `limit` is None.

    Returns float32 frames [F, H, W, 3]; pictures and videos in 0..1 and turned upright (EXIF, display
    matrix), float arrays as stored, neither clipped nor checked. A video's frames are taken as decoded and
    its fps is the average rate; its pixels are taken as stored, without its sample aspect ratio. A folder
    gives the first image of each picture in it, in natural order. Fewer frames than `limit` are no error.

    Raises MediaError when `path` is missing, of an unknown kind, empty, damaged, or has no frame `start`.
    """
    path = Path(path)
    if start < 0 or (limit is not None and limit < 1):
        raise MediaError(
            f"Frames of {path} were asked for with start {start} and limit {limit}; start must be 0 or more "
            "and limit 1 or more, or none."
        )
    if not path.exists():
        raise MediaError(f"There is no file or folder {path}; check the path.")
    if path.is_dir():
        return _read_folder(path, start, limit)
    suffix = path.suffix.lower()
    if suffix in PICTURE_SUFFIXES:
        return Video(_stack(list(_picture_frames(path, start, limit))), None)
    if suffix in VIDEO_SUFFIXES:
        return _read_video(path, start, limit)
    if suffix == ARRAY_SUFFIX:
        return _read_array(path, start, limit)
    raise MediaError(
        f"{path} has the extension '{path.suffix}', which cannot be read; give a picture "
        f"({' '.join(PICTURE_SUFFIXES)}), a video ({' '.join(VIDEO_SUFFIXES)}), a {ARRAY_SUFFIX} array or a "
        "folder of pictures."
    )


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


def _window(path: Path, count: int, start: int, limit: int | None) -> range:
    if start >= count:
        raise MediaError(
            f"{path} has {count} frame{'' if count == 1 else 's'}, so it cannot be read from frame {start} "
            f"on; frames count from 0, so start must be below {count}."
        )
    return range(start, count if limit is None else min(count, start + limit))


def _stack(frames: list[np.ndarray]) -> np.ndarray:
    # Eight-bit frames become floats only here, in place: a long clip is then not held twice as floats.
    stacked = np.empty((len(frames), *frames[0].shape), np.float32)
    for target, frame in zip(stacked, frames, strict=True):
        if frame.dtype == np.uint8:
            np.divide(frame, 255, out=target, dtype=np.float32)
        else:
            target[...] = frame
    return stacked


def _picture_frames(path: Path, start: int, limit: int | None) -> Iterator[np.ndarray]:
    """Yields [H, W, 3], uint8 0..255 or, from 16-bit greys, float32 0..1."""
    try:
        with Image.open(path) as image:
            count = getattr(image, "n_frames", 1) if image.format in ANIMATED_FORMATS else 1
            for index in _window(path, count, start, limit):
                if index:
                    image.seek(index)
                yield _pixels(path, ImageOps.exif_transpose(image))
    except UnidentifiedImageError as error:
        raise MediaError(
            f"{path} is not a picture that can be read: it is damaged, or of another format than its "
            "extension says; save it anew as PNG or JPEG."
        ) from error
    except BAD_PICTURE as error:
        raise MediaError(
            f"The picture {path} cannot be read ({reason_of(error)}); save it anew as PNG or JPEG."
        ) from error


def _pixels(path: Path, image: Image.Image) -> np.ndarray:
    if image.mode == "I" or image.mode.startswith("I;16"):
        grey = np.asarray(image)
        if grey.min() >= 0 and grey.max() <= 65535:
            return np.repeat((grey.astype(np.float32) / 65535)[..., None], 3, axis=2)
    if image.mode in ("I", "F"):
        raise MediaError(f"The picture {path} has 32-bit pixels; convert it to 8-bit colour or to 8- or 16-bit grey.")
    if "transparency" in image.info:
        image = image.convert("RGBA")
    return np.asarray(image.convert("RGB"))


def _natural_key(path: Path) -> tuple[list[int | str], str]:
    parts = re.split(r"(\d+)", path.name.lower())
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], path.name


def _read_folder(folder: Path, start: int, limit: int | None) -> Video:
    try:
        entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    except OSError as error:
        raise MediaError(f"The folder {folder} cannot be listed ({reason_of(error)}).") from error
    kinds = ", ".join(PICTURE_SUFFIXES)
    if not entries:
        raise MediaError(f"The folder {folder} is empty; put the frames in it as pictures ({kinds}).")
    paths = sorted((e for e in entries if e.suffix.lower() in PICTURE_SUFFIXES and e.is_file()), key=_natural_key)
    if not paths:
        raise MediaError(
            f"The folder {folder} has {len(entries)} entries but no pictures among them; put the frames in "
            f"it as pictures ({kinds})."
        )
    window = _window(folder, len(paths), start, limit)
    frames: list[np.ndarray] = []
    for index in window:
        frame = next(_picture_frames(paths[index], 0, 1))
        frames.append(frame)
        if frame.shape != frames[0].shape:
            raise MediaError(
                f"The pictures in {folder} differ in size: {paths[window.start].name} is {_size(frames[0])} "
                f"and {paths[index].name} is {_size(frame)}; all pictures of a clip must have the same size."
            )
    return Video(_stack(frames), None)


def _size(frame: np.ndarray) -> str:
    return f"{frame.shape[1]}x{frame.shape[0]}"


def _read_array(path: Path, start: int, limit: int | None) -> Video:
    allowed = "uint8 in 0..255 or float16, float32 or float64 in 0..1, of shape [F, H, W, 3] or [H, W, 3]"
    try:
        # Mapped, so that only the frames asked for are read from the disk.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # A damaged header fails in whatever part of Python's parser it reaches.
        raise MediaError(
            f"{path} is not a plain NumPy array: it is damaged, cut off or holds Python objects; save it "
            f"with numpy.save as {allowed}."
        ) from error
    if not isinstance(array, np.ndarray):
        raise MediaError(f"{path} holds an archive of arrays; save one array with numpy.save as {allowed}.")
    dtype = array.dtype.newbyteorder("=")
    if array.ndim == 4 and len(array) == 0:
        raise MediaError(f"{path} has 0 frames; save at least one.")
    shaped = array.ndim in (3, 4) and array.shape[-1] == 3 and 0 not in array.shape
    if not shaped or (dtype != np.uint8 and dtype not in ARRAY_FLOATS):
        raise MediaError(f"{path} holds {dtype} of shape {list(array.shape)}; allowed is {allowed}.")
    frames = array if array.ndim == 4 else array[None]
    window = _window(path, len(frames), start, limit)
    return Video(_stack(list(frames[window.start : window.stop])), None)


def _read_video(path: Path, start: int, limit: int | None) -> Video:
    av = require_av(path, "Reading")
    frames: list[np.ndarray] = []
    seen = 0
    try:
        # An absolute path, as FFmpeg takes a colon in a relative one for the end of a protocol's name.
        with av.open(str(path.resolve()), metadata_errors="replace") as container:
            stream = _video_stream(path, container)
            stream.thread_type = "AUTO"
            rate = stream.average_rate
            for frame in container.decode(stream):
                if seen >= start:
                    frames.append(_upright(frame))
                    if frames[-1].shape != frames[0].shape:
                        raise MediaError(
                            f"The video {path} changes its size from {_size(frames[0])} to "
                            f"{_size(frames[-1])} at frame {seen}; convert it to one size."
                        )
                seen += 1
                if len(frames) == limit:
                    break
    except (av.error.FFmpegError, OSError, ValueError, RuntimeError) as error:
        raise MediaError(
            f"The video {path} cannot be decoded ({reason_of(error)}, after {seen} frames): it is damaged or "
            "cut off; export it anew, as H.264 in .mp4 for example."
        ) from error
    if not seen:
        raise MediaError(f"The video {path} holds no frame that can be decoded; export it anew.")
    _window(path, seen, start, limit)
    return Video(_stack(frames), float(rate) if rate else None)


def _video_stream(path: Path, container: "InputContainer") -> "VideoStream":
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


def _upright(frame: "VideoFrame") -> np.ndarray:
    """The frame as uint8 [H, W, 3], turned and mirrored as its display matrix asks."""
    pixels = frame.to_ndarray(format="rgb24")
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
