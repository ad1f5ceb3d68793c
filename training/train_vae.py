"""Train the VAE on clips of the world: `python -m training.train_vae --help`."""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from world.backdrops import Backdrop
from world.puppets import random_puppets
from world.stage import perform, random_count, random_dances

from .sizes import FRAMES, HELD_OUT, SIDE, VAE
from .stage import Muon, Stage, join_processes, rank
from .vae import VAE as Autoencoder
from .vae import CausalConv3d, Downsample, ResidualBlock, Upsample

RATE_WEIGHT = 1e-3  # of the KL divergence from the normal distribution, nats per latent value
JUDGED = 32  # held-out clips
TELL_EVERY = 30  # seconds
HALVED_EVERY = 4  # steps; the driving video is encoded at half the size


def clip(seed: int, frames: int) -> np.ndarray:
    """Return a random clip [F, SIDE, SIDE, 3] in 0..255."""
    rng = np.random.default_rng(seed)
    count = random_count(rng)
    puppets = random_puppets(rng, count)
    return perform(Backdrop.random(rng), puppets, random_dances(rng, count), np.arange(frames), SIDE).pictures


def cut_clip(seed: int, frames: int, side: int) -> np.ndarray:
    """Return a clip [F, side, side, 3] cut out of a random one."""
    top, left = np.random.default_rng(seed).integers(0, SIDE - side + 1, 2)
    return clip(seed, frames)[:, top : top + side, left : left + side]


class Steps(Dataset):
    """What each step sees, by its number: clips [B, F, H, W, 3] uint8 of `shape` = (clips, frames, side).

    Every HALVED_EVERYth step's are twice as large, to be halved.
    """

    def __init__(self, shape: tuple[int, int, int]):
        self.shape = shape
        self.rank = rank()

    def __getitem__(self, step: int) -> Tensor:
        """Draw the clips of a step."""
        batch, frames, side = self.shape
        cut = side if step % HALVED_EVERY else min(SIDE, 2 * side)
        first = HELD_OUT + step * 1000 + self.rank * batch
        return torch.from_numpy(np.stack([cut_clip(first + i, frames, cut) for i in range(batch)]))


def signed(clips: Tensor) -> Tensor:
    """Return clips [B, F, H, W, 3] as [B, 3, F, H, W] in -1..1, laid out as convolutions are fastest."""
    pixels = clips.permute(0, 4, 1, 2, 3).float() / 127.5 - 1
    return pixels.contiguous(memory_format=torch.channels_last_3d)


def halved(pixels: Tensor) -> Tensor:
    """Return pixels [B, 3, F, H, W] at half the size, as the pipeline halves the driving video."""
    return nn.functional.avg_pool3d(pixels, (1, 2, 2))


def decibels(error: float) -> float:
    """Return the PSNR of a mean squared error of pixels in -1..1."""
    return 10 * math.log10(4 / error)


@torch.no_grad()
def start_from_frames(network: Autoencoder) -> None:
    """Let every layer see only the frame it is at, as if clips were pictures: motion is learnt from there.

    The residual branches begin at zero.
    """
    for layer in network.modules():
        if isinstance(layer, ResidualBlock):
            layer.residual[6].weight.zero_()
        if isinstance(layer, CausalConv3d) and layer.kernel_size[0] > 1:
            layer.weight[:, :, :-1] = 0
        if isinstance(layer, (Downsample, Upsample)) and layer.time_conv is not None:
            weight = layer.time_conv.weight
            weight.zero_()
            layer.time_conv.bias.zero_()
            weight[:, :, -1, 0, 0] = torch.eye(weight.shape[1]).repeat(len(weight) // weight.shape[1], 1)


def train(stage: Stage, network: Autoencoder, steps: Steps, workers: int, device: str) -> None:
    """Train until the stage's time is up."""
    ahead = range(stage.step, sys.maxsize)
    error, told = 0.0, time.monotonic()
    for step, clips in zip(ahead, DataLoader(steps, None, sampler=ahead, num_workers=workers), strict=False):
        pixels = signed(clips.to(device))
        pixels = pixels if step % HALVED_EVERY else halved(pixels)
        with torch.autocast(device, torch.bfloat16):
            mean, log_variance = network.moments(pixels)
            log_variance = log_variance.float().clamp(-12, 4)
            made = network.decode(mean + torch.randn_like(mean) * (0.5 * log_variance).exp()).float()
        distance = made - pixels
        squared = distance.square().mean()
        divergence = 0.5 * (mean.float().square() + log_variance.exp() - 1 - log_variance).mean()
        stage.advance(squared + 0.1 * distance.abs().mean() + RATE_WEIGHT * divergence)
        if step % HALVED_EVERY:
            error += 0.02 * (squared.item() - error) if error else squared.item()
        if error and time.monotonic() - told > TELL_EVERY:
            told = time.monotonic()
            sys.stdout.write(f"step {stage.step}: PSNR {decibels(error):.2f} dB, {divergence.item():.2f} nats\n")
            sys.stdout.flush()
        if stage.is_over:
            break


@torch.no_grad()
def standardise(network: Autoencoder, frames: int, device: str) -> None:
    """Give the latents of the held-out clips mean 0 and deviation 1 in every channel; no pixel changes."""
    latents = torch.cat([network.encode(pixels) for pixels in held_out(frames, device)])
    network.rescale(latents.mean(dim=(0, 2, 3, 4)), latents.std(dim=(0, 2, 3, 4)))


@torch.no_grad()
def judge(network: Autoencoder, frames: int, device: str) -> float:
    """Return the PSNR in dB on held-out clips, from the mean latent, clamped to colours."""
    errors = [
        (network.decode(network.encode(pixels)).clamp(-1, 1) - pixels).square().mean().item()
        for pixels in held_out(frames, device)
    ]
    return decibels(float(np.mean(errors)))


def held_out(frames: int, device: str) -> Iterator[Tensor]:
    """Yield the clips that the VAE is judged by, one at a time."""
    for seed in range(JUDGED):
        yield signed(torch.from_numpy(clip(seed, frames))[None].to(device))


def main() -> None:
    """Train a stage, then judge the averaged weights."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, required=True, help="how long this stage may take")
    parser.add_argument("--folder", type=Path, required=True, help="where vae.pt lies, and is continued from")
    parser.add_argument("--frames", type=int, default=FRAMES, help="1 for a first stage on pictures (fast)")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--side", type=int, default=SIDE, help="of what is cut out of the clips, 32 for a first stage")
    parser.add_argument("--peak", type=float, default=2e-3, help="highest learning rate")
    parser.add_argument("--decoder", action="store_true", help="leave the encoder, and so the latents, as they are")
    parser.add_argument("--workers", type=int, default=0, help="processes that draw; 0: this one")
    parser.add_argument("--threads", type=int, default=1, help="more only help on idle cores")
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    join_processes()
    torch.manual_seed(0)
    torch.set_num_threads(asked.threads)
    network = Autoencoder(VAE).to(asked.device)
    start_from_frames(network)
    optimiser = Muon(network, lambda name: name in ("encoder.conv1.weight", "decoder.head.2.weight"))
    stage = Stage(network, optimiser, asked.folder / "vae.pt", asked.minutes, asked.peak)
    stage.resume()
    torch.manual_seed(1 + rank())
    if asked.decoder:
        for part in (network.encoder, network.conv1):
            part.requires_grad_(False)  # noqa: FBT003 - torch's own name for it
    train(stage, network, Steps((asked.batch, asked.frames, asked.side)), asked.workers, asked.device)
    if rank():
        return
    network.load_state_dict(stage.average)
    if not asked.decoder:
        standardise(network, asked.frames, asked.device)
    stage.average = network.state_dict()
    stage.save()
    found = judge(network, asked.frames, asked.device)
    sys.stdout.write(f"held-out PSNR after {stage.step} steps, {JUDGED} clips: {found:.2f} dB\n")


if __name__ == "__main__":
    main()
