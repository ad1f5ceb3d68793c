"""What several test files share."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from mlx_backend.interface.events import LogListener, Progress
from mlx_backend.interface.requests import SamplingSettings, Scene
from mlx_backend.pipelines.generate import Prompts

ROOT = Path(__file__).parent.parent
DATA = ROOT / "tests" / "data"
GOLDENS = DATA / "goldens"
FRAMES_BAR = 6e-4  # the golden frames are stored as float16, which alone is 2.5e-4
WIDTH, HEIGHT = 96, 64


class Recorder(LogListener):
    """Keeps what a run says."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.events: list[Progress] = []

    def warn(self, message: str) -> None:
        self.warnings.append(message)

    def progress(self, event: Progress) -> None:
        self.events.append(event)


class Golden:
    """The tensors of one case of a golden file, by name; None where the case lacks one."""

    def __init__(self, tensors: dict[str, np.ndarray], index: int):
        self._tensors = tensors
        self._index = index

    def __call__(self, name: str) -> np.ndarray | None:
        return self._tensors.get(f"{self._index}.{name}")


def golden_file(name: str) -> dict[str, np.ndarray]:
    return load_file(GOLDENS / f"{name}.safetensors")


def golden_cases(name: str) -> list[dict]:
    return json.loads((GOLDENS / "cases.json").read_text(encoding="utf-8"))[name]


def pixels(golden: Golden, name: str) -> np.ndarray | None:
    return None if golden(name) is None else golden(name).astype(np.float32) / 255


def golden_scene(index: int) -> Scene:
    case, golden = golden_cases("pipeline")[index], Golden(golden_file("pipeline"), index)
    return Scene(
        references=pixels(golden, "reference"),
        driving=pixels(golden, "driving"),
        reference_masks=pixels(golden, "reference_mask"),
        driving_mask=pixels(golden, "driving_mask"),
        mode="replacement" if case["replace"] else "animation",
        width=WIDTH,
        height=HEIGHT,
    )


def golden_settings(index: int) -> SamplingSettings:
    case = golden_cases("pipeline")[index]
    return SamplingSettings(
        steps=case["steps"],
        cfg=case["guide"],
        shift=case["shift"],
        solver=case["solver"],
        seed=case["seed"],
        segment_length=case["length"],
        segment_overlap=case["overlap"],
    )


def golden_prompts(index: int) -> Prompts:
    case = golden_cases("pipeline")[index]
    return Prompts(case["prompt"], case["negative"])
