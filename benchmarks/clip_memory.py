"""What a long driving clip costs a run on a small part of it: seconds and resident memory of `generate`.

`python -m benchmarks.clip_memory SNAPSHOT` writes a clip of 3,000 frames of 1920x1080 with a mask of the same length,
and makes 81 frames of 96x96 from it in one step with cfg 1, each length in a process of its own. Nothing is said of
pictures. The memory is that of the whole process, weights included.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.machine import heading
from mlx_backend.media.decode import require_av

# The process measures itself: only its own peak is that of the run.
CHILD = """
import sys
from benchmarks.machine import peak_resident
from mlx_backend.cli.main import main
code = main(sys.argv[1:])
print(peak_resident())
sys.exit(code)
"""


def main() -> None:
    """Measure a run on a clip of each length, and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("snapshot", type=Path)
    parser.add_argument("--clip-size", type=int, nargs=2, default=(1920, 1080), metavar=("W", "H"))
    parser.add_argument("--clip-frames", type=int, nargs="+", default=[300, 3000], metavar="N")
    parser.add_argument("--size", type=int, nargs=2, default=(96, 96), metavar=("W", "H"))
    parser.add_argument("--frames", type=int, default=81)
    options = parser.parse_args()
    sys.stdout.write(heading("clip_memory") + "\n")
    for line in lines(options):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def lines(options: argparse.Namespace) -> Iterator[str]:
    """Yield what a run on a clip of each length took."""
    (width, height), size = options.clip_size, "x".join(map(str, options.size))
    for frames in options.clip_frames:
        with tempfile.TemporaryDirectory() as folder:
            clip, mask = Path(folder) / "clip.mp4", Path(folder) / "mask.mp4"
            write_clip(clip, width, height, frames, 200)
            write_clip(mask, width, height, frames, 0)
            begun = time.perf_counter()
            peak = run(options, clip, mask)
            seconds = time.perf_counter() - begun
        yield (
            f"{frames} frames of {width}x{height}, the run {options.frames} of {size}: {peak / 1e9:.2f} GB resident, "
            f"{seconds:.0f} s"
        )


def write_clip(path: Path, width: int, height: int, frames: int, grey: int) -> None:
    """Write a blue square that wanders over a grey ground, frame by frame."""
    av = require_av(path, "Writing")
    side = height // 4
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=16, options={"crf": "20", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(frames):
            pixels = np.full((height, width, 3), grey, np.uint8)
            left = number * 8 % (width - side)
            pixels[side : 2 * side, left : left + side] = (0, 0, 255)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        container.mux(stream.encode())


def run(options: argparse.Namespace, clip: Path, mask: Path) -> int:
    """Return the peak of a run in bytes."""
    width, height = map(str, options.size)
    picture = clip.with_name("reference.png")
    Image.new("RGB", (64, 64), (120, 90, 60)).save(picture)
    command = ["generate", "--model", options.snapshot, "--reference", picture, "--driving", clip]
    command += ["--driving-mask", mask, "--width", width, "--height", height, "--steps", "1", "--cfg", "1"]
    command += ["--max-frames", options.frames, "--no-cache", "--output", clip.with_name("out.mp4")]
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *map(str, command)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return int(done.stdout)


if __name__ == "__main__":
    main()
