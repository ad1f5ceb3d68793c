"""A snapshot's files as ready networks."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import mlx.core as mx

from ...interface.events import LOGGER
from ...interface.sizes import ClipConfig, UMT5Config, VAEConfig, WanConfig
from ...interface.storage import Storage
from ...members import member_named
from ...models.clip_vision import ClipVision
from ...models.linear import PackedLinear
from ...models.offload import BlockNetwork
from ...models.umt5 import UMT5Encoder
from ...models.vae21 import WanVAE21
from ...models.wan import WanModel
from ...runtime.crossover import few_rows
from ...runtime.device import compute_dtype
from ..formats.arrays import MLX_DTYPES
from .component_file import ComponentFile, open_component
from .detect import clip_config, dit_config, umt5_config, vae_config
from .load import fit, load_into, narrow_dtype
from .offload import BlockReader, placeholder, row_reader
from .snapshot import Snapshot

WORDS = "token_embedding.weight"

Network = WanModel | WanVAE21 | UMT5Encoder | ClipVision


def load_component(
    snapshot: Snapshot,
    component: str,
    precision: str,
    check_cancelled: Callable[[], None],
    residency: str = "resident",
) -> Network:
    """Load "dit", "vae", "t5_encoder" or "clip", evaluated in this thread. Raises WeightsError.

    With the residency "streamed" the blocks of the DiT or text encoder, and the text encoder's table of words, stay in
    the file until they are used. `check_cancelled` is called between tensors; what it raises leaves nothing behind.
    """
    source, model = _fitting(snapshot, component, precision)
    dtype = compute_dtype(precision, component)
    streamed: set[str] = set()
    if residency == "streamed" and isinstance(model, BlockNetwork):
        stream = BlockReader(model, source, narrow_dtype(component, dtype))
        streamed = set(stream.tensors)
        if isinstance(model, UMT5Encoder):
            model.token_embedding.take_rows_from(row_reader(source, WORDS))
            model.token_embedding.weight = placeholder(model.token_embedding.weight)
            streamed.add(WORDS)
    LOGGER.info("%s: %s%s", source.path, source.description, ", streamed" if streamed else "")
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


def part_sizes(snapshot: Snapshot, component: str, precision: str) -> PartSizes:
    """Return what planning needs to know of a component, from its file's header alone. Raises WeightsError.

    Layers packed in several ways count as packed in their mean number of bits, rounded up.
    """
    source, model = _fitting(snapshot, component, precision)
    compute = compute_dtype(precision, component)
    dense = Counter[mx.Dtype]()
    for info in source.tensors.values():
        if info.dtype in MLX_DTYPES:
            dense[MLX_DTYPES[info.dtype]] += info.nbytes
    stored = dense.most_common(1)[0][0]
    narrow = narrow_dtype(component, compute)
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


def check_file(snapshot: Snapshot, component: str, precision: str) -> None:
    """Raise WeightsError or RequestError exactly where `load_component` would, from the file's header alone."""
    _fitting(snapshot, component, precision)


def _fitting(snapshot: Snapshot, component: str, precision: str) -> tuple[ComponentFile, Network]:
    """Return the file of a component and the network that it fits, still without weights."""
    path = snapshot.path(component)
    source = open_component(path, component)
    dtype = compute_dtype(precision, component)
    model: Network
    if component == "dit":
        member = member_named(source.member or "")
        model = member.network(dit_config(path, source.tensors, snapshot.settings, member), dtype)
    elif component == "vae":
        model = WanVAE21(vae_config(path, source.tensors))
    elif component == "t5_encoder":
        model = UMT5Encoder(umt5_config(path, source.tensors), dtype)
    else:
        model = ClipVision(clip_config(path, source.tensors, snapshot.settings), dtype)
    fit(model, source, dtype)
    return source, model
