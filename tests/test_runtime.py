"""What the machine decides: how packed matrices are multiplied, what is wired, which precision a chip takes."""

import mlx.core as mx
import numpy as np
import pytest

from mlx_backend.models.adapters import LowRank
from mlx_backend.models.linear import PackedLinear
from mlx_backend.runtime import crossover, memory
from mlx_backend.runtime.device import imitates_bf16

GB = 1 << 30


@pytest.fixture
def packed():
    """A layer of 4 bits with a bias and a LoRA, and what it stands for."""
    mx.random.seed(1)
    layer = PackedLinear(256, 128, group_size=64, bits=4, compute_dtype=mx.float32)
    layer.weight, layer.scales, layer.biases = mx.quantize(mx.random.normal((128, 256)), group_size=64, bits=4)
    layer.bias = mx.random.normal((128,))
    layer.set_adapters((LowRank(mx.random.normal((4, 256)), mx.random.normal((128, 4)), 0.5),))
    return layer


def test_few_rows_are_multiplied_packed_and_many_unpacked(packed, monkeypatch):
    x = mx.random.normal((40, 256))
    unpacked = packed(x)
    calls = []
    original = mx.quantized_matmul

    def counted(x, *rest, **named):
        calls.append(len(x))
        return original(x, *rest, **named)

    monkeypatch.setattr(mx, "quantized_matmul", counted)
    packed.keep_packed_below(32)
    assert mx.array_equal(packed(x), unpacked).item()
    assert not calls
    few = packed(x[:32])
    assert calls == [32]
    chunk = packed.prepared()(x[:32])
    assert calls == [32], "chunks are multiplied unpacked"
    # The same products summed in another order: so is a dense one of another number of rows, in some libraries.
    for made in (few, chunk):
        assert np.allclose(np.array(made), np.array(unpacked[:32]), atol=1e-4)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ({32: (1.0, 2.0), 512: (1.0, 2.0)}, 512),
        ({32: (1.0, 2.0), 512: (2.0, 1.0)}, 32),
        ({32: (1.0, 1.05)}, 0),  # about equal: unpacked
        ({32: (5.0, 1.0)}, 0),  # and 512 is not even tried
    ],
)
def test_the_crossover_is_the_largest_count_at_which_packed_wins(seconds, expected, monkeypatch):
    times = iter(time for pair in seconds.values() for time in pair)
    monkeypatch.setattr(crossover, "_seconds", lambda work: next(times))
    measure = crossover.few_rows.__wrapped__
    assert measure((64, 64), 4, 64, mx.float32) == expected


def test_the_crossover_is_measured_once():
    first = crossover.few_rows((128, 128), 8, 64, mx.float32)
    misses = crossover.few_rows.cache_info().misses
    assert crossover.few_rows((128, 128), 8, 64, mx.float32) == first
    assert crossover.few_rows.cache_info().misses == misses


@pytest.mark.parametrize(
    ("weights", "ram", "recommended", "expected"),
    [
        (10 * GB, 128 * GB, 96 * GB, 11 * GB),
        (33 * GB, 64 * GB, 48 * GB, 34 * GB),
        (41 * GB, 64 * GB, 46 * GB, int(0.9 * 46 * GB)),
        (60 * GB, 64 * GB, 48 * GB, 0),  # too little would be left for the system
        (9 * GB, 16 * GB, 12 * GB, 0),
    ],
)
def test_what_is_wired_leaves_the_system_room(weights, ram, recommended, expected):
    assert memory.wired_bytes(weights, ram, recommended) == expected


def test_the_wired_limit_is_restored_whatever_happens(monkeypatch):
    limits = [123]

    def set_limit(limit):
        limits.append(limit)
        return limits[-2]

    monkeypatch.setattr(mx.metal, "is_available", lambda: True)
    info = {"memory_size": 64 * GB, "max_recommended_working_set_size": 48 * GB}
    monkeypatch.setattr(mx, "device_info", lambda: info)
    monkeypatch.setattr(mx, "set_wired_limit", set_limit)
    with pytest.raises(KeyError), memory.wired(10 * GB):
        assert limits[-1] == 11 * GB
        raise KeyError
    assert limits == [123, 11 * GB, 123]


def test_elsewhere_nothing_is_wired(monkeypatch):
    def refuse(limit):
        raise AssertionError(limit)

    monkeypatch.setattr(mx, "set_wired_limit", refuse)
    with memory.wired(10 * GB):
        pass


@pytest.mark.parametrize(
    ("chip", "expected"),
    [
        ("Apple M1", True),
        ("Apple M2 Ultra", True),
        ("Apple M3 Max", False),
        ("Apple M4", False),
        ("Apple M10", False),
        ("x86_64", False),
    ],
)
def test_chips_that_imitate_bf16_are_known(chip, expected):
    assert imitates_bf16(chip) == expected
