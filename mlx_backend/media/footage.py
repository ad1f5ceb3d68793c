"""Footage: a clip in a file, of which pictures are decoded, resized and cropped when they are asked for.

What is kept in memory is the pictures as the run needs them, in eight bits, and of those only a few.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from ..interface.errors import MediaError, RequestError
from ..interface.events import Listener
from ..interface.pictures import Pictures
from .decode import VideoFile
from .read import (
    ARRAY_SUFFIX,
    VIDEO_SUFFIXES,
    first_picture,
    folder_pictures,
    mapped_array,
    pictures_of_one_size,
    read_video,
)
from .resize import PHOTO, fit
from .timing import Resampling, resampling
from .video import to_uint8

KEPT_BYTES = 128 << 20  # of prepared pictures: a segment of 81 frames at 832x480 takes 97 MB


class Source(Protocol):
    """A file with pictures of one size, in pixels, by number."""

    path: Path
    width: int
    height: int
    frames: int
    fps: float | None

    def pictures(self, numbers: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the pictures [H, W, 3] of ascending numbers: uint8, or float32 in 0..1. Raises MediaError."""


@dataclass(frozen=True, slots=True, eq=False)
class Folder:
    """A folder of pictures, which has no rate."""

    path: Path
    paths: tuple[Path, ...]
    width: int
    height: int
    fps: None = None

    @classmethod
    def of(cls, path: Path) -> Folder:
        """List a folder, and read its first picture for the size. Raises MediaError."""
        paths = folder_pictures(path)
        height, width, _ = first_picture(paths[0]).shape
        return cls(path, tuple(paths), width, height)

    @property
    def frames(self) -> int:
        """How many pictures there are."""
        return len(self.paths)

    def pictures(self, numbers: np.ndarray) -> Iterator[np.ndarray]:
        """See Source."""
        yield from pictures_of_one_size(self.paths[number] for number in numbers)


@dataclass(frozen=True, slots=True, eq=False)
class ArrayFile:
    """An array uint8 [F, H, W, 3] on disk, which has no rate."""

    path: Path
    frames: int
    height: int
    width: int
    fps: None = None

    def pictures(self, numbers: np.ndarray) -> Iterator[np.ndarray]:
        """See Source."""
        array = mapped_array(self.path)
        yield from (np.array(array[number]) for number in numbers)


class Kept(dict[int, np.ndarray]):
    """Prepared pictures by number. What is sent elsewhere takes none along."""

    def __reduce__(self) -> tuple[type[Kept], tuple[()]]:
        """See pickle."""
        return Kept, ()


@dataclass(frozen=True, slots=True, eq=False)
class Footage(Pictures):
    """Pictures [F, H, W, 3] in 0..1, float32 wherever they come out, of a file: those of `numbers`, in their order.

    `fps` is their rate, None where they have none; `is_even`: they were picked for it, and no longer have the times of
    the file. `fits`: width, height and method of each `fit` that they go through, none for pictures as they are. A
    slice is footage too; a number or several are decoded.
    """

    source: Source
    numbers: np.ndarray
    fps: float | None = None
    is_even: bool = False
    fits: tuple[tuple[int, int, Image.Resampling], ...] = ()
    kept: Kept = field(default_factory=Kept, repr=False)

    @classmethod
    def of(cls, source: Source) -> Footage:
        """Return all pictures of a source."""
        return cls(source, np.arange(source.frames), source.fps)

    def fit(self, width: int, height: int, method: Image.Resampling) -> Footage:
        """Return it resized to cover width x height and cropped, photos in the steps of eight bits, as upstream."""
        if self.shape[1:3] == (height, width):
            return self  # nothing would change, and what is kept stays
        return replace(self, fits=(*self.fits, (width, height, method)), kept=Kept())

    def covering(self, width: int, height: int, method: Image.Resampling) -> Footage:
        """Return it as `fit` does; a side of 0 follows from the other, two: as it is. Raises RequestError below 0."""
        if width < 0 or height < 0:
            raise RequestError(f"The size is {width} x {height}, but it cannot be below 0: use 0 for that of the file.")
        _, own_height, own_width, _ = self.shape
        if not width and not height:
            return self
        return self.fit(
            width or max(1, round(own_width * height / own_height)),
            height or max(1, round(own_height * width / own_width)),
            method,
        )

    def part(self, start: int, count: int) -> Footage:
        """Return `count` pictures (0: all) from number `start` on; fewer at the end. Raises RequestError for none."""
        if not 0 <= start < len(self):
            raise RequestError(
                f"The start frame is {start}, but {self.source.path.name} has {len(self)} frames at "
                f"{self.fps or 0:.6g} per second: choose 0 to {len(self) - 1}."
            )
        if count < 0:
            raise RequestError(f"The number of frames is {count}, but it cannot be below 0: use 0 for all.")
        return self[start : start + count if count else None]

    @property
    def begins(self) -> float:
        """When the first picture is shown, in seconds of the file."""
        return float(self.source.seconds(self.numbers[:1])[0])

    def at_rate(self, fps: float, listener: Listener) -> Footage:
        """Return its pictures as they are seen `fps` times a second, picked by time; nothing is blended.

        What comes from no video has no times and stays as it is. Tells what is changed. Raises RequestError for a rate
        that is none.
        """
        source = self.source
        if not isinstance(source, VideoFile):
            return self
        if not source.signal.is_plain:
            listener.note(
                f"{source.path.name} is {source.signal}: it is shown as SDR in BT.709"
                f"{', highlights rolled off as in BT.2390' if source.signal.is_hdr else ''}."
            )
        if not self.fps:
            return self
        plan = resampling(len(self), self.fps, fps)
        picks = plan.picks
        if source.is_variable and not self.is_even:
            seconds = source.seconds(self.numbers) - source.seconds(self.numbers[:1])
            count = max(1, math.floor((seconds[-1] + 1 / source.fps) * fps + 0.5))
            tick = float(source.time_base) / 2  # by which a moment in the file is rounded
            picks = np.searchsorted(seconds, np.arange(count) / fps + tick, side="right") - 1
            listener.note(
                f"{source.path.name} has a variable frame rate, {source.fps:.6g} per second on average: its pictures "
                f"are taken by their time stamps, {len(picks)} at {fps:.6g} per second."
            )
        elif plan.is_identity:
            return self
        else:
            listener.note(f"{source.path.name}: {plan}")
        return replace(self, numbers=self.numbers[picks], fps=fps, is_even=True)

    def between(self, start: float, end: float) -> Footage:
        """Return what is shown from `start` up to `end`, in seconds of the file. Raises MediaError for nothing."""
        seconds = self.source.seconds(self.numbers)
        numbers = self.numbers[(seconds >= start) & (seconds < end)]
        if not len(numbers):
            raise MediaError(f"{self.source.path} shows nothing from {start:g} to {end:g} s: trim it elsewhere.")
        return replace(self, numbers=numbers)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """See Pictures."""
        width, height = self.fits[-1][:2] if self.fits else (self.source.width, self.source.height)
        return len(self.numbers), height, width, 3

    @property
    def ndim(self) -> int:
        """See Pictures."""
        return 4

    def __len__(self) -> int:
        """See Pictures."""
        return len(self.numbers)

    def __iter__(self) -> Iterator[np.ndarray]:
        """See Pictures."""
        if np.all(np.diff(self.numbers) >= 0):
            yield from map(as_float, self._prepared(self.numbers))
        else:
            yield from (self[n] for n in range(len(self)))

    def __getitem__(self, which: Any) -> Any:
        """See Pictures."""
        numbers = self.numbers[which]
        if isinstance(which, slice):
            return replace(self, numbers=numbers)
        unique, places = np.unique(numbers, return_inverse=True)
        pictures = np.empty((len(unique), *self.shape[1:]), np.float32)
        for target, picture in zip(pictures, self._prepared(unique), strict=True):
            target[...] = as_float(picture)
        if np.ndim(numbers) == 0:
            return pictures[0]
        return pictures if len(unique) == len(places) and np.array_equal(unique, numbers) else pictures[places]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:  # noqa: ARG002 - always a copy
        """Return all pictures."""
        return self[np.arange(len(self))].astype(dtype or np.float32, copy=False)

    def _prepared(self, numbers: np.ndarray) -> Iterator[np.ndarray]:
        """Yield pictures of ascending numbers as they are kept; they stay as long as they are few."""
        found = {n: self.kept[n] for n in map(int, numbers) if n in self.kept}
        missing = np.array([n for n in np.unique(numbers) if n not in found], np.int64)
        made = self.source.pictures(missing) if len(missing) else iter(())
        last: tuple[int, np.ndarray] | None = None
        for number in map(int, numbers):
            if number in found:
                yield found[number]
                continue
            if last is None or last[0] != number:
                last = number, self._fit(next(made))
                self._keep(*last)
            yield last[1]

    def _keep(self, number: int, picture: np.ndarray) -> None:
        if not self.fits:
            return
        if (len(self.kept) + 1) * picture.nbytes > KEPT_BYTES:
            self.kept.clear()
        self.kept[number] = picture

    def _fit(self, picture: np.ndarray) -> np.ndarray:
        for width, height, method in self.fits:
            if picture.shape[:2] == (height, width):
                continue
            fitted = fit(as_float(picture)[None], width, height, method)[0]
            # Nearest neighbours of eight bits have eight bits; photos get them, as upstream scales videos so.
            picture = to_uint8(fitted) if method == PHOTO or picture.dtype == np.uint8 else fitted
        return picture


def as_float(picture: np.ndarray) -> np.ndarray:
    """Return eight-bit pixels of any shape as float32 in 0..1; floats stay as they are."""
    return np.divide(picture, 255, dtype=np.float32) if picture.dtype == np.uint8 else picture


def open_footage(path: Path) -> Footage | np.ndarray:
    """Return what lies at `path`, with nothing but its size read: videos, folders of pictures and eight-bit arrays.

    A picture, also an animated one, is read at once; an array of floats is mapped. Raises MediaError.
    """
    path = Path(path)
    if path.is_dir():
        return Footage.of(Folder.of(path))
    if path.is_file() and path.suffix.lower() in VIDEO_SUFFIXES:
        return Footage.of(VideoFile.of(path))
    if path.is_file() and path.suffix.lower() == ARRAY_SUFFIX:
        array = mapped_array(path)
        return Footage.of(ArrayFile(path, *array.shape[:3])) if array.dtype == np.uint8 else array
    return read_video(path).frames


def fitted(pictures: Footage | np.ndarray, width: int, height: int, method: Image.Resampling) -> Footage | np.ndarray:
    """Return pictures at a size, as `fit` does it: footage when it is asked for, an array at once."""
    return (
        pictures.fit(width, height, method) if isinstance(pictures, Footage) else fit(pictures, width, height, method)
    )


def seen(pictures: Footage | np.ndarray, plan: Resampling) -> Footage | np.ndarray:
    """Return the pictures that another rate shows: an array as an array, footage as footage."""
    if plan.is_identity:
        return pictures
    if isinstance(pictures, Footage):
        return replace(pictures, numbers=pictures.numbers[plan.picks], fps=float(plan.target), is_even=True)
    return pictures[plan.picks]
