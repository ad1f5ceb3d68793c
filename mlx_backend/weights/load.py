"""The one door through which weights enter the networks: strict, complete, checked before anything is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_flatten, tree_unflatten

from ..models.linear import Linear, PackedLinear
from ..spec.errors import WeightsError
from .formats import TensorInfo, read_header
from .layouts import official_name

FLOATS = ("F32", "F16", "BF16")
SHOWN = 3  # names in an error; the rest is counted


def component_tensors(path: Path, component: str) -> dict[str, TensorInfo]:
    """Return the header of a snapshot's file under the official names. Raises WeightsError."""
    return {official_name(component, name): info for name, info in read_header(path).items()}


def load_into(
    model: nn.Module,
    path: Path,
    component: str,
    compute_dtype: mx.Dtype | None,
    check_cancelled: Callable[[], None],
) -> None:
    """Fill `model`, built for this file's sizes, with the tensors of `path`, and evaluate them in this thread.

    Linears whose file has `.scales` become PackedLinear, with the bits and group size that the shapes tell.
    Raises WeightsError when a tensor is missing, surplus or misshapen; then nothing has been read.
    """
    tensors = component_tensors(path, component)
    _pack_linears(model, path, tensors, compute_dtype)
    wanted = {name: tuple(array.shape) for name, array in tree_flatten(model.parameters())}
    _check_shapes(path, tensors, wanted)
    arrays = {official_name(component, name): array for name, array in mx.load(str(path)).items()}
    model.load_weights(list(arrays.items()), strict=True)
    while arrays:  # one by one: evaluating all at once would hold source and copy
        check_cancelled()
        mx.eval(arrays.popitem()[1])


def _pack_linears(model: nn.Module, path: Path, tensors: dict[str, TensorInfo], compute_dtype: mx.Dtype | None) -> None:
    packed = []
    for name, module in model.named_modules():
        if isinstance(module, Linear) and f"{name}.scales" in tensors:
            out_dim, in_dim = module.weight.shape
            words = tensors[f"{name}.weight"].shape[-1]
            groups = tensors[f"{name}.scales"].shape[-1]
            bits, group_size = 32 * words // in_dim, in_dim // max(groups, 1)
            if 32 * words != bits * in_dim or groups * group_size != in_dim:
                raise WeightsError(
                    f"{path}: '{name}.weight' has {words} packed words and {groups} scales per row, which fit no "
                    f"bits and group size for {in_dim} inputs: the file is damaged, download it again."
                )
            linear = PackedLinear(
                in_dim,
                out_dim,
                bias="bias" in module,
                group_size=group_size,
                bits=bits,
                compute_dtype=compute_dtype,
            )
            packed.append((name, linear))
    if packed:
        model.update_modules(tree_unflatten(packed))


def _check_shapes(path: Path, tensors: dict[str, TensorInfo], wanted: dict[str, tuple[int, ...]]) -> None:
    missing = sorted(wanted.keys() - tensors.keys())
    surplus = sorted(tensors.keys() - wanted.keys())
    if missing or surplus:
        found = [f"lacks {_some(missing)}"] if missing else []
        found += [f"has {_some(surplus)} that this model does not know"] if surplus else []
        raise WeightsError(
            f"{path} {' and '.join(found)}; expected are exactly {len(wanted)} tensors, found {len(tensors)}: "
            "download the snapshot again, or choose the file of the right model."
        )
    for name, shape in wanted.items():
        info = tensors[name]
        if info.shape != shape:
            raise WeightsError(
                f"{path}: tensor '{name}' has shape {list(info.shape)}, expected {list(shape)}: "
                "the file does not fit the rest of the model, download the snapshot again."
            )
        if info.dtype not in FLOATS and not (info.dtype == "U32" and name.removesuffix("weight") + "scales" in wanted):
            raise WeightsError(
                f"{path}: tensor '{name}' is stored as {info.dtype}, but only {', '.join(FLOATS)} and packed U32 "
                "can be loaded: use a bf16, fp16 or MLX-packed snapshot."
            )


def _some(names: list[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:SHOWN])
    return f"tensor {shown}" if len(names) == 1 else f"{len(names)} tensors ({shown}{' ...' * (len(names) > SHOWN)})"
