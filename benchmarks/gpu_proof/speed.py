"""A pass of the 14B block at the tokens of a real run, and the decoding of its video."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx.utils import tree_map

from benchmarks.gpu_proof.rows import Row
from benchmarks.gpu_proof.sizes import Sizes
from mlx_backend.diagnostics.bench import forward, pack_model, snapshot_of, write_model
from mlx_backend.diagnostics.primitives import drawn
from mlx_backend.interface.sizes import Scail2Config, VAEConfig
from mlx_backend.interface.tiling import Tiling
from mlx_backend.members.scail2 import MEMBER
from mlx_backend.models.attention import KeysValues
from mlx_backend.models.chunking import chunk_bounds
from mlx_backend.models.vae21 import WanVAE21
from mlx_backend.planning.ledger import dit_pass, total_flops
from mlx_backend.runtime.machine import this_machine
from mlx_backend.runtime.memory import bounded_cache
from mlx_backend.weights.checkpoints.components import fitting, load_component

REPEATS = 3
OVERLAP = 64  # pixels, of tiles
SEAM_BAR = 1 / 255  # tiles are exact but for rounding: not a step of an 8-bit picture


def block(sizes: Sizes, seconds: float) -> Iterator[Row]:
    """(4) One layer at all tokens, dense and packed, against what its products and its attention reach alone."""
    config, size = sizes.block
    machine, tokens = this_machine(), MEMBER.tokens(size, 1)
    dtype = machine.block_dtype
    ops = dit_pass(config, tokens, on_gpu=machine.on_gpu, compute=dtype)
    kinds = {kind: sum(op.flops for op in ops if op.kind == kind) for kind in ("product", "attention")}
    rates = dict(zip(kinds, _rates(config, tokens.sequence, dtype), strict=True))
    for kind, rate in rates.items():
        yield Row("block", f"{kind} alone, {dtype}, {tokens.sequence:,} tokens", f"{rate / 1e12:.3g} TFLOP/s", "note")
    least = sum(flops / rates[kind] for kind, flops in kinds.items())
    until = time.monotonic() + 0.8 * seconds
    with bounded_cache(), tempfile.TemporaryDirectory(prefix="scail2-proof-") as folder:
        dense = Path(folder) / "dense.safetensors"
        write_model(dense, config, getattr(mx, dtype))
        model = load_component(fitting(snapshot_of(dense, config), "dit", "auto"), lambda: None)
        for bits in (0, 4, 8):
            path = Path(folder) / f"{bits}.safetensors"
            if bits:
                pack_model(path, model, bits)
            given = fitting(snapshot_of(path if bits else dense, config), "dit", "auto")
            run = forward(size, load_component(given, lambda: None) if bits else model)
            taken = _best(run, until)
            rate = total_flops(ops) / taken
            found = f"{taken:.3g} s, {rate / 1e12:.3g} TFLOP/s, {taken / least:.2f} x products and attention alone"
            name = f"a pass of one layer, {tokens.sequence:,} tokens, {f'{bits}-bit' if bits else dtype}"
            yield Row("block", name, found, "note")
            del run
            mx.clear_cache()


def _best(run: Callable[[], object], until: float) -> float:
    """Return the least seconds of a few runs; of one, where there is no time for more."""
    best = float("inf")
    for _ in range(REPEATS):
        start = time.perf_counter()
        run()
        taken = time.perf_counter() - start
        best = min(best, taken)
        if time.monotonic() + 2 * taken > until:  # others are to come
            break
    return best


def _rates(config: Scail2Config, tokens: int, dtype: str) -> tuple[float, float]:
    """Return the FLOP/s of a product of the feed-forward and of attention, one dispatch of the model's each."""
    kind, heads, head_dim = getattr(mx, dtype), config.num_heads, config.head_dim
    rows = chunk_bounds(tokens, config.dim, heads)[0][1]
    x, weight = drawn((rows, config.dim), kind), drawn((config.ffn_dim, config.dim), kind)
    seen = KeysValues(*(drawn((1, heads, tokens, head_dim), kind) for _ in range(2)))
    queries = drawn((rows, heads, head_dim), mx.float32)
    until = time.monotonic() + 2
    product = _best(lambda: mx.eval(x @ weight.T), until)
    attention = _best(lambda: mx.eval(seen.attend(queries)), until + 5)
    return 2 * rows * config.dim * config.ffn_dim / product, 4 * rows * tokens * config.dim / attention


def vae(sizes: Sizes, seconds: float) -> Iterator[Row]:
    """(5) Decoding whole frames and tiles: seconds, MLX's peak, and that both give the same."""
    config, (width, height, frames), tile = sizes.vae
    model = random_vae(config)
    shape = (config.z_dim, (frames - 1) // 4 + 1, height // 8, width // 8)
    latent = np.random.default_rng(0).standard_normal(shape, np.float32)
    made = []
    with bounded_cache():
        for tiling in (None, Tiling(tile, OVERLAP)):
            mx.clear_cache()
            mx.reset_peak_memory()
            before, start = mx.get_active_memory(), time.perf_counter()
            pixels, share = _decoded(model, latent, tiling, time.monotonic() + 0.45 * seconds)
            taken, peak = time.perf_counter() - start, mx.get_peak_memory() - before
            if share == 1:
                made.append(pixels)
            how = "whole frames" if tiling is None else f"tiles of {tile}"
            part = "" if share == 1 else f" (forecast: stopped after {share:.0%}, {taken:.0f} s)"
            found = f"{taken / share:.3g} s{part}, peak {peak / 1e9:.2f} GB beyond the weights"
            yield Row("vae", f"decoding {width}x{height}, {frames} frames, {how}", found, "note")
    if len(made) == 2:
        off = float(np.abs(made[0] - made[1]).max()) if np.isfinite(made).all() else float("inf")
        yield Row.judged("vae", "tiles against whole frames", f"differ by {off:.1e} of 0..1", right=off <= SEAM_BAR)


def random_vae(config: VAEConfig) -> WanVAE21:
    """Return a VAE whose layers about keep the size of what goes in."""
    model = WanVAE21(config)
    model.update(
        tree_map(lambda a: drawn(a.shape, mx.float32, 1 if a.ndim < 4 else a[0].size ** -0.5), model.parameters())
    )
    mx.eval(model.parameters())
    return model


def _decoded(model: WanVAE21, latent: np.ndarray, tiling: Tiling | None, until: float) -> tuple[np.ndarray, float]:
    """Return the frames in 0..1 and the share that was decoded until then, at least a piece."""
    _, steps, height, width = latent.shape
    out, share = np.zeros((4 * steps - 3, 8 * height, 8 * width, 3), np.float32), 0.0
    for tile in model.decode_tiles(mx.array(latent), tiling, lambda: None):
        pixels = np.array((mx.clip(tile.pixels, -1, 1) + 1) / 2)
        out[tile.frame : tile.frame + len(pixels), tile.rows, tile.columns] = pixels
        share = tile.share
        if time.monotonic() > until:
            break
    return out, share
