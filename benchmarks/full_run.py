"""A whole run of full size through the nodes: what each phase takes, in seconds and in resident memory.

`python -m benchmarks.full_run SNAPSHOT [--residency streamed] [--size 256]` makes 5 frames in one step with cfg 1 from
random pictures, with the pack loaded as ComfyUI loads it. The snapshot may hold random numbers, which
benchmarks.full_size makes: nothing is said of pictures. Peak resident memory is of the whole process, so run each case
in its own.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

from mlx_backend.runtime.device import require_mlx

require_mlx()

import mlx.core as mx  # noqa: E402 - after the BLAS
import numpy as np  # noqa: E402
import torch  # noqa: E402

from benchmarks.machine import heading, peak_resident  # noqa: E402
from demo.pack import load_pack, pack_nodes  # noqa: E402
from mlx_backend.interface.variants import RESIDENCIES  # noqa: E402
from mlx_backend.weights.formats.safetensors_file import read_header  # noqa: E402

FRAMES = 5
PROMPT = "A person dances on a beach."


def main() -> None:
    """Run the nodes one after the other and print what each took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("snapshot", type=Path)
    parser.add_argument("--residency", choices=RESIDENCIES, default=RESIDENCIES[0])
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--size", type=int, default=256, help="pixels on each side (default: %(default)s)")
    options = parser.parse_args()
    size = options.size
    mx.set_default_device(mx.cpu if options.device == "cpu" else mx.gpu)
    weights = sum(info.nbytes for info in read_header(options.snapshot / "dit.safetensors").values())
    lines = run(options.snapshot, options.residency, size)
    peak = f"peak resident: {peak_resident() / 1e9:.2f} GB"
    if peak_resident() > weights:
        peak += f", the DiT's weights and {(peak_resident() - weights) / 1e9:.2f} GB"
    sys.stdout.write(
        "\n".join(
            [
                heading("full_run"),
                f"{size}x{size} pixels, {FRAMES} frames, 1 step, cfg 1, DiT {weights / 1e9:.2f} GB on disk",
                *lines,
                peak,
            ]
        )
        + "\n"
    )


def run(snapshot: Path, residency: str, size: int) -> list[str]:
    """Return a line for each node; raises SystemExit when the frames are not finite or all alike."""
    nodes = pack_nodes(load_pack())
    random = np.random.default_rng(0)
    reference = torch.from_numpy(random.random((1, size, size, 3), np.float32))
    driving = torch.from_numpy(random.random((FRAMES, size, size, 3), np.float32))
    lines: list[str] = []

    def timed(name: str, inputs: dict) -> tuple:
        return _timed(lines, name, lambda: nodes[name](inputs))

    loader = {"snapshot": str(snapshot.resolve()), "precision": "auto", "residency": residency}
    model, text_encoder, clip_vision, vae = timed("LoadScail2MLX", loader)
    prompts = {"text_encoder": text_encoder, "prompt": PROMPT, "negative_prompt": ""}
    (text,) = timed("Scail2T5Encode", prompts)
    (clip,) = timed("Scail2ClipEncode", {"clip_vision": clip_vision, "reference_image": reference})
    settings = {"mode": "animation", "width": size, "height": size, "steps": 1, "cfg": 1.0, "shift": 3.0}
    settings |= {"solver": "unipc", "seed": 0, "segment_length": 81, "segment_overlap": 5, "start_frame": 0}
    settings |= {"max_frames": 0, "follow_orientation": True, "black_background": True}
    pictures = {"reference_image": reference, "driving_video": driving}
    parts = {"model": model, "vae": vae, "text": text, "clip_features": clip}
    latent, _ = timed("Scail2Sampler", parts | pictures | settings)
    (frames,) = timed("WanVaeTiledDecode", {"vae": vae, "latent": latent, "tile_size": 0, "tile_overlap": 64})
    if frames.shape != (FRAMES, size, size, 3) or not torch.isfinite(frames).all() or frames.std() == 0:
        raise SystemExit(f"The frames {tuple(frames.shape)} are not finite, or all alike.")
    return lines


def _timed(lines: list[str], name: str, work: Callable[[], tuple]) -> tuple:
    mx.reset_peak_memory()
    start = time.perf_counter()
    result = work()
    seconds = time.perf_counter() - start
    lines.append(
        f"  {name:<20}{seconds:>9.1f} s   MLX peak {mx.get_peak_memory() / 1e9:>6.2f} GB   "
        f"peak resident so far {peak_resident() / 1e9:>6.2f} GB"
    )
    return result


if __name__ == "__main__":
    main()
