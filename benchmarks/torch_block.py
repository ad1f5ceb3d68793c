"""A block of the DiT against the same block in plain PyTorch, on the CPU: numbers, time and memory.

`python -m benchmarks.torch_block [--dim 1536] [--tokens 2048 8192]`. Random weights, float32. PyTorch's block is
written as upstream's, with its fused attention; both libraries run the same arrays in the same process.
"""

from __future__ import annotations

import argparse
import ctypes
import statistics
import sys
import time
from collections.abc import Callable

from mlx_backend.runtime.device import require_mlx

require_mlx()

import mlx.core as mx  # noqa: E402 - after the BLAS
import numpy as np  # noqa: E402
import torch  # noqa: E402
from mlx.utils import tree_flatten, tree_unflatten  # noqa: E402
from torch.nn import functional  # noqa: E402

from benchmarks.machine import heading, resident_growth  # noqa: E402
from benchmarks.widths import HEAD_DIM, ffn_dim, width  # noqa: E402
from mlx_backend.diagnostics.primitives import drawn  # noqa: E402
from mlx_backend.interface.sizes import Scail2Config  # noqa: E402
from mlx_backend.models.attention import Context, Rotation, Rows, Time  # noqa: E402
from mlx_backend.models.block import Block  # noqa: E402
from mlx_backend.models.chunking import chunk_bounds  # noqa: E402

TEXT_TOKENS, IMAGE_TOKENS = 512, 257
MEMORY_BAR = 0.5

Tensors = dict[str, torch.Tensor]


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dim", type=width, default=1536, help="1536 or 5120 as Wan's models, or another")
    parser.add_argument("--tokens", type=int, nargs="+", default=[2048, 8192])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cpu-time", action="store_true", help="count processor time, on a busy machine")
    options = parser.parse_args()
    mx.set_default_device(mx.cpu)
    head = [
        f"{heading('torch_block')}, torch {torch.__version__} with {torch.get_num_threads()} threads",
        f"one block, dim {options.dim}, ffn {ffn_dim(options.dim)}, float32, random weights, "
        f"median of {options.rounds} interleaved rounds; memory beyond weights and hidden stream",
        f"{'tokens':>8}{'MLX, s':>10}{'torch, s':>10}{'ratio':>8}{'MLX, MB':>10}{'torch, MB':>11}{'ratio':>8}"
        f"{'difference':>12}",
    ]
    sys.stdout.write("\n".join(head) + "\n")
    clock = time.process_time if options.cpu_time else time.perf_counter
    peaks = [measure(options.dim, tokens, options.rounds, clock) for tokens in options.tokens]
    sys.stdout.write(f"bar: memory at most {MEMORY_BAR} x torch's\n")
    for (fewer, less), (more, most) in zip(
        zip(options.tokens, peaks, strict=True), zip(options.tokens[1:], peaks[1:], strict=True), strict=False
    ):
        sys.stdout.write(f"{more / fewer:.2f} times the tokens: {most / less:.2f} times MLX's memory\n")


def measure(dim: int, tokens: int, rounds: int, clock: Callable[[], float]) -> float:
    """Print the line of one size, and return the working memory of our block in bytes."""
    ours, theirs, difference = pair(block_config(dim, ffn_dim(dim)), tokens)
    memory = [working_memory(ours), working_memory(theirs)]
    times: list[list[float]] = [[], []]
    for _ in range(rounds):  # interleaved, so that a busy machine disturbs both alike
        for kept, work in zip(times, (ours, theirs), strict=True):
            start = clock()
            work()
            kept.append(clock() - start)
    ratio = statistics.median(a / b for a, b in zip(*times, strict=True))
    sys.stdout.write(
        f"{tokens:>8}{statistics.median(times[0]):>10.3f}{statistics.median(times[1]):>10.3f}{ratio:>8.2f}"
        f"{memory[0] / 1e6:>10.0f}{memory[1] / 1e6:>11.0f}{memory[0] / memory[1]:>8.2f}{difference:>12.1e}\n"
    )
    return memory[0]


def pair(config: Scail2Config, tokens: int) -> tuple[Callable[[], None], Callable[[], None], float]:
    """Return both blocks on the same numbers, and their largest difference as a part of the output's spread."""
    dim = config.dim
    block = Block(config, mx.float32)
    block.update(tree_unflatten([(name, _weight(name, a.shape)) for name, a in tree_flatten(block.parameters())]))
    mx.eval(block.parameters())
    stream, time_embedding = drawn((tokens, dim), mx.float32), drawn((6, dim), mx.float32, 0.1)
    angles = mx.arange(tokens)[:, None, None] / 100.0 ** (mx.arange(HEAD_DIM // 2) / (HEAD_DIM // 2))
    context = Context(drawn((TEXT_TOKENS, dim), mx.float32), drawn((IMAGE_TOKENS, dim), mx.float32))
    bounds = chunk_bounds(tokens, dim, config.num_heads)
    cos, sin = mx.cos(angles), mx.sin(angles)
    turns = [Rotation(mx.contiguous(cos[a:b]), mx.contiguous(sin[a:b])) for a, b in bounds]
    mx.eval(stream, context.text, context.image, cos, sin, [(turn.cos, turn.sin) for turn in turns])
    weights = {name: torch.from_numpy(np.array(a)) for name, a in tree_flatten(block.parameters())}
    given = [torch.from_numpy(np.array(a)) for a in (stream, time_embedding, cos, sin, context.text, context.image)]

    def ours() -> mx.array:
        xs = [mx.contiguous(stream[a:b]) for a, b in bounds]
        mx.eval(xs)
        chunks = [Rows(x, turn, Time(time_embedding[0], time_embedding)) for x, turn in zip(xs, turns, strict=True)]
        block(chunks, context, lambda: None)
        return [rows.x for rows in chunks]

    def theirs() -> torch.Tensor:
        with torch.inference_mode():
            return torch_block(weights, *given, config.num_heads, config.eps)

    found, right = np.concatenate([np.array(chunk) for chunk in ours()]), theirs().numpy()
    difference = float(np.abs(found - right).max() / right.std())
    return lambda: ours() and None, lambda: theirs() is None, difference


def torch_block(
    w: Tensors,
    x: torch.Tensor,
    time_embedding: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    text: torch.Tensor,
    image: torch.Tensor,
    heads: int,
    eps: float,
) -> torch.Tensor:
    """Return a Wan block's output [tokens, dim]; `w` are its weights by the official names.

    Source: `WanAttentionBlock` and `WanI2VCrossAttention` in `wan/modules/model.py` of Wan-Video/Wan2.1.
    """
    dim = x.shape[1]

    def linear(name: str, a: torch.Tensor) -> torch.Tensor:
        return functional.linear(a, w[f"{name}.weight"], w[f"{name}.bias"])

    def rms(name: str, a: torch.Tensor) -> torch.Tensor:
        return functional.rms_norm(a, (dim,), w[f"{name}.weight"], eps)

    def split(a: torch.Tensor) -> torch.Tensor:
        return a.view(len(a), heads, -1)

    def rotated(a: torch.Tensor) -> torch.Tensor:
        even, odd = a[..., 0::2], a[..., 1::2]
        return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)

    def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        out = functional.scaled_dot_product_attention(*(a.transpose(0, 1)[None] for a in (q, k, v)))
        return out[0].transpose(0, 1).reshape(len(q), dim)

    shift1, scale1, gate1, shift2, scale2, gate2 = w["modulation"][0] + time_embedding
    h = functional.layer_norm(x, (dim,), eps=eps) * (1 + scale1) + shift1
    q, k = (rotated(split(rms(f"self_attn.norm_{n}", linear(f"self_attn.{n}", h)))) for n in "qk")
    x = x + linear("self_attn.o", attention(q, k, split(linear("self_attn.v", h)))) * gate1
    h = functional.layer_norm(x, (dim,), w["norm3.weight"], w["norm3.bias"], eps)
    q = split(rms("cross_attn.norm_q", linear("cross_attn.q", h)))
    seen = torch.zeros_like(x)
    for tokens, suffix in ((text, ""), (image, "_img")):
        k = split(rms(f"cross_attn.norm_k{suffix}", linear(f"cross_attn.k{suffix}", tokens)))
        seen = seen + attention(q, k, split(linear(f"cross_attn.v{suffix}", tokens)))
    x = x + linear("cross_attn.o", seen)
    h = functional.layer_norm(x, (dim,), eps=eps) * (1 + scale2) + shift2
    return x + linear("ffn.2", functional.gelu(linear("ffn.0", h), approximate="tanh")) * gate2


def working_memory(work: Callable[[], None]) -> float:
    """Return how many bytes more than before are in use at most while `work` runs.

    It is the larger of two figures: the growth of the process's resident memory, and what MLX counts of its own.
    """
    mx.clear_cache()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)  # otherwise freed memory that the process still holds would hide new one
    mx.reset_peak_memory()
    own = mx.get_active_memory()
    grown = resident_growth(work)
    return float(max(grown, mx.get_peak_memory() - own, 1))  # a ratio is taken


def _weight(name: str, shape: tuple[int, ...]) -> mx.array:
    """Draw a weight that about keeps the size of its input; gains are near one."""
    if name.endswith("weight") and len(shape) > 1:
        return drawn(shape, mx.float32, shape[1] ** -0.5)
    return drawn(shape, mx.float32, 0.1) + float(name.endswith("weight"))


def block_config(dim: int, inner: int) -> Scail2Config:
    """Return the sizes of a Wan block; a head has 128 channels."""
    return Scail2Config(
        dim=dim,
        ffn_dim=inner,
        freq_dim=256,
        num_heads=dim // HEAD_DIM,
        num_layers=1,
        in_dim=20,
        pose_dim=20,
        mask_dim=28,
        out_dim=16,
        text_dim=4096,
        clip_dim=1280,
    )


if __name__ == "__main__":
    main()
