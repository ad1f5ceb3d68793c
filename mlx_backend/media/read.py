"""Reads a picture, a video, a folder of pictures or a .npy array into a clip."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ..interface.errors import MediaError
from .decode import VideoFile, reason_of
from .video import Video

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
        paths = folder_pictures(path)
        window = _window(path, len(paths), start, limit)
        return Video(_stack(list(pictures_of_one_size(paths[n] for n in window))), None)
    suffix = path.suffix.lower()
    if suffix in PICTURE_SUFFIXES:
        return Video(_stack(list(_picture_frames(path, start, limit))), None)
    if suffix in VIDEO_SUFFIXES:
        video = VideoFile.of(path)
        window = _window(path, video.frames, start, limit)
        return Video(_stack(list(video.pictures(np.array(window)))), video.fps)
    if suffix == ARRAY_SUFFIX:
        frames = mapped_array(path)
        window = _window(path, len(frames), start, limit)
        return Video(_stack(list(frames[window.start : window.stop])), None)
    raise MediaError(
        f"{path} has the extension '{path.suffix}', which cannot be read; give a picture "
        f"({' '.join(PICTURE_SUFFIXES)}), a video ({' '.join(VIDEO_SUFFIXES)}), a {ARRAY_SUFFIX} array or a "
        "folder of pictures."
    )


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


def folder_pictures(folder: Path) -> list[Path]:
    """Returns the pictures in a folder in natural order, at least one; raises MediaError."""
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
    return paths


def first_picture(path: Path) -> np.ndarray:
    """Returns the first image of a picture, uint8 or, of 16-bit greys, float32 in 0..1; raises MediaError."""
    return next(_picture_frames(path, 0, 1))


def pictures_of_one_size(paths: Iterable[Path]) -> Iterator[np.ndarray]:
    """Yields the first image of each picture; raises MediaError where one differs in size from the first."""
    first: tuple[str, np.ndarray] | None = None
    for path in paths:
        frame = first_picture(path)
        first = first or (path.name, frame)
        if frame.shape != first[1].shape:
            raise MediaError(
                f"The pictures in {path.parent} differ in size: {first[0]} is {_size(first[1])} "
                f"and {path.name} is {_size(frame)}; all pictures of a clip must have the same size."
            )
        yield frame


def _size(frame: np.ndarray) -> str:
    return f"{frame.shape[1]}x{frame.shape[0]}"


def mapped_array(path: Path) -> np.ndarray:
    """Returns a .npy file as pictures [F, H, W, 3] of its own dtype that stay on the disk until they are used."""
    allowed = "uint8 in 0..255 or float16, float32 or float64 in 0..1, of shape [F, H, W, 3] or [H, W, 3]"
    try:
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
    return array if array.ndim == 4 else array[None]
