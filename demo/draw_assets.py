"""Draws the sample pictures and videos: `python -m demo.draw_assets [--output assets]`.

Everything is drawn from numbers in this package, so the same libraries give the same files every time.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from numpy.typing import NDArray
from PIL import Image

from demo import scenes
from demo.drawing import FRAME_SIZE, Picture
from demo.scenes import FRAME_COUNT, FRAME_RATE, LONG_COUNT, LONG_RATE, Mode
from demo.stage import stage
from demo.tune import SAMPLE_RATE, tune

PICTURE_CODING = {"crf": "14", "preset": "slow"}

MASK_CODING = {"crf": "4", "preset": "slow", "aq-mode": "0"}
"""Masks are compressed less, because their colours carry the meaning, and without adaptive quantisation,
which takes bits from the edges for the sake of flat areas that have no detail here."""


LONG_CODING = {"crf": "24", "preset": "veryslow"}
LONG_MASK_CODING = {"crf": "12", "preset": "veryslow", "aq-mode": "0"}
"""The long clip is for its length and sound, so it is compressed more."""

SOUND_BITS = 48000
"""Bits a second of the sound."""

BT709 = 1
"""The number of BT.709 in the H.264 standard's tables of primaries and of transfer curves; sRGB has the same
primaries and nearly the same curve."""


def draw_all(folder: Path) -> None:
    """Draw every file into a folder, which is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {
        "reference.png": scenes.reference_picture(),
        "reference_person.png": scenes.person_mask(),
        "reference_back.png": scenes.back_picture(),
        "reference_back_mask.png": scenes.back_mask(),
        "reference_close.png": scenes.close_picture(),
        "reference_close_mask.png": scenes.close_mask(),
        "reference_two.png": scenes.pair_picture(),
        "reference_two_mask.png": scenes.pair_mask(),
    }
    pictures |= {f"reference_mask{mode.suffix}.png": scenes.reference_mask(mode) for mode in Mode}
    for name, picture in pictures.items():
        write_picture(folder / name, picture)
    theatre = stage()
    clips = {
        "driving.mp4": (lambda index: scenes.driving_picture(theatre, index), PICTURE_CODING),
        "driving_person.mp4": (scenes.driving_person_mask, MASK_CODING),
        "driving_two.mp4": (lambda index: scenes.pair_driving_picture(theatre, index), PICTURE_CODING),
        "driving_two_mask.mp4": (scenes.pair_driving_mask, MASK_CODING),
    }
    for mode in Mode:
        clips[f"driving_mask{mode.suffix}.mp4"] = (partial(scenes.driving_mask, mode), MASK_CODING)
    for name, (drawn, coding) in clips.items():
        write_video(folder / name, (drawn(index) for index in range(FRAME_COUNT)), coding)
    dance = (scenes.driving_picture(theatre, index, LONG_RATE) for index in range(LONG_COUNT))
    write_video(folder / "driving_long.mp4", dance, LONG_CODING, LONG_RATE, tune(LONG_COUNT / LONG_RATE))
    masks = (scenes.driving_mask(Mode.ANIMATION, index, LONG_RATE) for index in range(LONG_COUNT))
    write_video(folder / "driving_long_mask.mp4", masks, LONG_MASK_CODING, LONG_RATE)


def write_picture(path: Path, picture: Picture) -> None:
    """Write a (height, width, 3) picture as a PNG."""
    _write_aside(path, lambda aside: Image.fromarray(picture).save(aside, format="PNG", optimize=True))


def write_video(
    path: Path,
    frames: Iterable[Picture],
    coding: dict[str, str],
    rate: int = FRAME_RATE,
    sound: NDArray[np.float32] | None = None,
) -> None:
    """Write (height, width, 3) frames as H.264 in an MP4; `coding` are options of x264.

    `sound` are samples (N,) in -1..1 at `SAMPLE_RATE`, written as AAC.
    """
    _write_aside(path, lambda aside: _encode(aside, frames, coding, rate, sound))


def _write_aside(path: Path, write: Callable[[Path], None]) -> None:
    """Write beside the path and rename, so that a broken run leaves no broken file."""
    aside = path.with_name(f".{path.name}.part")
    try:
        write(aside)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def _encode(
    path: Path, frames: Iterable[Picture], coding: dict[str, str], rate: int, sound: NDArray[np.float32] | None
) -> None:
    with av.open(path, "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=rate, options=coding)
        stream.width, stream.height = FRAME_SIZE
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.time_base = Fraction(1, rate)
        # BT.601 is also what decoders that ignore the tag take a small video for, so all of them give back
        # the colours that were drawn.
        context.colorspace = Colorspace.ITU601
        context.color_range = ColorRange.MPEG
        context.color_primaries = context.color_trc = BT709
        audio = None if sound is None else container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        for index, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(
                format="yuv420p", dst_colorspace=Colorspace.ITU601, dst_color_range=ColorRange.MPEG
            )
            frame.pts, frame.time_base = index, context.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if audio is not None:
            audio.bit_rate = SOUND_BITS
            samples = av.AudioFrame.from_ndarray(sound[None], format="fltp", layout="mono")
            samples.sample_rate, samples.pts = SAMPLE_RATE, 0
            container.mux(audio.encode(samples))
            container.mux(audio.encode(None))


def main() -> None:
    """Command line entry point."""
    parser = argparse.ArgumentParser(description="Draw the sample pictures and videos.")
    parser.add_argument("--output", type=Path, default=Path("assets"), help="folder (default: assets)")
    folder = parser.parse_args().output
    draw_all(folder)
    print(f"Samples drawn in {folder.resolve()}")  # noqa: T201 - the script's one line of output


if __name__ == "__main__":
    main()
