"""The tensors of a network by their sizes, from the network itself: built without its weights, nothing is evaluated."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from functools import cache

from mlx import nn
from mlx.utils import tree_flatten

from ..interface.sizes import ClipConfig, UMT5Config, VAEConfig, WanConfig
from ..members import network_of
from ..models.clip_vision import ClipVision
from ..models.linear import Product
from ..models.umt5 import UMT5Encoder
from ..models.vae21 import WanVAE21
from ..models.vae22 import WanVAE22
from .storage import Matrix, Storage

Config = WanConfig | VAEConfig | UMT5Config | ClipConfig


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """How many numbers a network has, and where.

    `matrices`: those of one of its `blocks` by their names in it, each (outputs, inputs): what may be packed.
    `vectors`: the other numbers of a block. `outside`: the matrices outside the blocks; `rest`: all numbers there.
    """

    blocks: int
    matrices: Mapping[str, Matrix]
    vectors: int
    outside: Mapping[str, Matrix]
    rest: int

    def block_bytes(self, storage: Storage) -> int:
        """Return the bytes of one block as stored."""
        return sum(map(storage.matrix_bytes, self.matrices.values())) + self.vectors * storage.width

    def rest_bytes(self, storage: Storage) -> int:
        """Return the bytes of what lies outside the blocks: it is never packed."""
        return self.rest * storage.width

    def bytes(self, storage: Storage) -> int:
        """Return the bytes of the whole network."""
        return self.rest_bytes(storage) + self.blocks * self.block_bytes(storage)


@cache
def network(config: Config) -> nn.Module:
    """Return the network of these sizes, of zeros that are never made."""
    if isinstance(config, WanConfig):
        return network_of(config)
    if isinstance(config, VAEConfig) and config.patch > 1:
        return WanVAE22(config)
    builds = {VAEConfig: WanVAE21, UMT5Config: UMT5Encoder, ClipConfig: ClipVision}
    return builds[type(config)](config)


@cache
def weights(config: Config) -> Weights:
    """Return what the network of these sizes holds."""
    made = network(config)
    blocks = getattr(made, "blocks", getattr(made, "transformer", []))
    block = blocks[0] if blocks else nn.Module()
    matrices, inside = _matrices(block), {id(layer) for each in blocks for layer in each.modules()}
    vectors = _numbers(block) - sum(outputs * inputs for outputs, inputs in matrices.values())
    rest = _numbers(made) - len(blocks) * _numbers(block)
    return Weights(len(blocks), matrices, vectors, _matrices(made, inside), rest)


def _matrices(module: nn.Module, without: Container[int] = ()) -> dict[str, Matrix]:
    """Return (outputs, inputs) of what multiplies, by name; a stem's patches are its inputs."""
    found = {name: layer for name, layer in module.named_modules() if isinstance(layer, Product)}
    shapes = {name: layer.weight for name, layer in sorted(found.items()) if id(layer) not in without}
    return {name: (len(weight), weight.size // len(weight)) for name, weight in shapes.items()}


def _numbers(module: nn.Module) -> int:
    return sum(array.size for _, array in tree_flatten(module.parameters()))
