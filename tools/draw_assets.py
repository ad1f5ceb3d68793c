"""Draws the sample pictures and videos: `python -m tools.draw_assets [--output assets]`.

Everything is drawn by the world of puppets from the seeds in `tools.samples`, so the same libraries give the same files
every time.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from numpy.typing import NDArray
from PIL import Image

from tools.samples import FRAME_RATE, LONG_COUNT, LONG_RATE, SIZE, pair, solo, times
from tools.tune import SAMPLE_RATE, tune
from world.scenes import MODES, Example
from world.stage import IDENTITIES

Picture = NDArray[np.uint8]
"""(height, width, 3), or (frames, height, width, 3) of a clip."""

PICTURE_CODING = {"crf": "14", "preset": "slow"}

MASK_CODING = {"crf": "6", "preset": "slow", "aq-mode": "0"}
"""Masks are compressed less, because their colours carry the meaning, and without adaptive quantisation,
which takes bits from the edges for the sake of flat areas that have no detail here."""


LONG_CODING = {"crf": "24", "preset": "veryslow"}
LONG_MASK_CODING = {"crf": "13", "preset": "veryslow", "aq-mode": "0"}
"""The long clip is for its length and sound, so it is compressed more."""

SOUND_BITS = 48000
"""Bits a second of the sound."""

BT709 = 1
"""The number of BT.709 in the H.264 standard's tables of primaries and of transfer curves; sRGB has the same
primaries and nearly the same curve."""


def draw_all(folder: Path) -> None:
    """Draw every file into a folder, which is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in pictures().items():
        write_picture(folder / name, picture)
    for name, clip in clips(times()).items():
        write_video(folder / name, clip, MASK_CODING if is_mask(name) else PICTURE_CODING)
    long = long_clips(times(LONG_COUNT, LONG_RATE))
    music = tune(LONG_COUNT / LONG_RATE)
    write_video(folder / "driving_long.mp4", long["driving_long.mp4"], LONG_CODING, LONG_RATE, music)
    write_video(folder / "driving_long_mask.mp4", long["driving_long_mask.mp4"], LONG_MASK_CODING, LONG_RATE)


def is_mask(name: str) -> bool:
    """Whether a sample's colours are names."""
    return "mask" in name or "person" in name


def suffix(mode: str) -> str:
    """Return what the names of a mode's mask files end in."""
    return "" if mode == "animation" else f"_{mode}"


def pictures() -> dict[str, Picture]:
    """Draw the pictures (size, size, 3), by the names of their files."""
    first = np.zeros(1)
    made = {f"reference_mask{suffix(m)}.png": Example.of(solo(), m, first, SIZE).reference_masks[0] for m in MODES}
    one, two = (Example.of(group, "animation", first, SIZE, extras=1) for group in (solo(), pair()))
    made |= {
        "reference.png": one.references[0],
        "reference_person.png": person(one.reference_masks[0]),
        "reference_other.png": one.references[1],
        "reference_other_mask.png": one.reference_masks[1],
        "reference_two.png": two.references[0],
        "reference_two_mask.png": two.reference_masks[0],
    }
    return made


def clips(moments: NDArray[np.float64]) -> dict[str, Picture]:
    """Draw frames (len(moments), size, size, 3) of the short clips, by the names of their files."""
    one, two = (Example.of(group, "animation", moments, SIZE) for group in (solo(), pair()))
    replaced = Example.of(solo(), "replacement", moments, SIZE)
    return {
        "driving.mp4": one.driving,
        "driving_mask.mp4": one.driving_mask,
        "driving_mask_replacement.mp4": replaced.driving_mask,
        "driving_person.mp4": person(one.driving_mask),
        "driving_two.mp4": two.driving,
        "driving_two_mask.mp4": two.driving_mask,
    }


def long_clips(moments: NDArray[np.float64]) -> dict[str, Picture]:
    """Draw frames (len(moments), size, size, 3) of the long clip and its mask, by the names of their files."""
    group = solo()
    shot = group.clip(0, 0, moments, SIZE)
    return {"driving_long.mp4": shot.pictures, "driving_long_mask.mp4": shot.mask(group.identities, 0)}


def person(mask: Picture) -> Picture:
    """Return what is blue in a mask in white, on black."""
    inside = (mask == IDENTITIES["blue"]).all(axis=-1, keepdims=True)
    return np.where(inside, np.uint8(255), np.uint8(0)).repeat(3, axis=-1)


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
        stream.width = stream.height = SIZE
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
