"""A snapshot's files as ready networks."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import mlx.core as mx

from ...interface.events import LOGGER
from ...interface.sizes import ClipConfig, UMT5Config, VAEConfig, WanConfig
from ...members import member_named
from ...models.clip_vision import ClipVision
from ...models.linear import PackedLinear
from ...models.offload import BlockNetwork
from ...models.umt5 import UMT5Encoder
from ...models.vae import WanVAE
from ...models.vae21 import WanVAE21
from ...models.vae22 import WanVAE22
from ...models.wan import WanModel
from ...planning.storage import Storage
from ...runtime.crossover import few_rows
from ...runtime.device import compute_dtype
from ..formats.arrays import MLX_DTYPES
from ..formats.sources import FileState, file_state, warn_of_surplus
from .component_file import ComponentFile, open_component
from .detect import clip_config, dit_config, umt5_config, vae_config
from .load import fit, load_into, narrow_dtype
from .offload import BlockReader, placeholder, row_reader
from .snapshot import Snapshot

WORDS = "token_embedding.weight"

Network = WanModel | WanVAE | UMT5Encoder | ClipVision


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """A component's file and the network that it fits, still without weights, whose products run in `dtype`.

    `state` is that of the files when they were opened. A network is filled once.
    """

    source: ComponentFile
    network: Network
    dtype: mx.Dtype | None
    state: FileState

    @property
    def is_current(self) -> bool:
        """Whether the files are still those that were opened."""
        return file_state(self.source.file) == self.state


def fitting(snapshot: Snapshot, component: str, precision: str) -> Fitted:
    """Open the file of "dit", "vae", "t5_encoder" or "clip" and build the network for it, from the file's header alone.

    Raises WeightsError or RequestError for whatever cannot be loaded.
    """
    path = snapshot.path(component)
    source = open_component(path, component)
    dtype = compute_dtype(precision, component)
    network: Network
    if component == "dit":
        member = member_named(source.member or "")
        network = member.network(dit_config(path, source.tensors, snapshot.settings, member), dtype)
    elif component == "vae":
        config = vae_config(path, source.tensors)
        network = WanVAE22(config) if config.patch > 1 else WanVAE21(config)
    elif component == "t5_encoder":
        network = UMT5Encoder(umt5_config(path, source.tensors), dtype)
    else:
        network = ClipVision(clip_config(path, source.tensors, snapshot.settings), dtype)
    fit(network, source, dtype)
    return Fitted(source, network, dtype, file_state(source.file))


def load_component(fitted: Fitted, check_cancelled: Callable[[], None], residency: str = "resident") -> Network:
    """Fill the network of a fitted component, evaluated in this thread, and return it. Raises WeightsError.

    With the residency "streamed" the blocks of the DiT or text encoder, and the text encoder's table of words, stay in
    the file until they are used. `check_cancelled` is called between tensors; what it raises, or any error, leaves a
    network that nobody can use.
    """
    source, model, dtype = fitted.source, fitted.network, fitted.dtype
    streamed: set[str] = set()
    if residency == "streamed" and isinstance(model, BlockNetwork):
        stream = BlockReader(model, source, narrow_dtype(source.component, dtype))
        streamed = set(stream.tensors)
        if isinstance(model, UMT5Encoder):
            model.token_embedding.take_rows_from(row_reader(source, WORDS))
            model.token_embedding.weight = placeholder(model.token_embedding.weight)
            streamed.add(WORDS)
    LOGGER.info("%s: %s%s", source.path, source.description, ", streamed" if streamed else "")
    warn_of_surplus(source.file)
    load_into(model, source, dtype, check_cancelled, streamed)
    _measure_crossover(model, dtype)
    return model


def _measure_crossover(model: Network, dtype: mx.Dtype | None) -> None:
    """Tell packed layers up to how many rows they had better stay packed; one of each packing is measured."""
    measured: dict[tuple[int, int], int] = {}
    for layer in model.modules():
        if isinstance(layer, PackedLinear):
            if layer.packing not in measured:
                measured[layer.packing] = few_rows(layer.dense_shape, *layer.packing, dtype or layer.scales.dtype)
            layer.keep_packed_below(measured[layer.packing])


@dataclass(frozen=True, slots=True)
class PartSizes:
    """A part's sizes, how it lies in memory once it is loaded, and the dtype of its products ("float32" ...)."""

    config: WanConfig | VAEConfig | UMT5Config | ClipConfig
    storage: Storage
    compute: str


def part_sizes(fitted: Fitted) -> PartSizes:
    """Return what planning needs to know of a component that is not loaded yet.

    Layers packed in several ways count as packed in their mean number of bits, rounded up.
    """
    source, model, compute = fitted.source, fitted.network, fitted.dtype
    dense = Counter[mx.Dtype]()
    for info in source.tensors.values():
        if info.dtype in MLX_DTYPES:
            dense[MLX_DTYPES[info.dtype]] += info.nbytes
    stored = dense.most_common(1)[0][0]
    narrow = narrow_dtype(source.component, compute)
    if narrow is not None and stored == mx.float32:
        stored = narrow
    packed = [module for module in model.modules() if isinstance(module, PackedLinear)]
    weights = [math.prod(layer.dense_shape) for layer in packed]
    total = sum(layer.packing[0] * count for layer, count in zip(packed, weights, strict=True))
    bits = math.ceil(total / max(1, sum(weights)))
    group_size = min((layer.packing[1] for layer in packed), default=Storage().group_size)
    product = stored if compute is None else compute
    return PartSizes(model.config, Storage(_name(stored), bits, group_size), _name(product))


def _name(dtype: mx.Dtype) -> str:
    return str(dtype).rpartition(".")[2]
