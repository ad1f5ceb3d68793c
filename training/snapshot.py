"""The trained parts as a turnkey snapshot, and back: `python -m training.snapshot {write,unpack} --help`.

`write` packs the averaged weights of a run: the VAE in float16, the transformer's matrices as ComfyUI's int8, one scale
for each row. The snapshot in the repository is also the checkpoint that anybody can go on from: `unpack` writes its
weights to a run's folder.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from mlx_backend.interface.limits import LIMITS, Limits
from mlx_backend.interface.small_model import SMALL_MODEL
from mlx_backend.weights.checkpoints.detect import dit_settings
from mlx_backend.weights.checkpoints.snapshot import CONFIG
from mlx_backend.weights.formats.quantised import METADATA

from .frozen import write_frozen
from .sizes import DIT, FRAMES, OVERLAP, SIDE

TRAINED = ("vae", "dit")
SCALE = "_scale"  # behind the name of a weight, as ComfyUI has it
PACKED_FROM = 1 << 14  # numbers in a matrix; smaller ones stay float16
STEPS = "steps"


def averaged(path: Path) -> dict[str, Tensor]:
    """Return the averaged weights of a run's checkpoint."""
    return _average_in(torch.load(path, map_location="cpu", weights_only=True))


def _average_in(stored: dict[str, Any]) -> dict[str, Tensor]:
    return stored.get("average", stored["network"])


def packed(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return large matrices as int8 with a scale [rows, 1] each, and all else in float16."""
    made = {}
    for name, weight in weights.items():
        if weight.ndim == 2 and weight.numel() >= PACKED_FROM:
            scale = weight.abs().amax(dim=1, keepdim=True).clamp(min=1e-8) / 127
            made[name], made[name + SCALE] = (weight / scale).round().to(torch.int8), scale
        else:
            made[name] = weight.half()
    return made


def unpacked(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights that `packed` was given, as float32."""
    weights = {name: tensor.float() for name, tensor in tensors.items() if not name.endswith(SCALE)}
    return {name: weight * tensors.get(name + SCALE, 1.0) for name, weight in weights.items()}


def write_snapshot(run: Path, folder: Path, *, dense: bool) -> None:
    """Write a run's parts to a folder, file by file aside and renamed; `dense` leaves everything in float32."""
    write_frozen(folder)
    for component in TRAINED:
        stored = torch.load(run / f"{component}.pt", map_location="cpu", weights_only=True)
        weights = {name: weight.contiguous() for name, weight in _average_in(stored).items()}
        if not dense:
            weights = packed(weights) if component == "dit" else {name: w.half() for name, w in weights.items()}
        layers = [name.removesuffix(f".weight{SCALE}") for name in weights if name.endswith(SCALE)]
        about = {STEPS: str(stored["step"])}
        if layers:
            about[METADATA] = json.dumps({"layers": {layer: {"format": "int8_tensorwise"} for layer in layers}})
        aside = folder / f".{component}.part"
        save_file(weights, aside, about)
        aside.replace(folder / f"{component}.safetensors")
    limits = Limits(width=SIDE, height=SIDE, segment_length=FRAMES, segment_overlap=OVERLAP, cfg=1.0)
    settings = dit_settings(DIT) | {LIMITS: asdict(limits)}
    (folder / CONFIG).write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")


def unpack(folder: Path, run: Path) -> None:
    """Write the checkpoints that a next stage continues from."""
    run.mkdir(parents=True, exist_ok=True)
    for component in TRAINED:
        with safe_open(folder / f"{component}.safetensors", "pt") as file:
            weights = unpacked({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118 - no mapping
            torch.save({"network": weights, "step": int(file.metadata()[STEPS])}, run / f"{component}.pt")


def main() -> None:
    """Write or unpack."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("write", "unpack"))
    parser.add_argument("--folder", type=Path, required=True, help="of the run: vae.pt and dit.pt")
    parser.add_argument("--snapshot", type=Path, default=SMALL_MODEL, help="(default: %(default)s)")
    parser.add_argument("--dense", action="store_true", help="write float32, for comparisons")
    asked = parser.parse_args()
    if asked.what == "unpack":
        unpack(asked.snapshot, asked.folder)
        return
    write_snapshot(asked.folder, asked.snapshot, dense=asked.dense)
    total = sum(path.stat().st_size for path in asked.snapshot.iterdir())
    sys.stdout.write(f"{asked.snapshot}: {total / 1e6:.2f} MB\n")


if __name__ == "__main__":
    main()
