"""Doctor, goldens, and the ways of running a pass against the plain one."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import mlx.core as mx
from mlx.utils import tree_flatten

from benchmarks.gpu_proof.goldens import PSNR_BARS, frames_of, psnr
from benchmarks.gpu_proof.rows import Row
from benchmarks.gpu_proof.sizes import Sizes
from mlx_backend.diagnostics.bench import forward, pack_model, snapshot_of, write_model
from mlx_backend.diagnostics.checks import Check
from mlx_backend.diagnostics.doctor import examine
from mlx_backend.interface.geometry import LatentSize
from mlx_backend.interface.sizes import Scail2Config
from mlx_backend.models.linear import PackedLinear
from mlx_backend.models.scail2 import Scail2Model
from mlx_backend.runtime.machine import this_machine
from mlx_backend.runtime.memory import wired
from mlx_backend.weights.checkpoints.components import fitting, load_component

# Root mean square of the difference, as a part of that of the right values. The same operations in the same order
# give the same; another order of sums rounds otherwise, in the dtype of the products.
SAME_BAR = 1e-6
ROUNDING_BARS = {"float32": 1e-4, "bfloat16": 2e-2, "float16": 4e-3}
FEW = 64  # chunks that splitting asks for at least
PACKINGS = (4, 6, 8)


def doctor(sizes: Sizes, _seconds: float) -> Iterator[Row]:
    """(1) MLX's operations at the row counts of real runs, and the system."""
    told: list[Check] = []
    found = examine(None, lambda: None, told.append, scale=sizes.scale)
    for check in told:
        mark = {"ok": "right", "note": "note", "fault": "WRONG"}[check.verdict]
        yield Row("doctor", check.name, check.found if mark == "right" else f"{check.found}. {check.sentence}", mark)
    for line in found.conclusions:
        yield Row("doctor", "conclusion", line, "note")


def goldens(sizes: Sizes, _seconds: float) -> Iterator[Row]:
    """(2) Frames of golden runs in two dtypes on this device, against float32 on the CPU."""
    device = mx.default_device()
    for case in sizes.cases:
        mx.set_default_device(mx.cpu)
        right = frames_of(case, "float32")
        mx.set_default_device(device)
        for dtype, bar in PSNR_BARS.items():
            found = psnr(frames_of(case, dtype), right)
            name = f"run {case}, {dtype}, against float32 on the CPU"
            yield Row.judged("goldens", name, f"{found:.1f} dB (at least {bar:.0f})", right=found >= bar)


def ways(sizes: Sizes, _seconds: float) -> Iterator[Row]:
    """(3) Dispatch splitting, streaming, packing, groups of heads, wired memory: equal to the plain path."""
    (config, size), dtype = sizes.equal, this_machine().block_dtype
    bar = ROUNDING_BARS[dtype]
    with tempfile.TemporaryDirectory(prefix="scail2-proof-") as folder:
        dense = Path(folder) / "dense.safetensors"
        write_model(dense, config, getattr(mx, dtype))
        plain = _loaded(dense, config)
        run = _pass(size, plain)
        right = run()

        def compared(name: str, work: Callable[[], mx.array], allowed: float = bar) -> Row:
            error = relative(work(), right)
            found = f"differs by {error:.1e} of the values (bar {allowed:.0e})"
            return Row.judged("ways", f"{name}, {dtype}", found, right=error <= allowed)

        yield compared("the plain path again", run, SAME_BAR)
        with wired(plain.resident_bytes):
            yield compared("memory wired", run, SAME_BAR)
        yield compared("streamed from disk", _pass(size, _loaded(dense, config, "streamed")), SAME_BAR)
        for groups in [n for n in (2, 4) if config.num_heads % n == 0]:
            plain.attend_in_groups(groups)
            yield compared(f"attention in {groups} groups of heads", run)
        plain.attend_in_groups(1)
        plain.limit_dispatches(right.size * config.dim * FEW)
        yield compared("small dispatches", run)
        plain.limit_dispatches(math.inf)
        for bits in PACKINGS:
            yield _packed(Path(folder), sizes, plain, bits, bar)


def relative(found: mx.array, right: mx.array) -> float:
    """Return the root mean square of the difference, as a part of that of the right values."""
    if found.shape != right.shape or not mx.all(mx.isfinite(found)).item():
        return float("inf")
    off = found.astype(mx.float32) - right.astype(mx.float32)
    return float(mx.sqrt(mx.mean(mx.square(off)) / mx.mean(mx.square(right.astype(mx.float32)))).item())


def _packed(folder: Path, sizes: Sizes, plain: Scail2Model, bits: int, bar: float) -> Row:
    """Compare packed weights with the same ones, unpacked once and for all."""
    config, size = sizes.equal
    path = folder / f"{bits}.safetensors"
    pack_model(path, plain, bits)
    model = _loaded(path, config)
    unpacked = folder / f"{bits}-dense.safetensors"
    _unpack(unpacked, plain, model)
    right = _pass(size, _loaded(unpacked, config))()
    error = relative(_pass(size, model)(), right)
    found = f"differs by {error:.1e} of the values (bar {bar:.0e})"
    return Row.judged("ways", f"{bits}-bit weights, against the same unpacked", found, right=error <= bar)


def _unpack(path: Path, plain: Scail2Model, packed: Scail2Model) -> None:
    tensors = dict(tree_flatten(plain.parameters()))
    for name, module in packed.named_modules():
        if isinstance(module, PackedLinear):
            tensors[f"{name}.weight"] = module.dense()
    mx.save_safetensors(str(path), tensors)


def _pass(size: LatentSize, model: Scail2Model) -> Callable[[], mx.array]:
    mx.random.seed(1)  # every model gets the same latent, text and picture
    return forward(size, model)


def _loaded(path: Path, config: Scail2Config, residency: str = "resident") -> Scail2Model:
    return load_component(fitting(snapshot_of(path, config), "dit", "auto"), lambda: None, residency)
