"""Scail2ColoredMask against ComfyUI's own node: `COMFYUI_DIR=/path/to/ComfyUI python -m pytest -m comfyui`.

COMFYUI_PYTHON names the Python that has ComfyUI's packages (default: the one that runs the tests).
"""

import json
import os
import subprocess
import sys
from itertools import product

import numpy as np
import pytest
import torch
from support import ROOT

from mlx_backend.interface.variants import MODES
from mlx_backend.members.scail2.people import ORDERS

pytestmark = pytest.mark.comfyui
CASES = [
    # objects, frames, mask height and width, picture height and width, selection
    (1, 1, 8, 8, 8, 8, ""),
    (3, 4, 16, 24, 16, 24, ""),
    (4, 5, 36, 40, 90, 71, ""),
    (4, 5, 36, 40, 23, 17, "0,2"),
    (8, 3, 24, 24, 48, 48, ""),
    (5, 6, 288, 288, 480, 832, "3,1,9"),
    (2, 3, 16, 16, 33, 31, "1,1,0"),
    (2, 3, 16, 16, 33, 31, "7"),
    (0, 3, 8, 8, 12, 20, ""),
    (None, 3, 8, 8, 12, 20, "0"),
]


def wandering(random, objects, frames, height, width):
    """Return random ellipses that move, overlap, come late, and are missing now and then: [F, objects, H, W]."""
    rows, columns = np.mgrid[:height, :width]
    masks = np.zeros((frames, objects, height, width), bool)
    for i in range(objects):
        y, x = random.random(2) * (height, width)
        ry, rx = (0.1 + 0.3 * random.random(2)) * (height, width)
        first = random.integers(0, frames + (i % 2))  # some never come
        for frame in range(first, frames):
            if random.random() < 0.75:
                masks[frame, i] = ((rows - y) / ry) ** 2 + ((columns - x) / rx) ** 2 < 1
            y, x = (y, x) + random.normal(0, 0.1, 2) * (height, width)
    return masks


def random_calls(random):
    """Return (calls by name, arrays by name); a call names its arrays, and a track of nobody names none that exists."""
    arrays, calls = {}, {}
    for case, (objects, frames, height, width, *size, people) in enumerate(CASES):
        for side, length in (("driving", frames), ("reference", 1 + case % 2)):
            if objects is not None:
                masks = wandering(random, objects, length, height, width)
                arrays[f"{side}{case}"] = np.packbits(masks, axis=-1, bitorder="little")
        arrays[f"mask{case}"] = random.random((2, *size), np.float32)
        for order, mode, reference in product(ORDERS, MODES, (f"reference{case}", f"mask{case}", None)):
            calls[f"{case}.{order}.{mode}.{reference}"] = {
                "driving": f"driving{case}",
                "reference": reference,
                "people": people,
                "order": order,
                "mode": mode,
                "size": size,
                "frames": frames,
            }
    return calls, arrays


def socket(call, name, arrays):
    """Return what comes out of the socket of that name: SAM3_TRACK_DATA, MASK or nothing."""
    if name is None:
        return None
    array = torch.from_numpy(arrays[name]) if name in arrays else None
    if name.startswith("mask"):
        return array
    frames = call["frames"] if array is None else len(array)
    return {"packed_masks": array, "orig_size": tuple(call["size"]), "n_frames": frames, "scores": []}


def test_core_gives_the_same_pixels(nodes, tmp_path):
    calls, arrays = random_calls(np.random.default_rng(7))
    given, made = tmp_path / "given.npz", tmp_path / "made.npz"
    np.savez(given, calls=json.dumps(calls), **arrays)
    python = os.environ.get("COMFYUI_PYTHON", sys.executable)
    command = [python, str(ROOT / "tests" / "core_coloured_mask.py"), str(given), str(made)]
    done = subprocess.run(command, cwd=os.environ["COMFYUI_DIR"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    core = np.load(made)
    assert len(core.files) == 2 * len(calls)
    for name, call in calls.items():
        sides = {side: socket(call, call[side], arrays) for side in ("driving", "reference")}
        chosen = {key: call[key] for key in ("mode", "order", "people")}
        ours = nodes["Scail2ColoredMask"]({"people_per_mask": 1, **sides, **chosen})
        for side, mask in zip(("driving", "reference"), ours, strict=False):
            expected = core[f"{name}.{side}"]
            assert expected.dtype == mask.numpy().dtype
            assert np.array_equal(expected, mask.numpy()), f"{name}, {side}"
