"""What is in memory at the moments that can be a phase's largest, term by term, from sizes alone.

The terms follow the code of `models/`. Working arrays are counted per evaluation: MLX allocates the results of a whole
evaluation ahead of computing them, so all that are not written in place over an operand are alive together.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

from ..interface.chunks import GPU_DISPATCH_FLOPS, chunk_bounds
from ..interface.geometry import LatentSize
from ..interface.sizes import PATCH, ClipConfig, UMT5Config, WanConfig
from ..interface.tokens import Tokens
from .storage import DTYPE_BYTES, FLOAT32, Matrix, Storage
from .weights import weights

SOLVER_LATENTS = 8  # noise, latent, velocities with and without the prompt, and what a solver of order 3 remembers
# Rows that loading tries a packed product with (runtime/crossover.py): it stops early where unpacking wins at once.
CPU_CROSSOVER_ROWS, GPU_CROSSOVER_ROWS = 32, 512
STREAMED_BLOCKS = 2  # the one that computes and the next one, which is being read


@dataclass(frozen=True, slots=True)
class Backend:
    """What computes: a GPU (Metal; MLX's CUDA works alike) or the CPU, and the dtype of the DiT's products.

    `dispatch_flops` bounds the attention of one row chunk on a GPU, and so the size of the chunks; `head_groups`: how
    many groups of heads the DiT's self-attention takes, one after another.
    """

    on_gpu: bool
    compute: str
    dispatch_flops: float = GPU_DISPATCH_FLOPS
    head_groups: int = 1

    @property
    def width(self) -> int:
        """Bytes of a number in the DiT's products."""
        return DTYPE_BYTES[self.compute]


METAL = Backend(on_gpu=True, compute="bfloat16")
CPU = Backend(on_gpu=False, compute="float32")


@dataclass(frozen=True, slots=True)
class Moment:
    """What is in memory at one moment: (what, bytes)."""

    name: str
    terms: tuple[tuple[str, int], ...]

    @property
    def bytes(self) -> int:
        """The sum."""
        return sum(size for _, size in self.terms)

    def beside(self, *terms: tuple[str, int]) -> Moment:
        """Return the same moment with more in memory."""
        return Moment(self.name, (*terms, *self.terms))


def unpack_bytes(storage: Storage, matrix: Matrix, backend: Backend) -> int:
    """Return what unpacking a matrix needs besides the result: nothing on a GPU, which has a kernel for it.

    The CPU takes the numbers apart as 32-bit words, one each; for widths that do not divide 32 one for every bit.
    """
    if not storage.bits or backend.on_gpu:
        return 0
    words = 1 if 32 % storage.bits == 0 else storage.bits
    scales = 2 * FLOAT32 / storage.group_size  # scales and zero points in the product's dtype
    return int(matrix[0] * matrix[1] * (FLOAT32 * words + scales))


@dataclass(frozen=True, slots=True)
class _Rows:
    """Bytes per number of a chunk [rows, dim] that each operation of the hidden stream allocates."""

    norm: int  # and its modulation, which is written in place
    cast: int  # to the product's dtype
    product: int
    rms: int
    rotation: int  # four half products and their interleaving, float32
    attention: int
    gate: int  # the product of a narrower dtype with the float32 gate

    @classmethod
    def of(cls, backend: Backend) -> _Rows:
        width, is_narrow = backend.width, backend.width != FLOAT32
        if backend.on_gpu:
            # Kernels of their own for the norms, in place where they can; attention takes views and writes rows.
            return cls(4, width * is_narrow, width, 4 * is_narrow, 12, width * (1 + is_narrow), 4 * is_narrow)
        # The CPU makes a layer norm of three results, an RMS norm of two; attention scales, rearranges the queries,
        # and has a result that is rearranged into rows.
        return cls(12, width * is_narrow, width, 8, 12, 16, 4 * is_narrow)


@dataclass(frozen=True, slots=True)
class DiTWork:
    """One pass of the DiT over a segment: `moments` are its largest ones, without the weights that stay."""

    config: WanConfig
    tokens: Tokens
    storage: Storage
    backend: Backend

    @property
    def rows(self) -> int:
        """Rows of the largest chunk."""
        return _largest_chunk(self.tokens.sequence, self.config.dim, self.config.num_heads, self.backend)

    def moments(self, *, is_streamed: bool) -> Iterator[Moment]:
        """Yield the moments of a pass; with `is_streamed` those within a block hold two blocks."""
        yield from self._start()
        block = STREAMED_BLOCKS * weights(self.config).block_bytes(self.storage) if is_streamed else 0
        for moment in self._block_moments():
            stream = ("hidden stream", self._stream(self.tokens.sequence))
            yield moment.beside(stream, ("rotations of the chunks", self._rotations()), ("blocks read", block))

    def _stream(self, rows: int) -> int:
        return rows * self.config.dim * FLOAT32

    def _rotations(self) -> int:
        return self.tokens.sequence * self.config.head_dim * FLOAT32

    def _ready(self, *names: str) -> int:
        matrices = weights(self.config).matrices
        return sum(self.storage.ready_bytes(matrices[name], self.backend.compute) for name in names)

    def _unpacking(self, name: str) -> int:
        return unpack_bytes(self.storage, weights(self.config).matrices[name], self.backend)

    def _start(self) -> Iterator[Moment]:
        """Patches to tokens, joined with the known ones and cut into chunks; the time embedding, cast to float32."""
        config, tokens, width = self.config, self.tokens, self.backend.width
        dim, video, whole = config.dim, tokens.video, self._stream(tokens.sequence)
        patches = 2 * video * config.in_dim * PATCH**2 * FLOAT32
        product = video * dim * width if width != FLOAT32 else 0
        embedded = ("video tokens", self._stream(video))
        yield Moment("embedding the video", (("patches", patches), ("product", product), embedded))
        embedding = [matrix for name, matrix in weights(config).outside.items() if name.startswith("time_")]
        ready = sum(Storage(self.storage.dtype).ready_bytes(matrix, "float32") for matrix in embedding)
        time = ("weights of the time embedding in float32", ready)
        yield Moment("joining all tokens", (embedded, ("all tokens", whole)))
        yield Moment("embedding the time", (("all tokens", whole), time))
        yield Moment("the start of a pass", (("all tokens", whole), ("hidden stream", whole)))

    def _in_groups(self, groups: int) -> Iterator[Moment]:
        """Self-attention by groups of heads: as the results of a group come, its keys go."""
        backend, width, cost = self.backend, self.backend.width, _Rows.of(self.backend)
        chunk, whole = self.rows * self.config.dim, self.tokens.sequence * self.config.dim * width
        normed, kept = cost.norm + cost.cast, ("keys or results of each group", whole)
        ready = ("ready weights", self._ready("self_attn.k", "self_attn.q"))
        made = chunk * (normed + 2 * cost.product + cost.rms + cost.rotation + cost.cast + width)
        yield Moment("keys of the last chunk", (ready, ("keys", whole - chunk * width), ("chunk", made)))
        ready = ("ready weights", self._ready("self_attn.v") // groups)
        yield Moment("joining a group's keys and values", (kept, ready, ("a group's, joined", 2 * whole // groups)))
        ready = ("ready weights", self._ready("self_attn.v", "self_attn.q") // groups)
        own = ("a group's values", whole // groups)
        made = chunk * (normed + (cost.product + cost.rms + cost.rotation + cost.attention) // groups)
        heads = self.config.num_heads // groups * (0 if backend.on_gpu else width)
        scores = ("scores", self.rows * self.tokens.sequence * heads)
        yield Moment("self-attention of a group", (kept, own, ready, ("chunk", made), scores))
        made = chunk * (2 * width + cost.product + cost.gate)
        yield Moment("results of all groups", (kept, ("ready weights", self._ready("self_attn.o")), ("chunk", made)))

    def _all_heads(self) -> Iterator[Moment]:
        """Self-attention of all heads at once."""
        config, backend, width = self.config, self.backend, self.backend.width
        cost, rows, length = _Rows.of(backend), self.rows, self.tokens.sequence
        chunk, normed = rows * config.dim, cost.norm + cost.cast
        keys_values = 2 * length * config.dim * width
        heads_width = config.num_heads * (0 if backend.on_gpu else width)  # the CPU writes the scores out
        kept = 2 * chunk * width
        made = chunk * (normed + 2 * cost.product + cost.rms + cost.rotation + cost.cast)
        ready = ("ready weights", self._ready("self_attn.k", "self_attn.v"))
        yield Moment("keys of the last chunk", (ready, ("keys and values", keys_values - kept), ("chunk", made)))
        joined = ("keys and values, in chunks and one of them joined", keys_values * 3 // 2)
        yield Moment("joining keys and values", (ready, joined, ("the last chunk", chunk * width)))

        shared = (("keys and values", keys_values), ("ready weights", self._ready("self_attn.q", "self_attn.o")))
        yield Moment("making queries' weights ready", (*shared, ("unpacking", self._unpacking("self_attn.o"))))
        made = chunk * (normed + 2 * cost.product + cost.rms + cost.rotation + cost.attention + cost.gate)
        scores = ("scores", rows * length * heads_width)
        yield Moment("self-attention", (*shared, ("chunk", made), scores))

    def _block_moments(self) -> Iterator[Moment]:
        config, backend, width = self.config, self.backend, self.backend.width
        cost, rows = _Rows.of(backend), self.rows
        chunk, normed = rows * config.dim, cost.norm + cost.cast
        heads_width = config.num_heads * (0 if backend.on_gpu else width)
        yield from self._all_heads() if backend.head_groups == 1 else self._in_groups(backend.head_groups)

        context = self.tokens.text + self.tokens.image
        ready = ("ready weights", self._ready("cross_attn.q", "cross_attn.o"))
        shared = (("keys and values of the context", 2 * context * config.dim * width), ready)
        made = chunk * (normed + 2 * cost.product + cost.rms + 2 * cost.attention + width + cost.gate)
        scores = ("scores", rows * context * heads_width)
        yield Moment("cross-attention", (*shared, ("chunk", made), scores))

        ready = ("ready weights", self._ready("ffn.0", "ffn.2"))
        yield Moment("making the feed-forward's weights ready", (ready, ("unpacking", self._unpacking("ffn.2"))))
        # What goes up, and GELU: one kernel on a GPU, on the CPU two results beside its input.
        wide = rows * config.ffn_dim * width * (2 if backend.on_gpu else 3)
        made = chunk * (normed + cost.product + cost.gate)
        yield Moment("feed-forward", (ready, ("chunk", made), ("chunk, widened", wide)))


@functools.lru_cache(maxsize=64)
def _largest_chunk(tokens: int, dim: int, heads: int, backend: Backend) -> int:
    bounds = chunk_bounds(tokens, dim, heads, on_gpu=backend.on_gpu, dispatch_flops=backend.dispatch_flops)
    return max(stop - start for start, stop in bounds)


def segment_terms(
    config: WanConfig, tokens: Tokens, size: LatentSize, numbers: int, backend: Backend
) -> tuple[tuple[str, int], ...]:
    """Return what stays in memory through all steps of a segment beside the weights.

    `numbers`: of the latents and masks around its video.
    """
    pixels = size.frames * size.height * size.width
    known = (tokens.before + tokens.after) * config.dim * FLOAT32
    context = config.dim * (tokens.text * backend.width + tokens.image * FLOAT32)
    streams = numbers + (config.in_dim - size.space.channels) * pixels
    return (
        ("tokens around the video", known),
        ("rotations of the segment", tokens.sequence * config.head_dim * FLOAT32),
        ("embedded text and picture, with and without prompt", 2 * context),
        ("latents and masks that condition the segment", streams * FLOAT32),
        ("latents of the solver", SOLVER_LATENTS * size.space.channels * pixels * FLOAT32),
    )


def context_moment(config: WanConfig, tokens: Tokens, storage: Storage, backend: Backend) -> Moment:
    """Return the moment in which text and CLIP tokens are embedded."""
    dim, clip, text_dim, width = config.dim, config.clip_dim, config.text_dim, backend.width
    dense, outside = Storage(storage.dtype), weights(config).outside
    embedding = [matrix for name, matrix in outside.items() if name.startswith(("text_embedding", "img_emb"))]
    ready = sum(dense.ready_bytes(matrix, backend.compute) for matrix in embedding)
    padded = tokens.text * (2 * FLOAT32 * text_dim + 5 * width * dim)  # padding, joined; two products, GELU's results
    image = tokens.image * (6 * FLOAT32 * clip + 4 * FLOAT32 * dim)  # two norms of three results, two products, GELU
    return Moment("embedding text and picture", (("ready weights", ready), ("text", padded), ("picture", image)))


def text_moment(config: UMT5Config, storage: Storage, lengths: tuple[int, ...], backend: Backend) -> Moment:
    """Return the moment in which a layer of the streamed text encoder works on the longest of prompts of these lengths.

    The GPU is planned like the CPU, in the dtype of the weights: this phase is far from being the largest.
    """
    compute = storage.dtype if backend.on_gpu else "float32"
    ready = sum(storage.ready_bytes(matrix, compute) for matrix in weights(config).matrices.values())
    longest = max(lengths)
    # Two norms of two results, two products; what goes into the stream is written in place. Queries, keys, values, the
    # result, and copies of two of them in order of heads. Gate, its GELU in two results, what it multiplies.
    work = longest * (7 * config.dim + 6 * config.dim_attn + 4 * config.dim_ffn)
    bias = storage.width + (FLOAT32 if storage.dtype != "float32" else 0)
    buckets = sum(length**2 for length in lengths)
    return Moment(
        "a layer of the text encoder",
        (
            ("layers read", STREAMED_BLOCKS * weights(config).block_bytes(storage)),
            ("ready weights", ready),
            ("streams", sum(lengths) * config.dim * FLOAT32),
            ("results", work * FLOAT32),
            ("scores and position bias", longest**2 * config.num_heads * (FLOAT32 + bias)),
            ("buckets of distance", buckets * FLOAT32),
        ),
    )


def packing_moment(config: WanConfig, storage: Storage, backend: Backend) -> Moment:
    """Return the moment in which loading measures whether packed matrices had better be unpacked.

    Source: `runtime/crossover.py`, which tries one matrix with up to 512 rows. Empty for dense weights.
    """
    if not storage.bits:
        return Moment("loading", ())
    outputs, inputs = matrix = max(weights(config).matrices.values(), key=lambda matrix: matrix[0] * matrix[1])
    rows = (GPU_CROSSOVER_ROWS if backend.on_gpu else CPU_CROSSOVER_ROWS) * (inputs + outputs) * backend.width
    return Moment(
        "measuring a packed product",
        (
            ("a packed matrix", storage.matrix_bytes(matrix)),
            ("unpacked", storage.ready_bytes(matrix, backend.compute) + unpack_bytes(storage, matrix, backend)),
            ("rows", rows),
        ),
    )


def clip_moment(config: ClipConfig, storage: Storage, backend: Backend) -> Moment:
    """Return the moment in which a layer of the CLIP tower works, without its weights that stay."""
    compute = storage.dtype if backend.on_gpu else "float32"
    ready = sum(storage.ready_bytes(matrix, compute) for matrix in weights(config).matrices.values())
    rows = config.tokens
    scores = config.num_heads * rows**2 * (0 if backend.on_gpu else FLOAT32)
    # Stream, two layer norms of three results, queries with keys and values, their scaled and rearranged copies, the
    # result twice, two products.
    stream = 19 * rows * config.dim * FLOAT32
    picture = 3 * config.image_size**2 * FLOAT32 * 2
    return Moment(
        "a layer of CLIP",
        (
            ("ready weights", ready),
            ("stream", stream),
            ("feed-forward", rows * config.mlp_dim * FLOAT32),
            ("scores", scores),
            ("picture", picture),
        ),
    )
