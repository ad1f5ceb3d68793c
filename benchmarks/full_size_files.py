"""Files of random numbers, by default of SCAIL-2's full size: a packed or a dense DiT, and a snapshot's other parts."""

from __future__ import annotations

import json
import math
import os
import shutil
import struct
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx import nn
from mlx.utils import tree_flatten

from mlx_backend.interface.sizes import SCAIL2_CLIP, SCAIL2_DIT, SCAIL2_UMT5, SCAIL2_VAE
from mlx_backend.models.clip_vision import ClipVision
from mlx_backend.models.linear import Linear, PackedLinear
from mlx_backend.models.scail2 import Scail2Model
from mlx_backend.models.umt5 import UMT5Encoder
from mlx_backend.models.vae21 import WanVAE21
from mlx_backend.weights.checkpoints.components import fitting
from mlx_backend.weights.checkpoints.detect import dit_settings
from mlx_backend.weights.checkpoints.snapshot import CONFIG, TOKENIZER, Snapshot
from mlx_backend.weights.formats.safetensors_file import NUMPY_DTYPES
from mlx_backend.weights.names.layouts import snapshot_name

TINY = Path(__file__).parent.parent / "tests" / "data" / "goldens" / "snapshot"
BITS, GROUP_SIZE = 4, 64
SCALE, MIDDLE = 0.02 / 7.5, 7.5  # unpacked weights lie around zero, up to 0.03: a product about keeps its input's size
DRAWN = 5 << 22  # normal numbers that are drawn once, for all dense tensors to take theirs from
SLICE = 1 << 22  # numbers written at a time


@dataclass(frozen=True, slots=True)
class Planned:
    """A tensor that will be written: its name in a snapshot, dtype as safetensors names it, and shape.

    Its numbers are normal, of this mean and standard deviation; those of packed ones fill their bits instead.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    mean: float = 0.0
    deviation: float = 0.1

    @property
    def nbytes(self) -> int:
        """Size of its data."""
        return math.prod(self.shape) * NUMPY_DTYPES[self.dtype].itemsize


def networks(like: Path | None) -> dict[str, nn.Module]:
    """Return a snapshot's networks by component, without weights: of the published sizes, or of those of `like`."""
    if like is None:
        dit, vae = Scail2Model(SCAIL2_DIT), WanVAE21(SCAIL2_VAE)
        return {"dit": dit, "vae": vae, "t5_encoder": UMT5Encoder(SCAIL2_UMT5), "clip": ClipVision(SCAIL2_CLIP)}
    snapshot = Snapshot.open(like)
    found = {component: fitting(snapshot, component, "auto").network for component in snapshot.files}
    if any(isinstance(module, PackedLinear) for network in found.values() for module in network.modules()):
        raise SystemExit(f"{like} is packed: name a snapshot whose weights are not.")
    return found


def write_dit(folder: Path, network: Scail2Model, *, dense: bool) -> list[str]:
    """Write dit.safetensors and config.json: everything bf16, or the Linears of the blocks in 4 bits."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_text(json.dumps(dit_settings(network.config), indent=1), encoding="utf-8")
    tensors = list(plan("dit", network, "BF16", packed=not dense))
    packed = sum(tensor.dtype == "U32" for tensor in tensors)
    how = f"{packed} Linears packed in {BITS} bits, groups of {GROUP_SIZE}" if packed else "all bf16"
    return [f"{len(tensors)} tensors, {how}", *write_tensors(weights_file(folder, "dit"), tensors)]


def write_rest(folder: Path, parts: Mapping[str, nn.Module]) -> list[str]:
    """Write the other parts in the dtypes of the published ones, and the tests' tokenizer, whose words are few."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for component, network in parts.items():
        dtype = "BF16" if component == "t5_encoder" else "F32"
        tensors = list(plan(component, network, dtype, packed=False))
        lines.append(f"{component}: {len(tensors)} tensors, {dtype}")
        lines += write_tensors(weights_file(folder, component), tensors)
    shutil.copyfile(TINY / TOKENIZER, folder / TOKENIZER)
    return lines


def plan(component: str, network: nn.Module, dtype: str, *, packed: bool) -> Iterator[Planned]:
    """List the tensors of a component's file, the Linears of the blocks in 4 bits if `packed`.

    The network's own zeros are lazy, so they are never made.
    """
    linears = {name for name, module in network.named_modules() if isinstance(module, Linear)}
    for name, array in tree_flatten(network.parameters()):
        stem, shape = name.removesuffix(".weight"), tuple(array.shape)
        if packed and stem != name and stem in linears and stem.startswith("blocks."):
            rows, columns = shape
            yield Planned(name, "U32", (rows, columns * BITS // 32))
            yield Planned(f"{stem}.scales", "BF16", (rows, columns // GROUP_SIZE))
            yield Planned(f"{stem}.biases", "BF16", (rows, columns // GROUP_SIZE))
            continue
        called = snapshot_name(component, name)
        if name == "head" or (stem != name and len(shape) > 1):  # a product keeps the size of what it is given
            inputs = shape[0] if name == "head" else math.prod(shape[1:])
            yield Planned(called, dtype, shape, deviation=1 / math.sqrt(inputs))
        else:
            yield Planned(called, dtype, shape, mean=float(name.endswith(("weight", "gamma"))))  # gains lie about one


def write_tensors(path: Path, tensors: list[Planned]) -> list[str]:
    """Write a file of random numbers, a slice at a time, and return its size and the seconds that took."""
    start = time.perf_counter()
    entries, end = {}, 0
    for tensor in tensors:
        span = [end, end + tensor.nbytes]
        entries[tensor.name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": span}
        end = span[1]
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    random = np.random.default_rng(0)
    block = mx.array(random.standard_normal(DRAWN, dtype=np.float32))
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        for tensor in tensors:
            for part in values(tensor, block, random):
                file.write(part.data)
        file.flush()
        os.fsync(file.fileno())
    return [
        f"  {'bytes on disk':<28}{path.stat().st_size:>16,}",
        f"  {'seconds':<28}{time.perf_counter() - start:>16.1f}",
    ]


def values(tensor: Planned, block: mx.array, random: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield a tensor's numbers in slices; bf16 as its bits.

    Drawing 16 billion normal numbers takes minutes, so dense tensors take theirs from one block of 21 million, each
    slice from another place on. The numbers of a file therefore repeat, as those of a trained one do not.
    """
    stem, _, last = tensor.name.rpartition(".")
    if tensor.dtype == "U32":
        yield random.integers(0, 1 << 32, tensor.shape, dtype=np.uint32)
        return
    if last in ("scales", "biases"):  # a group's two belong together, so both come from a generator of their Linear
        spread = np.random.default_rng(zlib.crc32(stem.encode())).uniform(0.5, 1.5, tensor.shape)
        yield stored(mx.array((SCALE * spread * (1 if last == "scales" else -MIDDLE)).astype(np.float32)), tensor.dtype)
        return
    total = math.prod(tensor.shape)
    for start in range(0, total, SLICE):
        count = min(SLICE, total - start)
        first = int(random.integers(0, DRAWN - count + 1))
        yield stored(block[first : first + count] * tensor.deviation + tensor.mean, tensor.dtype)


def stored(numbers: mx.array, dtype: str) -> np.ndarray:
    """Return float32 numbers as a file stores them: F32, or rounded to bf16 as its bits."""
    return np.array(numbers if dtype == "F32" else numbers.astype(mx.bfloat16).view(mx.uint16))


def weights_file(folder: Path, component: str) -> Path:
    """Return where a part lies in a folder."""
    return folder / f"{component}.safetensors"
