"""The arithmetic of a pass as separate operations, each at the shapes and in the row chunks that the ledger lists.

What a pass takes beyond their sum is what composing them costs: modulation, residuals, copies, casts, waiting.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import mlx.core as mx

from ..interface.sizes import Scail2Config
from ..models.activations import GELUTanh
from ..models.attention import KeysValues, Rotation
from ..planning.ledger import Op

COUNTED = ("product", "attention", "norm", "rotation")
GELU = "ffn.1"
RMS = ("norm_q", "norm_k", "norm_k_img")
DRAWN = (1 << 20) + 7  # numbers that are drawn; larger arrays repeat them


@dataclass(frozen=True, slots=True)
class Primitive:
    """An operation of the pass, and how often it occurs there; `is_gemm` where it is a product of a block."""

    work: Callable[[], None]
    count: int
    flops: int
    is_gemm: bool


def primitives(ops: Sequence[Op], config: Scail2Config) -> list[Primitive]:
    """Return each different operation once, ready to run on arrays of its own."""
    alike = Counter(replace(op, name=_role(op), layer=0 if op.layer is not None else None, part="") for op in ops)
    return [
        Primitive(_work(op, config), count, op.flops, op.kind == "product" and op.layer is not None)
        for op, count in alike.items()
        if op.kind in COUNTED or op.name == GELU
    ]


def drawn(shape: tuple[int, ...], dtype: mx.Dtype, scale: float = 1.0) -> mx.array:
    """Return random numbers of a normal spread; drawing each by itself would take minutes on a CPU."""
    size = 1
    for side in shape:
        size *= side
    block = (scale * mx.random.normal((min(size, DRAWN),))).astype(dtype)
    made = mx.tile(block, -(-size // len(block)))[:size].reshape(shape)
    mx.eval(made)
    return made


def _role(op: Op) -> str:
    """Return what tells operations of one kind and shape apart: layer norm from RMS norm, GELU from sums."""
    if op.kind == "norm":
        return "rms" if op.name.endswith(RMS) else "layer"
    return GELU if op.name.endswith(GELU) else ""


def _work(op: Op, config: Scail2Config) -> Callable[[], None]:
    rows, width = op.shape
    edges = [round(i * rows / op.dispatches) for i in range(op.dispatches + 1)]
    chunks = [b - a for a, b in zip(edges[:-1], edges[1:], strict=True)]
    dtype = getattr(mx, op.dtype)
    heads = (config.num_heads, config.head_dim)
    if op.kind == "product":
        inputs = op.flops // (2 * rows * width)
        weight, bias = drawn((width, inputs), dtype, inputs**-0.5), drawn((width,), dtype)
        return _each(lambda x: mx.addmm(bias, x, weight.T), [drawn((n, inputs), dtype) for n in chunks])
    if op.kind == "attention":
        keys = op.flops // (4 * rows * width)
        seen = KeysValues(*(drawn((1, heads[0], keys, heads[1]), dtype) for _ in range(2)))
        return _each(seen.attend, [drawn((n, *heads), mx.float32) for n in chunks])
    if op.kind == "rotation":
        turns = [Rotation(*(drawn((n, 1, heads[1] // 2), mx.float32) for _ in range(2))) for n in chunks]
        return _each(lambda x, turn: turn.apply(x), [drawn((n, *heads), mx.float32) for n in chunks], turns)
    x = [drawn((n, width), dtype) for n in chunks]
    if op.name == GELU:
        return _each(GELUTanh(), x)
    if op.name == "rms":
        ones = mx.ones((width,))
        return _each(lambda x: mx.fast.rms_norm(x, ones, config.eps), x)
    return _each(lambda x: mx.fast.layer_norm(x, None, None, config.eps), x)


def _each(work: Callable[..., mx.array], *rows: list) -> Callable[[], None]:
    def run() -> None:
        for row in zip(*rows, strict=True):
            mx.eval(work(*row))

    return run
