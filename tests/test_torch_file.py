"""PyTorch checkpoints without PyTorch: the same bits as torch.load, and no file that harms."""

import argparse
import io
import os
import pickle
import struct
import zipfile
from collections import OrderedDict

import numpy as np
import pytest

from mlx_backend.interface.errors import WeightsError
from mlx_backend.weights.formats import torch_file
from mlx_backend.weights.formats.torch_file import TorchFile

torch = pytest.importorskip("torch")
hypothesis = pytest.importorskip("hypothesis")
integers, lists, tuples = (getattr(hypothesis.strategies, name) for name in ("integers", "lists", "tuples"))

DTYPES = {
    torch.float64: ("F64", np.float64),
    torch.float32: ("F32", np.float32),
    torch.float16: ("F16", np.float16),
    torch.bfloat16: ("BF16", np.uint16),
    torch.float8_e4m3fn: ("F8_E4M3", np.uint8),
    torch.float8_e5m2: ("F8_E5M2", np.uint8),
    torch.int64: ("I64", np.int64),
    torch.int32: ("I32", np.int32),
    torch.int16: ("I16", np.int16),
    torch.int8: ("I8", np.int8),
    torch.uint32: ("U32", np.uint32),
    torch.uint16: ("U16", np.uint16),
    torch.uint8: ("U8", np.uint8),
    torch.bool: ("BOOL", np.bool_),
}
FUZZ = {"deadline": None, "max_examples": 300, "derandomize": True, "database": None}


class Stored:
    """A storage: pickled as the persistent id that torch.save writes."""

    def __init__(self, kind=torch.FloatStorage, key="0", items=4):
        self.id = ("storage", kind, key, "cpu", items)


class Asks:
    """Pickled as whatever reduce value it is given."""

    def __init__(self, *reduced):
        self.reduced = reduced

    def __reduce__(self):
        return self.reduced


class Writer(pickle.Pickler):
    def persistent_id(self, value):
        return value.id if isinstance(value, Stored) else None


def pickled(tree, protocol=2):
    buffer = io.BytesIO()
    Writer(buffer, protocol).dump(tree)
    return buffer.getvalue()


def tensor(shape=(4,), strides=(1,), offset=0, **storage):
    arguments = (Stored(**storage), offset, shape, strides, False, OrderedDict())
    return Asks(torch._utils._rebuild_tensor_v2, arguments)


def write(path, data, *, storages=None, order=b"little", compress=()):
    """Write a checkpoint around a pickle, which may be given as the object; by default with one storage of 16 bytes."""
    members = {"data.pkl": data if isinstance(data, bytes) else pickled(data), "byteorder": order}
    members |= {f"data/{key}": value for key, value in ({"0": bytes(16)} if storages is None else storages).items()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"x/{name}", content, zipfile.ZIP_DEFLATED if name in compress else zipfile.ZIP_STORED)
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.pt"


def refusal(path):
    with pytest.raises(WeightsError) as caught:
        TorchFile(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 800
    return str(caught.value)


def is_mapped(array):
    while array is not None and not isinstance(array, np.memmap):
        array = getattr(array, "base", None)
    return array is not None


def bits(array):
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def assert_same(file, state):
    """Hold every tensor against torch's, bit by bit."""
    assert list(file.tensors) == [name for name, value in state.items() if isinstance(value, torch.Tensor)]
    for name, info in file.tensors.items():
        wanted, array = state[name].detach(), file.read(name)
        dtype, numpy_dtype = DTYPES[wanted.dtype]
        assert (info.dtype, info.shape, info.nbytes) == (dtype, tuple(wanted.shape), wanted.numel() * wanted.itemsize)
        assert (array.dtype, array.shape) == (numpy_dtype, info.shape)
        assert np.array_equal(bits(array), wanted.contiguous().reshape(-1).view(torch.uint8).numpy()), name
        assert is_mapped(array) or not array.size
        assert not array.size or not array.flags.writeable


def saved(path, value, **options):
    torch.save(value, path, **options)
    return TorchFile(path), torch.load(path, weights_only=True)


def layouts(dtype):
    """Yield tensors of every kind of layout by name."""
    flat = torch.randint(0, 2 if dtype is torch.bool else 256, (240 * torch.empty((), dtype=dtype).element_size(),))
    whole = flat.to(torch.uint8).view(dtype).reshape(4, 5, 12)
    yield "contiguous", whole.clone()
    yield "parameter", torch.nn.Parameter(whole.clone(), requires_grad=False)
    yield "scalar", whole[1, 2, 3].clone()
    yield "empty", whole[:0].clone()
    yield "transposed", whole.clone().permute(2, 0, 1)
    yield "every other", whole.clone()[::2, 1:, ::3]
    yield "expanded", whole[:, :1, :].clone().expand(4, 7, 12)
    yield "view with an offset", whole[2]
    yield "the same storage", whole
    yield "tied", whole
    yield "channels last", whole.clone()[None].contiguous(memory_format=torch.channels_last)
    yield "one item axes", whole.clone().as_strided((1, 5, 1), (999, 12, 7))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_and_layout_has_torchs_bits(path, dtype):
    torch.manual_seed(0)
    assert_same(*saved(path, OrderedDict(layouts(dtype))))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_binary_pickle_protocol(path, protocol):
    state = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)).state_dict()
    torch.save(state, path, pickle_protocol=protocol)
    assert_same(TorchFile(path), state)


def test_a_parameter_with_attributes_is_its_tensor(path):
    parameter = torch.nn.Parameter(torch.ones(3))
    parameter.note = "mine"
    torch.save({"weight": parameter}, path)
    assert TorchFile(path).read("weight").tolist() == [1, 1, 1]


@pytest.mark.parametrize("key", ["module", "state_dict", "model"])
def test_a_nested_state_dict_is_found(path, key):
    file, whole = saved(
        path, {"epoch": 3, key: {"a.weight": torch.ones(2)}, "optimizer": {"state": {0: torch.ones(9)}}}
    )
    assert_same(file, whole[key])
    assert file.extras == {}


def test_the_top_goes_before_what_is_nested(path):
    file, _ = saved(path, {"a": torch.ones(2), "b": torch.ones(2), "model": {"c": torch.ones(2)}})
    assert list(file.tensors) == ["a", "b"]


def test_extras_are_the_plain_values(path):
    plain = {"lora_alpha": 64, "scale": 0.5, "name": "x", "on": True, "none": None, "betas": (0.9, 0.99), "ids": [1, 2]}
    state = plain | {f"w{i}": torch.zeros(1) for i in range(20)}
    state |= {"dtype": torch.bfloat16, "size": torch.Size([2, 3]), "big": 1 << 90, 7: torch.zeros(1), 8: 9}
    state |= {"dict": {"a": 1}, "set": {1, 2}, "tensors": [torch.zeros(1)], "raw": torch.zeros(2).untyped_storage()}
    file, _ = saved(path, state)
    assert file.extras == plain | {"dtype": "torch.bfloat16", "size": (2, 3), "big": 1 << 90}
    assert list(file.tensors) == [f"w{i}" for i in range(20)]


def test_a_storage_at_an_odd_byte_is_copied_out(path):
    wanted = np.arange(4, dtype=np.float32)
    mapped = 0
    for extra in range(4):
        write(path, {"w": tensor(), "v" * (2 + extra): tensor()}, storages={"0": wanted.tobytes()})
        array = TorchFile(path).read("w")
        mapped += is_mapped(array)
        assert array.flags.aligned
        assert np.array_equal(array, wanted)
    assert mapped == 1


def test_reading_says_what_went_wrong(path):
    file = TorchFile(write(path, {"w": tensor()}))
    with pytest.raises(WeightsError, match="no tensor 'v'"):
        file.read("v")
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(WeightsError, match="'w' cannot be read any more"):
        file.read("w")
    path.unlink()
    with pytest.raises(WeightsError, match="'w' cannot be read any more"):
        file.read("w")


def test_a_system_call_is_refused_and_not_made(path, tmp_path):
    marker = tmp_path / "marker"
    attack = Asks(os.system, (f"touch {marker}",))
    pickle.loads(pickled({"w": attack}))
    assert marker.exists(), "the attack is real"
    marker.unlink()
    torch.save({"w": torch.ones(2), "v": attack}, path)
    assert f"refuses to execute {os.system.__module__}.system" in refusal(path)
    assert not marker.exists()


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize(
    ("attack", "name"),
    [
        (Asks(eval, ("1",)), "builtin"),
        (Asks(torch.storage._load_from_bytes, (b"",)), "torch.storage._load_from_bytes"),
        (argparse.Namespace(a=1), "argparse.Namespace"),
        (Asks(getattr, ({}, "items")), "builtin"),
        (np.float32(1), "scalar"),
        (torch.device("cpu"), "torch.device"),
        (torch.nn.Linear, "torch.nn.modules.linear.Linear"),
        (torch.complex64, "torch.complex64"),
        (torch.ComplexFloatStorage, "torch.ComplexFloatStorage"),
    ],
)
def test_what_a_pickle_may_not_name_is_refused_by_name(path, attack, name, protocol):
    message = refusal(write(path, pickled({"w": tensor(), "v": attack}, protocol)))
    assert "refuses to execute" in message
    assert name in message


def test_what_torch_resolves_lazily_is_refused(path):
    torch.save({"w": torch._neg_view(torch.ones(2))}, path)
    assert "negated" in refusal(path)


def test_an_executed_global_must_be_callable(path):
    call = b"\x80\x02}X\x01\x00\x00\x00wctorch\nFloatStorage\n)Rs."
    assert "refuses to execute a str" in refusal(write(path, call))


@pytest.mark.parametrize("state", [{"shape": (9,)}, (None, {"shape": (9,)}), {}])
def test_no_attribute_is_set(path, state):
    made = tensor()
    attack = Asks(*made.reduced, state)
    assert "refuses to set attributes on a tensor" in refusal(write(path, {"w": attack}))
    on_global = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}b."
    assert "refuses to set attributes" in refusal(write(path, on_global))


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (b"(i__main__\nX\n.", "INST"),
        (b"(ctorch\nSize\no.", "OBJ"),
        (b"ctorch\nSize\n)\x81.", "NEWOBJ"),
        (b"ctorch\nSize\n)}\x92.", "NEWOBJ_EX"),
        (b"\x82\x01.", "EXT1"),
        (b"K\x012.", "DUP"),
        (b"Pid\n.", "PERSID"),
        (b"I1\n.", "INT"),
        (b"L1L\n.", "LONG"),
        (b"\x8b\x04\x00\x00\x00\x01\x00\x00\x00.", "LONG4"),
        (b"C\x01a.", "SHORT_BINBYTES"),
        (b"\x97.", "NEXT_BUFFER"),
    ],
)
def test_instructions_that_torch_does_not_write_are_refused(path, code, name):
    assert f"instruction {name}:" in refusal(write(path, b"\x80\x02" + code))


@pytest.mark.parametrize(
    "code",
    [
        b"",
        b".",
        b"}",
        b"0.",
        b"t.",
        b"\x86.",
        b"}\x86.",
        b"(e.",
        b"K\x01K\x02a.",
        b"]K\x01K\x02s.",
        b"}(K\x01u.",
        b"h\x05.",
        b"}R.",
        b"}Q.",
        b"(K\x01K\x01K\x01K\x01K\x01tQ.",
        b"K\x01K\x02\x93.",
        b"ctorch._utils\n_rebuild_tensor_v2\n)R.",
        b"ctorch._utils\n_rebuild_tensor_v3\n)R.",
        b"ctorch._utils\n_rebuild_parameter\nK\x01\x85R.",
        b"X\xff\xff\xff\x7fabc.",
        b"\x8d" + b"\xff" * 8 + b"abc.",
        b"X\x01\x00\x00\x00\xff.",
        b"L" + b"9" * 99999 + b"L\n.",
        b"\xff.",
    ],
)
def test_senseless_pickles_are_refused(path, code):
    refusal(write(path, b"\x80\x02" + code))


def nested(depth):
    """Return the pickle of a tuple within a tuple, `depth` times, as the value and then as the key of a dictionary."""
    deep = b")" + b"\x85" * depth
    return b"K\x01" + deep, deep + b"K\x01"


def laughs(levels):
    """Return the same of a tuple that doubles at every level."""
    doubled = b")" + b"".join(b"q" + bytes([i]) + b"h" + bytes([i]) + b"\x86" for i in range(levels))
    return b"K\x01" + doubled, doubled + b"K\x01"


@pytest.mark.parametrize("bomb", [nested(100_000), laughs(200)], ids=["deep", "billion laughs"])
def test_bombs_are_dropped_as_values_and_refused_as_keys(path, bomb):
    value, key = bomb
    kept = pickled({"w": tensor(), "v": tensor()})[:-1]
    file = TorchFile(write(path, kept + value + b"s."))
    assert (list(file.tensors), file.extras) == (["w", "v"], {})
    assert "dictionary keys" in refusal(write(path, kept + key + b"s."))
    assert "dictionary keys" in refusal(write(path, b"\x80\x02\x8f(" + key + b"\x90."))
    refusal(write(path, b"\x80\x02}X\x01\x00\x00\x00w" + key[:-2] + b"Rs."))
    in_v3 = b"ctorch._utils\n_rebuild_tensor_v3\n(K\x01K\x01))K\x01K\x01" + key[:-2] + b"tR"
    refusal(write(path, b"\x80\x02}X\x01\x00\x00\x00w" + in_v3 + b"s."))
    as_storage = b"(X\x07\x00\x00\x00storage" + key[:-2] + b"X\x01\x00\x00\x000X\x01\x00\x00\x000K\x01tQ"
    refusal(write(path, b"\x80\x02" + as_storage + b"."))


def test_deep_containers_and_cycles_do_no_harm(path):
    refusal(write(path, b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b"."))
    ordered = b"ccollections\nOrderedDict\nq\x00)R"
    inner = b"X\x01\x00\x00\x00ah\x00)R"
    refusal(write(path, b"\x80\x02" + ordered + inner * 50_000 + b"s" * 50_000 + b"."))
    cycle = pickled({"w": tensor(), "v": tensor()})[:-1] + b"X\x01\x00\x00\x00l]q\x63h\x63as."
    assert list(TorchFile(write(path, cycle)).tensors) == ["w", "v"]


def test_colliding_integers_are_no_keys(path):
    keys = {i * (2**61 - 1): None for i in range(1, 50)}
    assert "dictionary keys" in refusal(write(path, keys))


def test_work_is_bounded(path):
    assert "steps" in refusal(write(path, b"\x80\x02" + b"N" * 1_000_001 + b"."))
    copies = b"\x80\x02c__builtin__\nset\nq\x00](" + b"N" * 100_000 + b"eq\x01" + b"h\x00h\x01\x85R" * 100_000 + b"."
    assert "steps" in refusal(write(path, copies))
    spread = b"\x80\x02ctorch._utils\n_rebuild_parameter\nq\x00(" + b"N" * 100_000 + b"tq\x01"
    assert "steps" in refusal(write(path, spread + b"h\x00h\x01R" * 100_000 + b"."))


def test_a_gigantic_memo_index_takes_no_memory(path):
    put = pickled({"w": tensor()})[:-1] + b"r\xff\xff\xff\xff."
    assert list(TorchFile(write(path, put)).tensors) == ["w"]


def test_a_pickle_is_read_up_to_its_limit(path, monkeypatch):
    write(path, {"w": tensor()})
    monkeypatch.setattr(torch_file, "MAX_PICKLE_BYTES", 100)
    assert "100 are allowed" in refusal(path)


@pytest.mark.parametrize(
    ("layout", "storage"),
    [
        (((5,), (1,), 0), {}),
        (((4,), (1,), 1), {}),
        (((2, 2), (3, 1), 0), {}),
        (((4,), (2**62,), 0), {}),
        (((1,), (1,), 2**62), {}),
        (((2**62, 2**62), (0, 0), 0), {}),
        (((2**40,), (0,), 0), {}),
        (((0, 2**62, 2**62), (0, 0, 0), 0), {}),
        (((4,), (1,), 0), {"items": 5}),
        (((4,), (1,), 0), {"kind": torch.DoubleStorage}),
        (((4,), (1,), 0), {"key": "1"}),
        (((4,), (1,), 0), {"key": "../data.pkl"}),
        (((-4,), (1,), 0), {}),
        (((4,), (-1,), 3), {}),
        (((4,), (1,), -1), {}),
        (((4,), (1,), 0), {"items": -1}),
        (((4,), (1, 1), 0), {}),
        (((1,) * 40, (1,) * 40, 0), {}),
        (((True,), (1,), 0), {}),
        (((4.0,), (1,), 0), {}),
        (([4], [1], 0), {}),
        (((4,), (1,), "0"), {}),
        (((4,), (1,), 0), {"key": 0}),
        (((4,), (1,), 0), {"kind": "torch.os"}),
    ],
)
def test_tensors_beyond_their_storage_are_refused(path, layout, storage):
    refusal(write(path, {"w": tensor(*layout, **storage)}))


def test_an_expanded_tensor_may_repeat_its_storage(path):
    array = TorchFile(write(path, {"w": tensor((1000, 4), (0, 1))})).read("w")
    assert array.shape == (1000, 4)


@pytest.mark.parametrize("member", ["data.pkl", "data/0", "byteorder"])
def test_compressed_members_are_refused(path, member):
    assert "compressed" in refusal(write(path, {"w": tensor()}, compress=(member,)))


def changed(path, old, new, *, last=False):
    content = path.read_bytes()
    where = content.rindex(old) if last else content.index(old)
    path.write_bytes(content[:where] + new + content[where + len(old) :])
    return path


def test_damaged_members_are_refused(path):
    write(path, {"w": tensor()})
    assert "checksum" in refusal(changed(path, b"_rebuild", b"_rebuilt"))
    write(path, {"w": tensor()})
    assert "not all there" in refusal(changed(path, b"PK\x03\x04", b"PK\x03\x05", last=True))
    write(path, {"w": tensor()})
    central = path.read_bytes().rindex(b"PK\x01\x02")
    content = bytearray(path.read_bytes())
    content[central + 8] |= 1
    path.write_bytes(content)
    assert "encrypted" in refusal(path)
    write(path, {"w": tensor()})
    content = bytearray(path.read_bytes())
    content[central + 20 : central + 28] = struct.pack("<II", 4000, 4000)
    path.write_bytes(content)
    assert "not all there" in refusal(path)


def test_files_of_other_kinds_are_named(path, tmp_path):
    assert "does not exist" in refusal(path)
    assert "not a file" in refusal(tmp_path)
    for content in (b"", b"PK", b"<!DOCTYPE html>", b"GGUF", b"version https://git-lfs", pickle.dumps({})):
        path.write_bytes(content)
        assert "begins with" in refusal(path)
    torch.save({"w": torch.ones(2)}, path, _use_new_zipfile_serialization=False)
    assert "before 1.6" in refusal(path)
    np.savez(path.open("wb"), a=np.ones(2))
    assert "without data.pkl" in refusal(path)
    assert "byte order b'big'" in refusal(write(path, {"w": tensor()}, order=b"big"))
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(path))
    assert "refuses to execute __torch__" in refusal(path)


@pytest.mark.parametrize("value", [{}, [1], "text", 5, {"epoch": 1}, {"model": [1]}, {"other": {"w": torch.ones(1)}}])
def test_without_a_state_dict_there_is_nothing_to_load(path, value):
    torch.save(value, path)
    assert "dict mainly of tensors" in refusal(path)


def small_checkpoint():
    buffer = io.BytesIO()
    torch.save({"module": {"a": torch.arange(6.0).reshape(2, 3).T, "b": torch.nn.Parameter(torch.ones(2))}}, buffer)
    return buffer.getvalue()


SMALL = small_checkpoint()


def test_a_truncated_checkpoint_is_refused(path):
    for length in range(0, len(SMALL), 13):
        path.write_bytes(SMALL[:length])
        refusal(path)


def read_all(path):
    """Open and read; only a WeightsError may come of it."""
    try:
        file = TorchFile(path)
        for name in file.tensors:
            bits(file.read(name))
    except WeightsError as error:
        assert str(path) in str(error)


edits = lists(tuples(integers(0, 1 << 20), integers(0, 255)), min_size=1, max_size=6)


def edited(content, places):
    content = bytearray(content)
    for place, value in places:
        content[place % len(content)] = value
    return bytes(content)


@hypothesis.settings(**FUZZ)
@hypothesis.given(places=edits, tail=integers(0, 400))
def test_any_damage_is_refused_or_harmless(tmp_path_factory, places, tail):
    path = tmp_path_factory.getbasetemp() / "fuzz.pt"
    end = SMALL[: len(SMALL) - tail] if places[0][0] % 4 == 0 else SMALL
    path.write_bytes(edited(end, places))
    read_all(path)
    directory = SMALL.index(b"PK\x01\x02")
    path.write_bytes(SMALL[:directory] + edited(SMALL[directory:], places))
    read_all(path)


@hypothesis.settings(**FUZZ)
@hypothesis.given(places=edits)
def test_any_pickle_is_refused_or_harmless(tmp_path_factory, places):
    path = tmp_path_factory.getbasetemp() / "fuzz_pickle.pt"
    state = {"a": tensor((2, 2), (1, 2)), "b": tensor(key="1"), "c": 4}
    read_all(write(path, edited(pickled(OrderedDict(state)), places), storages={"0": bytes(16), "1": bytes(16)}))
