"""PyTorch checkpoints (.pt, .pth) without PyTorch, and without executing anything that they ask for.

A checkpoint is a zip of one pickle, `data.pkl`, and one stored member per storage (torch/serialization.py, version 1.6
and later). The pickle is a program, and Python's unpickler is no place for one of unknown origin, even with restricted
imports: a deep tuple as a key overflows the C stack in hash(), and BUILD sets attributes on whatever is at hand. So the
few instructions that torch.save emits are interpreted here, on plain values.
"""

from __future__ import annotations

import math
import pickletools
import struct
import zipfile
import zlib
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ...interface.errors import WeightsError
from .safetensors_file import NUMPY_DTYPES, TensorInfo

MAX_PICKLE_BYTES = 64 << 20  # a 14B checkpoint's pickle is about 0.2 MB
MAX_STEPS = 1_000_000  # a tensor takes about 45 instructions
MAX_DIMS = 32  # numpy 1's limit
MAX_EXPANDED_BYTES = 64 << 20  # a tensor may repeat its storage up to here, or up to the size of its file
MAX_PLAIN_ITEMS = 64  # of a sequence in `extras`
LEGACY_START = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"  # the magic number that torch.save pickled first before 1.6
NESTED_KEYS = ("module", "state_dict", "model")  # DeepSpeed and SAT, Lightning, plain training scripts
MALFORMED = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, AssertionError, RuntimeError)
MALFORMED += (zipfile.BadZipFile, struct.error, EOFError, OSError)

# How safetensors and torch write the dtypes; the first ten have a storage class of their own in torch.
NAMES = ("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "U32", "U16")
TORCH_FLOATS, TORCH_INTS = ("float64", "float32", "float16", "bfloat16"), ("int64", "int32", "int16", "int8", "uint8")
TORCH_NAMES = (*TORCH_FLOATS, *TORCH_INTS, "bool", "float8_e4m3fn", "float8_e5m2", "uint32", "uint16")
STORAGE_NAMES = ("Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
DTYPES = dict(zip((f"torch.{name}" for name in TORCH_NAMES), NAMES, strict=True))
STORAGES = dict(zip((f"torch.{name}Storage" for name in STORAGE_NAMES), NAMES, strict=False))
STORAGES["torch.storage.UntypedStorage"] = "U8"  # counted in bytes; the tensor brings its own dtype


class TorchFile:
    """The state dict of a checkpoint written by torch.save: at the top, or under "module", "state_dict" or "model".

    `tensors` tells what is there, under the names and in the shapes that the file has. `extras` keeps the state dict's
    other entries that are plain values or short flat sequences of them, e.g. {"lora_alpha": 64}; dtypes go by name. No
    tensor data is read until `read`. Raises WeightsError for a file that is missing, damaged, of another format, or
    asks for anything but tensors and plain values.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        self.tensors: dict[str, TensorInfo] = {}
        self.extras: dict[str, object] = {}
        self._places: dict[str, tuple[_Tensor, int]] = {}  # a tensor and where its first item lies, in bytes
        if not self.path.is_file():
            raise WeightsError(f"{path} does not exist or is not a file: check the path, or download the model again.")
        with self.path.open("rb") as file:
            members = _members(self.path, file)
            for name, value in _state_dict(self.path, _tree(self.path, file, members)).items():
                if isinstance(name, str) and isinstance(value, _Tensor):
                    self._places[name] = value, _place(f"{self.path}: tensor {_shown(name)}", value, file, members)
                    nbytes = math.prod(value.shape) * NUMPY_DTYPES[value.dtype].itemsize
                    self.tensors[name] = TensorInfo(value.dtype, value.shape, nbytes)
                elif isinstance(name, str) and _is_plain(value):
                    self.extras[name] = value

    def read(self, name: str) -> np.ndarray:
        """Return a tensor in the shape that `tensors` tells, read-only and mapped from the file.

        BF16 comes as its bits in uint16, the F8 dtypes as theirs in uint8. Raises WeightsError.
        """
        if name not in self._places:
            raise WeightsError(f"{self.path} has no tensor {_shown(name)}: choose one of its {len(self.tensors)}.")
        tensor, start = self._places[name]
        dtype = NUMPY_DTYPES[tensor.dtype]
        if not math.prod(tensor.shape):
            return np.empty(tensor.shape, dtype)
        try:
            flat = np.memmap(self.path, dtype, "r", start, (tensor.reach,))
        except (OSError, ValueError) as error:
            raise _damaged(f"{self.path}: tensor {_shown(name)}", f"cannot be read any more ({error})") from error
        strides = tuple(step * dtype.itemsize for step in tensor.strides)
        array = np.lib.stride_tricks.as_strided(flat, tensor.shape, strides, writeable=False)
        return array if array.flags.aligned else array.copy()


@dataclass(frozen=True, slots=True)
class _Storage:
    key: str
    dtype: str
    items: int


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A tensor as the pickle claims it to be, not yet held against the file; offset and strides are in items."""

    storage: _Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # 0 where an axis has one item or none

    @property
    def reach(self) -> int:
        """How many items of the storage lie from the first one to the last."""
        steps = zip(self.shape, self.strides, strict=True)
        return 1 + sum((n - 1) * step for n, step in steps) if all(self.shape) else 0


class _Refused(Exception):
    """What a pickle asks for and does not get."""


class _Machine:
    """Runs a pickle on plain values; a global is but a name. It can call what is in CALLS, which only fills records."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.steps = 0

    def run(self, data: bytes) -> Any:
        for opcode, argument, _ in pickletools.genops(data):
            name = opcode.name.removeprefix("LONG_")  # of memo indices
            self.spend(1)
            if name in LITERALS:
                self.stack.append(argument)
            elif name in FRESH:
                self.stack.append(FRESH[name]())
            elif name in TUPLES:
                self.stack.append(tuple(self.take(TUPLES[name])))
            elif name in FILLS:
                self.fill(self.take(FILLS[name]))
            elif name in STEPS:
                STEPS[name](self, argument)
            elif name not in ("PROTO", "FRAME", "STOP"):
                raise _Refused(f"refuses to execute the pickle instruction {opcode.name}")
        return self.stack.pop()

    def spend(self, steps: int) -> None:
        self.steps += steps
        if self.steps > MAX_STEPS:
            raise _Refused(f"refuses to execute a pickle of more than {MAX_STEPS} steps")

    def take(self, count: int | None) -> list[Any]:
        """Pop `count` values, or those above the last mark."""
        start = self.marks.pop() if count is None else len(self.stack) - count
        if not 0 <= start <= len(self.stack):
            raise IndexError("the stack is too short")
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def fill(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(values)
        elif isinstance(target, set):
            target.update(_keys(values))
        else:
            target.update(zip(_keys(values[::2]), values[1::2], strict=True))

    def look_up(self, module: str, name: str) -> None:
        full = f"{module}.{name}"
        if not any(full in names for names in (CALLS, STORAGES, DTYPES)):
            raise _Refused(f"refuses to execute {ascii(full[:80])[1:-1]}")
        self.stack.append(full)

    def storage(self) -> None:
        kind, storage_class, key, _, items = self.stack.pop()
        if kind != "storage" or not isinstance(storage_class, str) or not isinstance(key, str) or not _is_size(items):
            raise ValueError("not a storage")
        self.stack.append(_Storage(key, STORAGES[storage_class], items))

    def reduce(self) -> None:
        call, arguments = self.take(2)
        if not isinstance(call, str) or call not in CALLS:
            raise _Refused(f"refuses to execute a {type(call).__name__.strip('_').lower()}")
        # What is copied counts, too: one long list could be copied a million times.
        self.spend(len(arguments) + sum(len(part) for part in arguments if hasattr(part, "__len__")))
        self.stack.append(CALLS[call](*arguments))

    def build(self) -> None:
        target, _ = self.take(2)
        if not isinstance(target, OrderedDict):
            raise _Refused(f"refuses to set attributes on a {type(target).__name__.strip('_').lower()}")
        self.stack.append(target)  # the state, `_metadata`, is of no use here


LITERALS = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
FRESH: dict[str, Any] = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_SET": set, "EMPTY_TUPLE": tuple}
FRESH |= {"NEWTRUE": lambda: True, "NEWFALSE": lambda: False, "NONE": lambda: None}
TUPLES = {"TUPLE": None, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}  # how many values they take; None: down to the mark
FILLS = {"APPEND": 1, "APPENDS": None, "SETITEM": 2, "SETITEMS": None, "ADDITEMS": None}
STEPS: dict[str, Any] = {
    "MARK": lambda machine, _: machine.marks.append(len(machine.stack)),
    "BINPUT": lambda machine, index: machine.memo.update({index: machine.stack[-1]}),
    "MEMOIZE": lambda machine, _: machine.memo.update({len(machine.memo): machine.stack[-1]}),
    "BINGET": lambda machine, index: machine.stack.append(machine.memo[index]),
    "GLOBAL": lambda machine, names: machine.look_up(*names.split(" ", 1)),
    "STACK_GLOBAL": lambda machine, _: machine.look_up(*machine.take(2)),
    "BINPERSID": lambda machine, _: machine.storage(),
    "REDUCE": lambda machine, _: machine.reduce(),
    "BUILD": lambda machine, _: machine.build(),
}


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any, dtype: Any = "") -> _Tensor:
    """Record a tensor; `rest` is requires_grad, hooks, and perhaps what torch still has to do to the values."""
    paired = type(shape) is type(strides) is tuple and len(shape) == len(strides) <= MAX_DIMS
    typed = isinstance(storage, _Storage) and isinstance(dtype, str)
    if not paired or not typed or not all(map(_is_size, (offset, *shape, *strides))):
        raise ValueError("not a tensor")
    if any(rest[2:]):
        raise _Refused("refuses to resolve a negated or conjugated view")
    strides = tuple(step if n > 1 else 0 for n, step in zip(shape, strides, strict=True))
    return _Tensor(storage, DTYPES[dtype] if dtype else storage.dtype, offset, shape, strides)


CALLS: dict[str, Any] = {
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v3": lambda *args: _rebuild_tensor(*args[:6], *args[7:], dtype=args[6]),
    "torch._utils._rebuild_parameter": lambda data, *_: data,
    "torch._utils._rebuild_parameter_with_state": lambda data, *_: data,
    "torch.Size": lambda sizes: sizes,
    "collections.OrderedDict": lambda: OrderedDict(),
    "builtins.set": lambda values: set(_keys(values)),
    "__builtin__.set": lambda values: set(_keys(values)),
}


def _members(path: Path, file: BinaryIO) -> dict[str, zipfile.ZipInfo]:
    """Return the zip's members by name, without the folder that torch.save puts them all in."""
    start = file.read(64)
    if LEGACY_START in start:
        raise WeightsError(
            f"{path} is in PyTorch's format before 1.6, only the later zip is read: load and save it with a newer one."
        )
    if not start.startswith(b"PK\x03\x04"):
        raise _damaged(path, f"begins with {start[:16]!r}, which no PyTorch checkpoint (a zip file) does")
    try:
        infos = zipfile.ZipFile(file).infolist()
    except MALFORMED as error:
        raise _damaged(path, f"({path.stat().st_size} bytes) is a zip without a sound end ({error})") from error
    root = f"{infos[0].filename.split('/')[0]}/" if infos else ""
    return {info.filename.removeprefix(root): info for info in infos}


def _tree(path: Path, file: BinaryIO, members: dict[str, zipfile.ZipInfo]) -> Any:
    """Return the pickled object."""
    if "data.pkl" not in members:
        raise _damaged(path, "is a zip without data.pkl, which no PyTorch checkpoint is")
    order = _content(path, file, members["byteorder"]) if "byteorder" in members else b"little"
    if order != b"little":
        raise WeightsError(f"{path} has the byte order {order[:16]!r}, only little is read: use a safetensors file.")
    try:
        return _Machine().run(_content(path, file, members["data.pkl"]))
    except _Refused as error:
        raise WeightsError(
            f"{path} asks for more than tensors and plain values, and this program {error}: "
            "use a safetensors file, or a checkpoint of nothing but a state dict."
        ) from error
    except MALFORMED as error:
        raise _damaged(path, f"has a data.pkl that makes no sense ({str(error)[:80]})") from error


def _content(path: Path, file: BinaryIO, info: zipfile.ZipInfo) -> bytes:
    if info.file_size > MAX_PICKLE_BYTES:
        raise _damaged(path, f"has {info.file_size} bytes in {_shown(info.filename)}, {MAX_PICKLE_BYTES} are allowed")
    file.seek(_start(path, file, info))
    content = file.read(info.file_size)
    if zlib.crc32(content) != info.CRC:
        raise _damaged(path, f"has a {_shown(info.filename)} that differs from its checksum")
    return content


def _start(where: Path | str, file: BinaryIO, info: zipfile.ZipInfo) -> int:
    """Return where a stored member's bytes begin in the file."""
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
        raise _damaged(
            where, f"needs {_shown(info.filename)}, which is compressed or encrypted, torch.save only stores"
        )
    file.seek(max(info.header_offset, 0))
    header = file.read(30)
    start = info.header_offset + 30 + sum(struct.unpack_from("<HH", header.ljust(30), 26))
    whole = header.startswith(b"PK\x03\x04") and info.compress_size == info.file_size
    if not whole or info.header_offset < 0 or start + info.file_size > file.seek(0, 2):
        raise _damaged(where, f"needs {_shown(info.filename)}, whose bytes are not all there")
    return start


def _place(where: str, tensor: _Tensor, file: BinaryIO, members: dict[str, zipfile.ZipInfo]) -> int:
    """Hold a tensor against the bytes that its storage has in the file; return where its first item lies."""
    storage, itemsize = tensor.storage, NUMPY_DTYPES[tensor.dtype].itemsize
    info = members.get(f"data/{storage.key}")
    if info is None:
        raise _damaged(where, f"needs {_shown(f'data/{storage.key}')}, which the file lacks")
    space = storage.items * NUMPY_DTYPES[storage.dtype].itemsize
    end = (tensor.offset + tensor.reach) * itemsize if tensor.reach else 0
    expanded = math.prod(max(n, 1) for n in tensor.shape) * itemsize
    start, limit = _start(where, file, info), max(file.seek(0, 2), MAX_EXPANDED_BYTES)
    if space > info.file_size or end > space or expanded > limit:
        layout = f"shape {list(tensor.shape)}, strides {list(tensor.strides)} and offset {tensor.offset}"
        raise _damaged(where, f"of {layout} does not fit its storage of {space} bytes ({info.file_size} in the file)")
    return start + tensor.offset * itemsize


def _state_dict(path: Path, tree: Any) -> dict[Any, Any]:
    outer = tree if isinstance(tree, dict) else {}
    for state in (outer, *(outer.get(key) for key in NESTED_KEYS)):
        if isinstance(state, dict) and 2 * sum(isinstance(value, _Tensor) for value in state.values()) > len(state):
            return state
    raise WeightsError(
        f"{path} holds {', '.join(map(_shown, list(outer)[:5])) or type(tree).__name__}, but a dict mainly of "
        f"tensors is needed, at the top or under {', '.join(map(repr, NESTED_KEYS))}: choose a checkpoint of weights."
    )


def _keys(values: list[Any]) -> list[Any]:
    """Return the values if they can be hashed in bounded time, which nested tuples and crafted integers cannot."""
    if not all(isinstance(key, (str, bool, type(None))) or (type(key) is int and abs(key) < 2**63) for key in values):
        raise _Refused("refuses dictionary keys other than texts and numbers")
    return values


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_plain(value: Any) -> bool:
    parts = value if isinstance(value, (list, tuple)) and len(value) <= MAX_PLAIN_ITEMS else [value]
    return all(isinstance(part, (str, int, float, type(None))) for part in parts)


def _shown(name: Any) -> str:
    return repr(name if not isinstance(name, str) or len(name) <= 80 else f"{name[:80]}...")


def _damaged(where: Path | str, what: str) -> WeightsError:
    return WeightsError(f"{where} {what}: the file is damaged or not a checkpoint, download it again.")
