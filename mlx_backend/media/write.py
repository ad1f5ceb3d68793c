"""Writes frames as a video, a picture, a folder of pictures or a .npy array, whole or not at all."""

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from fractions import Fraction
from math import isfinite
from pathlib import Path

import numpy as np
from PIL import Image

from ..interface.errors import MediaError
from .decode import reason_of, require_av
from .video import to_uint8

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv")
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
ARRAY_SUFFIX = ".npy"
FRAME_NAME = "frame_{:05d}.png"
OUR_FRAME = re.compile(r"frame_\d{5,}\.png|\.DS_Store")

ENCODER = "libx264"
ENCODER_OPTIONS = {"crf": "16"}
BT709 = 1
LIMITED_RANGE = 1
PICTURE_OPTIONS: dict[str, dict[str, object]] = {
    ".png": {},
    ".jpg": {"quality": 95, "subsampling": 0},
    ".jpeg": {"quality": 95, "subsampling": 0},
    ".webp": {"lossless": True},
}
MAX_RATE = 1000  # what Matroska's milliseconds can hold
# Rates that are written 23.976 or 29.97 and mean 24000/1001 or 30000/1001.
NTSC_BASES = (24, 30, 48, 60, 120)


def check_output(path: Path, count: int = 1, fps: float = 16.0) -> None:
    """Raises MediaError if `write_video` could not write `count` frames at `path`, so that no work is spent in vain.

    Checks the extension, the folder it lies in, what stands there already, and the encoder and rate for videos.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in ("", ARRAY_SUFFIX, *VIDEO_SUFFIXES, *PICTURE_SUFFIXES):
        raise MediaError(
            f"{path} has the extension '{path.suffix}', which cannot be written; allowed are "
            f"{' '.join(VIDEO_SUFFIXES)} for videos, {' '.join(PICTURE_SUFFIXES)} for one picture, "
            f"{ARRAY_SUFFIX} for an array and no extension for a folder of PNG frames."
        )
    parent = path.resolve().parent
    if not parent.is_dir():
        raise MediaError(f"{path} cannot be written, as the folder {parent} does not exist; create it first.")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise MediaError(f"{path} cannot be written, as the folder {parent} is not writable; choose another one.")
    if suffix and path.is_dir():
        raise MediaError(f"{path} is a folder, so no file of that name can be written; choose another name.")
    if not suffix and path.is_file():
        raise MediaError(f"{path} is a file, so no folder of frames of that name can be made; choose another name.")
    if not suffix and path.is_dir():
        _check_folder(path)
    if suffix in PICTURE_SUFFIXES and count > 1:
        raise MediaError(
            f"{path} holds one picture, but the clip has {count} frames; {' '.join(VIDEO_SUFFIXES)}, "
            f"{ARRAY_SUFFIX} or a path without extension (a folder) can hold them."
        )
    if suffix in VIDEO_SUFFIXES:
        _rate(path, fps)
    if suffix in VIDEO_SUFFIXES and ENCODER not in require_av(path, "Writing").codecs_available:
        raise MediaError(
            f"{path} cannot be written, as the installed PyAV lacks the H.264 encoder {ENCODER}; reinstall "
            "it with pip install --force-reinstall av, or write a folder of frames."
        )


def write_video(path: Path, frames: np.ndarray, fps: float) -> None:
    """Writes floats [F, H, W, 3] in 0..1 at `path`, in the format that its extension names.

    .mp4, .mov and .mkv: H.264, yuv420p, BT.709, `fps` frames per second, even height and width.
    .png, .jpg, .jpeg and .webp: one frame. No extension: a folder of frame_00001.png and on. .npy: float32
    exactly as given. `fps` has no place in the last three. Values outside 0..1 are clipped, save in .npy.

    Everything is written under another name in the same folder and renamed at the end: after a failure
    what stood at `path` is still there. A folder is replaced as a whole, if it holds nothing but frames.

    Raises MediaError when `path` fails `check_output`, when frames or fps do not fit the format, when a
    frame holds NaN (save in .npy), or when the disk or the encoder fails.
    """
    path = Path(path)
    _check_frames(path, frames)
    check_output(path, len(frames), fps)
    suffix = path.suffix.lower()
    # A link stays a link: what it points to is replaced.
    target = path.resolve()
    partial = target.with_name(f".partial-{secrets.token_hex(6)}{suffix}")
    try:
        if suffix in VIDEO_SUFFIXES:
            _write_video(path, partial, frames, _rate(path, fps))
        elif suffix in PICTURE_SUFFIXES:
            _save_picture(partial, next(_eight_bit(path, frames)))
        elif suffix == ARRAY_SUFFIX:
            np.save(partial, frames.astype(np.float32, copy=False), allow_pickle=False)
        else:
            partial.mkdir()
            for number, pixels in enumerate(_eight_bit(path, frames), start=1):
                _save_picture(partial / FRAME_NAME.format(number), pixels)
        if target.is_dir():
            _replace_folder(partial, target)
        else:
            partial.replace(target)
    except (OSError, ValueError) as error:
        raise MediaError(
            f"{path} could not be written ({reason_of(error)}); what stood there before is untouched."
        ) from error
    finally:
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)


def _check_folder(path: Path) -> None:
    others = sorted(entry.name for entry in path.iterdir() if not OUR_FRAME.fullmatch(entry.name))
    if others:
        raise MediaError(
            f"The folder {path} holds {others[0]}, which is no frame written here, so it will not be "
            "replaced; choose a new folder."
        )


def _check_frames(path: Path, frames: np.ndarray) -> None:
    shaped = frames.ndim == 4 and frames.shape[3] == 3 and 0 not in frames.shape
    if not shaped or frames.dtype.kind != "f":
        raise MediaError(
            f"{path} cannot be written from {frames.dtype} of shape {list(frames.shape)}; allowed are floats "
            "in 0..1 of shape [F, H, W, 3] with at least one frame."
        )
    _, height, width, _ = frames.shape
    suffix = path.suffix.lower()
    if suffix in VIDEO_SUFFIXES and (height % 2 or width % 2):
        raise MediaError(
            f"{path} cannot hold frames of {width}x{height}, as H.264 in yuv420p needs an even width and "
            "height; crop the frames, or write a folder of frames."
        )


def _rate(path: Path, fps: float) -> Fraction:
    if not isfinite(fps) or not 0 < fps <= MAX_RATE:
        raise MediaError(
            f"{path} cannot be written with {fps} frames per second; give a number above 0 and at most {MAX_RATE}."
        )
    for base in NTSC_BASES:
        if abs(fps - base * 1000 / 1001) < 0.005:
            return Fraction(base * 1000, 1001)
    rate = Fraction(float(fps)).limit_denominator(1001)
    if not rate:
        raise MediaError(f"{path} cannot be written with {fps} frames per second; give at least 0.001.")
    return rate


def _eight_bit(path: Path, frames: np.ndarray) -> Iterator[np.ndarray]:
    """Yields uint8 [H, W, 3], one frame at a time."""
    for index, frame in enumerate(frames):
        if np.isnan(frame).any():
            raise MediaError(
                f"{path} cannot be written, as frame {index} holds values that are not numbers (NaN); a "
                f"{ARRAY_SUFFIX} file keeps them for a closer look."
            )
        yield to_uint8(frame)


def _save_picture(path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels).save(path, **PICTURE_OPTIONS[path.suffix.lower()])


def _write_video(path: Path, partial: Path, frames: np.ndarray, rate: Fraction) -> None:
    av = require_av(path, "Writing")
    # The index ahead of the frames, so that a browser plays the file while it loads.
    options = {} if partial.suffix == ".mkv" else {"movflags": "+faststart"}
    try:
        with av.open(str(partial), "w", options=options) as container:
            stream = container.add_stream(ENCODER, rate=rate, options=ENCODER_OPTIONS)
            stream.height, stream.width = frames.shape[1:3]
            stream.pix_fmt = "yuv420p"
            context = stream.codec_context
            context.colorspace = context.color_primaries = context.color_trc = BT709
            context.color_range = LIMITED_RANGE
            for index, pixels in enumerate(_eight_bit(path, frames)):
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(
                    format="yuv420p", dst_colorspace=BT709, dst_color_range=LIMITED_RANGE
                )
                frame.pts, frame.time_base = index, 1 / rate
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    except av.error.FFmpegError as error:
        raise MediaError(
            f"The video {path} could not be written ({reason_of(error)}); what stood there before is untouched."
        ) from error


def _replace_folder(partial: Path, target: Path) -> None:
    # A folder that is not empty cannot be renamed over, so the old one steps aside first.
    old = target.with_name(f".old-{secrets.token_hex(6)}")
    target.replace(old)
    try:
        partial.replace(target)
    except OSError:
        old.replace(target)
        raise
    shutil.rmtree(old, ignore_errors=True)
