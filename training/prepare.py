"""Encode groups of the world with the trained VAE, once: `python -m training.prepare --help`.

Shards of groups appear in the folder one after the other; a run that is started again goes on after the last one.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from .frozen import Encoders, write_frozen
from .groups import drawn_group
from .sizes import HELD_OUT, VAE
from .snapshot import averaged
from .stage import join_processes, processes, rank
from .train_vae import halved, signed
from .vae import VAE as Autoencoder

FIRST_SEED = HELD_OUT + 1_000_000_000  # apart from the seeds that the VAE is trained on


@cache
def _encoders(folder: Path) -> Encoders:
    return Encoders(folder)


def _drawn(folder: Path, seed: int) -> dict[str, np.ndarray]:
    return drawn_group(seed, _encoders(folder))


def drawn_groups(folder: Path, seeds: range, workers: int) -> Iterator[dict[str, np.ndarray]]:
    """Draw groups, in other processes if there are `workers`."""
    if not workers:
        yield from map(partial(_drawn, folder), seeds)
        return
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(partial(_drawn, folder), seeds, chunksize=4)


@torch.inference_mode()
def encoded(network: Autoencoder, group: dict[str, np.ndarray], device: str) -> dict[str, Tensor]:
    """Return the group with latents (float16) in place of pictures, and those of the clips at half the size."""

    def latents(pixels: Tensor) -> Tensor:
        with torch.autocast(device, torch.bfloat16):
            return network.encode(pixels).half().cpu()

    made = {name: torch.from_numpy(array) for name, array in group.items()}
    clips = signed(made["clips"].to(device))
    singles = signed(torch.cat([made["pictures"], made["alone"]]).to(device))
    pictures = latents(singles)
    count = len(group["pictures"])
    return made | {
        "clips": latents(clips),
        "halves": latents(halved(clips)),
        "pictures": pictures[:count],
        "alone": pictures[count:],
    }


def main() -> None:
    """Write shards until there are as many groups as asked for, or the time is up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where vae.pt lies and shards go")
    parser.add_argument("--groups", type=int, default=2048)
    parser.add_argument("--shard", type=int, default=64, help="groups in a file")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--workers", type=int, default=0, help="processes that draw; 0: this one")
    parser.add_argument("--threads", type=int, default=1, help="more only help on idle cores")
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    network = Autoencoder(VAE).to(asked.device).eval()
    network.load_state_dict(averaged(asked.folder / "vae.pt"))
    frozen = asked.folder / "frozen"
    join_processes()
    if rank() == 0:
        write_frozen(frozen)
    if dist.is_initialized():
        dist.barrier()
    begun = time.monotonic()
    for shard in range(rank(), -(-asked.groups // asked.shard), processes()):
        path = asked.folder / f"groups-{shard:04d}.pt"
        if path.is_file():
            continue
        if time.monotonic() - begun > 60 * asked.minutes:
            break
        seeds = range(FIRST_SEED + shard * asked.shard, FIRST_SEED + (shard + 1) * asked.shard)
        groups = [encoded(network, group, asked.device) for group in drawn_groups(frozen, seeds, asked.workers)]
        together = {name: torch.stack([group[name] for group in groups]) for name in groups[0]}
        aside = path.with_suffix(".part")
        torch.save(together, aside)
        aside.replace(path)
        sys.stdout.write(f"{path.name}: {time.monotonic() - begun:.0f} s\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
