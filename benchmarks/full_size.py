"""A DiT of SCAIL-2's full size from random packed numbers: how long it loads, and what memory a pass needs.

`python -m benchmarks.full_size make FOLDER` writes dit.safetensors (about 9.6 GB) and config.json, and
`python -m benchmarks.full_size run FOLDER` loads it and runs one pass at 64x64, 5 frames. Run in a process of its own:
peak resident memory is the process's whole life.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import struct
import sys
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mlx_backend.runtime.device import require_mlx

require_mlx()

import mlx.core as mx  # noqa: E402 - after the BLAS
import numpy as np  # noqa: E402
from mlx.utils import tree_flatten  # noqa: E402

from benchmarks.machine import describe_machine  # noqa: E402
from mlx_backend.models.config import DiTConfig  # noqa: E402
from mlx_backend.models.linear import Linear  # noqa: E402
from mlx_backend.models.scail2 import Reference, Scail2DiT, Streams, positions  # noqa: E402
from mlx_backend.weights.components import load_component  # noqa: E402
from mlx_backend.weights.detect import dit_settings  # noqa: E402
from mlx_backend.weights.formats import NUMPY_DTYPES, read_header  # noqa: E402
from mlx_backend.weights.snapshot import CONFIG, Snapshot  # noqa: E402

DIT = DiTConfig(
    dim=5120,
    ffn_dim=13824,
    freq_dim=256,
    num_heads=40,
    num_layers=40,
    in_dim=20,
    pose_dim=20,
    mask_dim=28,
    out_dim=16,
    text_dim=4096,
    clip_dim=1280,
)
BITS, GROUP_SIZE = 4, 64
SCALE, MIDDLE = 0.02 / 7.5, 7.5  # unpacked weights lie around zero, up to 0.03: a product about keeps its input's size
FRAMES, HEIGHT, WIDTH = 2, 8, 8  # latent: 5 frames of 64x64 pixels
TEXT_TOKENS, IMAGE_TOKENS = 20, 257
BAR = 2e9  # bytes of peak resident memory beyond the weights


@dataclass(frozen=True, slots=True)
class Planned:
    """A tensor that will be written: dtype as safetensors names it."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Size of its data."""
        return math.prod(self.shape) * NUMPY_DTYPES[self.dtype].itemsize


def main() -> None:
    """Make the file, or load and run it and print what that took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=("make", "run"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    options = parser.parse_args()
    mx.set_default_device(mx.cpu if options.device == "cpu" else mx.gpu)
    lines = make(options.folder) if options.step == "make" else run(options.folder)
    head = [f"$ python -m {' '.join(['benchmarks.full_size', *sys.argv[1:]])}", describe_machine()]
    sys.stdout.write("\n".join([*head, *lines]) + "\n")


def make(folder: Path) -> list[str]:
    """Write what the DiT needs of a snapshot, tensor by tensor."""
    folder.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    (folder / CONFIG).write_text(json.dumps(dit_settings(DIT), indent=1), encoding="utf-8")
    tensors = list(plan())
    entries, end = {}, 0
    for tensor in tensors:
        span = [end, end + tensor.nbytes]
        entries[tensor.name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": span}
        end = span[1]
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    random = np.random.default_rng(0)
    with weights_file(folder).open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        for tensor in tensors:
            file.write(values(tensor, random).data)
        file.flush()
        os.fsync(file.fileno())
    packed = sum(tensor.dtype == "U32" for tensor in tensors)
    return [
        f"{len(tensors)} tensors, {packed} Linears packed in {BITS} bits, groups of {GROUP_SIZE}",
        f"  {'bytes on disk':<28}{weights_file(folder).stat().st_size:>16,}",
        f"  {'seconds':<28}{time.perf_counter() - start:>16.1f}",
    ]


def run(folder: Path) -> list[str]:
    """Load the DiT as the nodes do, run one pass, and return what that took."""
    path = weights_file(folder)
    weights = sum(info.nbytes for info in read_header(path).values())
    settings = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    before = peak_resident()

    start = time.perf_counter()
    model = load_component(Snapshot({"dit": path}, Path(), settings), "dit", "auto", lambda: None)
    loaded = time.perf_counter() - start
    after_load, active = peak_resident(), mx.get_active_memory()

    start = time.perf_counter()
    velocity = forward(model)
    passed = time.perf_counter() - start
    beyond = peak_resident() - weights

    if velocity.shape != (16, FRAMES, HEIGHT, WIDTH) or not mx.isfinite(velocity).all().item():
        raise SystemExit(f"The pass gave {velocity.shape}, or numbers that are not finite.")
    tokens = len(positions(FRAMES, HEIGHT, WIDTH, 0, DIT.head_dim, replacement=False)[0])
    counts = {
        "weights, bytes": weights,
        "MLX active after load": active,
        "MLX peak": mx.get_peak_memory(),
        "peak resident before load": before,
        "peak resident after load": after_load,
        "peak resident": weights + beyond,
    }
    return [
        f"{DIT.num_layers} layers, {tokens} tokens, {TEXT_TOKENS} text tokens, output finite, standard deviation "
        f"{velocity.std().item():.2f}",
        *(f"  {name:<28}{count:>16,}" for name, count in counts.items()),
        f"  {'load, seconds':<28}{loaded:>16.1f}",
        f"  {'one pass, seconds':<28}{passed:>16.1f}",
        f"peak resident beyond weights: {beyond / 1e9:.3f} GB (bar {BAR / 1e9:.0f})",
    ]


def forward(model: Scail2DiT) -> mx.array:
    """Run everything that one pass of the solver needs, with random inputs."""
    mx.random.seed(0)
    latent = mx.random.normal((16, FRAMES, HEIGHT, WIDTH))
    streams = Streams(
        references=(Reference(latent[:, :1], None),),
        driving=mx.random.normal((16, FRAMES, HEIGHT // 2, WIDTH // 2)),
        driving_mask=None,
        history_mask=None,
        replacement=False,
    )
    text, clip = (TEXT_TOKENS, DIT.text_dim), (IMAGE_TOKENS, DIT.clip_dim)
    context = model.embed_context(mx.random.normal(text), mx.random.normal(clip))
    velocity = model(latent, 500.0, model.prepare(streams), context, lambda: None)
    mx.eval(velocity)
    return velocity


def plan() -> Iterator[Planned]:
    """List the tensors of a packed snapshot: the Linears of the blocks in 4 bits, everything else bf16."""
    model = Scail2DiT(DIT)  # lazy: its zeros are never made
    linears = {name for name, module in model.named_modules() if isinstance(module, Linear)}
    for name, array in tree_flatten(model.parameters()):
        stem = name.removesuffix(".weight")
        if stem == name or stem not in linears or not stem.startswith("blocks."):
            yield Planned(name, "BF16", tuple(array.shape))
            continue
        rows, columns = array.shape
        yield Planned(name, "U32", (rows, columns * BITS // 32))
        yield Planned(f"{stem}.scales", "BF16", (rows, columns // GROUP_SIZE))
        yield Planned(f"{stem}.biases", "BF16", (rows, columns // GROUP_SIZE))


def values(tensor: Planned, random: np.random.Generator) -> np.ndarray:
    """Draw a tensor's numbers; bf16 as its bits."""
    stem, _, last = tensor.name.rpartition(".")
    if tensor.dtype == "U32":
        return random.integers(0, 1 << 32, tensor.shape, dtype=np.uint32)
    if last in ("scales", "biases"):  # a group's two belong together, so both come from a generator of their Linear
        spread = np.random.default_rng(zlib.crc32(stem.encode())).uniform(0.5, 1.5, tensor.shape)
        return bf16_bits(SCALE * spread * (1 if last == "scales" else -MIDDLE))
    drawn = random.standard_normal(tensor.shape, dtype=np.float32)
    if len(tensor.shape) > 1 and last == "weight":
        drawn /= math.sqrt(math.prod(tensor.shape[1:]))
    else:
        drawn *= 0.1
        drawn += last == "weight"  # the gain of a norm
    return bf16_bits(drawn)


def bf16_bits(numbers: np.ndarray) -> np.ndarray:
    """Round to bf16 and return its bits, as uint16."""
    return np.array(mx.array(numbers.astype(np.float32, copy=False)).astype(mx.bfloat16).view(mx.uint16))


def weights_file(folder: Path) -> Path:
    """Return where the DiT lies in a folder."""
    return folder / "dit.safetensors"


def peak_resident() -> int:
    """Return the most memory that this process has held so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10  # Linux counts kibibytes


if __name__ == "__main__":
    main()
