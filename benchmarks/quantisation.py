"""What packing costs: size and the cosine of one pass's output against bf16, for 4, 5, 6, 8 and mixed bits.

`python -m benchmarks.quantisation [--dim 1536] [--layers 6]` measures the tests' tiny model and a random one. Nobody
trained either, so the figures rank ways of packing these weights, and say nothing of pictures.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from mlx_backend.runtime.device import require_mlx

require_mlx()

import mlx.core as mx  # noqa: E402 - after the BLAS
from mlx.utils import tree_flatten  # noqa: E402

from benchmarks.machine import heading  # noqa: E402
from benchmarks.widths import HEAD_DIM, ffn_dim, width  # noqa: E402
from mlx_backend.interface.conversion import ConvertOptions  # noqa: E402
from mlx_backend.interface.events import LogListener  # noqa: E402
from mlx_backend.interface.sizes import SCAIL2_DIT  # noqa: E402
from mlx_backend.models.scail2 import Reference, Scail2Model, Streams  # noqa: E402
from mlx_backend.weights.checkpoints.components import fitting, load_component  # noqa: E402
from mlx_backend.weights.checkpoints.convert import convert  # noqa: E402
from mlx_backend.weights.checkpoints.snapshot import Snapshot  # noqa: E402

TINY = Path(__file__).parent.parent / "tests" / "data" / "goldens" / "snapshot" / "dit.safetensors"
WAYS = {
    "bf16": ConvertOptions(),
    "q8, groups of 64": ConvertOptions(bits=8),
    "q6, groups of 64": ConvertOptions(bits=6),
    "q5, groups of 64": ConvertOptions(bits=5),
    "q4, groups of 64": ConvertOptions(bits=4),
    "q4, groups of 32": ConvertOptions(bits=4, group_size=32),
    "mixed, groups of 64": ConvertOptions(mixed=True),
}
INPUTS = 4  # random inputs, of which the mean cosine is taken
FRAMES, HEIGHT, WIDTH = 2, 8, 12  # latent
TEXT_TOKENS, IMAGE_TOKENS = 20, 257


def main() -> None:
    """Measure both models and print a table for each."""
    parser = argparse.ArgumentParser(prog="benchmarks.quantisation", description=__doc__)
    parser.add_argument("--dim", type=width, default=1536, help="of the random model (default: %(default)s)")
    parser.add_argument("--layers", type=int, default=6, help="of the random model (default: %(default)s)")
    chosen = parser.parse_args()
    mx.set_default_device(mx.cpu)
    sys.stdout.write(f"{heading('quantisation')}\n")
    with tempfile.TemporaryDirectory() as folder:
        middle = Path(folder) / "middle.safetensors"
        write_random(middle, chosen.dim, chosen.layers)
        drawn = f"drawn: dim {chosen.dim}, {chosen.layers} layers"
        for name, path in (("tiny: dim 256, 2 layers", TINY), (drawn, middle)):
            sys.stdout.write("\n".join(measure(name, path, Path(folder) / path.stem)) + "\n")


def measure(name: str, path: Path, folder: Path) -> list[str]:
    """Convert a DiT in every way, run each, and return a table."""
    folder.mkdir()
    lines = [f"{name} (random weights, mean of {INPUTS} inputs)"]
    lines.append(f"  {'':<20}{'bytes':>14}{'bits/weight':>13}{'cosine':>12}{'1 - cosine':>13}{'convert, s':>12}")
    dense: list[mx.array] = []
    for way, options in WAYS.items():
        made = folder / way
        start = time.perf_counter()
        convert(Snapshot({"dit": path}, path, {}), made, options, LogListener())
        seconds = time.perf_counter() - start
        size = (made / "dit.safetensors").stat().st_size
        snapshot = Snapshot({"dit": made / "dit.safetensors"}, path, {})
        model = load_component(fitting(snapshot, "dit", "auto"), lambda: None)
        found = [forward(model, seed) for seed in range(INPUTS)]
        dense = dense or found
        mean = sum(cosine(a, b) for a, b in zip(found, dense, strict=True)) / INPUTS
        bits = 16 * size / (folder / "bf16" / "dit.safetensors").stat().st_size
        lines.append(f"  {way:<20}{size:>14,}{bits:>13.2f}{mean:>12.6f}{1 - mean:>13.2e}{seconds:>12.1f}")
    return lines


def write_random(path: Path, dim: int, layers: int) -> None:
    """Write a random DiT: every product keeps the size of its input, gains are near 1."""
    mx.random.seed(0)
    sizes = {"dim": dim, "ffn_dim": ffn_dim(dim), "num_heads": dim // HEAD_DIM, "num_layers": layers}
    config = replace(SCAIL2_DIT, **sizes, text_dim=512, clip_dim=160)
    tensors = {}
    for name, zeros in tree_flatten(Scail2Model(config).parameters()):
        drawn = mx.random.normal(zeros.shape)
        if name.endswith(".weight") and len(zeros.shape) > 1:
            drawn = drawn / math.sqrt(math.prod(zeros.shape[1:]))
        else:
            drawn = 0.1 * drawn + float(name.endswith(".weight"))
        tensors[name] = drawn.astype(mx.bfloat16)
        mx.eval(tensors[name])
    mx.save_safetensors(str(path), tensors)


def forward(model: Scail2Model, seed: int) -> mx.array:
    """Run one pass with random inputs; returns the velocity [16, T, H, W]."""
    mx.random.seed(seed)
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


def cosine(a: mx.array, b: mx.array) -> float:
    """Return the cosine of two outputs taken as vectors."""
    return ((a * b).sum() / mx.sqrt(mx.square(a).sum() * mx.square(b).sum())).item()


if __name__ == "__main__":
    main()
