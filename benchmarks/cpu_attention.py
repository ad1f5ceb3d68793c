"""Ways to compute the same softmax attention on the CPU, timed: is there one that is cheaper than MLX's own?

`python -m benchmarks.cpu_attention [--rows 348] [--tokens 2784] [--rounds 15]`. One row chunk of the model of dim 1536
at 2,784 tokens, float32.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

from mlx_backend.runtime.device import require_mlx

require_mlx()

import mlx.core as mx  # noqa: E402 - after the BLAS

from benchmarks.machine import heading  # noqa: E402

HEADS, CHANNELS = 12, 128
SCALE = CHANNELS**-0.5


def main() -> None:
    """Print the median time of each way, and its difference from MLX's own."""
    parser = argparse.ArgumentParser(prog="benchmarks.cpu_attention", description=__doc__)
    parser.add_argument("--rows", type=int, default=348, help="queries, an even number (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=2784, help="keys (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=15)
    chosen = parser.parse_args()
    mx.set_default_device(mx.cpu)
    ways, right = candidates(chosen.rows, chosen.tokens)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(chosen.rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            mx.eval(way())
            times[name].append(time.perf_counter() - start)
    lines = [heading("cpu_attention")]
    lines.append(
        f"{HEADS} heads, {chosen.rows} queries, {chosen.tokens} keys, {CHANNELS} channels; median of {chosen.rounds}"
    )
    for name, way in ways.items():
        ratio = statistics.median(a / b for a, b in zip(times[name], times["MLX's own"], strict=True))
        made = way()
        off = f"{mx.max(mx.abs(made - right)).item():.0e}" if made.shape == right.shape else ""
        lines.append(f"  {name:<28}{1000 * statistics.median(times[name]):>8.0f} ms{ratio:>8.2f} x{off:>10}")
    sys.stdout.write("\n".join(lines) + "\n")


def candidates(rows: int, keys: int) -> tuple[dict[str, Callable[[], mx.array]], mx.array]:
    """Return the ways by name, on the same random numbers, and what all but those in brackets should give."""
    streams = [mx.new_stream(mx.cpu) for _ in range(2)]
    q, k, v = (mx.random.normal((1, HEADS, length, CHANNELS)) for length in (rows, keys, keys))
    scores = (SCALE * q) @ k.swapaxes(-1, -2)
    mx.eval(q, k, v, scores)
    fast_exp = mx.compile(lambda s, largest: mx.exp(s - largest))

    def own(q: mx.array = q, k: mx.array = k, v: mx.array = v, stream: mx.Stream | None = None) -> mx.array:
        return mx.fast.scaled_dot_product_attention(q, k, v, scale=SCALE, stream=stream)

    def explicit(exp) -> mx.array:  # noqa: ANN001 - (scores, their maxima) -> their exponentials
        s = (SCALE * q) @ k.swapaxes(-1, -2)
        e = exp(s, mx.max(s, axis=-1, keepdims=True))
        return (e @ v) / mx.sum(e, axis=-1, keepdims=True)

    def by_queries() -> mx.array:
        half = rows // 2
        return mx.concatenate([own(q=q[:, :, i * half : i * half + half], stream=streams[i]) for i in range(2)], axis=2)

    return {
        "MLX's own": own,
        "products, exp, sum": lambda: explicit(lambda s, largest: mx.exp(s - largest)),
        "the same, exp compiled": lambda: explicit(fast_exp),
        "the same, maxima left out": lambda: explicit(lambda s, _: mx.exp(s)),
        "queries on two streams": by_queries,
        "(softmax of ready scores)": lambda: mx.softmax(scores, axis=-1),
        "(exp of ready scores)": lambda: mx.exp(scores),
    }, own()


if __name__ == "__main__":
    main()
