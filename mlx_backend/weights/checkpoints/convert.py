"""A model in any layout and format to a turnkey snapshot, dense or packed by `mx.quantize`; a slice at a time."""

from __future__ import annotations

import errno
import glob
import json
import math
import os
import re
import secrets
import shutil
import struct
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import mlx.core as mx
import numpy as np

from ...interface.conversion import DTYPES, GROUP_SIZES, HIGH_BITS, LOW_BITS, ConvertOptions, Packing
from ...interface.errors import RequestError, WeightsError
from ...interface.events import LOGGER, Listener, Progress
from ...interface.limits import LIMITS
from ...members import titles
from ...models.linear import PackedLinear
from ..formats.arrays import MLX_DTYPES, to_mlx
from ..formats.safetensors_file import NUMPY_DTYPES, TensorInfo
from ..names.layouts import snapshot_name
from .component_file import ComponentFile
from .components import Fitted, fitting
from .detect import dit_settings
from .load import NARROWED
from .snapshot import CALLED, COMPONENTS, CONFIG, TOKENIZER, Snapshot, identify_file
from .tokenizer import load_tokenizer

# What is packed, by official names inside `blocks.N.`, as in published snapshots; all else stays dense. The number
# counts only for mixed bits: how much the same error weighs here. Norms and softmax damp those of queries and keys;
# cross-attention reaches the stream without a gate, self-attention and feed-forward through one.
DAMPED, GATED, UNGATED = 0.1, 1.0, 4.0
POLICY: dict[str, dict[str, float]] = {
    "dit": dict.fromkeys(("self_attn.q", "self_attn.k", "cross_attn.q", "cross_attn.k", "cross_attn.k_img"), DAMPED)
    | dict.fromkeys(("self_attn.v", "self_attn.o", "ffn.0", "ffn.2"), GATED)
    | dict.fromkeys(("cross_attn.v", "cross_attn.v_img", "cross_attn.o"), UNGATED),
    "t5_encoder": dict.fromkeys(("attn.q", "attn.k", "attn.v", "attn.o", "ffn.gate.0", "ffn.fc1", "ffn.fc2"), GATED),
}
MIXED_BUDGET = 0.1  # how much larger than uniform LOW_BITS the packed layers may become
SLICE_BYTES = 32 << 20  # of the source, read or computed beside it at a time
ABANDONED = 3600.0  # seconds without a byte more, after which nobody is writing
SPARE_BYTES = 64 << 20  # for the tokenizer, and what a file system keeps for itself


@dataclass(frozen=True, slots=True)
class Step:
    """What becomes of a tensor (official name): one output by its name in the snapshot, or a packed matrix's three."""

    name: str
    outputs: Mapping[str, TensorInfo]
    packing: Packing | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """All steps of a component, and how its packed layers (official names), old and new, are packed."""

    source: ComponentFile
    steps: tuple[Step, ...]
    packed: Mapping[str, Packing]

    @property
    def outputs(self) -> dict[str, TensorInfo]:
        """Everything that the file will hold."""
        return {name: info for step in self.steps for name, info in step.outputs.items()}


def check_destination(destination: Path, source: Path | None) -> None:
    """Raise RequestError unless a new folder can be made there, outside the folder `source`."""
    if destination.is_symlink():
        raise RequestError(f"The destination {destination} is a symbolic link: name a folder that does not exist yet.")
    if destination.exists():
        raise RequestError(f"The destination {destination} exists, and nothing is overwritten: name a new folder.")
    if not destination.parent.is_dir():
        raise RequestError(f"{destination.parent} is not a folder, so {destination.name} cannot be made in it.")
    if source is not None and source.is_dir() and destination.resolve().is_relative_to(source.resolve()):
        raise RequestError(f"The destination {destination} lies inside the source {source}: name a folder elsewhere.")


def open_source(path: Path) -> Snapshot:
    """Return a model's parts: all four from a folder, or the one that a single file holds. Raises WeightsError."""
    if path.is_dir():
        return Snapshot.open(path)
    found = identify_file(path)[1]
    if found.component is None:
        raise WeightsError(
            f"{path} is {found.description}: choose a part of {titles()}, or a folder that holds them all."
        )
    return Snapshot({found.component: path}, path, {})


def convert(snapshot: Snapshot, destination: Path, options: ConvertOptions, listener: Listener) -> None:
    """Write the parts of `snapshot` to the new folder `destination`, which appears whole or not at all.

    A snapshot of some parts only gives a folder of those, and config.json where the DiT is among them. Raises
    RequestError for a destination that cannot be made and for options that do not fit, WeightsError for sources that
    would not load, and what `listener.check_cancelled` raises.
    """
    check_destination(destination, None)
    components = [component for component in COMPONENTS if component in snapshot.files]
    fitted = {component: fitting(snapshot, component, "float32") for component in components}
    tokenizer = load_tokenizer(snapshot.tokenizer) if len(components) == len(COMPONENTS) else None
    plans = {component: _plan(fitted[component], options, listener) for component in components}
    _remove_abandoned(destination)
    needed = SPARE_BYTES + sum(info.nbytes for plan in plans.values() for info in plan.outputs.values())
    free = shutil.disk_usage(destination.parent).free
    if free < needed:
        raise RequestError(
            f"The conversion needs {needed / 1e9:.1f} GB, but the disk of {destination.parent} has {free / 1e9:.1f} GB "
            "free: make room, or name a folder on another disk."
        )
    aside = destination.with_name(f".{destination.name}.part-{secrets.token_hex(4)}")
    aside.mkdir()
    try:
        for component, plan in plans.items():
            _write_component(plan, aside / f"{component}.safetensors", listener)
        if tokenizer is not None and snapshot.tokenizer.name == TOKENIZER:
            shutil.copyfile(snapshot.tokenizer, aside / TOKENIZER)
        elif tokenizer is not None:
            tokenizer.save(str(aside / TOKENIZER))
        if "dit" in plans:
            settings = _settings(snapshot, plans, fitted["dit"])
            (aside / CONFIG).write_text(json.dumps(settings, indent=1), encoding="utf-8")
        for path in (*aside.iterdir(), aside):
            _sync(path)
        check_destination(destination, None)  # hours may have passed
        aside.rename(destination)
    except BaseException as error:
        shutil.rmtree(aside, ignore_errors=True)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RequestError(
                f"The disk of {destination.parent} became full, and nothing was kept of {destination.name}: "
                "make room, or name a folder on another disk."
            ) from error
        raise
    _sync(destination.parent)


def _remove_abandoned(destination: Path) -> None:
    """Remove what a conversion to this folder has begun whose process was killed: gigabytes that nobody sees."""
    for aside in destination.parent.glob(f".{glob.escape(destination.name)}.part-*"):
        touched = max((path.stat().st_mtime for path in (aside, *aside.iterdir())), default=0.0)
        if time.time() - touched > ABANDONED:
            LOGGER.info("Removing %s, which a conversion that was ended has left.", aside)
            shutil.rmtree(aside, ignore_errors=True)


def choose_mixed(
    errors: Mapping[str, Mapping[Packing, float]], sizes: Mapping[str, int], budget: float
) -> dict[str, Packing]:
    """Return how to pack each layer, given the relative RMS error of each way and its number of weights.

    Every layer takes the way with the least sensitivity (POLICY) x squared error + price x bytes. The price, one for
    all, is the lowest at which the packed layers fit into `budget` bytes.
    """

    def choose(price: float) -> dict[str, Packing]:
        chosen = {}
        for layer, ways in errors.items():
            weight, cost = POLICY["dit"][_kind(layer)], price * sizes[layer]
            chosen[layer] = min(ways, key=lambda way: weight * ways[way] ** 2 + cost * way.weight_bytes)  # noqa: B023
        return chosen

    low, high = -30.0, 10.0  # powers of ten: nothing else than errors counts, nothing else than bytes
    for _ in range(60):
        middle = (low + high) / 2
        fits = sum(sizes[layer] * way.weight_bytes for layer, way in choose(10**middle).items()) <= budget
        low, high = (low, middle) if fits else (middle, high)
    return choose(10**high)


def weight_errors(source: ComponentFile, name: str, ways: Sequence[Packing]) -> dict[Packing, float]:
    """Return the RMS of what each way of packing changes in a matrix [out, in], relative to the RMS of its values."""
    changed, total = dict.fromkeys(ways, 0.0), 0.0
    for part in _slices(source, name):
        weight = part.astype(mx.bfloat16)
        exact = weight.astype(mx.float32)
        total += mx.square(exact).sum().item()
        for way in ways:
            how = {"group_size": way.group_size, "bits": way.bits}
            words, *factors = mx.quantize(weight, **how)
            restored = mx.dequantize(words, *(factor.astype(mx.float32) for factor in factors), **how)
            changed[way] += mx.square(restored - exact).sum().item()
    mx.clear_cache()
    return {way: math.sqrt(value / total) if total else 0.0 for way, value in changed.items()}


def _kind(layer: str) -> str:
    return re.sub(r"^blocks\.\d+\.", "", layer)


def _plan(fitted: Fitted, options: ConvertOptions, listener: Listener) -> Plan:
    source, component = fitted.source, fitted.source.component
    wanted = options.packing(component)
    modules = fitted.network.named_modules() if component in POLICY else ()
    packed = {name: Packing(*module.packing) for name, module in modules if isinstance(module, PackedLinear)}
    for layer, packing in packed.items():
        if wanted is not None and (packing != wanted or options.mixed):
            raise RequestError(
                f"{source.path}: '{layer}' is packed in {packing.bits} bits, groups of {packing.group_size} already, "
                "and packing it again would add to its error: convert the dense model, or leave the bits as they are."
            )
    fresh = _to_pack(source, wanted, packed) if wanted is not None else {}
    if options.mixed and component == "dit":
        fresh = _mixed(source, fresh, listener)
    dtype = DTYPES[options.dtype] if component in NARROWED else "F32"
    steps = tuple(_step(source, name, dtype, fresh) for name in source.tensors)
    return Plan(source, steps, {**packed, **fresh})


def _to_pack(source: ComponentFile, packing: Packing, packed: Mapping[str, Packing]) -> dict[str, Packing]:
    layers = {}
    for name, info in source.tensors.items():
        layer = name.removesuffix(".weight")
        if layer == name or layer in packed or _kind(layer) not in POLICY[source.component]:
            continue
        if info.shape[-1] % packing.group_size:
            raise RequestError(
                f"{source.path}: '{layer}' has {info.shape[-1]} inputs, which are not whole groups of "
                f"{packing.group_size}: choose a smaller group size, or leave the model dense."
            )
        layers[layer] = packing
    return layers


def _mixed(source: ComponentFile, layers: Mapping[str, Packing], listener: Listener) -> dict[str, Packing]:
    errors, sizes = {}, {}
    for count, (layer, wanted) in enumerate(layers.items(), start=1):
        listener.check_cancelled()
        rows, inputs = source.tensors[f"{layer}.weight"].shape
        ways = [Packing(LOW_BITS, size) for size in GROUP_SIZES if inputs % size == 0]
        ways.append(Packing(HIGH_BITS, wanted.group_size))
        errors[layer], sizes[layer] = weight_errors(source, f"{layer}.weight", ways), rows * inputs
        _tell(listener, "measuring errors", count, len(layers))
    uniform = sum(sizes[layer] * packing.weight_bytes for layer, packing in layers.items())
    return choose_mixed(errors, sizes, (1 + MIXED_BUDGET) * uniform)


def _step(source: ComponentFile, name: str, dtype: str, fresh: Mapping[str, Packing]) -> Step:
    info, target = source.tensors[name], snapshot_name(source.component, name)
    layer, _, leaf = name.rpartition(".")
    if leaf != "weight" or layer not in fresh:
        is_packed = f"{layer}.scales" in source.tensors and leaf in ("weight", "scales", "biases")
        return Step(name, {target: _info(info.dtype if is_packed else dtype, info.shape)})
    packing, (rows, inputs), stem = fresh[layer], info.shape, target.removesuffix("weight")
    words = _info("U32", (rows, inputs * packing.bits // 32))
    groups = _info("BF16", (rows, inputs // packing.group_size))
    return Step(name, {target: words, f"{stem}scales": groups, f"{stem}biases": groups}, packing)


def _info(dtype: str, shape: tuple[int, ...]) -> TensorInfo:
    return TensorInfo(dtype, shape, math.prod(shape) * NUMPY_DTYPES[dtype].itemsize)


def _write_component(plan: Plan, path: Path, listener: Listener) -> None:
    entries: dict[str, Any] = {"__metadata__": {"format": "mlx"}}
    places, end = {}, 0
    # Wide items first, so that every tensor lies aligned to its items, as the format's own library writes them.
    for name, info in sorted(plan.outputs.items(), key=lambda item: (-NUMPY_DTYPES[item[1].dtype].itemsize, item[0])):
        places[name], end = end, end + info.nbytes
        entries[name] = {"dtype": info.dtype, "shape": list(info.shape), "data_offsets": [places[name], end]}
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    with path.open("xb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        start = file.tell()
        for count, step in enumerate(plan.steps, start=1):
            _write_step(plan.source, step, file, {name: start + places[name] for name in step.outputs}, listener)
            mx.clear_cache()
            _tell(listener, f"converting the {CALLED[plan.source.component]}", count, len(plan.steps))


def _write_step(source: ComponentFile, step: Step, file: BinaryIO, places: dict[str, int], listener: Listener) -> None:
    for part in _slices(source, step.name):
        listener.check_cancelled()
        if step.packing is None:
            made = (_cast(source, step, part),)
        else:
            how = step.packing
            made = mx.quantize(part.astype(mx.bfloat16), group_size=how.group_size, bits=how.bits)
        for name, array in zip(step.outputs, made, strict=True):
            bits = array.view(mx.uint16) if array.dtype == mx.bfloat16 else array
            file.seek(places[name])
            places[name] += file.write(memoryview(np.array(bits, copy=False)).cast("B"))


def _cast(source: ComponentFile, step: Step, part: mx.array) -> mx.array:
    (dtype,) = (info.dtype for info in step.outputs.values())
    if dtype not in MLX_DTYPES or MLX_DTYPES[dtype] == part.dtype:
        return part
    made = part.astype(MLX_DTYPES[dtype])
    if dtype == "F16" and not mx.array_equal(mx.isinf(made), mx.isinf(part)).item():
        raise RequestError(
            f"{source.path}: '{step.name}' has values above 65504, which float16 cannot hold: choose bfloat16."
        )
    return made


def _slices(source: ComponentFile, name: str) -> Iterator[mx.array]:
    """Yield a tensor in slices along its first axis.

    Where the file's layout allows no more than a slice is read and restored at a time; elsewhere it stays NumPy's until
    then, because a whole copy in MLX beside it would double the peak.
    """
    info = source.tensors[name]
    count = info.shape[0] if info.shape else 1
    rows = max(1, SLICE_BYTES * count // max(info.nbytes, 1))
    whole = source.values(name) if not source.has_rows(name) else None
    for start in range(0, count, rows):
        stop = min(start + rows, count)
        part = source.rows(name, np.arange(start, stop)) if whole is None else whole[start:stop]
        yield to_mlx(part, info.dtype)


def _settings(snapshot: Snapshot, plans: Mapping[str, Plan], dit: Fitted) -> dict[str, Any]:
    """Return config.json: the sizes of the DiT, and what is packed."""
    settings = dit_settings(dit.network.config)
    for key in ("clip_num_heads", LIMITS):
        if key in snapshot.settings:
            settings[key] = snapshot.settings[key]
    for key, component in (("quantization", "dit"), ("text_encoder_quantization", "t5_encoder")):
        if component in plans and plans[component].packed:
            settings[key] = _quantization(component, plans[component].packed)
    return settings


def _quantization(component: str, packed: Mapping[str, Packing]) -> dict[str, Any]:
    most = Counter(packed.values()).most_common(1)[0][0]
    made: dict[str, Any] = asdict(most)
    for layer, packing in sorted(packed.items()):
        if packing != most:
            made[snapshot_name(component, f"{layer}.weight").removesuffix(".weight")] = asdict(packing)
    return made


def _tell(listener: Listener, phase: str, done: int, total: int) -> None:
    listener.progress(Progress(phase=phase, done=done, total=total, step=done, steps=total))


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
