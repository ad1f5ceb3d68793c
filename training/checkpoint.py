"""Checkpoints small enough to live in the repository: `python -m training.checkpoint {pack,unpack} --folder RUN`.

`pack` writes the averaged weights of a run to training/checkpoints (replacing what is there), the VAE in float16 and
the transformer's matrices in 8 bits by row; `unpack` writes them to a run's folder, where the next stage continues.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

KEPT = Path(__file__).parent / "checkpoints"
NAMES = ("vae", "dit")
SCALE = ".row_scale"
PACKED_FROM = 1 << 14  # numbers in a matrix; smaller ones stay float16


def averaged(path: Path) -> dict[str, Tensor]:
    """Return the averaged weights of a run's checkpoint."""
    stored = torch.load(path, map_location="cpu", weights_only=True)
    return stored.get("average", stored["network"])


def packed(weights: dict[str, Tensor], *, in_8_bits: bool) -> dict[str, Tensor]:
    """Return weights in float16, large matrices as int8 rows and a scale each if asked for."""
    made = {}
    for name, weight in weights.items():
        if in_8_bits and weight.ndim > 1 and weight.numel() >= PACKED_FROM:
            flat = weight.flatten(1)
            scale = flat.abs().amax(dim=1).clamp(min=1e-8) / 127
            made[name] = (flat / scale[:, None]).round().to(torch.int8).view(weight.shape)
            made[name + SCALE] = scale
        else:
            made[name] = weight.half()
    return {name: tensor.contiguous() for name, tensor in made.items()}


def unpacked(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights that `packed` was given, as float32."""
    made = {name: weight.float() for name, weight in weights.items() if not name.endswith(SCALE)}
    for name, scale in weights.items():
        if name.endswith(SCALE):
            weight = made[name.removesuffix(SCALE)]
            weight *= scale.view(-1, *[1] * (weight.ndim - 1))
    return made


def pack(run: Path, kept: Path) -> None:
    """Write the run's weights to `kept`, with the number of steps that they were trained for."""
    kept.mkdir(exist_ok=True)
    for name in NAMES:
        path = run / f"{name}.pt"
        if path.is_file():
            steps = torch.load(path, map_location="cpu", weights_only=True)["step"]
            small = packed(averaged(path), in_8_bits=name == "dit")
            save_file(small, kept / f"{name}.safetensors", {"steps": str(steps)})


def unpack(kept: Path, run: Path) -> None:
    """Write the checkpoints that a next stage continues from."""
    run.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        path = kept / f"{name}.safetensors"
        if path.is_file():
            with safe_open(path, "pt") as file:
                weights = unpacked({key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118 - no mapping
                torch.save({"network": weights, "step": int(file.metadata()["steps"])}, run / f"{name}.pt")


def main() -> None:
    """Pack or unpack."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("pack", "unpack"))
    parser.add_argument("--folder", type=Path, required=True, help="of the run: vae.pt and dit.pt")
    asked = parser.parse_args()
    if asked.what == "pack":
        pack(asked.folder, KEPT)
    else:
        unpack(KEPT, asked.folder)
    for path in sorted(KEPT.glob("*.safetensors")):
        sys.stdout.write(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB\n")


if __name__ == "__main__":
    main()
