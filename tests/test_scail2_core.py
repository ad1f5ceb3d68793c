"""Scail2CoreSampler against ComfyUI's own sampler: `COMFYUI_DIR=/path/to/ComfyUI python -m pytest -m comfyui`.

Both run the tiny weights in float32 on the conditioning that ComfyUI's own WanSCAILToVideo makes with the tiny VAE.
COMFYUI_PYTHON names the Python that has ComfyUI's packages (default: the one that runs the tests).
"""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from support import GOLDENS, ROOT
from test_comfyui import write_core_vae

from mlx_backend.models.scail2 import positions

pytestmark = pytest.mark.comfyui
# Raw latents have a deviation of 2.4 to 3.6 here; the two differ by 2.7e-5 at most, most of it the noise's 2e-6 times
# the VAE's deviations. The other pose RoPE differs by 2e-3 at least.
BAR = 1e-4
OTHER_ROPE = 1e-3
ROPE_BAR = 1e-5  # ComfyUI computes the angles, up to 126 radians, in float32

SIZE = {"height": 64, "width": 96, "frames": 9, "length": 9, "seed": 7, "steps": 4, "cfg": 1.0}
UPRIGHT = SIZE | {"height": 96, "width": 64}
CASES = {
    "animation": SIZE | {"pictures": 1, "replacement": False, "cfg": 3.0},
    "replacement": SIZE | {"pictures": 2, "replacement": True},
    "animation, continued": UPRIGHT
    | {"pictures": 3, "replacement": False, "cfg": 2.0, "frames": 20, "length": 13, "previous": 13, "offset": 8},
    "replacement, continued, two references": UPRIGHT
    | {"pictures": 4, "replacement": True, "frames": 13, "length": 13, "previous": 5, "references": 2},
    "the first half of the pose": SIZE | {"pictures": 5, "replacement": False, "cfg": 2.0, "steps": 6, "end": 0.5},
    "the middle of a weaker pose": SIZE
    | {"pictures": 5, "replacement": True, "steps": 6, "start": 0.2, "end": 0.7, "strength": 0.6},
    "three references, a short pose": SIZE | {"pictures": 6, "replacement": False, "frames": 5, "references": 3},
    "only a pose": SIZE | {"pictures": 7, "replacement": False, "references": 0, "masks": False, "clip": False},
    "only a pose in replacement": SIZE | {"pictures": 7, "replacement": True, "references": 0, "clip": False},
    "two clips": SIZE | {"pictures": 8, "replacement": False, "batch": 2},
}


@pytest.fixture(scope="module")
def core(tmp_path_factory):
    """What ComfyUI made of each case."""
    folder = tmp_path_factory.mktemp("core")
    write_core_vae(folder / "vae.safetensors")
    (folder / "cases.json").write_text(json.dumps(CASES))
    python = os.environ.get("COMFYUI_PYTHON", sys.executable)
    files = (GOLDENS / "snapshot" / "dit.safetensors", folder / "vae.safetensors", folder / "cases.json", folder)
    command = [python, str(ROOT / "tests" / "core_scail2.py"), *map(str, files)]
    done = subprocess.run(command, cwd=os.environ["COMFYUI_DIR"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return {name: torch.load(folder / f"{name}.pt", weights_only=False) for name in CASES}


def sampled(nodes, case, made, **changes):
    model = nodes["LoadScail2MLX"]({"snapshot": str(GOLDENS / "snapshot"), "precision": "float32"})[0]
    inputs = {name: case[name] for name in ("seed", "steps", "cfg")}
    inputs |= {"model": model, "positive": made["positive"], "negative": made["negative"]}
    inputs |= {"latent_image": made["latent"], "shift": 8.0, "solver": "euler", "grid": "simple"}
    latent, _ = nodes["Scail2CoreSampler"](inputs | {"pose_rope": "midpoint"} | changes)
    return latent["samples"]


@pytest.mark.parametrize("name", CASES)
def test_core_makes_the_same_latent(name, core, nodes):
    ours, theirs = sampled(nodes, CASES[name], core[name]), core[name]["samples"]
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() < BAR
    other = sampled(nodes, CASES[name], core[name], pose_rope="upstream")
    assert (other - theirs).abs().max() > OTHER_ROPE


@pytest.mark.parametrize("name", ["animation", "replacement"])
def test_core_turns_the_tokens_so(name, core):
    ours = positions(
        3, 8, 12, 128, references=2, driving=3, replacement=CASES[name]["replacement"], pose_rope="midpoint"
    )
    for table, side in zip(ours, ("cos", "sin"), strict=True):
        assert np.abs(np.array(table)[:, 0] - core[name]["rope"][side].numpy()).max() < ROPE_BAR
