"""GGUF files: the values that the gguf package itself makes of them, and no header that is believed unseen."""

import struct
import sys

import numpy as np
import pytest

from mlx_backend.interface.errors import DependencyError, WeightsError
from mlx_backend.weights.formats import gguf_file
from mlx_backend.weights.formats.gguf_file import GGUFFile

gguf = pytest.importorskip("gguf")
hypothesis = pytest.importorskip("hypothesis")
integers, lists, tuples = (getattr(hypothesis.strategies, name) for name in ("integers", "lists", "tuples"))

TYPES = gguf.GGMLQuantizationType
LEGACY_QUANTS = ("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1")
# Where a block keeps its float16 scales, in bytes.
K_QUANTS = {"Q2_K": slice(80, 84), "Q3_K": slice(108, 110), "Q4_K": slice(0, 4), "Q5_K": slice(0, 4)}
K_QUANTS["Q6_K"] = slice(208, 210)
OTHER_QUANTS = ("IQ4_NL", "IQ4_XS", "TQ1_0", "MXFP4")
DENSE = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
}
FUZZ = {"deadline": None, "max_examples": 300, "derandomize": True, "database": None}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.gguf"


def write(path, tensors, *, arrays=None, alignment=None, **metadata):
    """Write with the gguf package; a tensor is an array, or (type name, its bytes row by row)."""
    writer = gguf.GGUFWriter(path, "wan")
    if alignment:
        writer.add_custom_alignment(alignment)
    for key, value in metadata.items():
        {str: writer.add_string, int: writer.add_uint32, float: writer.add_float64, bool: writer.add_bool}[type(value)](
            key, value
        )
    for key, value in (arrays or {}).items():
        writer.add_array(key, value)
    for name, value in tensors.items():
        if isinstance(value, tuple):
            writer.add_tensor(name, value[1], raw_dtype=TYPES[value[0]])
        else:
            writer.add_tensor(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def random_blocks(name, rows, blocks, seed=0):
    """Return rows of blocks whose scales are numbers and whose other bits are anything."""
    block_bytes = gguf.GGML_QUANT_SIZES[TYPES[name]][1]
    generator = np.random.default_rng(seed)
    data = generator.integers(0, 256, (rows * blocks, block_bytes), np.uint8)
    if name in K_QUANTS:
        scales = data[:, K_QUANTS[name]]
        scales[:] = generator.normal(size=(len(data), scales.shape[1] // 2)).astype(np.float16).view(np.uint8)
    return data.reshape(rows, -1)


def refusal(path):
    with pytest.raises(WeightsError) as caught:
        GGUFFile(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 800
    return str(caught.value)


@pytest.mark.parametrize("name", DENSE)
def test_dense_tensors_are_mapped_as_they_are(path, name):
    array = np.random.default_rng(0).normal(0, 50, (3, 4, 5)).astype(DENSE[name])
    file = GGUFFile(write(path, {"w": array, "scale": array[0, 0, :1]}))
    info, read = file.tensors["w"], file.read("w")
    assert (info.dtype, info.shape, info.nbytes) == (name, (3, 4, 5), array.nbytes)
    assert isinstance(read, np.memmap)
    assert not read.flags.writeable
    assert read.dtype == array.dtype
    assert np.array_equal(read, array)
    assert np.array_equal(file.read("scale"), array[0, 0, :1])
    assert file.quantisation == {}


def test_bf16_comes_as_its_bits(path):
    bits = np.random.default_rng(0).integers(0, 1 << 16, (6, 8), np.uint16)
    file = GGUFFile(write(path, {"w": ("BF16", bits.view(np.uint8))}))
    assert (file.tensors["w"].dtype, file.tensors["w"].shape, file.tensors["w"].nbytes) == ("BF16", (6, 8), 96)
    assert file.read("w").dtype == np.uint16
    assert np.array_equal(file.read("w"), bits)
    assert file.quantisation == {}


@pytest.mark.parametrize("name", LEGACY_QUANTS)
def test_quantised_tensors_come_back_close(path, name):
    array = np.random.default_rng(0).normal(size=(5, 64)).astype(np.float32)
    read = GGUFFile(write(path, {"w": (name, gguf.quants.quantize(array, TYPES[name]))})).read("w")
    assert np.abs(read - array).max() < {"Q8": 0.02, "Q5": 0.2, "Q4": 0.4}[name[:2]]


@pytest.mark.parametrize("chunk", [1000, 256 << 10])
@pytest.mark.parametrize("name", (*LEGACY_QUANTS, *K_QUANTS, *OTHER_QUANTS))
def test_quantised_tensors_have_the_packages_values(path, name, chunk, monkeypatch):
    monkeypatch.setattr(gguf_file, "CHUNK_BYTES", chunk)
    blocks = random_blocks(name, rows=7, blocks=3)
    with np.errstate(all="ignore"):
        wanted = gguf.quants.dequantize(blocks, TYPES[name])
    file = GGUFFile(write(path, {"x": np.ones(3, np.float32), "w": (name, blocks)}))
    info, read = file.tensors["w"], file.read("w")
    assert (info.dtype, info.shape, info.nbytes) == ("F32", wanted.shape, wanted.nbytes)
    assert file.quantisation == {"w": name}
    assert read.dtype == np.float32
    assert np.array_equal(read.view(np.uint32), wanted.view(np.uint32))


@pytest.mark.parametrize("name", K_QUANTS)
def test_the_crafted_blocks_are_numbers(name):
    assert np.isfinite(gguf.quants.dequantize(random_blocks(name, 2, 2), TYPES[name])).all()


def test_scales_that_are_no_numbers_pass_without_noise(path, recwarn):
    file = GGUFFile(write(path, {"w": ("Q4_0", np.full((1, 18), 0xFF, np.uint8))}))
    assert np.isnan(file.read("w")).all()
    assert not recwarn.list


@pytest.mark.parametrize("alignment", [None, 64, 512])
@pytest.mark.parametrize("version", [2, 3])
def test_a_mixed_file_reads_as_with_the_packages_reader(path, version, alignment):
    tensors = {
        "blocks.0.weight": ("Q4_K", random_blocks("Q4_K", 4, 2)),
        "blocks.0.bias": np.arange(5, dtype=np.float32),
        "patch.weight": np.arange(2 * 3 * 1 * 2 * 2, dtype=np.float16).reshape(2, 3, 1, 2, 2),
        "one": np.float32([7]),
        "head": ("Q8_0", random_blocks("Q8_0", 2, 1) & 0x3F),
    }
    write(path, tensors, alignment=alignment, arrays={"words": ["a", "bc"], "numbers": [1.5, 2.5] * 99})
    content = bytearray(path.read_bytes())
    content[4] = version
    path.write_bytes(content)
    file, reader = GGUFFile(path), gguf.GGUFReader(path)
    assert list(file.tensors) == [tensor.name for tensor in reader.tensors] == list(tensors)
    for tensor in reader.tensors:
        wanted = tensor.data
        if tensor.tensor_type not in (TYPES.F32, TYPES.F16):
            wanted = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        assert file.tensors[tensor.name].shape == tuple(int(n) for n in tensor.shape[::-1])
        assert np.array_equal(file.read(tensor.name), wanted)


def test_metadata_are_the_scalars_and_texts(path):
    values = {"name": "SCAIL Ω", "count": 7, "eps": 0.25, "on": True}
    file = GGUFFile(write(path, {"w": np.ones(1, np.float32)}, arrays={"list": [1, 2], "words": ["x"]}, **values))
    assert file.metadata == values | {"general.architecture": "wan"}


def test_an_original_shape_is_restored(path):
    conv = np.random.default_rng(0).normal(size=(8, 4, 1, 2, 4)).astype(np.float32)
    quantised = gguf.quants.quantize(conv.reshape(-1, 32), TYPES.Q8_0)
    shapes = {f"comfy.gguf.orig_shape.{name}": conv.shape for name in ("conv.weight", "dense", "absent")}
    file = GGUFFile(write(path, {"conv.weight": ("Q8_0", quantised), "dense": conv.ravel()}, arrays=shapes))
    assert file.tensors["conv.weight"].shape == file.tensors["dense"].shape == conv.shape
    assert np.array_equal(file.read("dense"), conv)
    assert np.array_equal(file.read("conv.weight"), gguf.quants.dequantize(quantised, TYPES.Q8_0).reshape(conv.shape))
    assert file.tensors["conv.weight"].nbytes == conv.nbytes


@pytest.mark.parametrize("shape", [(5,), (-2, -2), (2, 2, 2), (2.0, 2.0), ("2", "2"), (1,) * 8 + (4,)])
def test_an_impossible_original_shape_is_refused(path, shape):
    write(path, {"w": np.ones(4, np.float32)}, arrays={"comfy.gguf.orig_shape.w": shape})
    assert "cannot have the shape" in refusal(path)


def test_without_the_package_its_name_is_told(path, monkeypatch):
    write(path, {"w": np.ones(4, np.float32)})
    monkeypatch.setitem(sys.modules, "gguf", None)
    monkeypatch.setitem(sys.modules, "gguf.constants", None)
    with pytest.raises(DependencyError, match="needs the gguf package: pip install gguf"):
        GGUFFile(path)


def test_reading_says_what_went_wrong(path):
    file = GGUFFile(write(path, {"w": np.ones(4, np.float32)}))
    with pytest.raises(WeightsError, match="no tensor 'v'"):
        file.read("v")
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(WeightsError, match="'w' cannot be read any more"):
        file.read("w")
    path.unlink()
    with pytest.raises(WeightsError, match="'w' cannot be read any more"):
        file.read("w")


def test_files_of_other_kinds_are_named(path, tmp_path):
    assert "does not exist" in refusal(path)
    assert "not a file" in refusal(tmp_path)
    path.write_bytes(b"")
    assert "has 0 bytes" in refusal(path)
    for content in (b"<!DOCTYPE html>", b"PK\x03\x04", b"version https://git-lfs"):
        path.write_bytes(content.ljust(99))
        assert "begins with" in refusal(path)


def text(value):
    return struct.pack("<Q", len(value)) + value


def tensor(name=b"w", shape=(32,), kind=0, offset=0):
    numbers = struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)
    return text(name) + numbers


def raw(path, *, pairs=(), tensors=(), version=3, counts=None, data=b"\0" * 4096, magic=b"GGUF"):
    """Write a header as it is given, and some data."""
    counts = counts or (len(tensors), len(pairs))
    head = magic + struct.pack("<IQQ", version, *counts) + b"".join(pairs) + b"".join(tensors)
    path.write_bytes(head + bytes(-len(head) % 32) + data)
    return path


def pair(kind, value, key=b"key"):
    return text(key) + struct.pack("<I", kind) + value


def array(kind, length, values=b""):
    return pair(9, struct.pack("<IQ", kind, length) + values)


HUGE = 2**64 - 1


@pytest.mark.parametrize("version", [0, 1, 4, 3 << 24])
def test_other_versions_are_refused(path, version):
    assert "only versions 2 and 3" in refusal(raw(path, tensors=[tensor()], version=version))


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ({"counts": (HUGE, 0)}, "claims"),
        ({"counts": (0, HUGE)}, "claims"),
        ({"counts": (1, 0), "data": b""}, "ends inside"),
        ({"pairs": [array(0, HUGE)]}, "ends inside"),
        ({"pairs": [array(8, HUGE)]}, "ends inside"),
        ({"pairs": [array(9, HUGE)]}, "ends inside"),
        ({"pairs": [array(8, 3000)]}, "ends inside"),
        ({"pairs": [array(10, 1 << 61)]}, "ends inside"),
        ({"pairs": [array(77, 1)]}, "unknown type 77"),
        ({"pairs": [pair(13, b"")]}, "unknown type 13"),
        ({"pairs": [pair(8, struct.pack("<Q", HUGE))]}, "ends inside"),
        ({"pairs": [struct.pack("<Q", HUGE)]}, "ends inside"),
        ({"pairs": [pair(8, text(b"\xff\xfe"))]}, "not UTF-8"),
        ({"pairs": [pair(9, struct.pack("<IQ", 9, 1) * 9 + struct.pack("<IQ", 0, 0))]}, "unknown type 9"),
        ({"pairs": [pair(4, struct.pack("<I", 0), b"general.alignment")]}, "power of two"),
        ({"pairs": [pair(4, struct.pack("<I", 48), b"general.alignment")]}, "power of two"),
        ({"pairs": [pair(6, struct.pack("<f", 32), b"general.alignment")]}, "power of two"),
        ({"pairs": [pair(10, struct.pack("<Q", 1 << 63), b"general.alignment")], "tensors": [tensor()]}, "ends at"),
        ({"tensors": [tensor(), tensor()]}, "occur twice"),
        ({"tensors": [tensor(b"\xff")]}, "not UTF-8"),
        ({"tensors": [tensor(shape=(1,) * 9)]}, "9 dimensions"),
        ({"tensors": [tensor(shape=(1 << 32, 1 << 32))]}, "impossible shape"),
        ({"tensors": [tensor(shape=(0, HUGE, HUGE))]}, "impossible shape"),
        ({"tensors": [tensor(shape=(1 << 40,))]}, "ends at"),
        ({"tensors": [tensor(offset=HUGE)]}, "ends at"),
        ({"tensors": [tensor(shape=(1025,))]}, "ends at"),
        ({"tensors": [tensor(shape=(33,), kind=2)]}, "rows of 33"),
        ({"tensors": [tensor(shape=(), kind=2)]}, "rows of 1"),
        ({"tensors": [tensor(kind=5)]}, "quantised as type 5"),
        ({"tensors": [tensor(kind=4_000_000_000)]}, "quantised as type 4000000000"),
        ({"tensors": [tensor(kind=9)]}, "quantised as Q8_1"),
        ({"tensors": [tensor(shape=(256,), kind=15)]}, "quantised as Q8_K"),
    ],
)
def test_headers_that_lie_are_refused(path, header, said):
    assert said in refusal(raw(path, **header))


def test_a_header_is_read_up_to_its_limit(path, monkeypatch):
    raw(path, tensors=[tensor()])
    monkeypatch.setattr(gguf_file, "MAX_HEADER_BYTES", 30)
    assert "ends inside" in refusal(path)


def test_small_and_odd_tensors_are_read(path):
    data = np.arange(64, dtype="<f4").tobytes()
    tensors = [tensor(b"none", shape=(0, 7)), tensor(b"no blocks", shape=(0,), kind=2), tensor(b"scalar", shape=())]
    file = GGUFFile(raw(path, tensors=[*tensors, tensor(b"odd", shape=(3,), offset=3)], data=data))
    assert file.read("none").shape == (7, 0)
    assert file.read("no blocks").dtype == np.float32
    assert file.read("scalar") == 0
    assert file.read("odd").flags.aligned
    assert np.array_equal(file.read("odd"), np.frombuffer(data[3:15], "<f4"))


def small_file(folder):
    conv = np.arange(64, dtype=np.float32)
    tensors = {"conv": conv, "half": conv.astype(np.float16), "q": ("Q4_K", random_blocks("Q4_K", 1, 1))}
    arrays = {"comfy.gguf.orig_shape.conv": (4, 4, 1, 2, 2), "words": ["a", "bc"]}
    return write(folder / "small.gguf", tensors, arrays=arrays, alignment=64, number=3).read_bytes()


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return small_file(tmp_path_factory.mktemp("small"))


def test_a_truncated_file_is_refused(path, small):
    for length in range(0, len(small), 7):
        path.write_bytes(small[:length])
        try:
            GGUFFile(path)
        except WeightsError:
            continue
        assert length >= len(small) - 64, "only the padding may be missing"


@hypothesis.settings(**FUZZ)
@hypothesis.given(
    places=lists(tuples(integers(0, 1 << 20), integers(0, 255)), min_size=1, max_size=6), cut=integers(0, 2000)
)
def test_any_damage_is_refused_or_harmless(tmp_path_factory, small, places, cut):
    path = tmp_path_factory.getbasetemp() / "fuzz.gguf"
    header = small.index(b"half") + 100
    content = bytearray(small)
    for place, value in places:
        content[place % header] = value
    path.write_bytes(content[: len(content) - cut] if cut < 300 else content)
    try:
        file = GGUFFile(path)
        for name in file.tensors:
            assert file.read(name).shape == file.tensors[name].shape
    except WeightsError as error:
        assert str(path) in str(error)
