"""Train the transformer on encoded groups: `python -m training.train_dit --help`."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

from .dit import DiT
from .groups import Examples, Groups, shards
from .sizes import DIT
from .stage import Muon, Stage, join_processes, rank

SHIFT = 5.0  # of the noise levels: who stands where is decided where nearly all is noise
PUPPET_WEIGHT = 3.0  # of a cell full of puppet, beside 1 for the backdrop
PROCESSES = 64  # at most; they draw examples by seeds of their own
TELL_EVERY = 60  # seconds
EXTRAS_EVERY = 4  # steps; the others show one reference
KEPT_BATCHES = 4  # from the shard that is kept back, always the same


def noise_levels(count: int, random: torch.Generator) -> Tensor:
    """Draw sigmas [B] in 0..1: logit-normal, shifted to high noise as sampling shifts its grid."""
    level = torch.randn(count, generator=random).sigmoid()
    return SHIFT * level / (1 + (SHIFT - 1) * level)


def flow_loss(network: DiT, examples: Examples, random: torch.Generator) -> Tensor:
    """Return the mean squared error of the velocity on the frames that are not known, puppets counting more."""
    clean = examples.clean
    sigma = noise_levels(len(clean), random).to(clean.device)
    noise = torch.randn(clean.shape, generator=random).to(clean.device)
    level = sigma.view(-1, 1, 1, 1, 1)
    known = examples.batch.history[:, None, :, None, None]
    noisy = known * clean + (1 - known) * ((1 - level) * clean + level * noise)
    with torch.autocast(clean.device.type, torch.bfloat16):
        velocity = network(noisy, 1000 * sigma, examples.batch)
    weight = (1 + PUPPET_WEIGHT * examples.covered) * (1 - known)
    error = (velocity.float() - (noise - clean)).square() * weight
    return error.sum() / weight.expand_as(error).sum()


@torch.no_grad()
def kept_loss(network: DiT, kept: Groups, batch: int) -> float:
    """Return the loss on groups that are not trained on: far above that of the others, those are being memorised."""
    losses = []
    for seed in range(KEPT_BATCHES):
        random = torch.Generator().manual_seed(seed)
        losses.append(flow_loss(network, kept.draw(batch, random, extras=0), random).item())
    return sum(losses) / len(losses)


def train(stage: Stage, network: DiT, folder: Path, batch: int, device: str) -> None:
    """Train until the stage's time is up; the first shard is kept back, new ones are taken up as they appear."""
    first, *rest = shards(folder)
    kept, groups, told, mean = Groups([first], device), Groups(rest, device), time.monotonic(), 0.0
    while not stage.is_over:
        random = torch.Generator().manual_seed(PROCESSES * stage.step + rank())
        examples = groups.draw(batch, random, extras=int(stage.step % EXTRAS_EVERY == 0))
        loss = flow_loss(network, examples, random)
        stage.advance(loss)
        mean = loss.item() if not mean else mean + 0.02 * (loss.item() - mean)
        if time.monotonic() - told > TELL_EVERY:
            told = time.monotonic()
            if not rank():
                beside = f"{kept_loss(network, kept, batch):.4f} on the shard kept back"
                sys.stdout.write(f"step {stage.step}: loss {mean:.4f} on {len(groups)} groups, {beside}\n")
                sys.stdout.flush()
            if (now := [path for path in shards(folder) if path != first]) != rest:
                groups, rest = Groups(now, device), now
    stage.save()


def main() -> None:
    """Train a stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, required=True, help="how long this stage may take")
    parser.add_argument("--folder", type=Path, required=True, help="where groups and dit.pt lie")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--peak", type=float, default=2e-3, help="highest learning rate")
    parser.add_argument("--threads", type=int, default=1, help="more only help on idle cores")
    parser.add_argument("--compile", action="store_true", help="fuse small operations: needs a C++ compiler")
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    join_processes()
    torch.manual_seed(0)
    torch.set_num_threads(asked.threads)
    network = DiT(DIT).to(asked.device)
    optimiser = Muon(network, lambda name: not name.startswith("blocks.") or "modulation" in name)
    stage = Stage(network, optimiser, asked.folder / "dit.pt", asked.minutes, asked.peak)
    stage.resume()
    if asked.compile:
        for block in network.blocks:
            block.compile()
    train(stage, network, asked.folder, asked.batch, asked.device)


if __name__ == "__main__":
    main()
