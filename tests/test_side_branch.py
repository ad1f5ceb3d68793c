"""Each side branch equals a dense merge done in numpy, beside a dense Linear and beside packed ones."""

import mlx.core as mx
import numpy as np
import pytest

from mlx_backend.models.adapters import (
    Dora,
    Full,
    Hadamard,
    Kronecker,
    LowRank,
    dora_gain,
    side_branch,
    with_adapters,
)
from mlx_backend.models.linear import Linear, PackedLinear
from mlx_backend.weights.lora.keys import parse

ROWS, OUT, IN = 37, 96, 128
MODULE = "blocks.0.self_attn.q"
TARGETS = {f"{MODULE}.weight": (OUT, IN), f"{MODULE}.bias": (OUT,)}
TOLERANCE = 1e-4
ALPHA, STRENGTH = 6.0, 0.7
BASES = ("dense", "q8", "q4")

# The tensors of one module, by the part's spelling in a file; factors of rank 4 unless the name says otherwise.
PARTS = {
    "lora": {"lora_down.weight": (4, IN), "lora_up.weight": (OUT, 4)},
    "lora-kernel": {"lora_down.weight": (4, IN, 1, 1), "lora_up.weight": (OUT, 4, 1, 1)},
    "lokr": {"lokr_w1": (8, 16), "lokr_w2": (12, 8)},
    "lokr-w2": {"lokr_w1": (8, 16), "lokr_w2_a": (12, 4), "lokr_w2_b": (4, 8)},
    "lokr-both": {"lokr_w1_a": (8, 4), "lokr_w1_b": (4, 4), "lokr_w2_a": (12, 4), "lokr_w2_b": (4, 32)},
    "loha": {"hada_w1_a": (OUT, 4), "hada_w1_b": (4, IN), "hada_w2_a": (OUT, 4), "hada_w2_b": (4, IN)},
    "loha-rank-9": {"hada_w1_a": (OUT, 9), "hada_w1_b": (9, IN), "hada_w2_a": (OUT, 9), "hada_w2_b": (9, IN)},
    "full": {"diff": (OUT, IN)},
}


def random(shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape, dtype=np.float32)


def tensors(kind):
    """The file: values by name, with its alpha."""
    made = {f"{MODULE}.{part}": 0.3 * random(shape, seed) for seed, (part, shape) in enumerate(PARTS[kind].items())}
    return made | {f"{MODULE}.alpha": np.float32(ALPHA)}


def merged_delta(kind):
    """dW by the definitions of LoRA, LoKr and LoHa, in float64."""
    parts = {name.removeprefix(f"{MODULE}."): value.astype(np.float64) for name, value in tensors(kind).items()}
    if kind.startswith("lora"):
        up, down = (parts[f"lora_{name}.weight"] for name in ("up", "down"))
        return up.reshape(OUT, 4) @ down.reshape(4, IN) * ALPHA / 4
    if kind.startswith("lokr"):
        w1, w2 = (
            parts[side] if side in parts else parts[f"{side}_a"] @ parts[f"{side}_b"] for side in ("lokr_w1", "lokr_w2")
        )
        return np.kron(w1, w2) * (1 if kind == "lokr" else ALPHA / 4)
    if kind.startswith("loha"):
        rank = len(parts["hada_w1_b"])
        left, right = (parts[f"hada_w{i}_a"] @ parts[f"hada_w{i}_b"] for i in (1, 2))
        return left * right * ALPHA / rank
    return parts["diff"]


def branch(kind, strength=STRENGTH):
    """What a loader makes of the file."""
    file = tensors(kind)
    shapes = {name: value.shape for name, value in file.items()}
    made = parse(file, shapes, {}, TARGETS, alphas={f"{MODULE}.alpha": ALPHA}).branches[MODULE]
    return side_branch(
        made.kind, {part: mx.array(file[name]) for part, name in made.names.items()}, made.scale, strength
    )


def linear(base, *, bias=True):
    """A linear layer of this storage, and the dense W and b that it computes with."""
    weight, b = mx.array(random((OUT, IN), 5) / 8), mx.array(random((OUT,), 6))
    if base == "dense":
        made = Linear(IN, OUT, bias=bias)
        made.weight = weight
        dense = weight
    else:
        bits = int(base[1])
        made = PackedLinear(IN, OUT, bias=bias, group_size=64, bits=bits)
        made.weight, made.scales, made.biases = mx.quantize(weight, group_size=64, bits=bits)
        dense = mx.dequantize(made.weight, made.scales, made.biases, group_size=64, bits=bits)
    if bias:
        made.bias = b
    return made, np.array(dense).astype(np.float64), np.array(b).astype(np.float64) * bias


def assert_close(found, expected):
    scale = max(1.0, np.abs(expected).max())
    assert np.abs(np.array(found.astype(mx.float32)) - expected).max() <= TOLERANCE * scale


def test_the_parts_cover_both_ways_of_a_loha():
    assert 4 * 4 * (OUT + IN) < OUT * IN < 9 * 9 * (OUT + IN)


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("kind", PARTS)
def test_a_side_branch_is_a_dense_merge(kind, base):
    layer, weight, bias = linear(base)
    x = random((ROWS, IN))
    project = with_adapters(layer.prepared(), [branch(kind)], layer.bias, mx.float32)
    assert_close(project(mx.array(x)), x @ (weight + STRENGTH * merged_delta(kind)).T + bias)


@pytest.mark.parametrize("kind", PARTS)
def test_alone_and_dense(kind):
    x = random((ROWS, IN))
    side = branch(kind)
    assert_close(side(mx.array(x), mx.float32), STRENGTH * x @ merged_delta(kind).T)
    assert_close(side.dense(), merged_delta(kind))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("kind", PARTS)
def test_dora_is_a_dense_merge(kind, base, bias):
    layer, weight, b = linear(base, bias=bias)
    magnitudes = 1 + np.abs(random((OUT, 1), 8))
    calls = []

    def dense_weight():
        calls.append(1)
        return mx.array(weight.astype(np.float32))

    side = branch(kind)
    dora = Dora(side, dora_gain(mx.array(magnitudes), side, dense_weight), STRENGTH)
    adapted = weight + merged_delta(kind)
    adapted *= magnitudes / np.linalg.norm(adapted, axis=1, keepdims=True)
    x = random((ROWS, IN))
    for strength in (STRENGTH, 1.0, 0.0, -1.5):
        project = with_adapters(layer.prepared(), [dora.at(strength)], layer.get("bias"), mx.float32)
        assert_close(project(mx.array(x)), x @ (weight + strength * (adapted - weight)).T + b)
    assert calls == [1]


def test_branches_add_up_in_any_order_with_dora_among_them():
    layer, weight, bias = linear("q8")
    side = branch("loha")
    gain = dora_gain(mx.ones((OUT,)), side, lambda: mx.array(weight.astype(np.float32)))
    branches = [branch("lora", 0.5), Dora(side, gain, 0.25), branch("lokr", -1.0)]
    adapted = weight + merged_delta("loha")
    adapted /= np.linalg.norm(adapted, axis=1, keepdims=True)
    expected = weight + 0.5 * merged_delta("lora") + 0.25 * (adapted - weight) - merged_delta("lokr")
    x = random((ROWS, IN))
    for order in (branches, branches[::-1]):
        project = with_adapters(layer.prepared(), order, layer.bias, mx.float32)
        assert_close(project(mx.array(x)), x @ expected.T + bias)


def test_a_strength_changes_without_new_arrays_and_zero_leaves_the_base_alone():
    side = branch("lora")
    other = side.at(2.0)
    assert (other.strength, side.strength) == (2.0, STRENGTH)
    assert other.up is side.up
    layer, *_ = linear("dense")
    base = layer.prepared()
    assert with_adapters(base, [side.at(0.0)], layer.bias, mx.float32) is base
    assert with_adapters(base, [], None, mx.float32) is base


@pytest.mark.parametrize("kind", PARTS)
def test_half_precision_stays_half_precision(kind):
    layer, weight, bias = linear("dense")
    layer.weight = layer.weight.astype(mx.bfloat16)
    x = random((ROWS, IN))
    made = with_adapters(layer.prepared(), [branch(kind)], layer.bias, mx.bfloat16)(mx.array(x))
    assert made.dtype == mx.bfloat16
    expected = x @ (weight + STRENGTH * merged_delta(kind)).T + bias
    assert np.abs(np.array(made.astype(mx.float32)) - expected).max() < 0.03 * np.abs(expected).max()


def test_a_kernels_axes_are_joined_to_the_inputs_as_the_stems_do():
    down, up = random((4, 5, 1, 2, 2)), random((8, 4, 1, 1, 1))
    side = side_branch("low_rank", {"down": mx.array(down), "up": mx.array(up)}, 1.0)
    assert_close(side.dense(), up.reshape(8, 4) @ down.reshape(4, 20))


def test_positional_arrays_then_the_scale():
    a = mx.ones((2, 2))
    assert [made.strength for made in (LowRank(a, a, 2), Kronecker(a, a, 2), Hadamard(a, a, a, a, 2), Full(a, 2))] == [
        1.0
    ] * 4
    with pytest.raises(ValueError, match="no side branch of kind 'oft'"):
        side_branch("oft", {}, 1.0)
