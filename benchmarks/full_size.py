"""SCAIL-2's full size in random numbers: how long a DiT loads, what memory a pass needs, what a conversion needs.

`make FOLDER` writes dit.safetensors and config.json: the DiT packed in 4 bits (9.6 GB), or all bf16 with `--dense`
(32.8 GB). `--rest` adds the other parts (14.4 GB), so that FOLDER is a whole snapshot; `--like SNAPSHOT` takes the
sizes of another model. `run FOLDER` loads the DiT and runs one pass at 64x64, 5 frames. `convert FOLDER NEW` packs
FOLDER's DiT in 4 bits, or its text encoder with `--part t5_encoder`. Each is a process of its own: peak resident memory
is the process's whole life.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from mlx_backend.runtime.device import require_mlx

require_mlx()

import mlx.core as mx  # noqa: E402 - after the BLAS

from benchmarks.full_size_files import networks, weights_file, write_dit, write_rest  # noqa: E402
from benchmarks.machine import heading, peak_resident  # noqa: E402
from mlx_backend.cli.main import main as command  # noqa: E402
from mlx_backend.models.scail2 import Reference, Scail2Model, Streams, positions  # noqa: E402
from mlx_backend.weights.checkpoints.components import fitting, load_component  # noqa: E402
from mlx_backend.weights.checkpoints.snapshot import CONFIG, Snapshot  # noqa: E402
from mlx_backend.weights.formats.safetensors_file import read_header  # noqa: E402

FRAMES, HEIGHT, WIDTH = 2, 8, 8  # latent: 5 frames of 64x64 pixels
TEXT_TOKENS, IMAGE_TOKENS = 20, 257
BAR = 2e9  # bytes of peak resident memory beyond the weights
CONVERT_BAR = 3e9  # bytes of peak resident memory while the dense DiT is packed


def main() -> None:
    """Make the files, or load and run the DiT, or convert it, and print what that took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    steps = parser.add_subparsers(dest="step", required=True)
    add = steps.add_parser("make").add_argument
    add("folder", type=Path)
    add("--dense", action="store_true", help="the DiT in bf16, not packed")
    add("--rest", action="store_true", help="the other parts too")
    add(
        "--like",
        type=Path,
        metavar="SNAPSHOT",
        help="the sizes of this model, not packed, instead of the published ones",
    )
    steps.add_parser("run").add_argument("folder", type=Path)
    add = steps.add_parser("convert").add_argument
    add("folder", type=Path)
    add("destination", type=Path)
    add("--part", choices=("dit", "t5_encoder"), default="dit")
    options = parser.parse_args()
    mx.set_default_device(mx.cpu if options.device == "cpu" else mx.gpu)
    if options.step == "make":
        parts = networks(options.like)
        lines = write_dit(options.folder, parts.pop("dit"), dense=options.dense)
        lines += write_rest(options.folder, parts) if options.rest else []
    elif options.step == "run":
        lines = run(options.folder)
    else:
        lines = convert(weights_file(options.folder, options.part), options.destination)
    sys.stdout.write("\n".join([heading("full_size"), *lines]) + "\n")


def convert(path: Path, destination: Path) -> list[str]:
    """Pack a part in 4 bits by the command that users have, and return what that took."""
    largest = max(info.nbytes for info in read_header(path).values())
    before = peak_resident()
    start = time.perf_counter()
    if command(["convert", str(path), str(destination), "--bits", "4", "--text-encoder-bits", "4"]):
        raise SystemExit("The conversion failed.")
    seconds, peak = time.perf_counter() - start, peak_resident()
    return [
        f"  {'bytes of the source':<28}{path.stat().st_size:>16,}",
        f"  {'bytes of its largest tensor':<28}{largest:>16,}",
        f"  {'peak resident before':<28}{before:>16,}",
        f"  {'peak resident':<28}{peak:>16,}",
        f"  {'seconds':<28}{seconds:>16.1f}",
        f"peak resident: {peak / 1e9:.3f} GB (bars: {CONVERT_BAR / 1e9:.0f}; 1.5 x the largest tensor + 1 GB, which is "
        f"{(1.5 * largest + 1e9) / 1e9:.3f})",
    ]


def run(folder: Path) -> list[str]:
    """Load the DiT as the nodes do, run one pass, and return what that took."""
    path = weights_file(folder, "dit")
    weights = sum(info.nbytes for info in read_header(path).values())
    settings = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    before = peak_resident()

    start = time.perf_counter()
    model = load_component(fitting(Snapshot({"dit": path}, Path(), settings), "dit", "auto"), lambda: None)
    loaded = time.perf_counter() - start
    after_load, active = peak_resident(), mx.get_active_memory()

    start = time.perf_counter()
    velocity = forward(model)
    passed = time.perf_counter() - start
    beyond = peak_resident() - weights

    if velocity.shape != (16, FRAMES, HEIGHT, WIDTH) or not mx.isfinite(velocity).all().item():
        raise SystemExit(f"The pass gave {velocity.shape}, or numbers that are not finite.")
    tokens = len(
        positions(FRAMES, HEIGHT, WIDTH, model.config.head_dim, references=1, driving=FRAMES, replacement=False)[0]
    )
    counts = {
        "weights, bytes": weights,
        "MLX active after load": active,
        "MLX peak": mx.get_peak_memory(),
        "peak resident before load": before,
        "peak resident after load": after_load,
        "peak resident": weights + beyond,
    }
    return [
        f"{model.config.num_layers} layers, {tokens} tokens, {TEXT_TOKENS} text tokens, output finite, "
        f"standard deviation {velocity.std().item():.2f}",
        *(f"  {name:<28}{count:>16,}" for name, count in counts.items()),
        f"  {'load, seconds':<28}{loaded:>16.1f}",
        f"  {'one pass, seconds':<28}{passed:>16.1f}",
        f"peak resident beyond weights: {beyond / 1e9:.3f} GB (bar {BAR / 1e9:.0f})",
    ]


def forward(model: Scail2Model) -> mx.array:
    """Run everything that one pass of the solver needs, with random inputs."""
    mx.random.seed(0)
    latent = mx.random.normal((16, FRAMES, HEIGHT, WIDTH))
    streams = Streams(
        references=(Reference(latent[:, :1], None),),
        driving=mx.random.normal((16, FRAMES, HEIGHT // 2, WIDTH // 2)),
        driving_mask=None,
        replacement=False,
    )
    text, clip = (TEXT_TOKENS, model.config.text_dim), (IMAGE_TOKENS, model.config.clip_dim)
    context = model.embed_context(mx.random.normal(text), mx.random.normal(clip))
    velocity = model(latent, 500.0, model.condition(context, latent.shape[1:], streams), lambda: None)
    mx.eval(velocity)
    return velocity


if __name__ == "__main__":
    main()
