"""Quantised single-file checkpoints: which tensors are quantised, and their weights as float32.

How a weight is quantised stands in one of four places: in the JSON of a uint8 tensor `<layer>.comfy_quant`; in the
JSON of the file's metadata under `_quantization_metadata`; in its dtype, with a `<layer>.scale_weight` (older files of
ComfyUI, with a tensor `scaled_fp8` in the file) or `<layer>.weight_scale` beside it; or in optimum-quanto's names,
`<weight>._data` and `<weight>._scale`. 8-bit floats with none of these are plain casts.

Sources: Comfy-Org/ComfyUI, comfy/ops.py, comfy/quant_ops.py, comfy/utils.py (convert_old_quants) and QUANTIZATION.md;
Comfy-Org/comfy-kitchen, comfy_kitchen/tensor/ and comfy_kitchen/backends/eager/quantization.py;
huggingface/optimum-quanto, optimum/quanto/tensor/weights/qbytes.py and nn/qmodule.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...interface.errors import WeightsError
from .fp_codes import FLOATS, FP8, decode, is_rotation_size, padded_scales, unrotate, unswizzle
from .safetensors_file import TensorInfo
from .sources import TensorFile, text_metadata

Tensors = Mapping[str, TensorInfo]
Read = Callable[[str], np.ndarray]
Shape = tuple[int, ...]

PREFIX = "model.diffusion_model."  # the names in the metadata may have it where the tensors lack it, and the reverse
METADATA = "_quantization_metadata"
MARKER = "scaled_fp8"
CONFIG = ".comfy_quant"
OLD_SCALE = ".scale_weight"
SCALE = ".weight_scale"
BLOCK_SCALE = ".weight_scale_inv"
SCALES = (OLD_SCALE, SCALE, BLOCK_SCALE, ".weight_scale_2", ".pre_quant_scale")  # no weight is right without its own
ACTIVATIONS = (".scale_input", ".input_scale", ".output_scale")  # for products in 8 bits, which are not formed here
QUANTO = "._data"
QUANTO_PARTS = (QUANTO, "._scale", "._shift")
MAX_CONFIG_BYTES = 1 << 16
SCALAR: tuple[Shape, ...] = ((), (1,), (1, 1))
BLOCKS = {"mxfp8": 32, "nvfp4": 16}  # how many inputs share a scale
ROTATION_SIZE = 256  # unless the file names another
ADVICE = "use the fp16, bf16, fp8_scaled or int8_convrot file of the model"
DAMAGED = "the file is damaged or not made for ComfyUI, download it again"


@dataclass(frozen=True, slots=True)
class QuantisedTensor:
    """A weight, and what its file stores in its place.

    `kind`: "fp8", "int8", "int8_convrot", "mxfp8", "nvfp4", or "scaled" for wider floats with a scale. `shape`: of the
    weight; ComfyUI pads mxfp8 to multiples of 32 and nvfp4 to 16, and the file does not tell from what. `parts` and
    `dtypes`: by role ("weight", "scale", "tensor_scale", "input_factor") the tensor's name in the file and the dtype of
    its values, which for raw bytes is not the file's. `rotation`: inputs in a group of "int8_convrot", else 0.
    """

    kind: str
    shape: Shape
    parts: Mapping[str, str]
    dtypes: Mapping[str, str]
    rotation: int = 0


def quantised_of(file: TensorFile) -> dict[str, QuantisedTensor]:
    """Return the quantised weights of an open file; see `find_quantised`. Raises WeightsError that names the file."""
    try:
        return find_quantised(file.tensors, file.read, text_metadata(file))
    except WeightsError as error:
        raise WeightsError(f"{file.path}: {error}") from error


def find_quantised(tensors: Tensors, read: Read, metadata: Mapping[str, str]) -> dict[str, QuantisedTensor]:
    """Return the quantised weights among `tensors`, the header of a file, by the name of their tensor.

    `read` returns a tensor of the file and is called for the small `<layer>.comfy_quant` alone; `metadata` is the
    header's `__metadata__`. Raises WeightsError for a format that is not known, for a scale that is missing, left over
    or misshapen, and for an 8-bit weight of which nothing says what it means.
    """
    found = {}
    for layer, config in _configs(tensors, read, metadata).items():
        found[f"{layer}.weight"] = _declared(tensors, layer, config)
    for name in tensors:
        if name.endswith(QUANTO):
            found[name.removesuffix(QUANTO)] = _quanto(tensors, name.removesuffix(QUANTO))
    extra = bookkeeping(tensors)
    scaled = tuple(name.removesuffix(MARKER) for name in extra if _is_marker(name))
    for name in tensors:
        if name not in found and name not in extra:
            tensor = _undeclared(tensors, name, must_be_scaled=name.startswith(scaled))
            if tensor is not None:
                found[name] = tensor
    used = {part for tensor in found.values() for part in tensor.parts.values()}
    for name in sorted(extra - used):
        if name.endswith(BLOCK_SCALE):
            raise WeightsError(
                f"Tensor '{name}' holds a scale for each block of its weight, which this program cannot decode: "
                f"{ADVICE}."
            )
        if name.endswith((*SCALES, *QUANTO_PARTS)):
            raise WeightsError(
                f"Tensor '{name}' is a scale, but nothing in the file says how it applies to its weight: {ADVICE}."
            )
    return found


def bookkeeping(tensors: Tensors) -> frozenset[str]:
    """Return the names that belong to quantisation and not to a model: scales, `comfy_quant`, `scaled_fp8`."""
    endings = (*SCALES, *ACTIVATIONS, CONFIG, *QUANTO_PARTS)
    return frozenset(name for name in tensors if name.endswith(endings) or _is_marker(name))


def model_tensors(tensors: Tensors) -> dict[str, TensorInfo]:
    """Return the tensors of the model alone, from a header; what quanto keeps in two carries the weight's name."""
    extra = bookkeeping(tensors)
    own = {name: info for name, info in tensors.items() if name not in extra}
    return own | {name.removesuffix(QUANTO): info for name, info in tensors.items() if name.endswith(QUANTO)}


def restore(tensor: QuantisedTensor, read: Read) -> np.ndarray:
    """Return the weight as float32 [tensor.shape]; beside it, only its stored parts are in memory.

    `read` returns a tensor of the file by name: in its own dtype where numpy has one, else its bits as uint8 or
    uint16. The arithmetic is that of comfy-kitchen's eager backend in float32, but for two things: "int8_convrot" is
    rotated before it is scaled, where sums are exact; and an "input_factor", by which ComfyUI multiplies the inputs,
    multiplies the weight.
    """

    def values(role: str) -> np.ndarray:
        return decode(read(tensor.parts[role]), tensor.dtypes[role])

    weight = unrotate(read(tensor.parts["weight"]), tensor.rotation) if tensor.rotation else values("weight")
    if tensor.kind in BLOCKS:
        blocks = weight.reshape(len(weight), -1, BLOCKS[tensor.kind])
        scale = unswizzle(values("scale"), len(weight), blocks.shape[1])
        if tensor.kind == "nvfp4":
            scale = np.float32(values("tensor_scale").item()) * scale
        else:
            scale = np.where(scale < 2.0**-126, np.float32(0), scale)  # code 0 is of an empty block: E8M0 has no zero
        blocks *= scale[..., None]
    elif "scale" in tensor.parts:
        scale = values("scale")
        weight *= np.float32(scale.item()) if scale.size == 1 else scale.reshape(-1, 1)
    if "input_factor" in tensor.parts:
        weight *= values("input_factor")
    return weight


def _declared(tensors: Tensors, layer: str, config: Mapping[str, Any]) -> QuantisedTensor:
    """Return a layer that the file says to be quantised, and how."""
    how = config.get("format")
    parts = _Parts(tensors, layer, how)
    rotated = _option(config, "convrot", default=False)
    match how:
        case "float8_e4m3fn" | "float8_e5m2" if not rotated:
            return _fp8(parts, "F8_E4M3" if how == "float8_e4m3fn" else "F8_E5M2")
        case "int8_tensorwise":
            return _int8(parts, _option(config, "convrot_groupsize", default=ROTATION_SIZE) if rotated else None)
        case "mxfp8" if not rotated:
            return _mxfp8(parts)
        case "nvfp4" if not rotated:
            return _nvfp4(parts)
    raise WeightsError(
        f"Tensor '{layer}.weight' is quantised as '{how}'{' with a rotation' if rotated else ''}, which this program "
        f"cannot decode: {ADVICE}."
    )


def _undeclared(tensors: Tensors, name: str, must_be_scaled: bool) -> QuantisedTensor | None:
    """Return a tensor of which only its dtype or a `scale_weight` says that it is quantised; None if neither does."""
    info = tensors[name]
    layer = name.removesuffix(".weight")
    for ending, stored_as in ((OLD_SCALE, (*FP8, *FLOATS)), (SCALE, FP8)):
        if f"{layer}{ending}" in tensors and info.dtype in stored_as:
            parts = _Parts(tensors, layer, "scaled fp8")
            shape = parts.take("weight", name.removeprefix(layer), stored_as).shape
            parts.take("scale", ending, FLOATS, shapes=_scales(shape, flat=True))
            return parts.quantised("fp8" if info.dtype in FP8 else "scaled", shape)
    if info.dtype in FP8:
        if must_be_scaled and layer != name and len(info.shape) == 2:
            raise WeightsError(
                f"Tensor '{name}' is {info.dtype} in a file of scaled fp8, but its scale '{layer}{OLD_SCALE}' is "
                f"missing: {DAMAGED}."
            )
        return QuantisedTensor("fp8", info.shape, {"weight": name}, {"weight": info.dtype})
    if info.dtype.startswith(("F8_", "F6_", "F4")) or (info.dtype in ("I8", "U8") and layer != name):
        raise WeightsError(
            f"Tensor '{name}' is stored as {info.dtype}, but nothing in the file says how it is quantised: {ADVICE}."
        )
    return None


def _quanto(tensors: Tensors, weight: str) -> QuantisedTensor:
    """8-bit whole numbers or floats of optimum-quanto, times one scale or one for each row."""
    if f"{weight}._shift" in tensors or tensors[weight + QUANTO].dtype == "U8":
        raise WeightsError(
            f"Tensor '{weight}' is quantised by quanto in 4 or 2 bits, which this program cannot decode: use quanto's "
            "int8 file, or the fp16 or bf16 file of the model."
        )
    parts = _Parts(tensors, weight, "quanto's 8 bits")
    shape = parts.take("weight", QUANTO, ("I8", *FP8)).shape
    parts.take("scale", "._scale", FLOATS, shapes=_scales(shape, flat=True))
    return parts.quantised("int8" if parts.dtypes["weight"] == "I8" else "fp8", shape)


class _Parts:
    """The tensors of one quantised layer, each checked as it is taken."""

    def __init__(self, tensors: Tensors, layer: str, how: object):
        self.tensors, self.layer, self.how = tensors, layer, how
        self.names: dict[str, str] = {}
        self.dtypes: dict[str, str] = {}

    def take(
        self, role: str, suffix: str, stored_as: tuple[str, ...], dtype: str = "", shapes: tuple[Shape, ...] = ()
    ) -> TensorInfo:
        """Take a tensor stored as one of some dtypes, with one of `shapes` if any are given, as values of `dtype`."""
        name = self.layer + suffix
        info = self.tensors.get(name)
        if info is None:
            raise self.refusal(f"its '{name}' is missing: {DAMAGED}")
        if info.dtype not in stored_as:
            raise self.refusal(f"'{name}' is stored as {info.dtype}, expected {' or '.join(stored_as)}: {DAMAGED}")
        if shapes and info.shape not in shapes:
            allowed = " or ".join(str(list(shape)) for shape in shapes)
            raise self.refusal(f"'{name}' has shape {list(info.shape)}, expected {allowed}: {DAMAGED}")
        self.names[role], self.dtypes[role] = name, dtype or info.dtype
        return info

    def take_matrix(self, stored_as: tuple[str, ...], dtype: str = "") -> tuple[int, int]:
        """Take the weight and return its shape as stored, which must have two axes."""
        shape = self.take("weight", ".weight", stored_as, dtype).shape
        if len(shape) != 2:
            raise self.refusal(f"has shape {list(shape)}, expected two axes: {DAMAGED}")
        return shape[0], shape[1]

    def quantised(self, kind: str, shape: Shape, rotation: int = 0) -> QuantisedTensor:
        return QuantisedTensor(kind, shape, self.names, self.dtypes, rotation)

    def refusal(self, problem: str) -> WeightsError:
        return WeightsError(f"Tensor '{self.layer}.weight' is quantised as {self.how}, but {problem}.")


def _fp8(parts: _Parts, dtype: str) -> QuantisedTensor:
    """8-bit floats, or bytes that stand for them, times one scale or one for each row.

    ComfyUI writes one. It would stretch a flat scale along the inputs, so only a column is taken for that of the rows.
    """
    shape = parts.take("weight", ".weight", (dtype, "U8"), dtype).shape
    parts.take("scale", ".weight_scale", FLOATS, shapes=_scales(shape))
    return parts.quantised("fp8", shape)


def _int8(parts: _Parts, rotation: object) -> QuantisedTensor:
    """Whole numbers times one scale or one for each row; rotated ones hold for inputs that are rotated in groups."""
    shape = parts.take("weight", ".weight", ("I8",)).shape
    parts.take("scale", ".weight_scale", FLOATS, shapes=_scales(shape, flat=True))
    if rotation is None:
        return parts.quantised("int8", shape)
    if not is_rotation_size(rotation) or len(shape) != 2 or shape[1] % rotation:
        raise parts.refusal(
            f"with shape {list(shape)} it cannot be rotated in groups of {rotation}, which must be a power of four "
            f"that divides the inputs: {DAMAGED}"
        )
    return parts.quantised("int8_convrot", shape, rotation)


def _mxfp8(parts: _Parts) -> QuantisedTensor:
    """E4M3 values; every 32 inputs of a row share a power of two."""
    shape = parts.take_matrix(("F8_E4M3", "U8"), "F8_E4M3")
    parts.take("scale", ".weight_scale", ("F8_E8M0", "U8"), "F8_E8M0", shapes=_block_scales(parts, "mxfp8", shape))
    return parts.quantised("mxfp8", shape)


def _nvfp4(parts: _Parts) -> QuantisedTensor:
    """E2M1 values, two to a byte; every 16 inputs of a row share an E4M3 scale, and all weights another."""
    rows, pairs = parts.take_matrix(("U8",), "F4")
    shape = rows, 2 * pairs
    parts.take("scale", ".weight_scale", ("F8_E4M3", "U8"), "F8_E4M3", shapes=_block_scales(parts, "nvfp4", shape))
    parts.take("tensor_scale", ".weight_scale_2", FLOATS, shapes=SCALAR)
    if f"{parts.layer}.pre_quant_scale" in parts.tensors:
        parts.take("input_factor", ".pre_quant_scale", FLOATS, shapes=(shape[1:],))
    return parts.quantised("nvfp4", shape)


def _scales(shape: Shape, *, flat: bool = False) -> tuple[Shape, ...]:
    """Return the shapes that the scale of such a weight may have."""
    if len(shape) != 2:
        return SCALAR
    return (*SCALAR, (shape[0], 1), (shape[0],)) if flat else (*SCALAR, (shape[0], 1))


def _block_scales(parts: _Parts, kind: str, shape: tuple[int, int]) -> tuple[Shape, ...]:
    rows, columns = shape
    if columns % BLOCKS[kind]:
        raise parts.refusal(f"its {columns} inputs are not whole blocks of {BLOCKS[kind]}: {DAMAGED}")
    return (padded_scales(rows, columns // BLOCKS[kind]),)


def _configs(tensors: Tensors, read: Read, metadata: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Return what the file says of each layer; as in ComfyUI, its metadata outweighs its tensors."""
    configs = {}
    for name, info in tensors.items():
        if name.endswith(CONFIG):
            layer = name.removesuffix(CONFIG)
            if info.dtype != "U8" or info.nbytes > MAX_CONFIG_BYTES or f"{layer}.weight" not in tensors:
                raise WeightsError(f"Tensor '{name}' cannot say how '{layer}.weight' is quantised: {DAMAGED}.")
            configs[layer] = _json(read(name).tobytes(), f"Tensor '{name}'")
    if METADATA in metadata:
        what = f"The file's metadata '{METADATA}'"
        layers = _object(_json(metadata[METADATA], what).get("layers"), what)
        for layer, config in layers.items():
            for name in (layer, PREFIX + layer, layer.removeprefix(PREFIX)):
                if f"{name}.weight" in tensors:
                    configs[name] = _object(config, what)
    return configs


def _json(text: str | bytes, what: str) -> dict[str, Any]:
    try:
        return _object(json.loads(text), what)
    except (ValueError, RecursionError):
        return _object(None, what)


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise WeightsError(f"{what} should say in JSON how layers are quantised, but cannot be understood: {DAMAGED}.")
    return value


def _option(config: Mapping[str, Any], name: str, *, default: object) -> Any:
    """Return a setting of a layer, which may lie under "params"."""
    params = config.get("params")
    return config.get(name, params.get(name, default) if isinstance(params, dict) else default)


def _is_marker(name: str) -> bool:
    return name == MARKER or name.endswith(f".{MARKER}")
