"""LoRAs on a loaded model: side branches on its products, deltas in its small tensors, both taken back at will."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_flatten, tree_unflatten

from ...interface.events import LOGGER
from ...interface.requests import LoraRequest
from ...models.adapters import Adapter, Dora, dora_gain, side_branch
from ...models.linear import Linear, PackedLinear
from ...models.offload import BlockNetwork
from ..checkpoints.offload import BlockReader, Change
from .keys import Branch, LoraFile, alpha_names, parse
from .values import LoraValues

MAX_CONFIG_BYTES = 1 << 20  # an adapter_config.json has a few hundred


@dataclass(frozen=True, slots=True, eq=False)
class LoadedLora:
    """A file's branches by module and its deltas by tensor, in memory; strengths come later."""

    plan: LoraFile
    branches: dict[str, Adapter | Dora]
    deltas: dict[str, mx.array]


@dataclass(slots=True)
class LoraState:
    """What is on a model now, and how to take it off: the untouched tensors that deltas have changed."""

    requests: tuple[LoraRequest, ...] = ()
    loaded: dict[tuple, LoadedLora] = field(default_factory=dict)
    originals: dict[str, mx.array] = field(default_factory=dict)


def apply_loras(model: BlockNetwork, requests: tuple[LoraRequest, ...], state: LoraState) -> None:
    """Make `requests`, in order, what is on the model; nothing of the model is loaded again, nor a file twice.

    `state` belongs to the model and is kept up to date. Raises WeightsError before anything is changed.
    """
    if requests == state.requests:
        return
    keys = [_identity(request) for request in requests]
    loaded = {
        key: state.loaded.get(key) or load_lora(request, model, state)
        for key, request in zip(keys, requests, strict=True)
    }
    remove_loras(model, state)
    branches: dict[str, list[Adapter | Dora]] = {}
    changes: dict[str, tuple[Change, ...]] = {}
    for key, request in zip(keys, requests, strict=True):
        lora = loaded[key]
        for module, branch in lora.branches.items():
            branches.setdefault(module, []).append(branch.at(request.strength))
        for name, delta in lora.deltas.items():
            replaces = name in lora.plan.deltas and lora.plan.deltas[name].kind == "set"
            changes[name] = (*changes.get(name, ()), Change(delta, request.strength, replaces))
    _change(model, changes, state)
    for name, module in model.named_modules():
        if name in branches:
            module.set_adapters(tuple(branches[name]))
    state.requests, state.loaded = requests, loaded


def _change(model: BlockNetwork, changes: dict[str, tuple[Change, ...]], state: LoraState) -> None:
    """Make changes to the tensors in memory, keeping the originals, and announce those to streamed ones."""
    stream = model.supply
    if isinstance(stream, BlockReader):
        streamed = stream.tensors.keys()
        stream.change({name: made for name, made in changes.items() if name in streamed})
        changes = {name: made for name, made in changes.items() if name not in streamed}
    tensors = dict(tree_flatten(model.parameters()))
    changed = {}
    for name, made in changes.items():
        state.originals[name] = changed[name] = tensors[name]
        for change in made:
            changed[name] = change(changed[name])
    mx.eval(changed)
    model.update(tree_unflatten(list(changed.items())))


def remove_loras(model: BlockNetwork, state: LoraState) -> None:
    """Take everything off the model again."""
    model.update(tree_unflatten(list(state.originals.items())))
    if isinstance(model.supply, BlockReader):
        model.supply.change({})
    for _, module in model.named_modules():
        if isinstance(module, (Linear, PackedLinear)):
            module.set_adapters(())
    state.originals, state.requests = {}, ()


def load_lora(request: LoraRequest, model: BlockNetwork, state: LoraState) -> LoadedLora:
    """Read a LoRA file for a model; one line in the log says what matched. Raises WeightsError."""
    file = LoraValues(request.path)
    file.tell()
    plan = read_plan(file, model, allow_unknown=request.allow_unknown)
    LOGGER.info("%s: %s", request.path.name, plan.summary())
    modules = dict(model.named_modules())
    targets = dict(tree_flatten(model.parameters())) | state.originals
    branches: dict[str, Adapter | Dora] = {}
    deltas = {}
    for name, branch in plan.branches.items():
        module = modules[name]
        if isinstance(module, (Linear, PackedLinear)):
            branches[name] = _branch(file, branch, lambda name=name: _dense(model, name))
        else:  # a stem: its few numbers take the change themselves
            weight = f"{name}.weight"
            deltas[weight] = _branch(file, branch, None).dense().reshape(targets[weight].shape)
    for name, delta in plan.deltas.items():
        deltas[name] = delta.scale * file.array(delta.name).astype(mx.float32).reshape(targets[name].shape)
    mx.eval(deltas)
    return LoadedLora(plan, branches, deltas)


def read_plan(file: LoraValues, model: nn.Module, *, allow_unknown: bool) -> LoraFile:
    """Tell what a file does to a model, from names, shapes and alphas. Raises WeightsError."""
    shapes, metadata = file.shapes, dict(file.metadata)
    beside = file.path.with_name("adapter_config.json")
    if beside.is_file() and beside.stat().st_size <= MAX_CONFIG_BYTES:
        metadata["adapter_config.json"] = beside.read_text(encoding="utf-8")
    return parse(
        shapes,
        shapes,
        metadata,
        lora_targets(model),
        alphas={name: float(file.array(name).item()) for name in alpha_names(shapes)},
        allow_unknown=allow_unknown,
        source=str(file.path),
    )


def lora_targets(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the official names and unpacked shapes of a model's tensors."""
    shapes = {name: tuple(array.shape) for name, array in tree_flatten(model.parameters())}
    for name, module in model.named_modules():
        if isinstance(module, PackedLinear):
            shapes[f"{name}.weight"] = module.dense_shape
            del shapes[f"{name}.scales"], shapes[f"{name}.biases"]
    return shapes


def _branch(file: LoraValues, branch: Branch, weight: Callable[[], mx.array] | None) -> Adapter | Dora:
    parts = {part: file.array(name) for part, name in branch.names.items()}
    mx.eval(parts)
    side = side_branch(branch.kind, parts, branch.scale)
    if branch.dora is None or weight is None:
        return side
    return Dora(side, dora_gain(file.array(branch.dora), side, weight))


def _dense(model: BlockNetwork, name: str) -> mx.array:
    """Return the unpacked weight of a Linear, which may have to be read for that."""
    if isinstance(model.supply, BlockReader) and f"{name}.weight" in model.supply.tensors:
        return model.supply.dense(name)
    return dict(model.named_modules())[name].dense()


def _identity(request: LoraRequest) -> tuple:
    """What makes a loaded file the same one: strengths change without reading it again."""
    status = request.path.stat() if request.path.is_file() else None
    return (request.path, request.allow_unknown, status and (status.st_mtime_ns, status.st_size))
