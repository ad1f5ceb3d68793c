"""The runs of the golden data, whose frames are known."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from mlx_backend.interface.events import Listener, LogListener
from mlx_backend.interface.requests import SamplingSettings, Scene
from mlx_backend.members.scail2.defaults import SCAIL2
from mlx_backend.models.linear import Product
from mlx_backend.pipelines.generate import generate
from mlx_backend.pipelines.pictures import prepare
from mlx_backend.pipelines.run import Session
from mlx_backend.pipelines.store import Models, ModelStore
from mlx_backend.pipelines.text import Prompts
from mlx_backend.weights.checkpoints.snapshot import Snapshot

FOLDER = Path(__file__).parents[2] / "tests" / "data" / "goldens"
# A bf16 product carries 2^-9 of its value, an fp16 one 2^-12, which is 18 dB less error; a fault shows far below both.
PSNR_BARS = {"bfloat16": 35.0, "float16": 50.0}
IN_FLOAT32 = ("head", "time_")  # whatever the blocks compute in


class Quiet(LogListener):
    """Says nothing."""

    def warn(self, message: str) -> None:
        """Leave it out: the goldens are small on purpose."""

    def note(self, message: str) -> None:
        """Leave it out."""


class Computing(ModelStore):
    """The golden networks, the DiT's products in one dtype."""

    dtype = "float32"

    def get_dit(self, *arguments: object, **named: object):  # noqa: ANN201 - as the store's
        """See ModelStore."""
        import mlx.core as mx

        dit = super().get_dit(*arguments, **named)
        for name, module in dit.named_modules():
            if isinstance(module, Product) and not name.startswith(IN_FLOAT32):
                module.compute_in(getattr(mx, self.dtype))
        return dit


def golden_models(dtype: str = "float32", change: Callable[[ModelStore], None] = lambda _: None) -> Models:
    """Return the golden networks; `change` may set what the store is to have."""
    store = Computing(Snapshot.open(FOLDER / "snapshot"), "float32")
    store.dtype = dtype
    change(store)
    return Models.of(store)


def frames_of(case: int, dtype: str) -> np.ndarray:
    """Return the frames [F, H, W, 3] in 0..1 of a golden run, the DiT's products in `dtype`."""
    return run_golden(golden_models(dtype), case, Quiet())


def run_golden(models: Models, case: int, listener: Listener) -> np.ndarray:
    """Return the frames of a golden run."""
    told = json.loads((FOLDER / "cases.json").read_text(encoding="utf-8"))["pipeline"][case]
    tensors = load_file(FOLDER / "pipeline.safetensors")
    names = {"references": "reference", "driving": "driving"}
    names |= {"reference_masks": "reference_mask", "driving_mask": "driving_mask"}
    shown = {
        ours: tensors[f"{case}.{name}"].astype(np.float32) / 255
        for ours, name in names.items()
        if f"{case}.{name}" in tensors
    }
    height, width = tensors[f"{case}.frames"].shape[1:3]
    scene = Scene(
        mode="replacement" if told["replace"] else "animation",
        width=width,
        height=height,
        fps=SCAIL2.driving_fps,
        **{name: shown.get(name) for name in names},
    )
    settings = SamplingSettings(
        steps=told["steps"],
        cfg=told["guide"],
        shift=told["shift"],
        solver=told["solver"],
        seed=told["seed"],
        segment_length=told["length"],
        segment_overlap=told["overlap"],
    )
    session = Session(listener=listener)
    return generate(prepare(models, Prompts(told["prompt"], told["negative"]), scene, settings, session), None, session)


def psnr(found: np.ndarray, right: np.ndarray) -> float:
    """Return the peak signal-to-noise ratio of frames in 0..1, in dB; -inf for what is no picture."""
    if found.shape != right.shape or not np.isfinite(found).all():
        return -float("inf")
    error = float(np.mean((found - right) ** 2))
    return float("inf") if error == 0 else -10 * float(np.log10(error))
