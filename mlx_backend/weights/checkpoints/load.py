"""The one door through which weights enter the networks: strict, complete, checked before anything is read."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_flatten, tree_unflatten

from ...interface.errors import WeightsError, listed
from ...models.linear import Linear, PackedLinear
from ..formats.finite import check_finite
from ..formats.safetensors_file import TensorInfo
from .component_file import ComponentFile

NARROWED = ("dit", "t5_encoder")
FLOATS = ("F32", "F16", "BF16")
PACKED = ("U32",)
PACKED_BITS = (2, 3, 4, 5, 6, 8)  # what mx.quantize offers
PACKED_GROUPS = (32, 64, 128)


def fit(model: nn.Module, source: ComponentFile, compute_dtype: mx.Dtype | None) -> None:
    """Make `model`, built for the sizes of these tensors, ready to take them.

    Linears whose file has `.scales` become PackedLinear, with the bits and group size that the shapes tell.
    Raises WeightsError when a tensor is missing, surplus, misshapen or of a dtype that cannot be loaded.
    """
    _pack_linears(model, source.path, source.tensors, compute_dtype)
    _check_tensors(source.path, source.tensors, dict(tree_flatten(model.parameters())))


def load_into(
    model: nn.Module,
    source: ComponentFile,
    compute_dtype: mx.Dtype | None,
    check_cancelled: Callable[[], None],
    streamed: Collection[str] = (),
) -> None:
    """Fill `model`, made ready by `fit`, tensor by tensor, each evaluated in this thread, but for those `streamed`.

    Raises WeightsError, naming the tensor, where one holds what is no number.
    """
    narrow = narrow_dtype(source.component, compute_dtype)
    arrays = []
    for name in source.tensors:
        if name in streamed:
            continue
        check_cancelled()
        array = source.array(name)
        check_finite(source.path, name, array)
        array = narrowed(array, narrow)
        mx.eval(array)
        arrays.append((name, array))
    model.load_weights(arrays, strict=not streamed)


def narrow_dtype(component: str, compute_dtype: mx.Dtype | None) -> mx.Dtype | None:
    """Return what float32 weights of a component are kept as, None: as they are.

    For half-precision products those of the DiT and the text encoder come in half precision where the file has
    float32: restored from a quantised form, or as they were trained.
    """
    if component not in NARROWED:
        return None
    if compute_dtype is None:  # which no Dtype can be compared with
        return mx.bfloat16
    return None if compute_dtype == mx.float32 else compute_dtype


def narrowed(array: mx.array, narrow: mx.Dtype | None) -> mx.array:
    """Return float32 as `narrow`, anything else as it is."""
    return array.astype(narrow) if narrow is not None and array.dtype == mx.float32 else array


def _pack_linears(model: nn.Module, path: Path, tensors: dict[str, TensorInfo], compute_dtype: mx.Dtype | None) -> None:
    packed = []
    for name, module in model.named_modules():
        if isinstance(module, Linear) and f"{name}.scales" in tensors and f"{name}.weight" in tensors:
            out_dim, in_dim = module.weight.shape
            words = (0, *tensors[f"{name}.weight"].shape)[-1]
            groups = (0, *tensors[f"{name}.scales"].shape)[-1]
            bits, group_size = 32 * words // in_dim, in_dim // max(groups, 1)
            whole = 32 * words == bits * in_dim and groups * group_size == in_dim
            if not whole or bits not in PACKED_BITS or group_size not in PACKED_GROUPS:
                raise WeightsError(
                    f"{path}: '{name}.weight' has {words} packed words, '{name}.scales' {groups} scales per row, but "
                    f"expected are {in_dim} inputs in {_any_of(PACKED_BITS)} bits, in groups of "
                    f"{_any_of(PACKED_GROUPS)}: the file is damaged or packed in another way, download it again."
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


def _check_tensors(path: Path, tensors: dict[str, TensorInfo], wanted: dict[str, mx.array]) -> None:
    missing = sorted(wanted.keys() - tensors.keys())
    surplus = sorted(tensors.keys() - wanted.keys())
    if missing or surplus:
        found = [f"lacks {_counted(missing)}"] if missing else []
        found += [f"has {_counted(surplus)} that this model does not know"] if surplus else []
        raise WeightsError(
            f"{path} {' and '.join(found)}; expected are exactly {len(wanted)} tensors, found {len(tensors)}: "
            "download the snapshot again, or choose the file of the right model."
        )
    for name, array in wanted.items():
        info = tensors[name]
        if info.shape != array.shape:
            raise WeightsError(
                f"{path}: tensor '{name}' has shape {list(info.shape)}, expected {list(array.shape)}: "
                "the file does not fit the rest of the model, download the snapshot again."
            )
        dtypes = PACKED if array.dtype == mx.uint32 else FLOATS
        if info.dtype not in dtypes:
            raise WeightsError(
                f"{path}: tensor '{name}' is stored as {info.dtype}, expected {_any_of(dtypes)}: "
                "use a bf16, fp16, fp32 or MLX-packed snapshot."
            )


def _any_of(choices: tuple[object, ...]) -> str:
    *others, last = map(str, choices)
    return f"{', '.join(others)} or {last}" if others else last


def _counted(names: list[str]) -> str:
    shown = listed([f"'{name}'" for name in names], " ...")
    return f"tensor {shown}" if len(names) == 1 else f"{len(names)} tensors ({shown})"
