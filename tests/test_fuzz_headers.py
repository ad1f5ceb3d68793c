"""Damaged and hostile safetensors headers: a sentence or a file, never another exception, never a hang."""

import json
import struct

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import GOLDENS

from mlx_backend.interface.errors import WeightsError
from mlx_backend.weights.checkpoints.component_file import open_component
from mlx_backend.weights.formats.safetensors_file import MAX_HEADER_BYTES, SafetensorsFile

SOURCE = (GOLDENS / "snapshot" / "t5_encoder.safetensors").read_bytes()
HEADER = 8 + struct.unpack("<Q", SOURCE[:8])[0]
QUICK = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def opened(path, content):
    """Open the bytes as a file; True when they were taken, False when they were refused by a sentence."""
    path.write_bytes(content)
    try:
        open_component(path, "t5_encoder")
    except WeightsError as error:
        assert str(path) in str(error)
        assert str(error).endswith(".")
        return False
    return True


@QUICK
@given(st.lists(st.tuples(st.integers(0, HEADER - 1), st.integers(0, 255)), min_size=1, max_size=6))
def test_changed_bytes(tmp_path, changes):
    content = bytearray(SOURCE)
    for place, value in changes:
        content[place] = value
    opened(tmp_path / "a.safetensors", bytes(content))


@QUICK
@given(st.integers(0, len(SOURCE) - 1))
def test_any_truncation_is_refused(tmp_path, length):
    assert not opened(tmp_path / "a.safetensors", SOURCE[:length])


@QUICK
@given(st.dictionaries(st.text(max_size=8), JSON, max_size=4))
def test_headers_of_any_json(tmp_path, header):
    text = json.dumps(header).encode()
    opened(tmp_path / "a.safetensors", struct.pack("<Q", len(text)) + text + bytes(64))


@QUICK
@given(
    st.sampled_from(["F32", "BF16", "F8_E4M3", "U8", "I64", "X9"]),
    st.lists(st.integers(-2, 2**62), max_size=4),
    st.tuples(st.integers(-2, 2**63), st.integers(-2, 2**63)),
)
def test_entries_with_any_numbers(tmp_path, dtype, shape, offsets):
    text = json.dumps({"norm.weight": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}).encode()
    opened(tmp_path / "a.safetensors", struct.pack("<Q", len(text)) + text + bytes(64))


def test_a_huge_header_is_not_read(tmp_path):
    path = tmp_path / "a.safetensors"
    with path.open("wb") as file:  # sparse: 200 MB that take no disk
        file.write(struct.pack("<Q", 100 << 20) + b"{")
        file.truncate(200 << 20)
    assert MAX_HEADER_BYTES < 100 << 20
    try:
        SafetensorsFile(path)
    except WeightsError as error:
        assert "not a safetensors file" in str(error)
    else:
        raise AssertionError("a header of 100 MB was taken")
