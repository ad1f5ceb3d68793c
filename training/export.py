"""The trained parts as a turnkey snapshot: `python -m training.export --help`.

The VAE is written in float16, the transformer in bf16 or, with --bits, packed by the project's own conversion.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path

import mlx.core as mx
import torch
from torch import Tensor

from mlx_backend.runtime.device import require_mlx
from mlx_backend.spec.conversion import ConvertOptions
from mlx_backend.spec.events import LogListener
from mlx_backend.weights.convert import convert, open_source
from mlx_backend.weights.detect import dit_settings
from mlx_backend.weights.layouts import snapshot_axes, snapshot_name
from mlx_backend.weights.snapshot import CONFIG

from .checkpoint import averaged
from .frozen import write_frozen
from .sizes import DIT

DTYPES = {"vae": mx.float16, "dit": mx.bfloat16}


def in_snapshot(component: str, weights: dict[str, Tensor], dtype: mx.Dtype) -> dict[str, mx.array]:
    """Return the weights of a twin under the names and in the layout of a turnkey snapshot."""
    made = {}
    for name, weight in weights.items():
        axes = snapshot_axes(component, name, weight.ndim)
        array = mx.array(weight.detach().float().permute(axes).contiguous().numpy())
        made[snapshot_name(component, name)] = array.astype(dtype)
    return made


def write_snapshot(folder: Path, parts: dict[str, dict[str, Tensor]]) -> None:
    """Write a turnkey snapshot of the weights of "vae" and "dit" to a folder that does not exist yet."""
    write_frozen(folder)
    for component, weights in parts.items():
        mx.save_safetensors(
            str(folder / f"{component}.safetensors"), in_snapshot(component, weights, DTYPES[component])
        )
    (folder / CONFIG).write_text(json.dumps(dit_settings(DIT), indent=1), encoding="utf-8")


def main() -> None:
    """Export a run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="of the run: vae.pt and dit.pt")
    parser.add_argument("--output", type=Path, required=True, help="the snapshot's folder, which must not exist")
    parser.add_argument("--bits", type=int, help="pack the transformer in so many bits")
    asked = parser.parse_args()
    require_mlx()
    torch.set_num_threads(2)
    parts = {name: averaged(asked.folder / f"{name}.pt") for name in DTYPES}
    with tempfile.TemporaryDirectory() as aside:
        dense = Path(aside) / "dense"
        write_snapshot(dense, parts)
        if asked.bits is None:
            shutil.copytree(dense, asked.output)
        else:
            convert(open_source(dense), asked.output, ConvertOptions(bits=asked.bits), LogListener())
            for name in ("vae", "clip"):  # a conversion widens them to float32
                shutil.copy(dense / f"{name}.safetensors", asked.output)


if __name__ == "__main__":
    main()
