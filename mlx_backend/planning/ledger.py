"""Every operation of one pass of the DiT: shape, dtype, FLOPs, bytes and dispatches, from its layers, without a run.

`tests/test_ledger.py` compares it with what the model really multiplies.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from ..interface.chunks import chunk_bounds
from ..interface.sizes import WanConfig
from ..interface.tokens import Tokens
from .storage import DTYPE_BYTES, Matrix, Storage
from .weights import Weights, weights

MAX_ELEMENTS = 1 << 31  # MLX's kernels index with 32 signed bits


@dataclass(frozen=True, kw_only=True, slots=True)
class Op:
    """One operation over all rows, done in `dispatches` row chunks, of which the largest has the `dispatch_` numbers.

    `shape` is the whole result's. `bytes_moved` counts inputs and outputs once per dispatch (a matrix is read again
    for every chunk), so it is what must cross the memory bus at least. `kind` is "product", "attention", "norm",
    "rotation", "elementwise" or "ready" (a weight cast or unpacked); `layer` is None outside the blocks.
    """

    name: str
    part: str
    kind: str
    layer: int | None
    shape: tuple[int, ...]
    dtype: str
    flops: int
    bytes_moved: int
    dispatches: int
    dispatch_flops: int
    dispatch_elements: int


@dataclass(frozen=True, slots=True)
class Rows:
    """How many rows there are in all, in the largest chunk, and how many chunks."""

    total: int
    largest: int
    chunks: int

    @classmethod
    def of(cls, *sizes: int) -> Rows:
        """Take chunks of these sizes."""
        return cls(sum(sizes), max(sizes), len(sizes))


@dataclass(frozen=True, slots=True)
class _Writer:
    """Makes the entries of one pass; `rows` are the row chunks of the hidden stream, `groups` those of the heads."""

    config: WanConfig
    tokens: Tokens
    compute: str
    storage: Storage
    rows: Rows
    groups: int = 1

    @property
    def weights(self) -> Weights:
        """The network's matrices."""
        return weights(self.config)

    def product(
        self, name: str, part: str, matrix: Matrix, rows: Rows, layer: int | None = None, dtype: str = ""
    ) -> Op:
        """Rows times a matrix, plus the bias."""
        outputs, inputs = matrix
        width = DTYPE_BYTES[dtype or self.compute]
        total, largest = rows.total, rows.largest
        return Op(
            name=name,
            part=part,
            kind="product",
            layer=layer,
            shape=(total, outputs),
            dtype=dtype or self.compute,
            flops=2 * total * outputs * inputs,
            bytes_moved=width * (total * (inputs + outputs) + rows.chunks * outputs * (inputs + 1)),
            dispatches=rows.chunks,
            dispatch_flops=2 * largest * outputs * inputs,
            dispatch_elements=max(largest * outputs, outputs * inputs),
        )

    def attention(self, name: str, part: str, keys: int, layer: int) -> Op:
        """Softmax attention of the row chunks to `keys` tokens: two products of rows x keys x dim."""
        dim, width = self.config.dim, DTYPE_BYTES[self.compute]
        total, largest = self.rows.total, self.rows.largest
        return Op(
            name=name,
            part=part,
            kind="attention",
            layer=layer,
            shape=(total, dim),
            dtype=self.compute,
            flops=4 * total * keys * dim,
            bytes_moved=width * dim * (2 * total + 2 * keys * self.rows.chunks),
            dispatches=self.rows.chunks,
            dispatch_flops=4 * largest * keys * dim,
            dispatch_elements=max(largest, keys) * dim,
        )

    def rowwise(
        self,
        name: str,
        part: str,
        kind: str,
        steps: int,
        layer: int | None,
        *,
        rows: Rows | None = None,
        width: int = 0,
        read: int = 1,
        dtype: str = "float32",
    ) -> Op:
        """Work on each number by itself or within its row: `steps` operations a number, `read` inputs of its size."""
        rows, width = rows or self.rows, width or self.config.dim
        total, largest = rows.total, rows.largest
        return Op(
            name=name,
            part=part,
            kind=kind,
            layer=layer,
            shape=(total, width),
            dtype=dtype,
            flops=steps * total * width,
            bytes_moved=DTYPE_BYTES[dtype] * (1 + read) * total * width,
            dispatches=rows.chunks,
            dispatch_flops=steps * largest * width,
            dispatch_elements=largest * width,
        )

    def ready(self, name: str, part: str, matrix: Matrix, layer: int) -> Iterator[Op]:
        """Casting or unpacking a weight, where it is not stored as it is multiplied."""
        made = self.storage.ready_bytes(matrix, self.compute)
        if made:
            numbers = matrix[0] * matrix[1]
            yield Op(
                name=f"{name}.ready",
                part=part,
                kind="ready",
                layer=layer,
                shape=matrix,
                dtype=self.compute,
                flops=0,
                bytes_moved=made + self.storage.matrix_bytes(matrix),
                dispatches=1,
                dispatch_flops=0,
                dispatch_elements=numbers,
            )


# Operations per number: a layer norm takes mean, difference, square, sum, scaling; modulation two; an RMS norm four;
# a rotation six per pair; GELU (tanh) eight; a gate and a sum two.
LAYER_NORM, MODULATION, RMS_NORM, ROTATION, GELU, GATED_SUM = 6, 2, 4, 3, 8, 2


def dit_pass(
    config: WanConfig,
    tokens: Tokens,
    *,
    on_gpu: bool,
    compute: str = "bfloat16",
    storage: Storage | None = None,
    head_groups: int = 1,
) -> list[Op]:
    """Return the operations of one pass, in order, as `WanModel.__call__` does them on a prepared segment.

    `compute` is the dtype of the blocks' products ("float32", "bfloat16", "float16"). Without `storage` the weights
    are dense in that dtype. `head_groups`: of self-attention, one after another. LoRAs are not counted.
    """
    bounds = chunk_bounds(tokens.sequence, config.dim, config.num_heads, on_gpu=on_gpu)
    rows = Rows.of(*(stop - start for start, stop in bounds))
    writer = _Writer(config, tokens, compute, storage or Storage(compute), rows, head_groups)
    return [
        *_stem_and_time(writer),
        *(op for layer in range(config.num_layers) for op in _block(writer, layer)),
        *_head(writer),
    ]


def preparation(
    config: WanConfig, tokens: Tokens, stems: Mapping[str, tuple[int, ...]], *, compute: str = "bfloat16"
) -> Iterator[Op]:
    """Yield the products that are done once: known streams per segment, text and CLIP tokens per run.

    `stems`: the rows of each call of a stem, by its name (see Surroundings).
    """
    writer = _Writer(config, tokens, compute, Storage(compute), Rows.of(tokens.sequence))
    calls = {"text_embedding": (tokens.text,), "img_emb": (tokens.image,)}
    for name, matrix in writer.weights.outside.items():
        rows = stems.get(name, calls.get(name.split(".", maxsplit=1)[0], ()))
        if rows:
            yield writer.product(name, "stem" if name in stems else "context", matrix, Rows.of(*rows))


def _stem_and_time(writer: _Writer) -> Iterator[Op]:
    outside, single = writer.weights.outside, Rows.of(1)
    yield writer.product("patch_embedding", "stem", outside["patch_embedding"], Rows.of(writer.tokens.video))
    joined = Rows.of(writer.tokens.sequence)
    yield writer.rowwise("tokens", "stem", "elementwise", 0, None, rows=joined)
    for name, matrix in outside.items():
        if name.startswith("time_"):
            yield writer.product(name, "time", matrix, single, dtype="float32")


def _block(writer: _Writer, layer: int) -> Iterator[Op]:
    for make in (_self_attention, _cross_attention, _feed_forward):
        yield from make(writer, layer)


def _linear(writer: _Writer, name: str, layer: int, rows: Rows | None = None) -> Iterator[Op]:
    """A Linear of a block: its weight made ready once, then chunk after chunk."""
    matrix, part = writer.weights.matrices[name], name.split(".", maxsplit=1)[0]
    yield from writer.ready(f"blocks.{layer}.{name}", part, matrix, layer)
    yield writer.product(f"blocks.{layer}.{name}", part, matrix, rows or writer.rows, layer)


def _self_attention(writer: _Writer, layer: int) -> Iterator[Op]:
    def norm(name: str, steps: int, kind: str = "norm") -> Op:
        part = {"norm": "norm", "rotation": "rope", "elementwise": "residual"}[kind]
        return writer.rowwise(f"blocks.{layer}.{name}", part, kind, steps, layer)

    def in_groups(op: Op) -> Op:
        groups = writer.groups if op.kind in ("product", "attention") else 1
        each = {"dispatch_flops": op.dispatch_flops // groups, "dispatch_elements": op.dispatch_elements // groups}
        return replace(op, dispatches=groups * op.dispatches, **each)

    def rotated(which: str, made: Iterable[Op]) -> Iterator[Op]:
        yield from made
        yield norm(f"self_attn.norm_{which}", RMS_NORM)
        yield norm(f"self_attn.{which}.rotated", ROTATION, "rotation")

    keys = writer.tokens.sequence
    yield norm("norm1.keys", LAYER_NORM + MODULATION)
    yield from rotated("k", _linear(writer, "self_attn.k", layer))
    yield from map(in_groups, _linear(writer, "self_attn.v", layer))
    for which in "kv":  # chunks joined, each in one piece
        name = f"blocks.{layer}.self_attn.{which}.joined"
        yield writer.rowwise(name, "self_attn", "elementwise", 0, layer, rows=Rows.of(keys), dtype=writer.compute)
    if writer.groups > 1:  # made twice: their norm is over all heads, and keeping them would take memory
        yield from _linear(writer, "self_attn.q", layer)
        yield norm("self_attn.norm_q.scale", RMS_NORM)
    again = ("values", "queries") * writer.groups if writer.groups > 1 else ("queries",)
    for what in again:  # keeping it would take a stream's memory
        yield norm(f"norm1.{what}", LAYER_NORM + MODULATION)
    yield from rotated("q", map(in_groups, _linear(writer, "self_attn.q", layer)))
    yield in_groups(writer.attention(f"blocks.{layer}.self_attn.attention", "self_attn", keys, layer))
    yield from _linear(writer, "self_attn.o", layer)
    yield norm("self_attn.residual", GATED_SUM, "elementwise")


def _cross_attention(writer: _Writer, layer: int) -> Iterator[Op]:
    config, tokens, has_image = writer.config, writer.tokens, bool(writer.config.clip_dim)
    for keys, suffix in ((tokens.text, ""), (tokens.image, "_img"))[: 1 + has_image]:
        yield from _linear(writer, f"cross_attn.k{suffix}", layer, Rows.of(keys))
        name = f"blocks.{layer}.cross_attn.norm_k{suffix}"
        yield writer.rowwise(name, "norm", "norm", RMS_NORM, layer, rows=Rows.of(keys))
        yield from _linear(writer, f"cross_attn.v{suffix}", layer, Rows.of(keys))
    yield writer.rowwise(f"blocks.{layer}.norm3", "norm", "norm", LAYER_NORM, layer)
    yield from _linear(writer, "cross_attn.q", layer)
    yield writer.rowwise(f"blocks.{layer}.cross_attn.norm_q", "norm", "norm", RMS_NORM, layer)
    yield writer.attention(f"blocks.{layer}.cross_attn.text", "cross_attn", tokens.text, layer)
    if has_image:
        yield writer.attention(f"blocks.{layer}.cross_attn.image", "cross_attn", tokens.image, layer)
        name = f"blocks.{layer}.cross_attn.sum"
        yield writer.rowwise(name, "cross_attn", "elementwise", 1, layer, read=2, dtype=writer.compute)
    yield from _linear(writer, "cross_attn.o", layer)
    yield writer.rowwise(
        f"blocks.{layer}.cross_attn.residual", "residual", "elementwise", 1, layer, read=2, width=config.dim
    )


def _feed_forward(writer: _Writer, layer: int) -> Iterator[Op]:
    yield writer.rowwise(f"blocks.{layer}.norm2", "norm", "norm", LAYER_NORM + MODULATION, layer)
    yield from _linear(writer, "ffn.0", layer)
    ffn = writer.config.ffn_dim
    name = f"blocks.{layer}.ffn.1"
    yield writer.rowwise(name, "ffn", "elementwise", GELU, layer, width=ffn, dtype=writer.compute)
    yield from _linear(writer, "ffn.2", layer)
    yield writer.rowwise(f"blocks.{layer}.ffn.residual", "residual", "elementwise", GATED_SUM, layer, read=2)


def _head(writer: _Writer) -> Iterator[Op]:
    matrix = writer.weights.outside["head.head"]
    yield writer.rowwise("head.norm", "norm", "norm", LAYER_NORM + MODULATION, None)
    yield writer.product("head.head", "head", matrix, writer.rows, dtype="float32")
    yield writer.rowwise("head.joined", "head", "elementwise", 0, None, width=matrix[0])


def sums(ops: Iterable[Op], key: Callable[[Op], str], value: Callable[[Op], int] = lambda op: op.flops) -> dict:
    """Return the sum of `value` (FLOPs unless told otherwise) for each `key`, in order of appearance."""
    made: dict[str, int] = defaultdict(int)
    for op in ops:
        made[key(op)] += value(op)
    return dict(made)


def total_flops(ops: Iterable[Op]) -> int:
    """Return the FLOPs of all operations."""
    return sum(op.flops for op in ops)
