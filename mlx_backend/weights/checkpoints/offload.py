"""Weights that are in memory only while they are used: blocks read one ahead, rows of a table as they are asked for.

At full size a block computes for seconds and is read in a tenth of one, so a model of any size runs in the memory of
two blocks, at the speed of one that stays.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
from mlx import nn
from mlx.utils import tree_flatten, tree_unflatten

from ...interface.errors import WeightsError
from ...models.linear import AdaptableLinear
from ...models.offload import BlockNetwork
from ..formats.arrays import as_stored, to_mlx, typed
from ..formats.finite import check_finite
from ..formats.safetensors_file import TensorInfo
from .component_file import ComponentFile
from .load import narrowed

BLOCKS = "blocks."


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """What a LoRA does to a small tensor: `delta` added `strength` times, or put in its place where `replaces`."""

    delta: mx.array
    strength: float
    replaces: bool

    def __call__(self, tensor: mx.array) -> mx.array:
        """Return the changed tensor, in its own dtype."""
        if self.replaces:
            return self.delta.astype(tensor.dtype) if self.strength else tensor
        return (tensor.astype(mx.float32) + self.strength * self.delta).astype(tensor.dtype)


class BlockReader:
    """Gives the blocks of one network their weights when they are due and takes them away afterwards.

    While a block computes, a thread reads the next one's: two blocks are in memory. The thread only reads and copies;
    nothing is computed in it, because MLX's streams belong to threads. Not for two threads at a time.
    """

    def __init__(self, model: BlockNetwork, source: ComponentFile, narrow: mx.Dtype | None):
        """Take the weights of `model.blocks`, made ready by `load.fit`, from `source`.

        `narrow` is what float32 weights are kept as, None: as they are.
        """
        self._source = source
        self._narrow = narrow
        self._names: list[list[str]] = [[] for _ in model.blocks]
        for name in source.tensors:
            if name.startswith(BLOCKS):
                self._names[int(name.split(".")[1])].append(name)
        self._modules = dict(model.named_modules())
        self._changes: Mapping[str, tuple[Change, ...]] = {}
        self._checked: set[str] = set()  # numbers stay numbers: only the first arrival is looked at
        for block in model.blocks:
            _empty(block)
        model.take_blocks_from(self)

    @property
    def tensors(self) -> dict[str, TensorInfo]:
        """What is streamed: the tensors of the blocks."""
        return {name: self._source.tensors[name] for names in self._names for name in names}

    def change(self, changes: Mapping[str, tuple[Change, ...]]) -> None:
        """Let these changes, and no others, be made to tensors (full names) whenever they arrive, in order."""
        self._changes = changes

    def dense(self, name: str) -> mx.array:
        """Return the weight of one Linear of a block, unpacked and evaluated. Raises WeightsError."""
        linear = self._modules[name]
        if not isinstance(linear, AdaptableLinear):
            raise TypeError(f"{name} is no Linear")
        _fill(linear, f"{name}.", self._read([n for n in self.tensors if n.startswith(f"{name}.")]), self._arrived)
        try:
            weight = linear.dense()
            mx.eval(weight)
            return weight
        finally:
            _empty(linear)

    def due(self, blocks: list[Any]) -> Generator[Any, None, None]:
        """Yield each block with its weights. Raises WeightsError when the file cannot be read any more."""
        stop = threading.Event()
        with ThreadPoolExecutor(1, thread_name_prefix="scail2-weights") as reader:
            try:
                ahead = reader.submit(self._read, self._names[0], stop)
                for i, block in enumerate(blocks):
                    arrived = ahead.result()
                    if i + 1 < len(blocks):
                        ahead = reader.submit(self._read, self._names[i + 1], stop)
                    _fill(block, f"{BLOCKS}{i}.", arrived, self._arrived)
                    del arrived
                    try:
                        yield block
                    finally:
                        _empty(block)
            finally:
                stop.set()
                _forget(ahead)

    def _read(self, names: list[str], stop: threading.Event | None = None) -> dict[str, mx.array]:
        """Return tensors as they are stored, bf16 as its bits: what a thread may make without computing."""
        made = {}
        for name in names:
            if stop is not None and stop.is_set():
                break
            try:
                made[name] = as_stored(self._source.values(name))
            except (OSError, ValueError) as error:
                raise WeightsError(
                    f"{self._source.path}: tensor '{name}' cannot be read any more ({error}): the file was moved, "
                    "changed or its disk removed while it was in use; put it back and run again."
                ) from error
        return made

    def _arrived(self, name: str, stored: mx.array) -> mx.array:
        array = typed(stored, self._source.tensors[name].dtype)
        if name not in self._checked:
            check_finite(self._source.path, name, array)
            self._checked.add(name)
        array = narrowed(array, self._narrow)
        for change in self._changes.get(name, ()):
            array = change(array)
        return array


def row_reader(source: ComponentFile, name: str) -> Callable[[mx.array], mx.array]:
    """Return ids [L] -> rows [L, dim] of a table that stays in its file. Raises WeightsError when it is called."""

    def rows(ids: mx.array) -> mx.array:
        return to_mlx(source.rows(name, np.array(ids)), source.tensors[name].dtype)

    return rows


def placeholder(array: mx.array) -> mx.array:
    """Return zeros of the shape and dtype of `array` that take no memory, evaluated."""
    made = mx.broadcast_to(mx.array(0, array.dtype), array.shape)
    mx.eval(made)
    return made


def _fill(
    module: nn.Module, prefix: str, arrived: dict[str, mx.array], finish: Callable[[str, mx.array], mx.array]
) -> None:
    arrays = [(name.removeprefix(prefix), finish(name, arrived.pop(name))) for name in list(arrived)]
    mx.eval([array for _, array in arrays])
    module.update(tree_unflatten(arrays))


def _empty(module: nn.Module) -> None:
    module.update(tree_unflatten([(name, placeholder(array)) for name, array in tree_flatten(module.parameters())]))


def _forget(ahead: Future) -> None:
    """Drop what was read ahead and not used; an error in it concerns nobody any more."""
    if not ahead.cancel():
        ahead.exception()
