"""One DiT pass against the sum of its own primitives: what the composition costs, and the memory it needs.

`python -m benchmarks.dit_pass`. Random weights, float32, the CPU unless MLX's default device is a GPU (--device).
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
from mlx.utils import tree_map  # noqa: E402

from benchmarks.machine import describe_machine  # noqa: E402
from mlx_backend.models.activations import GELUTanh  # noqa: E402
from mlx_backend.models.attention import KeysValues, Rotation  # noqa: E402
from mlx_backend.models.chunking import chunk_bounds  # noqa: E402
from mlx_backend.models.config import DiTConfig  # noqa: E402
from mlx_backend.models.scail2 import Reference, Scail2DiT, Streams, positions  # noqa: E402

CONFIG = DiTConfig(
    dim=1536,
    ffn_dim=8960,
    freq_dim=256,
    num_heads=12,
    num_layers=2,
    in_dim=20,
    pose_dim=20,
    mask_dim=28,
    out_dim=16,
    text_dim=4096,
    clip_dim=1280,
)
FRAMES, HEIGHT, WIDTH = 5, 32, 48  # latent; 384 reference + 1920 video + 480 driving = 2784 tokens
IMAGE_TOKENS = 257
ROUNDS = 7


def main() -> None:
    """Print times, their ratio and the peak memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    mx.set_default_device(mx.cpu if parser.parse_args().device == "cpu" else mx.gpu)
    forward = full_pass()
    forward()  # warm caches
    mx.clear_cache()
    mx.reset_peak_memory()
    resident = mx.get_active_memory()  # weights, and what no step changes
    forward()
    working = mx.get_peak_memory() - resident
    parts = primitives()
    for work, _ in parts.values():
        work()

    whole, alone = [], {name: [] for name in parts}
    for _ in range(ROUNDS):  # interleaved, so that a busy machine disturbs both alike
        whole.append(seconds(forward))
        for name, (work, _) in parts.items():
            alone[name].append(seconds(work))
    totals = {name: statistics.median(alone[name]) * count for name, (_, count) in parts.items()}
    rounds = [sum(alone[name][i] * count for name, (_, count) in parts.items()) for i in range(ROUNDS)]
    one_pass, summed = statistics.median(whole), statistics.median(rounds)
    # A pass and the primitives of its round meet the same load of the machine.
    ratio = statistics.median(a / b for a, b in zip(whole, rounds, strict=True))

    tokens = len(positions(FRAMES, HEIGHT, WIDTH, 0, CONFIG.head_dim, replacement=False)[0])
    lines = [
        f"$ python -m {' '.join(['benchmarks.dit_pass', *sys.argv[1:]])}",
        describe_machine(),
        f"dim {CONFIG.dim}, ffn {CONFIG.ffn_dim}, {CONFIG.num_heads} heads, {CONFIG.num_layers} layers, "
        f"{tokens} tokens, float32, median of {ROUNDS}",
        *(f"  {name:<28}{totals[name]:8.3f} s" for name in totals),
        f"  {'sum of primitives':<28}{summed:8.3f} s",
        f"  {'one pass':<28}{one_pass:8.3f} s",
        f"pass / primitives: {ratio:.3f} (bar 1.15)",
        f"peak beyond weights: {working / 1e9:.3f} GB (bar 0.35)",
    ]
    sys.stdout.write("\n".join(lines) + "\n")


def seconds(work: Callable[[], None]) -> float:
    """Return how long `work` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def full_pass() -> Callable[[], None]:
    """Return a model's pass, with everything that no step changes prepared."""
    model = Scail2DiT(CONFIG, mx.float32)
    model.update(tree_map(lambda a: 0.02 * mx.random.normal(a.shape), model.parameters()))
    mx.eval(model.parameters())
    latent = mx.random.normal((16, FRAMES, HEIGHT, WIDTH))
    streams = Streams(
        references=(Reference(latent[:, :1], None),),
        driving=mx.random.normal((16, FRAMES, HEIGHT // 2, WIDTH // 2)),
        driving_mask=None,
        history_mask=None,
        replacement=False,
    )
    segment = model.prepare(streams)
    context = model.embed_context(
        mx.random.normal((40, CONFIG.text_dim)), mx.random.normal((IMAGE_TOKENS, CONFIG.clip_dim))
    )
    mx.eval(latent)
    return lambda: mx.eval(model(latent, 500.0, segment, context, lambda: None))


def primitives() -> dict[str, tuple[Callable[[], None], int]]:
    """Return a pass's operations at its own shapes: work over the row chunks of a layer, and how often it occurs."""
    dim, ffn, heads, head_dim = CONFIG.dim, CONFIG.ffn_dim, CONFIG.num_heads, CONFIG.head_dim
    cos, sin = positions(FRAMES, HEIGHT, WIDTH, 0, head_dim, replacement=False)
    bounds = chunk_bounds(len(cos), dim, heads)
    narrow = [mx.random.normal((b - a, dim)) for a, b in bounds]
    wide = [mx.random.normal((b - a, ffn)) for a, b in bounds]
    split = [mx.random.normal((b - a, heads, head_dim)) for a, b in bounds]
    turns = [Rotation(mx.contiguous(cos[a:b]), mx.contiguous(sin[a:b])) for a, b in bounds]
    square, up, down = (0.02 * mx.random.normal(shape) for shape in ((dim, dim), (ffn, dim), (dim, ffn)))
    bias, wide_bias, ones = mx.zeros((dim,)), mx.zeros((ffn,)), mx.ones((dim,))
    text, image = mx.random.normal((CONFIG.text_len, dim)), mx.random.normal((IMAGE_TOKENS, dim))

    def keys(length: int) -> KeysValues:
        return KeysValues(*(mx.random.normal((1, heads, length, head_dim)) for _ in range(2)))

    seen = {"self": keys(len(cos)), "text": keys(CONFIG.text_len), "image": keys(IMAGE_TOKENS)}
    mx.eval(narrow, wide, split, square, up, down, text, image, [(k.keys, k.values) for k in seen.values()])

    def each(work: Callable[..., mx.array], *rows: list) -> Callable[[], None]:
        def run() -> None:
            for row in zip(*rows, strict=True):
                mx.eval(work(*row))

        return run

    layers = CONFIG.num_layers
    return {
        "products dim x dim": (each(lambda x: mx.addmm(bias, x, square.T), narrow), 6 * layers),
        "products of the text": (each(lambda x: mx.addmm(bias, x, square.T), [text]), 2 * layers),
        "products of the image": (each(lambda x: mx.addmm(bias, x, square.T), [image]), 2 * layers),
        "product dim x ffn": (each(lambda x: mx.addmm(wide_bias, x, up.T), narrow), layers),
        "product ffn x dim": (each(lambda x: mx.addmm(bias, x, down.T), wide), layers),
        "self-attention": (each(seen["self"].attend, split), layers),
        "attention to text": (each(seen["text"].attend, split), layers),
        "attention to image": (each(seen["image"].attend, split), layers),
        "GELU": (each(GELUTanh(), wide), layers),
        "layer norms": (each(lambda x: mx.fast.layer_norm(x, None, None, 1e-6), narrow), 4 * layers),
        "RMS norms": (each(lambda x: mx.fast.rms_norm(x, ones, 1e-6), narrow), 3 * layers),
        "rotations": (each(lambda x, turn: turn.apply(x), split, turns), 2 * layers),
    }


if __name__ == "__main__":
    main()
