"""Are MLX's operations right at the row counts of real runs? Each is compared with float32 in small parts.

Kernels have failed beyond 32,767 rows (mlx#3631), beyond 32,767 keys (mlx#3361) and at 2^31 elements, and TF32 takes
half the digits of a convolution (mlx#4242): such faults ruin a video without an error. Rows and one side of each matrix
are those of the model; the other side is cut, so that a dispatch stays below a second on the smallest chip.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import mlx.core as mx

from ..interface.chunks import chunk_bounds
from ..models.attention import KeysValues
from ..models.linear import PackedLinear, affine
from ..runtime.machine import Machine
from .checks import Check, Verdict
from .references import (
    GROUP_SIZE,
    Packed,
    as_numpy,
    attention_error,
    convolution_error,
    product_error,
    random_rows,
    rows_that_differ,
    uniform,
)

HEAD_DIM = 128
COLUMNS = (5120, 13824)  # of SCAIL-2's hidden stream and feed-forward
Bar = tuple[float, str]
BARS: dict[str, Bar] = {
    "float32": (1e-4, "float32 sums of this length err by about 1e-5 of the spread, TF32 by 1e-3"),
    "bfloat16": (3e-2, "a bf16 result carries 2^-9 of its value, for the largest of millions 0.012 of the spread"),
    "float16": (6e-3, "an fp16 result carries 2^-12 of its value, for the largest of millions 0.0015 of the spread"),
}
PACKED_BARS: dict[str, Bar] = {
    "float32": BARS["float32"],
    "bfloat16": (6e-2, "a bf16 result carries 2^-9 of its value, and the unpacked weights are rounded likewise"),
    "float16": (12e-3, "an fp16 result carries 2^-12 of its value, and the unpacked weights are rounded likewise"),
}
ATTENTION_BARS: dict[str, Bar] = {
    "float32": BARS["float32"],
    "bfloat16": (6e-2, "a kernel may round scores of up to 10 to bf16, which changes weights by up to 0.02"),
    "float16": (12e-3, "a kernel may round scores of up to 10 to fp16, which changes weights by up to 0.0025"),
}
CONVOLUTION_BAR: Bar = (1e-3, "MLX's Winograd convolution in float32 errs by about 1e-4 of the spread, in TF32 by 4e-2")
COPY_BAR: Bar = (0.0, "copying changes nothing")
UPDATE = "Update MLX; until this is right, results cannot be trusted."
HARMLESS = "This program does not use it for so many rows; others may."
TF32_OR_UPDATE = "If TF32 is on, start with MLX_ENABLE_TF32=0; otherwise the VAE cannot be trusted here."


def _packed_product(x: mx.array, packed: Packed) -> mx.array:
    outer, inner = len(packed.weight), packed.scales.shape[1] * GROUP_SIZE
    linear = PackedLinear(inner, outer, bias=False, group_size=GROUP_SIZE, bits=packed.bits)
    linear.weight, linear.scales, linear.biases = packed.weight, packed.scales, packed.biases
    return linear(x)


def _quantized_matmul(x: mx.array, packed: Packed) -> mx.array:
    return mx.quantized_matmul(x, packed.weight, packed.scales, packed.biases, group_size=GROUP_SIZE, bits=packed.bits)


@dataclass(frozen=True, slots=True)
class Operations:
    """What is examined, as the model calls it; a test puts a broken one in its place."""

    product: Callable[[mx.array, mx.array], mx.array] = lambda x, weight: affine(weight, None)(x)
    packed_product: Callable[[mx.array, Packed], mx.array] = _packed_product
    quantized_matmul: Callable[[mx.array, Packed], mx.array] = _quantized_matmul
    attention: Callable[[mx.array, KeysValues], mx.array] = lambda queries, seen: seen.attend(queries)
    convolution: Callable[[mx.array, mx.array], mx.array] = lambda x, kernel: mx.conv3d(x, kernel, padding=(0, 1, 1))
    pad: Callable[[mx.array, int], mx.array] = lambda x, rows: mx.pad(x, ((0, rows), (0, 0)))
    concatenate: Callable[[list[mx.array]], mx.array] = lambda parts: mx.concatenate(parts)


@dataclass(frozen=True, kw_only=True, slots=True)
class Scale:
    """Sizes to examine: `rows` of the hidden stream, `depth` of the side that is cut, frames (H, W, channels).

    `dtypes`: of dense products, each with its columns; the first is that of the blocks. `fused_rows` bounds the rows
    of `quantized_matmul`.
    """

    rows: tuple[int, ...]
    depth: int
    heads: int
    dtypes: tuple[tuple[str, tuple[int, ...]], ...]
    fused_rows: int
    frames: tuple[tuple[int, int, int], ...]
    on_gpu: bool

    @property
    def block_dtype(self) -> str:
        """The dtype that blocks compute in."""
        return self.dtypes[0][0]


# Video tokens of 832x480, 81 frames; all tokens of that run; all tokens of 1280x704, 81 frames. What is float32 beside
# bf16 blocks is as wide as the hidden stream.
PRODUCTION = Scale(
    rows=(32_760, 42_510, 95_920),
    depth=1024,
    heads=40,
    dtypes=(("bfloat16", COLUMNS), ("float32", COLUMNS[:1])),
    fused_rows=95_920,
    frames=((480, 832, 96), (60, 104, 384)),
    on_gpu=True,
)
# A CPU computes in float32 alone, and its kernels have no row counts at which they change; quantized_matmul is slow.
REDUCED = Scale(
    rows=(511, 664, 1_498),
    depth=256,
    heads=4,
    dtypes=(("float32", COLUMNS),),
    fused_rows=64,
    frames=((60, 104, 96), (30, 52, 384)),
    on_gpu=False,
)


def scale_for(machine: Machine) -> Scale:
    """Return the sizes for a machine: on a small GPU without the row counts that do not fit."""
    if not machine.on_gpu:
        return REDUCED
    full = replace(PRODUCTION, dtypes=((machine.block_dtype, COLUMNS), *PRODUCTION.dtypes[1:]))
    memory = machine.working_set_bytes or machine.memory_bytes
    if memory is None:
        return full
    fitting = tuple(rows for rows in full.rows if 3 * 2 * rows * COLUMNS[-1] <= 0.75 * memory)
    return replace(full, rows=fitting or full.rows[:1])


def numeric_checks(scale: Scale, operations: Operations, check_cancelled: Callable[[], None]) -> Iterator[Check]:
    """Yield one check for each operation, dtype and row count; `check_cancelled` is called before each matrix."""
    mx.random.seed(0)
    for dtype, columns in scale.dtypes:
        yield from _dense(scale, dtype, columns, operations, check_cancelled)
    for bits in (4, 8):
        yield from _packed(scale, bits, operations, check_cancelled)
    check_cancelled()
    yield _fused(scale, operations)
    for rows in scale.rows:
        check_cancelled()
        yield _attention(scale, rows, operations)
        yield _copies(rows, operations)
        mx.clear_cache()
    for frame in scale.frames:
        check_cancelled()
        yield _convolution(frame, operations)
        mx.clear_cache()


def _dense(
    scale: Scale, dtype: str, columns: tuple[int, ...], operations: Operations, check_cancelled: Callable[[], None]
) -> Iterator[Check]:
    errors: dict[int, list[float]] = {rows: [] for rows in scale.rows}
    for inner, outer in _shapes(columns, scale.depth):
        weight, x = uniform((outer, inner), dtype), random_rows(max(scale.rows), inner, dtype)
        right = as_numpy(weight)
        for rows in scale.rows:
            check_cancelled()
            errors[rows].append(product_error(operations.product(x[:rows], weight), x[:rows], right))
            mx.clear_cache()
    for rows, found in errors.items():
        yield _judged(f"dense products, {dtype}, {rows:,} rows", max(found), BARS[dtype], rows)


def _packed(scale: Scale, bits: int, operations: Operations, check_cancelled: Callable[[], None]) -> Iterator[Check]:
    dtype, columns = scale.dtypes[0]
    errors: dict[int, list[float]] = {rows: [] for rows in scale.rows}
    for inner, outer in _shapes(columns, scale.depth):
        packed, x = Packed.of(uniform((outer, inner), dtype), bits), random_rows(max(scale.rows), inner, dtype)
        right = packed.unpacked()
        for rows in scale.rows:
            check_cancelled()
            errors[rows].append(product_error(operations.packed_product(x[:rows], packed), x[:rows], right))
            mx.clear_cache()
    for rows, found in errors.items():
        yield _judged(f"products with {bits}-bit weights, {dtype}, {rows:,} rows", max(found), PACKED_BARS[dtype], rows)


def _fused(scale: Scale, operations: Operations) -> Check:
    dtype, rows = scale.block_dtype, min(max(scale.rows), scale.fused_rows)
    packed, x = Packed.of(uniform((scale.depth, COLUMNS[0]), dtype), 8), random_rows(rows, COLUMNS[0], dtype)
    error = product_error(operations.quantized_matmul(x, packed), x, packed.unpacked())
    return _judged(
        f"quantized_matmul, {dtype}, {rows:,} rows", error, PACKED_BARS[dtype], rows, fault="note", advice=HARMLESS
    )


def _attention(scale: Scale, rows: int, operations: Operations) -> Check:
    """Compare one dispatch of the model's: as many queries as it takes at once, all keys."""
    dtype, heads = scale.block_dtype, scale.heads
    count = chunk_bounds(rows, heads * HEAD_DIM, heads, on_gpu=scale.on_gpu)[0][1]
    # No key may repeat, as drawn rows do: without a repeated one, the result would be the same.
    drawn = [[uniform((rows, HEAD_DIM), dtype) for _ in range(heads)] for _ in range(2)]
    seen = KeysValues(*(mx.stack(parts)[None] for parts in drawn))
    mx.eval(seen.keys, seen.values)
    del drawn
    queries = 6 * uniform((count, heads, HEAD_DIM), dtype)  # scores spread by 2: some keys matter and others do not
    error = attention_error(operations.attention(queries, seen), queries, seen.keys[0], seen.values[0])
    return _judged(f"attention, {dtype}, {count:,} queries, {rows:,} keys", error, ATTENTION_BARS[dtype], rows)


def _copies(rows: int, operations: Operations) -> Check:
    """Join three parts and pad them, as tokens are; count the rows that are not what went in."""
    x = random_rows(rows, COLUMNS[0], "float32")
    first, second = rows // 27, rows * 4 // 5
    wrong = rows_that_differ(operations.concatenate([x[:first], x[first:second], x[second:]]), x)
    padded = operations.pad(x, 8)
    wrong += rows_that_differ(padded[:rows], x) + rows_that_differ(padded[rows:], mx.zeros((8, COLUMNS[0])))
    return _judged(f"concatenation and padding, {rows:,} rows", float(wrong), COPY_BAR, rows, unit=" rows wrong")


def _convolution(frame: tuple[int, int, int], operations: Operations) -> Check:
    height, width, channels = frame
    x = random_rows(3 * height * width, channels, "float32").reshape(1, 3, height, width, channels)
    kernel = uniform((channels, 3, 3, 3, channels), "float32")
    error = convolution_error(operations.convolution(x, kernel), x, kernel)
    name = f"convolution, float32, {height}x{width}, {channels} channels"
    return _judged(name, error, CONVOLUTION_BAR, advice=TF32_OR_UPDATE)


def _judged(
    name: str,
    error: float,
    bar: Bar,
    rows: int = 0,
    *,
    fault: Verdict = "fault",
    advice: str = UPDATE,
    unit: str = " of the spread",
) -> Check:
    limit, reason = bar
    found = f"error {error:.1e}{unit} (bar {limit:.0e})" if limit else f"{error:.0f}{unit}"
    if error <= limit:
        return Check(name, found, "ok", "Right.", error, limit, reason, rows)
    return Check(name, found, fault, f"Wrong: {reason}. {advice}", error, limit, reason, rows)


def _shapes(columns: tuple[int, ...], depth: int) -> list[tuple[int, int]]:
    """Return (inputs, outputs) of the matrices."""
    return [shape for width in columns for shape in ((depth, width), (width, depth))]
