"""The VAE against diffusers' AutoencoderKLWan: time and peak memory of encoding and decoding, same random weights.

`python -m benchmarks.vae`. Real sizes (dim 96, 16 latent channels), float32, the CPU. Needs diffusers and torch beside
the project (see README.md); with `--weights FILE` the VAE of a file is measured alone, without them. Peaks are measured
in a process of their own each: the growth of resident memory after the weights are loaded and a small warm-up (Linux's
VmHWM; elsewhere a thread looks). The causal cache, the frames that every layer must remember, is counted in
the objects that hold it, and subtracted.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from mlx_backend.runtime.device import require_mlx

require_mlx()

import mlx.core as mx  # noqa: E402 - after the BLAS
import numpy as np  # noqa: E402

from benchmarks.machine import heading, resident_growth  # noqa: E402
from mlx_backend.interface.latent_space import WAN21  # noqa: E402
from mlx_backend.interface.tiling import Tiling  # noqa: E402
from mlx_backend.models import vae as vae_halves  # noqa: E402
from mlx_backend.models import vae_tiles as vae_tiles  # noqa: E402
from mlx_backend.models.vae_layers import Stream  # noqa: E402
from mlx_backend.pipelines.decode import decode_segment  # noqa: E402
from mlx_backend.weights.checkpoints.components import fitting, load_component  # noqa: E402
from mlx_backend.weights.checkpoints.snapshot import Snapshot  # noqa: E402

DIRECTIONS = ("encode", "decode")
BAR = 0.5  # of diffusers' peak beyond the causal cache
WARM_UP = (32, 32, 5)


class Mlx:
    """This project's VAE."""

    def __init__(self, weights: Path, tile: int = 0):
        mx.set_default_device(mx.cpu)
        self._vae = load_component(fitting(Snapshot({"vae": weights}, weights, {}), "vae", "auto"), lambda: None)
        self._tiling = Tiling(tile, 64) if tile else None
        self._remembered: list[int] = []  # bytes, by stream

    def encode(self, pixels: np.ndarray) -> np.ndarray:
        """[F, H, W, 3] in -1..1 to the normalised latent [16, T, h, w]."""
        return np.array(self._vae.encode(mx.array(pixels), tiling=self._tiling))

    def decode(self, latent: np.ndarray) -> np.ndarray:
        """[16, T, h, w] to [F, H, W, 3] in 0..1."""
        return decode_segment(self._vae, latent, self._tiling, lambda: None, lambda _: None)

    def cache_bytes(self) -> int:
        """Return what was remembered at one time in the last pass: of a tiled one, by its largest part."""
        sizes = [*self._remembered]
        self._remembered.clear()
        return sum(sizes) if self._tiling is None else max(sizes)

    def reset_peak(self) -> int:
        """Forget MLX's peak; return what is in use."""
        mx.clear_cache()
        mx.reset_peak_memory()
        return mx.get_active_memory()

    def count_caches(self) -> None:
        """Count from here on."""
        remembered = self._remembered

        class Counted(Stream):
            """Notes its size at every step; noting the stream itself would keep its frames in memory."""

            def __init__(self, *args: object) -> None:
                super().__init__(*args)
                self.number = len(remembered)
                remembered.append(0)

            def step(self, x: mx.array) -> mx.array:
                remembered[self.number] = sum(frame.nbytes for held in self.past.values() for frame in held)
                return super().step(x)

        vae_halves.Stream = vae_tiles.Stream = Counted


class Diffusers:
    """The same VAE in PyTorch."""

    def __init__(self, weights: Path):
        import torch
        from diffusers import AutoencoderKLWan
        from safetensors.torch import load_file

        torch.set_num_threads(os.cpu_count() or 1)
        self._torch = torch
        self._vae = AutoencoderKLWan().eval().requires_grad_(requires_grad=False)
        self._vae.load_state_dict(load_file(weights), assign=True)
        self._mean, self._std = (np.array(v, np.float32).reshape(-1, 1, 1, 1) for v in (WAN21.mean, WAN21.std))
        self._cache = 0

    def encode(self, pixels: np.ndarray) -> np.ndarray:
        """[F, H, W, 3] in -1..1 to the normalised latent [16, T, h, w]."""
        clip = self._torch.from_numpy(np.ascontiguousarray(pixels.transpose(3, 0, 1, 2)[None]))
        return (self._vae.encode(clip).latent_dist.mode()[0].numpy() - self._mean) / self._std

    def decode(self, latent: np.ndarray) -> np.ndarray:
        """[16, T, h, w] to [F, H, W, 3] in 0..1."""
        z = self._torch.from_numpy(latent * self._std + self._mean)[None]
        return (self._vae.decode(z).sample[0].numpy().transpose(1, 2, 3, 0) + 1) / 2

    def cache_bytes(self) -> int:
        """Return what the last pass remembered."""
        return self._cache

    def count_caches(self) -> None:
        """Count from here on."""
        vae, clear = self._vae, self._vae.clear_cache

        def count_and_clear() -> None:
            held = [*getattr(vae, "_feat_map", ()), *getattr(vae, "_enc_feat_map", ())]
            tensors = [frame for frame in held if isinstance(frame, self._torch.Tensor)]
            self._cache = sum(frame.untyped_storage().nbytes() for frame in tensors)
            clear()

        vae.clear_cache = count_and_clear


def main() -> None:
    """Print times, their ratios and the peaks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--height", type=int, default=256)
    parser.add_argument("--frames", type=int, default=9, help="4k+1; the other length is 4 fewer")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tile", type=int, default=128, help="pixels, for the row that is labelled as tiled")
    parser.add_argument("--part", choices=("both", "memory", "time"), default="both")
    parser.add_argument("--directions", nargs="+", choices=DIRECTIONS, default=DIRECTIONS)
    parser.add_argument("--weights", type=Path, metavar="FILE", help="measure this VAE alone, without diffusers")
    parser.add_argument("--measure", nargs=3, metavar=("WHICH", "DIRECTION", "WEIGHTS"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    size = (chosen.height, chosen.width, chosen.frames)
    if chosen.measure:
        sys.stdout.write(json.dumps(measure(*chosen.measure, size, chosen.tile)) + "\n")
        return
    alone = chosen.weights is not None
    if not alone and importlib.util.find_spec("diffusers") is None:
        sys.exit(
            "This measurement compares with diffusers, which is not installed: see benchmarks/README.md, or name a VAE "
            "to measure alone with --weights FILE."
        )
    with tempfile.TemporaryDirectory() as folder:
        weights = chosen.weights or random_weights(Path(folder))
        say(heading("vae") if alone else f"{heading('vae')}, {torch_versions()}")
        lengths = f"{chosen.frames - 4} and {chosen.frames} frames"
        say(f"{chosen.width}x{chosen.height}, {lengths}, float32, {weights.name if alone else 'random weights'}")
        rivals = () if alone else ("diffusers",)
        if chosen.part != "time":
            peaks(weights, size, chosen.tile, chosen.directions, rivals)
        if chosen.part != "memory":
            times(weights, (chosen.height, chosen.width, chosen.frames - 4), chosen.rounds, chosen.directions, rivals)


def say(line: str) -> None:
    """Print a line at once: the whole takes minutes."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def random_weights(folder: Path) -> Path:
    """Write an AutoencoderKLWan with torch's default initialisation, seeded."""
    import torch
    from diffusers import AutoencoderKLWan
    from safetensors.torch import save_file

    torch.manual_seed(0)
    save_file(AutoencoderKLWan().state_dict(), folder / "vae.safetensors")
    return folder / "vae.safetensors"


def torch_versions() -> str:
    """Return the versions of what is compared with."""
    import diffusers
    import torch

    return f"torch {torch.__version__}, diffusers {diffusers.__version__}"


def example(direction: str, size: tuple[int, int, int]) -> np.ndarray:
    """Return random pixels or a random latent for (height, width, frames)."""
    height, width, frames = size
    random = np.random.default_rng(0)
    if direction == "encode":
        return random.uniform(-1, 1, (frames, height, width, 3)).astype(np.float32)
    return random.standard_normal((16, (frames - 1) // 4 + 1, height // 8, width // 8), np.float32)


def peaks(
    weights: Path, size: tuple[int, int, int], tile: int, directions: Sequence[str], rivals: Sequence[str]
) -> None:
    """Measure every case in a process of its own; print the table."""
    height, width, frames = size
    say(f"  {'MB beyond weights and warm-up':<44}{'peak':>9}{'cache':>9}{'rest':>9}")
    for direction in directions:
        rest = {}
        for which in (*rivals, "mlx", "mlx tiled"):
            for count in [frames] if "tiled" in which else [frames - 4, frames]:
                found = measured_apart(which, direction, weights, (height, width, count), tile)
                label = f"{direction}, {which}{f' ({tile} pixels)' if 'tiled' in which else ''}, {count} frames"
                rest[which] = found["peak"] - found["cache"]
                say(row(label, found["peak"], found["cache"], rest[which]))
                if "mlx_peak" in found:
                    say(row("  by mx.get_peak_memory()", found["mlx_peak"], found["cache"]))
        for rival in rivals:
            ratio = rest["mlx"] / rest[rival]
            say(f"{direction}: peak beyond the causal cache, untiled, mlx / {rival}: {ratio:.3f} (bar {BAR})")


def row(label: str, *sizes: int) -> str:
    """Return a line of the table of memory, in MB."""
    return f"  {label:<44}" + "".join(f"{size / 1e6:9.1f}" for size in sizes)


def measured_apart(which: str, direction: str, weights: Path, size: tuple[int, int, int], tile: int) -> dict[str, int]:
    """Run `measure` in a fresh process, whose freed blocks go back to the system at once."""
    command = [sys.executable, "-m", "benchmarks.vae", "--measure", which, direction, str(weights)]
    for name, value in zip(("--height", "--width", "--frames", "--tile"), (*size, tile), strict=True):
        command += [name, str(value)]
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def measure(which: str, direction: str, weights: str, size: tuple[int, int, int], tile: int) -> dict[str, int]:
    """Return the bytes that one pass adds to what is resident, and its causal cache."""
    made = Diffusers(Path(weights)) if which == "diffusers" else Mlx(Path(weights), tile if "tiled" in which else 0)
    made.count_caches()
    getattr(made, direction)(example(direction, WARM_UP))
    made.cache_bytes()
    subject = example(direction, size)
    in_use = made.reset_peak() if isinstance(made, Mlx) else 0
    grown = resident_growth(lambda: getattr(made, direction)(subject) is None)
    found = {"peak": grown, "cache": made.cache_bytes()}
    return found | ({"mlx_peak": mx.get_peak_memory() - in_use} if isinstance(made, Mlx) else {})


def times(
    weights: Path, size: tuple[int, int, int], rounds: int, directions: Sequence[str], rivals: Sequence[str]
) -> None:
    """Run all in this process, in turns; print the table and how much their results differ."""
    all_made = {name: Diffusers(weights) for name in rivals} | {"mlx": Mlx(weights)}
    for direction in directions:
        subject = example(direction, size)
        taken: dict[str, list[float]] = {name: [] for name in all_made}
        results = {}
        for made in all_made.values():
            getattr(made, direction)(example(direction, WARM_UP))
        for _ in range(rounds):
            for name, made in all_made.items():
                spent, results[name] = timed(getattr(made, direction), subject)
                taken[name].append(spent / size[2])
        for name, found in taken.items():
            say(f"  {f'{direction}, {name}, seconds per frame':<44}{statistics.median(found):9.3f}")
        for rival in rivals:
            ratio = statistics.median(a / b for a, b in zip(taken["mlx"], taken[rival], strict=True))
            off = float(np.abs(results["mlx"] - results[rival]).max())
            spread = results[rival].std()
            say(f"{direction}: time, mlx / {rival}: {ratio:.2f}, {size[2]} frames, median of {rounds}")
            say(f"{direction}: largest difference {off:.1e}, standard deviation of the result {spread:.3f}")


def timed(work: Callable[[np.ndarray], np.ndarray], subject: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the seconds that `work` takes, and what it returns."""
    start = time.perf_counter()
    result = work(subject)
    return time.perf_counter() - start, result


if __name__ == "__main__":
    main()
