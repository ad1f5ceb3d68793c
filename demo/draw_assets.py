"""Draws the sample pictures and videos: `python -m demo.draw_assets [--output assets]`.

Everything is drawn from numbers in this package, so the same libraries give the same files every time.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from enum import Enum
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from numpy.typing import NDArray
from PIL import Image

from demo.beach import beach
from demo.character import fox, ground_shadow
from demo.dance import pose_at
from demo.drawing import FRAME_SIZE, Canvas, Picture, Shape, silhouette
from demo.puppet import Palette, floor_shadow, puppet
from demo.skeleton import Pose, Proportions
from demo.stage import stage

FRAME_COUNT = 33
"""Two seconds of dance and the frame that closes the round: 4 n + 1 frames, as video models like them."""

FRAME_RATE = 16

CENTRE = 256.0
"""The x in pixels about which both figures stand."""

GROUND = 264.0
"""The y in pixels of the soles of both figures."""

Colour = tuple[int, int, int]
"""Red, green and blue, 0..255."""

BLUE = (0, 0, 255)
BLACK = (0, 0, 0)
WHITE = (255, 255, 255)

PICTURE_CODING = {"crf": "14", "preset": "slow"}

MASK_CODING = {"crf": "4", "preset": "slow", "aq-mode": "0"}
"""Masks are compressed less, because their colours carry the meaning, and without adaptive quantisation,
which takes bits from the edges for the sake of flat areas that have no detail here."""


BT709 = 1
"""The number of BT.709 in the H.264 standard's tables of primaries and of transfer curves; sRGB has the same
primaries and nearly the same curve."""


class Mode(Enum):
    """What is done with the character; each mode has its own backgrounds for the masks."""

    ANIMATION = "animation"
    """The character moves in its own scene: white behind the character, black behind the driving figure."""
    REPLACEMENT = "replacement"
    """The character takes the place of the driving figure: black and white the other way round."""

    @property
    def reference_background(self) -> Colour:
        """Colour around the character in the mask of the reference picture."""
        return WHITE if self is Mode.ANIMATION else BLACK

    @property
    def driving_background(self) -> Colour:
        """Colour around the puppet in the masks of the driving video."""
        return BLACK if self is Mode.ANIMATION else WHITE

    @property
    def suffix(self) -> str:
        """What the names of this mode's mask files end in."""
        return "" if self is Mode.ANIMATION else "_replacement"


def reference_picture() -> Picture:
    """The character on the beach."""
    size = Proportions()
    canvas = beach()
    canvas.paint(*ground_shadow(size, CENTRE, GROUND), *fox(size, CENTRE, GROUND))
    return canvas.picture()


def reference_mask(mode: Mode) -> Picture:
    """The character in blue on the background of the mode."""
    return coloured_mask(fox(Proportions(), CENTRE, GROUND), BLUE, mode.reference_background)


def driving_pose(index: int) -> Pose:
    """How the puppet stands in frame `index`."""
    return pose_at(index / FRAME_RATE, Proportions(), CENTRE, GROUND)


def driving_picture(scene: Canvas, index: int) -> Picture:
    """Frame `index` of the dance on a given stage."""
    pose, size = driving_pose(index), Proportions()
    canvas = Canvas(scene)
    canvas.paint(*floor_shadow(pose, size, GROUND), *puppet(pose, size, Palette()))
    return canvas.picture()


def driving_mask(mode: Mode, index: int) -> Picture:
    """The puppet of frame `index` in blue on the background of the mode."""
    shapes = puppet(driving_pose(index), Proportions(), Palette())
    return coloured_mask(shapes, BLUE, mode.driving_background)


def coloured_mask(figure: Iterable[Shape], colour: Colour, background: Colour) -> Picture:
    """The figure's silhouette (height, width, 3) in exactly two colours, without antialiasing."""
    inside: NDArray[np.bool_] = silhouette(figure)
    return np.where(inside[..., None], np.uint8(colour), np.uint8(background))


def draw_all(folder: Path) -> None:
    """Draw every file into a folder, which is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    write_picture(folder / "reference.png", reference_picture())
    scene = stage()
    frames = (driving_picture(scene, index) for index in range(FRAME_COUNT))
    write_video(folder / "driving.mp4", frames, PICTURE_CODING)
    for mode in Mode:
        write_picture(folder / f"reference_mask{mode.suffix}.png", reference_mask(mode))
        masks = (driving_mask(mode, index) for index in range(FRAME_COUNT))
        write_video(folder / f"driving_mask{mode.suffix}.mp4", masks, MASK_CODING)


def write_picture(path: Path, picture: Picture) -> None:
    """Write a (height, width, 3) picture as a PNG."""
    _write_aside(path, lambda aside: Image.fromarray(picture).save(aside, format="PNG", optimize=True))


def write_video(path: Path, frames: Iterable[Picture], coding: dict[str, str]) -> None:
    """Write (height, width, 3) frames as H.264 in an MP4; `coding` are options of x264."""
    _write_aside(path, lambda aside: _encode(aside, frames, coding))


def _write_aside(path: Path, write: Callable[[Path], None]) -> None:
    """Write beside the path and rename, so that a broken run leaves no broken file."""
    aside = path.with_name(f".{path.name}.part")
    try:
        write(aside)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def _encode(path: Path, frames: Iterable[Picture], coding: dict[str, str]) -> None:
    with av.open(path, "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=FRAME_RATE, options=coding)
        stream.width, stream.height = FRAME_SIZE
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.time_base = Fraction(1, FRAME_RATE)
        # BT.601 is also what decoders that ignore the tag take a small video for, so all of them give back
        # the colours that were drawn.
        context.colorspace = Colorspace.ITU601
        context.color_range = ColorRange.MPEG
        context.color_primaries = context.color_trc = BT709
        for index, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(
                format="yuv420p", dst_colorspace=Colorspace.ITU601, dst_color_range=ColorRange.MPEG
            )
            frame.pts, frame.time_base = index, context.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def main() -> None:
    """Command line entry point."""
    parser = argparse.ArgumentParser(description="Draw the sample pictures and videos.")
    parser.add_argument("--output", type=Path, default=Path("assets"), help="folder (default: assets)")
    folder = parser.parse_args().output
    draw_all(folder)
    print(f"Samples drawn in {folder.resolve()}")  # noqa: T201 - the script's one line of output


if __name__ == "__main__":
    main()
