"""What `generate` takes for the Wan family: pictures that a clip begins and ends with, two experts, given noise."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from ..interface.errors import RequestError
from ..interface.requests import LoraRequest
from ..media.read import read_video
from ..members import kinds
from ..weights.checkpoints.experts import HIGH, LOW, expert_of
from ..weights.checkpoints.snapshot import Snapshot
from .options import Add, defaults_of, option

Loras = tuple[LoraRequest, ...]


def add_options(add: Add) -> None:
    """Describe them to argparse."""
    add("--kind", choices=kinds(), help="which model the files are, where neither tensors nor names tell")
    add("--low-noise", type=Path, metavar="PATH", help="the low-noise expert, beside the high-noise one at --dit")
    add("--image", type=Path, metavar="I", help="Wan: the picture that the clip begins with")
    add("--last-image", type=Path, metavar="L", help="Wan: the picture that it ends with")
    add("--noise", type=Path, metavar="N", help="Wan: noise [C,T,h,w] of an .npy file, in place of the seed's")
    for name in ("cfg_low", "exact_size"):
        option(add, name)
    for name, which in (("--lora-high", HIGH), ("--lora-low", LOW)):
        add(
            name,
            action="append",
            default=[],
            metavar="FILE:STRENGTH",
            help=f"a LoRA for the {which}-noise expert (repeatable; --lora tells by the file's name)",
        )


def pictures_of(chosen: argparse.Namespace) -> dict[str, np.ndarray | None]:
    """Return first and last picture [1, H, W, 3]. Raises RequestError for one that is no picture."""
    return {name: _picture(name, getattr(chosen, name)) for name in ("image", "last_image")}


def noise_of(chosen: argparse.Namespace) -> np.ndarray | None:
    """Return the noise that was given. Raises RequestError for what is no array of numbers."""
    if chosen.noise is None:
        return None
    try:
        noise = np.load(chosen.noise, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise RequestError(f"--noise {chosen.noise} cannot be read as an .npy array ({error}).") from error
    if not isinstance(noise, np.ndarray) or noise.dtype.kind not in "fiu" or noise.ndim != 4:
        raise RequestError(f"--noise {chosen.noise} is no array of numbers [channels, frames, height, width].")
    return noise.astype(np.float32)


def parts_of(chosen: argparse.Namespace) -> dict[str, Path]:
    """Return the parts of the model that options of the family name."""
    return {} if chosen.low_noise is None else {"low_noise": chosen.low_noise}


def by_expert(snapshot: Snapshot, loras: Loras, high: Loras, low: Loras) -> tuple[Loras, Loras]:
    """Return the LoRAs of the first transformer and of the second. Raises RequestError where that is not clear."""
    if snapshot.low_noise is None:
        if high or low:
            raise RequestError(
                "--lora-high and --lora-low are for models of two experts, and this is one: name its LoRAs with --lora."
            )
        return loras, ()
    told: dict[str, list[LoraRequest]] = {HIGH: [], LOW: []}
    for lora in loras:
        told[expert_of(lora.path, "name it with --lora-high or --lora-low (both, if it is for both)")].append(lora)
    return (*told[HIGH], *high), (*told[LOW], *low)


def negative_of(chosen: argparse.Namespace, snapshot: Snapshot) -> str:
    """Return the negative prompt: what was given, "" included, or the model's own."""
    if chosen.negative is not None:
        return chosen.negative
    return defaults_of(snapshot).negative


def _picture(name: str, path: Path | None) -> np.ndarray | None:
    if path is None:
        return None
    frames = read_video(path).frames
    if len(frames) != 1:
        option = f"--{name.replace('_', '-')}"
        raise RequestError(f"{path} has {len(frames)} frames, but {option} is one picture: give a picture.")
    return frames
