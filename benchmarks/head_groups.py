"""One block in groups of heads against the same block with all heads at once: seconds and MLX's peak, interleaved.

python -m benchmarks.head_groups --dim 1536 --heads 12 --ffn 8960 --tokens 2304
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

from mlx_backend.runtime.device import require_mlx

require_mlx()

import mlx.core as mx  # noqa: E402 - after the BLAS
from mlx.utils import tree_map  # noqa: E402

from benchmarks.machine import heading  # noqa: E402
from mlx_backend.interface.sizes import WanConfig  # noqa: E402
from mlx_backend.models.attention import Context, Rotation, Rows, Time  # noqa: E402
from mlx_backend.models.block import Block  # noqa: E402
from mlx_backend.models.chunking import chunk_bounds  # noqa: E402

CONTEXT_TOKENS = 512


def main() -> None:
    """Print a line for each number of groups."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    for name, default in {"dim": 1536, "heads": 12, "ffn": 8960, "tokens": 2304, "rounds": 7}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--groups", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--cpu-time", action="store_true", help="count processor time, on a busy machine")
    chosen = parser.parse_args()
    clock = time.process_time if chosen.cpu_time else time.perf_counter
    sys.stdout.write(heading("head_groups") + "\n")
    block = _block(chosen)
    seconds: dict[int, list[float]] = {groups: [] for groups in chosen.groups}
    peaks: dict[int, int] = {}
    for _ in range(chosen.rounds + 1):  # the first warms up
        for groups, taken in seconds.items():
            chunks, context = _given(chosen)
            mx.reset_peak_memory()
            before, start = mx.get_active_memory(), clock()
            block(chunks, context, lambda: None, groups)
            taken.append(clock() - start)
            peaks[groups] = mx.get_peak_memory() - before
    for groups, taken in seconds.items():
        ratio = statistics.median(mine / whole for mine, whole in zip(taken[1:], seconds[1][1:], strict=True))
        found = f"{statistics.median(taken[1:]):.3f} s, {ratio:.3f} x, {peaks[groups] / 1e6:.0f} MB beside the stream"
        sys.stdout.write(f"{groups:>2} groups: {found}\n")


def _block(chosen: argparse.Namespace) -> Block:
    config = WanConfig(
        dim=chosen.dim,
        ffn_dim=chosen.ffn,
        freq_dim=256,
        num_heads=chosen.heads,
        num_layers=1,
        in_dim=16,
        out_dim=16,
        text_dim=4096,
    )
    block = Block(config, mx.float32)
    block.update(tree_map(lambda a: 0.02 * mx.random.normal(a.shape), block.parameters()))
    mx.eval(block.parameters())
    return block


def _given(chosen: argparse.Namespace) -> tuple[list[Rows], Context]:
    half = chosen.dim // chosen.heads // 2
    moment = Time(mx.zeros((chosen.dim,)), mx.zeros((6, chosen.dim)))
    chunks = [
        Rows(mx.random.normal((n, chosen.dim)), Rotation(mx.ones((n, 1, half)), mx.zeros((n, 1, half))), moment)
        for n in (b - a for a, b in chunk_bounds(chosen.tokens, chosen.dim, chosen.heads))
    ]
    context = Context(mx.random.normal((CONTEXT_TOKENS, chosen.dim)), None)
    mx.eval([(rows.x, rows.rotation.cos, rows.rotation.sin) for rows in chunks], context.text, moment.e, moment.e0)
    return chunks, context


if __name__ == "__main__":
    main()
