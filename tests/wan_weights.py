"""The tiny models of the Wan goldens, drawn tensor by tensor from their names: no weights are stored.

The rule is that of the goldens' own program, tests/data/wan/draw_weights.py.
"""

import importlib
import json
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np

WAN = Path(__file__).parent / "data" / "wan"


@cache
def program(name: str) -> ModuleType:
    """Return one of the goldens' own programs, "draw_weights" or "layouts", which imports its neighbour by name."""
    sys.path.insert(0, str(WAN))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(WAN))


def drawn(label: str, shapes: dict[str, list[int]]) -> dict[str, np.ndarray]:
    """Return float32 tensors of these names; `label` is a part ("vae2.1") or an expert ("t2v", "low")."""
    return {
        name: tensor.numpy()
        for name, tensor in program("draw_weights").draw_all(recipe()["seed"], label, shapes).items()
    }


def recipe() -> dict:
    """Return names, shapes and configurations of all models."""
    return json.loads((WAN / "weights.json").read_text(encoding="utf-8"))
