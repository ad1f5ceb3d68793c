"""What several test files share."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from mlx_backend.interface.events import Listener, LogListener, Progress
from mlx_backend.interface.requests import SamplingSettings, Scene
from mlx_backend.interface.settings import sampling_of
from mlx_backend.interface.tiling import Tiling
from mlx_backend.members.scail2.defaults import SCAIL2
from mlx_backend.pipelines import generate as pipeline
from mlx_backend.pipelines.latents import SegmentLatents
from mlx_backend.pipelines.picture import ClipRequest
from mlx_backend.pipelines.pictures import prepare, sample_pictures
from mlx_backend.pipelines.run import Run, Session
from mlx_backend.pipelines.store import Handle, Models
from mlx_backend.pipelines.text import Prompts, TextFeatures
from mlx_backend.planning.planner import Job

ROOT = Path(__file__).parent.parent
DATA = ROOT / "tests" / "data"
GOLDENS = DATA / "goldens"
FRAMES_BAR = 6e-4  # the golden frames are stored as float16, which alone is 2.5e-4
WIDTH, HEIGHT = 96, 64


def a_scene(**values: object) -> Scene:
    """A scene of the published size and rate where nothing else is said."""
    return Scene(**{"width": SCAIL2.width, "height": SCAIL2.height, "fps": SCAIL2.driving_fps} | values)


def a_sampling(**values: object) -> SamplingSettings:
    """SCAIL-2's own settings where nothing else is said."""
    return replace(sampling_of({}, SCAIL2), **values)


def pictures_of(scene: Scene) -> dict[str, np.ndarray | None]:
    """Its pictures by name, without its settings."""
    return {name: getattr(scene, name) for name in ("references", "driving", "reference_masks", "driving_mask")}


def a_job(**values: object) -> Job:
    """The published size and one segment where nothing else is said."""
    length, overlap = SCAIL2.segment_length, SCAIL2.segment_overlap
    usual = {"width": SCAIL2.width, "height": SCAIL2.height, "frames": length}
    return Job(**usual | {"segment_length": length, "segment_overlap": overlap} | values)


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
        fps=SCAIL2.driving_fps,
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


def generate(
    models: Models,
    prompts: Prompts,
    scene: Scene,
    settings: SamplingSettings,
    tiling: Tiling | None,
    listener: Listener,
    kept: Path | None = None,
) -> np.ndarray:
    """The frames of a run that is prepared and made in one go."""
    session = Session(listener=listener, kept=kept)
    return pipeline.generate(prepare(models, prompts, scene, settings, session), tiling, session)


def prepare_clip(
    dit: Handle,
    vae: Handle,
    text: TextFeatures,
    clip: ClipRequest,
    scene: Scene,
    settings: SamplingSettings,
    session: Session,
) -> Run:
    """The run that the sampler's node makes of its sockets."""
    shown = {"clip_picture": clip.picture, "clip_tokens": clip.tokens}
    return prepare(Models(dit, clip=clip.handle, vae=vae), text, scene, settings, session, **shown)


def sample_clip(
    dit: Handle,
    vae: Handle,
    text: TextFeatures,
    clip: ClipRequest,
    scene: Scene,
    settings: SamplingSettings,
    listener: Listener,
    kept: Path | None = None,
) -> SegmentLatents:
    """The latents of that run."""
    session = Session(listener=listener, kept=kept)
    return sample_pictures(prepare_clip(dit, vae, text, clip, scene, settings, session), session)
