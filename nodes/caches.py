"""What the pack keeps on disk to save work, told and removed from ComfyUI's menu (web/js/caches.js)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ..mlx_backend.interface.errors import RequestError
from ..mlx_backend.interface.events import LOGGER
from . import host

ROUTE = "/scail2_mlx/caches"
CACHES = ("conditioning", "segments")
ENDINGS = (".npy", ".safetensors", ".part")  # what the pack writes there; other files are somebody else's


def cached() -> dict[str, dict[str, int]]:
    """Return how many files and bytes each of CACHES holds."""
    return {name: _totals(_files(name)) for name in CACHES}


def clear(names: list[str]) -> dict[str, dict[str, int]]:
    """Remove the files of these caches, and return how many files and bytes went. Raises RequestError.

    A run that is at work has what it needs in memory.
    """
    unknown = [name for name in names if name not in CACHES]
    if unknown:
        raise RequestError(f"There is no cache '{unknown[0]}': choose of {', '.join(CACHES)}.")
    removed = {}
    for name in names:
        files = _files(name)
        removed[name] = _totals(files)
        for path in files:
            path.unlink(missing_ok=True)
        LOGGER.info("Removed %d files from the cache of %s.", len(files), name)
    return removed


def add_routes() -> None:
    """Let ComfyUI's page ask and clear; no-op outside ComfyUI."""
    server = sys.modules.get("server")
    instance = getattr(getattr(server, "PromptServer", None), "instance", None)
    if instance is None:
        return
    from aiohttp import web  # ComfyUI's own server

    @instance.routes.get(ROUTE)
    async def get(_: Any) -> Any:
        return web.json_response(cached())

    @instance.routes.post(ROUTE)
    async def post(request: Any) -> Any:
        try:
            return web.json_response(clear((await request.json())["clear"]))
        except (RequestError, KeyError, TypeError, ValueError, OSError) as error:
            return web.json_response({"error": str(error)}, status=400)


def _files(name: str) -> list[Path]:
    folder = {"conditioning": host.cache_folder, "segments": host.resume_folder}[name]()
    if folder is None or not folder.is_dir():
        return []
    return [path for path in folder.iterdir() if path.suffix in ENDINGS and path.is_file()]


def _totals(files: list[Path]) -> dict[str, int]:
    return {"files": len(files), "bytes": sum(path.stat().st_size for path in files)}
