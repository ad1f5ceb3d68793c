"""One component's tensors under the networks' names and in their layout, from a file of any known layout and format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import numpy as np

from ...interface.errors import WeightsError
from ..formats.arrays import to_mlx
from ..formats.quantised import QuantisedTensor, model_tensors, quantised_of, restore
from ..formats.safetensors_file import TensorInfo
from ..formats.sources import TensorFile, open_tensors, read_rows
from ..names.key_maps import Recipe, identify, kind_of, recipes, surplus

# What belongs to the CLIP checkpoint but takes no part in SCAIL-2: some files leave it out.
CLIP_OPTIONAL = {"post_norm.weight": 1, "post_norm.bias": 1, "head": 2}


@dataclass(frozen=True, slots=True, eq=False)
class ComponentFile:
    """What a network can be filled from: `tensors` as the network names and shapes them, without their data.

    Weights that the file stores quantised appear as "F32", which is what `array` restores them to. `member` is the name
    of the model whose diffusion transformer it is, None for other components.
    """

    path: Path
    component: str
    description: str
    tensors: dict[str, TensorInfo]
    file: TensorFile
    recipes: Mapping[str, Recipe]
    quantised: Mapping[str, QuantisedTensor]
    member: str | None = None

    def array(self, name: str) -> mx.array:
        """Read one tensor, restored and rearranged. Raises WeightsError."""
        return to_mlx(self.values(name), self.tensors[name].dtype)

    def values(self, name: str) -> np.ndarray:
        """Read the same tensor as NumPy's, dtypes that it lacks as their bits. Raises WeightsError."""
        if name not in self.recipes:  # left out by the file, and of no part in the network
            return np.zeros(self.tensors[name].shape, np.float32)
        recipe = self.recipes[name]
        return recipe.apply([self._read(source) for source in recipe.sources])

    def rows(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Read some rows of a table, where the file's layout allows without the rest of it. Raises WeightsError."""
        if not self.has_rows(name):
            return self.values(name)[rows]
        return read_rows(self.file, self.recipes[name].sources[0], rows)

    def has_rows(self, name: str) -> bool:
        """Whether the rows of a tensor can be read without the rest of it."""
        recipe = self.recipes.get(name)
        plain = recipe is not None and recipe.is_plain and recipe.sources[0] not in self.quantised
        return plain and bool(self.tensors[name].shape)

    def _read(self, source: str) -> np.ndarray:
        quantised = self.quantised.get(source)
        return self.file.read(source) if quantised is None else restore(quantised, self.file.read)


def open_component(path: Path, component: str) -> ComponentFile:
    """Open the file of "dit", "vae", "t5_encoder" or "clip" by its content.

    Raises WeightsError for a damaged file, for another component or model, and for a format that is not known.
    """
    file = open_tensors(path)
    quantised = quantised_of(file)
    stored = model_tensors(file.tensors)
    for name, tensor in quantised.items():
        stored[name] = TensorInfo("F32", tensor.shape, 4 * int(np.prod(tensor.shape)))
    named = identify(stored)
    found = named.whole or named  # what a damaged file lacks is told by `fit`
    if found.component != component:
        raise WeightsError(
            f"{path} is {named.description}, but {kind_of(component)} is needed here: choose the matching file or "
            "snapshot."
        )
    made = recipes(found, stored)
    leftover = surplus(found, stored, made)
    tensors = {name: _info(recipe, stored) for name, recipe in made.items()} | {name: stored[name] for name in leftover}
    if component == "clip" and found.layout != "turnkey":
        tensors |= _left_out(tensors)
    return ComponentFile(path, component, found.description, tensors, file, made, quantised, found.member)


def _info(recipe: Recipe, stored: Mapping[str, TensorInfo]) -> TensorInfo:
    first = stored[recipe.sources[0]]
    return TensorInfo(first.dtype, recipe.shape(stored), first.nbytes)


def _left_out(tensors: Mapping[str, TensorInfo]) -> dict[str, TensorInfo]:
    norm = tensors.get("pre_norm.weight")
    missing = {name: ndim for name, ndim in CLIP_OPTIONAL.items() if name not in tensors}
    return {} if norm is None else {name: TensorInfo("F32", norm.shape * ndim, 0) for name, ndim in missing.items()}
